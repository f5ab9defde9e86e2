//! The command line: one command per file, each printing what a library function found out.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use sg_userspace::{pin, rcu, session::Context, state};

mod adopting;
mod apply;
mod change;
mod check;
mod confirm;
mod convert;
mod ct;
mod definition;
mod detach;
mod duration;
mod export;
mod import;
mod logger;
mod plan;
mod rollback;
mod run;
mod stats;
mod status;
mod test;
mod text;
mod wait;

pub(crate) use text::remark;

/// Security groups for this host's network interfaces.
///
/// A definition file says which groups of allow rules apply to which interfaces. `sgctl apply`
/// makes the kernel enforce it and returns; enforcement stays until `sgctl detach`.
#[derive(Parser)]
#[command(name = "sgctl", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(flatten)]
    places: Places,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  sgctl check sg.toml            find mistakes without touching anything
  sgctl test sg.toml             whether it does what its tests expect
  sgctl plan sg.toml             what applying it would change
  sgctl apply sg.toml            enforce
  sgctl run sg.toml              enforce and follow changes
  sgctl wait eth0                until it is enforced there, for scripts
  sgctl status                   what is enforced where
  sgctl stats eth0               counters, as ethtool -S prints them
  sgctl detach --all             stop enforcing

Exit status: 0 done; 1 the answer is no; 2 it could not be done.";

/// Where things are.
#[derive(clap::Args)]
struct Places {
    /// Network namespace, by name or path, of interfaces whose definition names none
    #[arg(long, global = true, value_name = "NAME|PATH")]
    netns: Option<String>,
    /// Directory that remembers what is attached; one per enforcer
    #[arg(long, global = true, value_name = "DIR", default_value = state::DEFAULT)]
    state_dir: PathBuf,
    /// Directory on a BPF file system that holds maps, programs and links; one per enforcer
    #[arg(long, global = true, value_name = "DIR", default_value = pin::DEFAULT)]
    bpffs: PathBuf,
    /// Leave the kernel's RCU grace periods as they are. Otherwise they are expedited on the whole host
    /// (/sys/kernel/rcu_expedited) while eight interfaces or more are attached or detached
    #[arg(long, global = true)]
    no_expedite: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Check a definition without applying it
    Check(check::Check),
    Test(test::Test),
    Convert(convert::Convert),
    Plan(plan::Plan),
    Apply(apply::Apply),
    Confirm(confirm::Confirm),
    Rollback(rollback::Rollback),
    History(rollback::Kept),
    Run(run::Run),
    Wait(wait::Wait),
    Status(status::Status),
    Stats(stats::Stats),
    Ct(ct::Ct),
    Export(export::Export),
    Import(import::Import),
    Detach(detach::Detach),
}

impl Cli {
    /// Runs the command. A reader that has gone away is no failure.
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let context = self.places.context();
        if self.places.no_expedite {
            rcu::leave_alone();
        }
        let done = match &self.command {
            Command::Check(check) => check::run(check, &context),
            Command::Test(test) => test.run(&context),
            Command::Convert(convert) => convert.run(),
            Command::Plan(plan) => plan.run(&context),
            Command::Apply(apply) => apply.run(&context),
            Command::Confirm(confirm::Confirm {}) => confirm::Confirm::run(&context),
            Command::Rollback(rollback) => rollback.run(&context),
            Command::History(kept) => kept.run(&context),
            Command::Run(run) => run.run(&context),
            Command::Wait(wait) => wait.run(&context),
            Command::Status(status) => status.run(&context),
            Command::Stats(stats) => stats.run(&context),
            Command::Ct(ct) => ct.run(&context),
            Command::Import(import) => import.run(),
            Command::Export(export::Export {}) => export::Export::run(&context),
            Command::Detach(detach) => detach.run(&context),
        };
        match done {
            Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
            done => done,
        }
    }
}

impl Places {
    fn context(&self) -> Context {
        Context {
            bpffs: absolute(&self.bpffs),
            state_dir: absolute(&self.state_dir),
            netns: self.netns.clone(),
        }
    }
}

/// Paths are checked and remembered as seen from the root.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}
