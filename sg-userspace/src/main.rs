//! `sgctl`: security groups for this host's network interfaces.

use std::process::ExitCode;

use clap::Parser;

mod cli;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            cli::remark(&format!("sgctl: {error:#}\n"));
            ExitCode::from(2)
        }
    }
}
