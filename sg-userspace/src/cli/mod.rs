//! The command line: one command per file.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod check;

/// Security groups for this host's network interfaces
#[derive(Parser)]
#[command(name = "sgctl", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check a definition without applying it
    Check(check::Check),
}

impl Cli {
    /// Runs the command.
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        match &self.command {
            Command::Check(check) => check::run(check),
        }
    }
}
