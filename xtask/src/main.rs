//! `cargo xtask`: what cargo cannot do alone, namely the eBPF toolchain, the eBPF object, the tests
//! that need root, and what CI checks.
//!
//! Exit codes: 0 done, 1 the answer is no (something is missing, a check or a test failed), 2 it
//! could not be done.

mod bench;
mod build;
mod check;
mod clean;
mod compiler;
mod debian;
mod demo;
mod docs;
mod ebpf;
mod fuzz;
mod kernels;
mod linker;
mod live;
mod mutants;
mod process;
mod python;
mod run;
mod setup;
mod summary;
mod test;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Set-up, eBPF build, demo, tests and checks",
    version
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Finds what building and testing need, and installs what is missing.
    Setup(setup::Arguments),
    /// Builds the eBPF object, and sgctl with the object inside.
    Build(build::Arguments),
    /// Shows security groups on real traffic; needs root and asks sudo for it.
    Run(run::Arguments),
    /// Listening processes of the demo.
    #[command(hide = true)]
    Serve(demo::service::Arguments),
    /// Runs every test, those of the kernel side included; needs root and asks sudo for it.
    Test(test::Arguments),
    /// Measures what packets, flows, rules and changes cost beside floors and peers, and holds it
    /// against the goals; needs root and asks sudo for it.
    Bench(bench::Arguments),
    /// Feeds a fuzz target inputs that reach ever more of the code, until the time is over or one
    /// fails. New inputs stay under target/.
    Fuzz(fuzz::Arguments),
    /// Checks lock files, formatting, lints, generated pages and that no generated object is tracked.
    Check,
    /// Writes the pages under docs/ that list what the code defines.
    Docs(docs::Arguments),
    /// Removes the built object, installed tools, what fuzzing found and namespaces that demo or tests left behind.
    Clean,
}

/// What a command found out, if it could be carried out at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Everything is there, or passed.
    Yes,
    /// Something is missing, or failed; it has been said what.
    No,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> Result<Answer> {
    match command {
        Command::Setup(arguments) => setup::run(&arguments),
        Command::Build(arguments) => build::run(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Serve(arguments) => demo::service::serve(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Check => check::run(),
        Command::Docs(arguments) => docs::run(&arguments),
        Command::Clean => clean::run(),
    }
}
