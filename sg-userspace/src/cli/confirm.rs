//! `sgctl confirm`: keeps a generation that would be taken back.

use std::process::ExitCode;

use sg_userspace::{
    confirm::{self, Confirmed},
    session::Context,
};

use super::text::remark;

/// Keep what was applied with --confirm-within.
///
/// Works from any shell, and while an agent runs.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sgctl apply sg.toml --confirm-within 60s
  sgctl confirm                             from a new connection: it proves that one can still be made

Exit status: 0 it is in force for good; 1 nothing waits to be confirmed; 2 it came too late, or it
could not be done.")]
pub(crate) struct Confirm {}

impl Confirm {
    pub(crate) fn run(context: &Context) -> anyhow::Result<ExitCode> {
        match confirm::confirm(context)? {
            Confirmed::Done(generation) => {
                println!("generation {generation} is in force for good");
                Ok(ExitCode::SUCCESS)
            }
            Confirmed::Nothing => {
                remark("sgctl: nothing waits to be confirmed\n");
                Ok(ExitCode::from(1))
            }
            Confirmed::TooLate {
                generation,
                seconds,
            } => {
                let ago = seconds.map_or_else(String::new, |ago| format!(" {ago} s ago"));
                remark(&format!(
                    "sgctl: too late: generation {generation} was taken back{ago}; what was in force before it is in force again\n"
                ));
                Ok(ExitCode::from(2))
            }
        }
    }
}
