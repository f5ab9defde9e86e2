//! `sgctl apply`: a definition into force.

use std::{
    io::{self, Write as _},
    mem::ManuallyDrop,
    path::PathBuf,
    process::ExitCode,
};

use sg_userspace::{
    apply::{self, Change, Options, Report},
    session::Context,
};

use super::{
    definition,
    text::{out, print_json, remark},
};

/// Enforce a definition and return.
///
/// The files together are the whole definition of this host. It comes into force as a whole or not
/// at all: no packet is judged by a mixture of old and new rules. Enforcement lasts until `sgctl
/// detach` or a reboot; no process needs to run.
///
/// Connections that are tracked stay open, but for those that no rule allows any more where a group
/// says `on_revoke = "reevaluate"`. One that was untracked before the change is taken over by its
/// first packet after it, if a rule still lets its opener open it. One that stays silent until the
/// next change is not: its TCP is dropped as `mid_stream`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sgctl apply sg.toml                   enforce one file
  sgctl apply /etc/sgctl/               every *.toml in a directory
  sgctl --netns blue apply blue.toml    interfaces of namespace blue
  sgctl apply --detach-missing sg.toml  stop enforcing on interfaces the file dropped

Exit status: 0 in force as written; 2 not in force, or in force while an interface that the
definition no longer names keeps its last policy.")]
pub(crate) struct Apply {
    /// Definition files, or directories whose *.toml files are meant; all together are one definition
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Stop enforcing on attached interfaces that the definition no longer names
    #[arg(long)]
    detach_missing: bool,
    /// Do not take over the connections that are open when an interface is first attached: those
    /// that no rule lets begin again are cut, yours perhaps among them
    #[arg(long)]
    no_adopt: bool,
    #[command(flatten)]
    trust: definition::TrustFiles,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

impl Apply {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<ExitCode> {
        definition::keep_memory();
        // The process ends after this: taking a large definition apart again would be for nobody.
        let model = ManuallyDrop::new(definition::load(&self.files, &self.trust.trust())?);
        let options = Options {
            detach_missing: self.detach_missing,
            adopt: !self.no_adopt,
        };
        let report = apply::apply(context, &model, options)?;
        if self.json {
            print_json(&report)?;
        } else {
            print(&report)?;
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
}

fn print(report: &Report) -> io::Result<()> {
    let mut out = out();
    for one in &report.interfaces {
        let done = match one.change {
            Change::Attached => "attached",
            Change::Updated => "updated",
        };
        write!(
            out,
            "{} ({}): {done}, ingress by {}",
            one.name,
            one.device,
            one.hook.name()
        )?;
        if one.adopted.flows > 0 {
            write!(out, ", {} adopted", one.adopted.connections())?;
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
            "warning: {name}: one of its links had been removed; it is attached again\n"
        ));
    }
    for one in &report.interfaces {
        for warning in &one.warnings {
            remark(&format!("warning: {}: {warning}\n", one.name));
        }
    }
    Ok(())
}
