//! What every command that puts a definition in force has in common: `apply` and `rollback`.

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::bail;
use sg_common::abi::ABI_VERSION;
use sg_userspace::{
    apply::{self, Change as Done, Options, Report},
    confirm,
    history::Origin,
    model::Model,
    own_session,
    session::Context,
    upgrade::Upgraded,
};

use super::{
    adopting::Adopting,
    text::{out, print_json, remark},
};

#[derive(clap::Args)]
pub(crate) struct Change {
    /// Take the change back after this time (60s, 5m, 1h; 1s to 24h) unless `sgctl confirm` comes. The
    /// kernel does it, whatever has become of this command, this shell or an agent
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "detach_missing")]
    confirm_within: Option<Duration>,
    /// Stop enforcing on attached interfaces that the definition no longer names
    #[arg(long)]
    detach_missing: bool,
    #[command(flatten)]
    adopt: Adopting,
    /// Do it even if it would cut the connection that this command is given over, or keep it from
    /// being opened again
    #[arg(long)]
    yes: bool,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

impl Change {
    /// Puts a definition in force and says what was done.
    pub(crate) fn make(
        &self,
        context: &Context,
        model: &Model,
        origin: &Origin<'_>,
    ) -> anyhow::Result<ExitCode> {
        let options = Options {
            detach_missing: self.detach_missing,
            adopt: self.adopt.adopt(),
            confirm_within: self.confirm_within,
        };
        self.ask(context, model, options)?;
        let report = apply::apply(context, model, origin, options)?;
        if self.json {
            print_json(&report)?;
        } else {
            print(&report)?;
        }
        if let Some(time) = self.confirm_within {
            remark(&format!(
                "sgctl: unless `sgctl confirm` comes within {} s, generation {} is taken back\n",
                time.as_secs(),
                report.generation
            ));
        }
        if let Some(why) = &report.not_kept {
            remark(&format!(
                "warning: it is in force, but `sgctl rollback` cannot go back to it later: {why}\n"
            ));
        }
        if let Some(why) = &report.untidy {
            remark(&format!(
                "warning: it is in force, and what was before it is not cleared away; the next change does that: {why}\n"
            ));
        }
        if report.orphans.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        for name in &report.orphans {
            remark(&format!(
                "sgctl: {name} is attached but the definition does not name it: it keeps its last policy (--detach-missing stops enforcing there)\n"
            ));
        }
        Ok(ExitCode::from(2))
    }

    /// Asks before the branch is sawn off.
    fn ask(&self, context: &Context, model: &Model, options: Options) -> anyhow::Result<()> {
        if self.yes {
            return Ok(());
        }
        let endangered = own_session::endangered(context, model, options)?;
        if endangered.is_empty() {
            return Ok(());
        }
        for one in &endangered {
            remark(&format!("warning: {one}\n"));
        }
        if self.confirm_within.is_some() {
            return Ok(());
        }
        if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            bail!(
                "nothing was changed: --confirm-within 60s takes the change back unless `sgctl confirm` comes, --yes makes it for good"
            );
        }
        remark("Change it nevertheless? (--confirm-within 60s would take it back) [y/N] ");
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            bail!("nothing was changed");
        }
        Ok(())
    }
}

/// A time with a unit, or in seconds.
fn time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => 0,
    };
    let number: Option<u64> = digits.parse().ok().filter(|_| unit != 0);
    let seconds = number.and_then(|number| number.checked_mul(unit));
    let [shortest, longest] = confirm::TIMES;
    seconds
        .map(Duration::from_secs)
        .filter(|time| (shortest..=longest).contains(time))
        .ok_or_else(|| {
            "a time is a number of seconds, or with a unit as 60s, 5m, 1h; from 1s to 24h"
                .to_owned()
        })
}

fn print(report: &Report) -> io::Result<()> {
    let mut out = out();
    if let Some(Upgraded {
        from,
        flows,
        refused,
    }) = report.upgraded
    {
        let what = if from == ABI_VERSION {
            "moved to tables of another size".to_owned()
        } else {
            format!("taken over from layout {from}")
        };
        writeln!(out, "{what}: {flows} tracked connections")?;
        if refused > 0 {
            remark(&format!(
                "warning: {refused} tracked connections found no room and are cut\n"
            ));
        }
    }
    for one in &report.interfaces {
        let done = match one.change {
            Done::Attached => "attached",
            Done::Updated => "updated",
        };
        write!(
            out,
            "{} ({}): {done}, ingress by {}",
            one.name,
            one.device,
            one.hook.name()
        )?;
        if one.adopted.flows > 0 {
            let (adopted, sources) = (one.adopted.connections(), one.adopted.sources());
            write!(out, ", {adopted} adopted{sources}")?;
        }
        if one.adopted.not_allowed > 0 {
            write!(
                out,
                ", {} left: no rule allows them",
                one.adopted.not_allowed
            )?;
        }
        writeln!(out)?;
    }
    for name in &report.detached {
        writeln!(out, "{name}: detached")?;
    }
    for name in &report.gone {
        writeln!(out, "{name}: its device or its links are gone, forgotten")?;
    }
    writeln!(out, "generation {} is in force", report.generation)?;
    for name in &report.moved {
        writeln!(out, "{name}: its device has moved, and its policy with it")?;
    }
    for name in &report.repaired {
        remark(&format!(
            "warning: {name}: links of it had been removed; it is attached again\n"
        ));
    }
    for one in &report.interfaces {
        for warning in &one.warnings {
            remark(&format!("warning: {}: {warning}\n", one.name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_and_bounds() {
        for (text, seconds) in [("60", 60), ("60s", 60), ("5m", 300), ("24h", 86_400)] {
            assert_eq!(time(text), Ok(Duration::from_secs(seconds)));
        }
        for wrong in [
            "",
            "0",
            "s",
            "1d",
            "25h",
            "-1s",
            "1.5s",
            "99999999999999999999h",
        ] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
