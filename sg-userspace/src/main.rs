//! `sgctl`: security groups for this host's network interfaces.

use std::process::ExitCode;

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

mod cli;

fn main() -> ExitCode {
    allow_descriptors();
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return not_understood(&error),
    };
    match cli.run() {
        Ok(code) => code,
        Err(error) => {
            cli::remark(&format!("sgctl: {error:#}\n"));
            ExitCode::from(2)
        }
    }
}

/// Help and version are what was asked for; anything else could not be done, which whoever asks for
/// Terraform's exit statuses must not take for 2, "something changes".
fn not_understood(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if !error.use_stderr() {
        return ExitCode::SUCCESS;
    }
    let detailed = std::env::args_os().any(|argument| argument == "--detailed-exitcode");
    ExitCode::from(if detailed { 1 } else { 2 })
}

/// Takes all file descriptors that the hard limit allows: a thousand interfaces in namespaces of their
/// own need more than the usual soft limit of 1,024. Where that fails, few interfaces still work.
fn allow_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    let _ = setrlimit(Resource::Nofile, raised);
}
