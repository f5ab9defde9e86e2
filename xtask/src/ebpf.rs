//! The eBPF object: compiled, linked, stripped, and put where `sg-userspace/build.rs` looks.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::compiler::{self, Core};
use crate::setup::{self, Effort, Toolchain};
use crate::{process, workspace};

/// Which object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// With aya-log.
    Debug,
    /// As it is shipped.
    Release,
    /// As it is shipped, for a benchmark to load: the one that is built into sgctl stays as it is.
    Measured,
    /// The programs that the others are measured with.
    Bench,
    /// With another layout of the maps, for tests of the change from one to the next.
    Relaid,
}

impl Flavour {
    /// The flavour that goes with a build profile of sgctl.
    pub(crate) fn of(release: bool) -> Self {
        if release { Self::Release } else { Self::Debug }
    }

    /// Name of the binary.
    fn binary(self) -> &'static str {
        match self {
            Self::Debug | Self::Release | Self::Measured | Self::Relaid => "sg-ebpf",
            Self::Bench => "sg-bench",
        }
    }

    /// Where the object belongs.
    pub(crate) fn place(self) -> PathBuf {
        match self {
            Self::Debug | Self::Release => workspace::object(),
            Self::Measured => workspace::ebpf_target_directory().join("bench/sg.bpf.o"),
            Self::Bench => workspace::ebpf_target_directory().join("bench/sg-bench.bpf.o"),
            Self::Relaid => workspace::relaid_directory().join("sg.bpf.o"),
        }
    }
}

/// Why an attempt gave no object.
enum Failure {
    /// The compiler refuses a source file of this repository: another toolchain would hardly help.
    Source,
    /// Anything else, such as a linker that cannot read the compiler's output.
    Toolchain(String),
}

/// Builds an object with the first toolchain that can, installing one if need be. The
/// file is left alone if nothing changes in it.
///
/// # Errors
/// If no toolchain can build it.
pub(crate) fn build(flavour: Flavour) -> Result<()> {
    let mut tried = Vec::new();
    let mut effort = Effort::Install;
    while let Some(toolchain) = setup::toolchain(&tried, effort)? {
        match attempt(&toolchain, flavour)? {
            Ok(object) => return publish(&object, &flavour.place(), &toolchain),
            Err(Failure::Source) => effort = Effort::Find,
            Err(Failure::Toolchain(why)) => {
                eprintln!("{toolchain} did not build the eBPF object ({why}); trying the next");
            }
        }
        tried.push(toolchain);
    }
    if tried.is_empty() {
        bail!("no toolchain for the eBPF object; `cargo xtask setup` says what is missing");
    }
    let tried: Vec<String> = tried.iter().map(Toolchain::to_string).collect();
    bail!(
        "could not build the eBPF object, for the reasons above; tried {}",
        tried.join("; ")
    );
}

fn attempt(toolchain: &Toolchain, flavour: Flavour) -> Result<Result<PathBuf, Failure>> {
    let target_directory = workspace::ebpf_target_directory();
    eprintln!("building the eBPF object with {toolchain}");
    let mut cargo = cargo(toolchain);
    // Unoptimised code does not pass the verifier: both flavours are optimised.
    cargo.args([
        "build",
        "--release",
        "--bin",
        flavour.binary(),
        "--target",
        compiler::TARGET,
    ]);
    cargo.arg("--target-dir").arg(&target_directory);
    if flavour == Flavour::Debug {
        cargo.args(["--features", "log"]);
    }
    if flavour == Flavour::Relaid {
        cargo.args(["--features", "relaid"]);
    }
    if toolchain.compiler.core == Core::Source {
        cargo.args(["-Z", "build-std=core"]);
    }
    let (status, output) = process::run_observed(&mut cargo)?;
    if !status.success() {
        return Ok(Err(diagnose(&output)));
    }
    let object = target_directory
        .join(compiler::TARGET)
        .join("release")
        .join(flavour.binary());
    let content = fs::read(&object).with_context(|| format!("read {}", object.display()))?;
    if !content.windows(5).any(|window| window == b".BTF\0") {
        return Ok(Err(Failure::Toolchain(
            "the object carries no BTF".to_owned(),
        )));
    }
    Ok(Ok(object))
}

