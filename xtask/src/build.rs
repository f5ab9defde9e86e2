//! `cargo xtask build`: the eBPF object, then sgctl with the object inside.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::ebpf::{self, Flavour};
use crate::{Answer, process, workspace};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Build sgctl optimised, and the object without log output.
    #[arg(long)]
    release: bool,
}

/// Carries out `cargo xtask build`.
pub(crate) fn run(arguments: &Arguments) -> Result<Answer> {
    let program = sgctl(arguments.release)?;
    println!("{}", workspace::shown(&program));
    Ok(Answer::Yes)
}

/// Builds sgctl and returns where it is.
///
/// # Errors
/// If the object or sgctl cannot be built.
pub(crate) fn sgctl(release: bool) -> Result<PathBuf> {
    ebpf::build(Flavour::of(release))?;
    let mut cargo = process::cargo();
    cargo.args(["build", "--package", "sg-userspace", "--bin", "sgctl"]);
    cargo.env("SG_EBPF_REQUIRED", "1");
    if release {
        cargo.arg("--release");
    }
    process::run(&mut cargo)?;

    // This program stands in `<target directory>/<profile>`.
    let own = std::env::current_exe().context("find the path of this program")?;
    let target_directory = own
        .ancestors()
        .nth(2)
        .context("find cargo's target directory")?;
    let profile = if release { "release" } else { "debug" };
    Ok(target_directory.join(profile).join("sgctl"))
}
