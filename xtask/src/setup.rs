//! `cargo xtask setup`: finds what building and testing need, and installs what is missing.
//!
//! The eBPF object takes a compiler with a BPF core and a bpf-linker whose LLVM is not older than
//! the compiler's. What the machine has is used; else Debian's `rustc-web` is installed, which
//! stands behind rustup's compiler on `PATH`, and bpf-linker is built into `target/tools`. The
//! user's own toolchains are never changed.

use std::fmt;

use anyhow::{Context, Result, bail};

use crate::compiler::{self, Compiler, Rejected};
use crate::linker::{self, Linker};
use crate::{Answer, debian, process, python};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only report what is there and what is missing; exit code 1 if something is.
    #[arg(long)]
    no_install: bool,
}

/// A compiler and a linker that may fit together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Toolchain {
    pub(crate) compiler: Compiler,
    pub(crate) linker: Linker,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} and {}", self.compiler, self.linker)
    }
}

/// What may be done to come by a toolchain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Take what is installed.
    Find,
    /// Install what is missing.
    Install,
}

/// A program, and Debian's package that holds it.
type Tool = (&'static str, &'static str);

/// Programs that the demo calls, and the tests too.
pub(crate) const DEMO: &[Tool] = &[
    ("ip", "iproute2"),
    ("bpftool", "bpftool"),
    ("ethtool", "ethtool"),
    ("ping", "iputils-ping"),
];
/// Programs that only the tests call.
pub(crate) const TESTS: &[Tool] = &[
    ("nft", "nftables"),
    ("dnsmasq", "dnsmasq-base"),
    ("dhclient", "isc-dhcp-client"),
    ("mkfs.ext4", "e2fsprogs"),
];

/// Programs that the benchmark compares with.
pub(crate) const BENCH: &[Tool] = &[
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("ipset", "ipset"),
];

/// Debian's packages that `rustc-web` cannot stand beside.
const CONFLICTS: [&str; 3] = ["rustup", "rustc", "rustc-mozilla"];

const BY_HAND: &str = "install a compiler with a BPF core, such as `rustup toolchain install \
    nightly --component rust-src`, and bpf-linker (https://github.com/aya-rs/bpf-linker)";

/// Carries out `cargo xtask setup`.
pub(crate) fn run(arguments: &Arguments) -> Result<Answer> {
    let effort = if arguments.no_install {
        Effort::Find
    } else {
        Effort::Install
    };
    let toolchain = toolchain(&[], effort)?;
    if effort == Effort::Install {
        tools(&[DEMO, TESTS, BENCH].concat())?;
        python::ensure();
    }
    Ok(report(toolchain.as_ref()))
}

/// Installs those of `tools` that are missing.
///
/// # Errors
/// If they cannot be installed.
pub(crate) fn tools(tools: &[Tool]) -> Result<()> {
    let missing: Vec<Tool> = missing(tools).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let (programs, packages): (Vec<&str>, Vec<&str>) = missing.into_iter().unzip();
    if !debian::is_here() {
        bail!(
            "missing on PATH: {}; there is no apt to install them",
            programs.join(", ")
        );
    }
    debian::install(&packages, "demo, tests and benchmark")
}

/// The next toolchain to build with, after those that were tried in vain.
///
/// # Errors
/// If what is missing cannot be installed.
pub(crate) fn toolchain(tried: &[Toolchain], effort: Effort) -> Result<Option<Toolchain>> {
    let (compilers, _) = compiler::candidates();
    let present = pair(&compilers, &linker::installed())
        .into_iter()
        .find(|t| !tried.contains(t));
    if present.is_some() || effort == Effort::Find {
        return Ok(present);
    }
    if let Some(toolchain) = compilers
        .iter()
        .find_map(|compiler| with_linker(compiler, tried))
    {
        return Ok(Some(toolchain));
    }
    if compilers.iter().any(is_debian) {
        return Ok(None);
    }
    install_compiler()?;
    let (compilers, rejected) = compiler::candidates();
    let Some(compiler) = compilers.into_iter().find(is_debian) else {
        let reasons: Vec<String> = rejected.iter().map(reason).collect();
        bail!(
            "Debian's compiler cannot be used ({}); {BY_HAND}",
            reasons.join("; ")
        );
    };
    let linker = linker::installed()
        .into_iter()
        .find(|linker| linker.may_read(compiler.llvm));
    match linker {
        Some(linker) => Ok(Some(Toolchain { compiler, linker })),
        None => Ok(with_linker(&compiler, tried)),
    }
}

fn pair(compilers: &[Compiler], linkers: &[Linker]) -> Vec<Toolchain> {
    let mut toolchains = Vec::new();
    for compiler in compilers {
        for linker in linkers
            .iter()
            .filter(|linker| linker.may_read(compiler.llvm))
        {
            toolchains.push(Toolchain {
                compiler: compiler.clone(),
                linker: linker.clone(),
            });
        }
    }
    toolchains
}

