//! `sgctl detach`: enforcement ends.

use std::{io::Write as _, process::ExitCode};

use sg_userspace::{detach, session::Context};

use super::text::{count, out};

/// Stop enforcing on an interface, or everywhere.
///
/// From then on everything passes there. The interface's tracked connections are forgotten. With
/// the last interface all maps, programs and remembered state are removed. Definitions that were in
/// force are kept: `sgctl rollback` puts the last one in force again.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
#[command(after_help = "\
Examples:
  sgctl detach eth0     one interface, by device or by its name in the definition
  sgctl detach --all    everything, in whatever condition it is")]
pub(crate) struct Detach {
    /// Interface, by its name in the definition or by its device
    #[arg(
        value_name = "IFACE",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    interface: Option<String>,
    /// Every interface, and everything that is pinned
    #[arg(long)]
    all: bool,
}

impl Detach {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<ExitCode> {
        let detached = match &self.interface {
            Some(name) => detach::interface(context, name)?,
            None => detach::all(context)?,
        };
        let mut out = out();
        for name in &detached.interfaces {
            write!(out, "{name}: detached")?;
            if detached.flows > 0 {
                write!(
                    out,
                    ", {} forgotten",
                    count(detached.flows, "tracked connection")
                )?;
            }
            writeln!(out)?;
        }
        if detached.all {
            writeln!(out, "nothing is enforced any more")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
