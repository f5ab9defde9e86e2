//! `sgctl`: security groups for this host's network interfaces.

use std::process::ExitCode;

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

mod cli;

fn main() -> ExitCode {
    allow_descriptors();
    match cli::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            cli::remark(&format!("sgctl: {error:#}\n"));
            ExitCode::from(2)
        }
    }
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