fn cargo(toolchain: &Toolchain) -> Command {
    let Toolchain { compiler, linker } = toolchain;
    let mut flags = vec![
        "--cfg".to_owned(),
        format!("bpf_target_arch=\"{}\"", env::consts::ARCH),
        // bpf-linker makes BTF of DWARF, and only full DWARF will do.
        "-Cdebuginfo=2".to_owned(),
        "-Ctarget-cpu=v3".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("-Clinker={}", linker.path.display()),
        format!("--remap-path-prefix={}=sg", workspace::root().display()),
    ];
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    if let Some(cargo_home) = env::var_os("CARGO_HOME").map(PathBuf::from).or(home) {
        flags.push(format!(
            "--remap-path-prefix={}=cargo",
            cargo_home.display()
        ));
    }

    let mut cargo = process::foreign_cargo(&compiler.cargo, &workspace::root().join("sg-ebpf"));
    cargo
        .env("RUSTC", &compiler.rustc)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        // Empty overrides wrappers that cargo's configuration files may name.
        .env("RUSTC_WRAPPER", "")
        .env("RUSTC_WORKSPACE_WRAPPER", "");
    if !compiler.is_nightly() {
        cargo.env("RUSTC_BOOTSTRAP", "1");
    }
    cargo
}

fn diagnose(output: &str) -> Failure {
    let linking = [
        "linking with",
        "failure linking module",
        "Invalid record",
        "ERROR llvm",
    ];
    if let Some(line) = output
        .lines()
        .find(|line| linking.iter().any(|text| line.contains(text)))
    {
        return Failure::Toolchain(line.trim().to_owned());
    }
    let own = [
        "could not compile `sg-ebpf`",
        "could not compile `sg-common`",
    ];
    if own.iter().any(|text| output.contains(text)) {
        return Failure::Source;
    }
    let last = output.lines().rev().find(|line| line.starts_with("error"));
    Failure::Toolchain(last.unwrap_or("cargo failed").to_owned())
}

/// Strips the object and moves it to its place; an equal one keeps its time stamp, so that nothing
/// is rebuilt on its account.
fn publish(object: &Path, place: &Path, toolchain: &Toolchain) -> Result<()> {
    let directory = place.parent().context("an object has a directory")?;
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    let stripped = workspace::ebpf_target_directory().join("stripped.bpf.o");
    strip(object, &stripped, toolchain)?;

    let read = |path: &Path| fs::read(path).with_context(|| format!("read {}", path.display()));
    let new = read(&stripped)?;
    let state = if read(place).is_ok_and(|old| old == new) {
        "unchanged"
    } else {
        fs::rename(&stripped, place)
            .with_context(|| format!("move {} to {}", stripped.display(), place.display()))?;
        "built"
    };
    eprintln!(
        "{}: {} KiB, {state}",
        workspace::shown(place),
        new.len().div_ceil(1024)
    );
    Ok(())
}

/// Removes DWARF, nine tenths of the object; BTF stays.
fn strip(object: &Path, stripped: &Path, toolchain: &Toolchain) -> Result<()> {
    for objcopy in objcopies(toolchain) {
        let mut command = Command::new(&objcopy);
        command.arg("--strip-debug").arg(object).arg(stripped);
        if process::output(&mut command).is_some() {
            return Ok(());
        }
    }
    eprintln!("no llvm-objcopy here: the eBPF object keeps its debug sections");
    fs::copy(object, stripped)
        .map(drop)
        .with_context(|| format!("copy {} to {}", object.display(), stripped.display()))
}

fn objcopies(toolchain: &Toolchain) -> Vec<PathBuf> {
    let versions = [toolchain.linker.llvm, Some(toolchain.compiler.llvm)];
    let of_debian = versions
        .into_iter()
        .flatten()
        .map(|llvm| PathBuf::from(format!("/usr/lib/llvm-{llvm}/bin/llvm-objcopy")))
        .filter(|path| process::is_executable(path));
    of_debian
        .chain(process::find("llvm-objcopy"))
        .chain(process::find("rust-objcopy"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_failure_is_the_toolchains() {
        let output = "error: linking with `bpf-linker` failed: exit status: 1\n\
            error: could not compile `sg-ebpf` (bin \"sg-ebpf\") due to 1 previous error\n";
        assert!(
            matches!(diagnose(output), Failure::Toolchain(why) if why.contains("linking with"))
        );
    }

    #[test]
    fn an_error_in_our_source_is_not_the_toolchains() {
        let output = "error[E0308]: mismatched types\nerror: could not compile `sg-common` (lib)\n";
        assert!(matches!(diagnose(output), Failure::Source));
    }

    #[test]
    fn an_error_in_a_dependency_is_the_toolchains() {
        let output = "error[E0635]: unknown feature\nerror: could not compile `aya-ebpf` (lib)\n";
        assert!(matches!(diagnose(output), Failure::Toolchain(why) if why.contains("aya-ebpf")));
    }
}
