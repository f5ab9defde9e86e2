//! `sgctl wait`: until an interface is enforced.

use std::{io::Write as _, process::ExitCode, time::Duration};

use sg_userspace::{
    session::Context,
    wait::{self, Waited},
};

use super::{
    duration,
    text::{out, remark},
};

/// Wait until an interface is enforced.
///
/// Returns when both directions of the interface are judged by the generation in force, whoever attaches
/// it: `sgctl run` when its device appears, or `sgctl apply`. Made for scripts and container hooks, so that
/// nothing passes a new device unjudged: make it, leave it down, wait, then set it up.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sgctl wait eth0                      by device, or by its name in the definition
  sgctl wait web --timeout 5s
  sgctl --netns blue wait eth0         the eth0 of namespace blue
  ip link add tap7 type veth peer name eth0 netns vm7 &&
      sgctl wait tap7 && ip link set tap7 up     not one packet passes unjudged

Exit status: 0 it is enforced; 1 it was not until the time was over; 2 it cannot be found out.")]
pub(crate) struct Wait {
    /// Interface, by its name in the definition or by its device
    #[arg(value_name = "IFACE")]
    interface: String,
    /// How long to wait; 0 asks once
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration::parse)]
    timeout: Duration,
}

impl Wait {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<ExitCode> {
        match wait::wait(context, &self.interface, self.timeout)? {
            Waited::Enforced {
                name,
                device,
                generation,
            } => {
                let mut out = out();
                writeln!(
                    out,
                    "{name} ({device}): enforced by generation {generation}"
                )?;
                Ok(ExitCode::SUCCESS)
            }
            Waited::NotEnforced(why) => {
                remark(&format!(
                    "sgctl: {} is not enforced: {why}\n",
                    self.interface
                ));
                Ok(ExitCode::from(1))
            }
        }
    }
}