/// The compiler with a linker built for it; `None` if that cannot be done or was in vain before.
fn with_linker(compiler: &Compiler, tried: &[Toolchain]) -> Option<Toolchain> {
    let in_vain = tried
        .iter()
        .any(|tried| tried.compiler == *compiler && tried.linker.llvm.is_some());
    if in_vain {
        return None;
    }
    match build_linker(compiler) {
        Ok(linker) => Some(Toolchain {
            compiler: compiler.clone(),
            linker,
        }),
        Err(error) => {
            eprintln!("no bpf-linker for {compiler}: {error:#}");
            None
        }
    }
}

fn build_linker(compiler: &Compiler) -> Result<Linker> {
    if !debian::is_here() {
        bail!("there is no apt to install LLVM by; {BY_HAND}");
    }
    debian::ensure_lists()?;
    let package = |llvm: u32| format!("llvm-{llvm}-dev");
    let llvm = linker::buildable(compiler.llvm)
        .find(|&llvm| debian::is_installed(&package(llvm)) || debian::is_offered(&package(llvm)))
        .with_context(|| {
            format!(
                "it takes LLVM {} or later, which apt does not offer",
                compiler.llvm
            )
        })?;
    let package = package(llvm);
    if !debian::is_installed(&package) {
        debian::install(&[&package], "building bpf-linker")?;
    }
    linker::build(llvm)
}

fn install_compiler() -> Result<()> {
    println!("no compiler of this machine can build the eBPF object");
    if !debian::is_here() {
        bail!("no apt to install one by; {BY_HAND}");
    }
    if let Some(conflict) = CONFLICTS
        .into_iter()
        .find(|package| debian::is_installed(package))
    {
        bail!(
            "Debian's package `{conflict}` is installed and conflicts with rustc-web; it is left \
             alone: {BY_HAND}"
        );
    }
    debian::install(&compiler::DEBIAN_PACKAGES, "a compiler with a BPF core")
}

fn is_debian(compiler: &Compiler) -> bool {
    compiler.rustc.as_os_str() == compiler::DEBIAN_RUSTC
}

fn missing(tools: &[Tool]) -> impl Iterator<Item = Tool> {
    let tools = tools.iter().copied();
    tools.filter(|(program, _)| process::find(program).is_none())
}

fn reason(rejected: &Rejected) -> String {
    format!("{}: {}", rejected.origin, rejected.why)
}

fn report(toolchain: Option<&Toolchain>) -> Answer {
    let (compilers, rejected) = compiler::candidates();
    let linkers = linker::installed();
    section("compilers", compilers.iter().map(Compiler::to_string));
    section("not usable", rejected.iter().map(reason));
    section("linkers", linkers.iter().map(Linker::to_string));
    let tools = [DEMO, TESTS, BENCH].concat();
    let found = tools
        .iter()
        .filter_map(|(program, _)| process::find(program));
    section("tools", found.map(|path| path.display().to_string()));

    let mut missing = Vec::new();
    if compilers.is_empty() {
        missing.push(format!(
            "a compiler with a BPF core (Debian packages {})",
            compiler::DEBIAN_PACKAGES.join(", ")
        ));
    } else if toolchain.is_none() {
        missing.push("a bpf-linker whose LLVM is not older than a compiler's".to_owned());
    }
    if compilers.is_empty() && linkers.is_empty() {
        missing.push("bpf-linker (built here with Debian's llvm-N-dev)".to_owned());
    }
    for (program, package) in self::missing(&tools) {
        missing.push(format!("{program} (Debian package {package})"));
    }
    if !python::is_installed() {
        missing.push("Python packages (xtask/requirements.txt)".to_owned());
    }
    section("missing", missing.iter().cloned());
    if missing.is_empty() {
        Answer::Yes
    } else {
        Answer::No
    }
}

fn section(title: &str, lines: impl Iterator<Item = String>) {
    for (index, line) in lines.enumerate() {
        println!("{:<12}{line}", if index == 0 { title } else { "" });
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::compiler::Core;

    fn compiler(llvm: u32) -> Compiler {
        Compiler {
            rustc: PathBuf::from(format!("/rust-{llvm}/bin/rustc")),
            cargo: PathBuf::from("cargo"),
            origin: "here".to_owned(),
            release: "1.99.0".to_owned(),
            llvm,
            core: Core::Source,
        }
    }

    fn linker(llvm: Option<u32>) -> Linker {
        Linker {
            path: PathBuf::from("/bpf-linker"),
            version: "bpf-linker 0".to_owned(),
            llvm,
        }
    }

    #[test]
    fn only_fitting_linkers_are_paired_and_the_first_compiler_stands_first() {
        let pairs = pair(
            &[compiler(23), compiler(22)],
            &[linker(None), linker(Some(22))],
        );
        let shown: Vec<_> = pairs
            .iter()
            .map(|t| (t.compiler.llvm, t.linker.llvm))
            .collect();
        assert_eq!(shown, [(23, None), (22, None), (22, Some(22))]);
    }

    #[test]
    fn a_linker_is_not_built_again_for_a_compiler_that_failed_with_a_fitting_one() {
        let tried = pair(&[compiler(23)], &[linker(Some(23))]);
        assert_eq!(with_linker(&compiler(23), &tried), None);
    }
}
