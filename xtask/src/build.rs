//! `cargo xtask build`: the eBPF object, then sgctl with the object inside.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use crate::ebpf::{self, Flavour};
use crate::{Answer, process, workspace};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Build sgctl optimised, and the object without log output.
    #[arg(long)]
    release: bool,
    /// Build what the tests need besides: an sgctl with another layout of the maps.
    #[arg(long)]
    relaid: bool,
}

/// Carries out `cargo xtask build`.
pub(crate) fn run(arguments: &Arguments) -> Result<Answer> {
    if arguments.relaid {
        relaid(arguments.release)?;
    }
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
    built(release)
}

/// Builds an sgctl with another layout of the maps, which a test changes to from the ordinary one.
///
/// # Errors
/// If the object or sgctl cannot be built.
pub(crate) fn relaid(release: bool) -> Result<()> {
    ebpf::build(Flavour::Relaid)?;
    let mut cargo = process::cargo();
    cargo.args(["build", "--package", "sg-userspace", "--bin", "sgctl"]);
    cargo.args(["--features", "relaid"]);
    cargo.env("SG_EBPF_OBJECT", Flavour::Relaid.place());
    if release {
        cargo.arg("--release");
    }
    process::run(&mut cargo)?;
    // The next build of the ordinary one takes its place.
    let place = workspace::relaid_directory().join("sgctl");
    let program = built(release)?;
    fs::copy(&program, &place).with_context(|| format!("copy sgctl to {}", place.display()))?;
    Ok(())
}

/// Where cargo puts sgctl.
fn built(release: bool) -> Result<PathBuf> {
    // This program stands in `<target directory>/<profile>`.
    let own = std::env::current_exe().context("find the path of this program")?;
    let target_directory = own
        .ancestors()
        .nth(2)
        .context("find cargo's target directory")?;
    let profile = if release { "release" } else { "debug" };
    Ok(target_directory.join(profile).join("sgctl"))
}
