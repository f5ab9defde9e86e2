//! `sgctl rollback` and `sgctl history`: back to what was in force before.

use std::{io::Write as _, process::ExitCode};

use anyhow::{Context as _, bail};
use sg_userspace::{
    confirm,
    definition::escape,
    history::{Entry, History, Origin, Outcome},
    session::Context,
};

use super::{
    change::Change,
    definition::checked,
    text::{out, print_json, remark},
};

/// Go back to a definition that was in force before.
///
/// The last ten definitions are kept. Going back is an ordinary change: the kept text is applied
/// anew, as a new generation, as a whole or not at all. Without a generation: what waits to be
/// confirmed is taken back at once, else the definition before the one in force is applied; where
/// nothing is in force any more, the one that was last.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sgctl rollback                          the definition before this one
  sgctl history                           which there are
  sgctl rollback 7 --confirm-within 60s   the one of generation 7, for a try

Exit status: as that of `sgctl apply`.")]
pub(crate) struct Rollback {
    /// Generation, as `sgctl history` lists it
    generation: Option<u32>,
    #[command(flatten)]
    change: Change,
}

impl Rollback {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<ExitCode> {
        let confirmation = confirm::peek(context)?;
        let pending = confirmation.and_then(|found| found.pending());
        if self.generation.is_none() && pending.is_some() {
            let (generation, now) = confirm::take_back(context)?;
            match now {
                Some(now) => println!(
                    "generation {generation} is taken back; what was before it is in force as generation {now}"
                ),
                None => println!("generation {generation} is taken back; nothing is enforced"),
            }
            return Ok(ExitCode::SUCCESS);
        }
        let history = History::read(&context.state_dir)?;
        let entry = match self.generation {
            Some(generation) => history.of(generation).with_context(|| {
                format!("no definition of generation {generation} is kept; `sgctl history` lists those that are")
            })?,
            None if confirmation.is_none() => history
                .current()
                .context("no definition before is kept")?,
            None => history
                .previous()
                .context("no definition before the one in force is kept; `sgctl history` lists those that are")?,
        };
        let context = Context {
            netns: context.netns.clone().or_else(|| entry.netns.clone()),
            ..context.clone()
        };
        let sources = History::sources(&context.state_dir, entry)?;
        let model = checked(super::definition::check(&sources, &context))?;
        let origin = Origin {
            sources: &sources,
            how: &format!("rollback to {}", entry.generation),
            netns: context.netns.as_deref(),
        };
        if entry.rolled_back() && self.generation.is_none() {
            bail!("generation {} was taken back before", entry.generation);
        }
        remark(&format!("sgctl: going back to {}\n", described(entry)));
        self.change.make(&context, &model, &origin)
    }
}

/// List the definitions that `sgctl rollback` can go back to.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sgctl history
  sgctl history --json | jq '.entries[].generation'

Exit status: 0 there are some; 1 there is none; 2 it cannot be found out.")]
pub(crate) struct Kept {
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

impl Kept {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<ExitCode> {
        let history = History::read(&context.state_dir)?;
        if self.json {
            print_json(&history)?;
        } else {
            let mut out = out();
            for entry in history.entries.iter().rev() {
                writeln!(out, "{}", described(entry))?;
            }
        }
        Ok(if history.entries.is_empty() {
            ExitCode::from(1)
        } else {
            ExitCode::SUCCESS
        })
    }
}

/// One line.
fn described(entry: &Entry) -> String {
    let outcome = match entry.outcome {
        Outcome::Applied => "",
        Outcome::Unconfirmed => ", to be confirmed",
        Outcome::RolledBack => ", rolled back",
    };
    let netns = entry
        .netns
        .as_ref()
        .map_or_else(String::new, |netns| format!(" --netns {}", escape(netns)));
    let files: Vec<_> = entry.files.iter().map(|file| escape(file)).collect();
    format!(
        "generation {}: {} by {}, {}{netns} {}{outcome}",
        entry.generation,
        utc(entry.seconds),
        escape(&entry.who),
        escape(&entry.how),
        files.join(" "),
    )
}

/// Seconds since 1970 as ISO 8601 (civil-from-days of Howard Hinnant's date algorithms).
fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    format!(
        "{:04}-{month:02}-{date:02}T{:02}:{:02}:{:02}Z",
        era * 400 + year + carry,
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn moments_are_dates() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_735_689_599), "2024-12-31T23:59:59Z");
    }
}
