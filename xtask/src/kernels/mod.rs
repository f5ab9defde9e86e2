//! `cargo xtask test --kernel 6.1`: the kernel's side of the tests on another kernel than this machine's.
//!
//! Debian's cloud kernels, fetched and unpacked under target/ without installing anything, run in QEMU with a
//! root file system of our own: busybox, the test programs, and what they call. No root is needed. The guest has
//! the repository's files where this machine has them.

mod archive;
mod cpio;
mod guest;
mod modules;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use archive::{Archive, Package};
use guest::{Files, Outcome, Suite};

use crate::ebpf::{self, Flavour};
use crate::summary::Summary;
use crate::{Answer, process, setup, workspace};

/// Integration tests of sg-userspace that no guest runs: those without a kernel in them, the budget, which is of
/// one verifier, and the comparison with nftables, which is about the host's packets whatever judges ours.
const NOT_IN_GUESTS: [&str; 8] = [
    "budget",
    "check",
    "corpora",
    "example",
    "nftables",
    "object",
    "oracle",
    "producers",
];

/// Programs that tests call, where this machine has them.
const TOOLS: [&str; 7] = [
    "ip", "tc", "bpftool", "ethtool", "prlimit", "dnsmasq", "dhclient",
];

/// An emulated machine is slower by as much: tests do a part of what they do, and wait longer for it.
const COUNTS_DIVISOR: u32 = 20;
/// Factor for how long anything may take.
const PATIENCE: u32 = 8;

/// What is to be run.
pub(crate) struct Options<'a> {
    /// Kernels, such as `6.1`.
    pub(crate) series: &'a [String],
    /// How long one of them may take.
    pub(crate) limit: Duration,
    /// Passed to every test program.
    pub(crate) filters: &'a [String],
}

/// Runs the tests on each kernel.
///
/// # Errors
/// If something cannot be fetched, built or started.
pub(crate) fn run(options: &Options) -> Result<Answer> {
    if env::consts::ARCH != "x86_64" {
        bail!("kernels are emulated for x86-64 only, with programs of this machine");
    }
    setup::tools(&[setup::DEMO, setup::TESTS].concat())?;
    let cache = workspace::kernels_directory();
    let archive = Archive::open(&cache.join("apt"))?;
    let (emulator, busybox) = (cache.join("qemu"), cache.join("busybox"));
    archive.unpack(&archive.package("qemu-system-x86")?, true, &emulator)?;
    archive.unpack(&archive.package("busybox-static")?, false, &busybox)?;
    let busybox = busybox.join("bin/busybox");
    let mut kernels = Vec::new();
    for series in options.series {
        let package = archive.kernel(series)?;
        let directory = cache.join(format!("linux-{series}"));
        archive.unpack(&package, false, &directory)?;
        kernels.push((package, directory));
    }

    ebpf::build(Flavour::of(true))?;
    let built = build()?;
    let mut all_passed = true;
    let mut reports = Vec::new();
    for (package, directory) in kernels {
        println!("starting {} {}", package.name, package.version);
        let outcome = attempt(options, &built, &busybox, &emulator, &directory)?;
        let (passed, report) = report(&package, &outcome);
        all_passed &= passed;
        reports.push(report);
    }
    for report in reports {
        print!("\n{report}");
    }
    Ok(if all_passed { Answer::Yes } else { Answer::No })
}

/// What the guests run.
struct Built {
    suites: Vec<Suite>,
    sgctl: PathBuf,
}

/// Builds static, optimised test programs, and sgctl for them to call.
fn build() -> Result<Built> {
    let names = suites()?;
    let mut flags = env::var_os("RUSTFLAGS").unwrap_or_default();
    flags.push(OsString::from(" -C target-feature=+crt-static"));
    let mut cargo = process::cargo();
    // With a target that is named, the flags are not for build scripts and macros.
    cargo.args(["test", "--no-run", "--release", "--package", "sg-userspace"]);
    cargo.args(["--target", "x86_64-unknown-linux-gnu"]);
    for name in &names {
        cargo.args(["--test", name]);
    }
    cargo.arg("--message-format=json-render-diagnostics");
    cargo.env("RUSTFLAGS", flags).env("SG_EBPF_REQUIRED", "1");
    let output = cargo
        .stderr(Stdio::inherit())
        .output()
        .context("start cargo")?;
    if !output.status.success() {
        bail!("`{}` failed: {}", process::shown(&cargo), output.status);
    }
    let artifacts = String::from_utf8_lossy(&output.stdout);
    let mut built = Built {
        suites: Vec::new(),
        sgctl: PathBuf::new(),
    };
    for artifact in artifacts.lines() {
        let artifact: serde_json::Value =
            serde_json::from_str(artifact).context("read cargo's answer")?;
        let Some(program) = artifact["executable"].as_str() else {
            continue;
        };
        let (name, source) = (
            artifact["target"]["name"].as_str(),
            artifact["target"]["src_path"].as_str(),
        );
        if artifact["profile"]["test"].as_bool() == Some(true) {
            let source = source.and_then(|path| path.split_once("/sg-userspace/"));
            let (_, source) = source.context("cargo names no source of a test program")?;
            built.suites.push(Suite {
                source: source.to_owned(),
                program: program.into(),
            });
        } else if name == Some("sgctl") {
            built.sgctl = program.into();
        }
    }
    if built.suites.len() != names.len() || !built.sgctl.is_file() {
        bail!(
            "cargo built {} of {} test programs",
            built.suites.len(),
            names.len()
        );
    }
    built
        .suites
        .sort_by(|one, other| one.source.cmp(&other.source));
    Ok(built)
}

/// Integration tests that guests run.
fn suites() -> Result<Vec<String>> {
    let directory = workspace::root().join("sg-userspace/tests");
    let mut names = Vec::new();
    for entry in
        fs::read_dir(&directory).with_context(|| format!("read {}", directory.display()))?
    {
        let path = entry?.path();
        let is_test =
            path.extension().is_some_and(|kind| kind == "rs") || path.join("main.rs").is_file();
        if let Some(name) = path.file_stem().and_then(|name| name.to_str())
            && is_test
            && !NOT_IN_GUESTS.contains(&name)
        {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Makes the guest's root file system and runs the tests there.
fn attempt(
    options: &Options,
    built: &Built,
    busybox: &Path,
    emulator: &Path,
    kernel: &Path,
) -> Result<Outcome> {
    let mut files = Files::new(busybox)?;
    for program in built
        .suites
        .iter()
        .map(|suite| &suite.program)
        .chain([&built.sgctl])
    {
        let stripped = kernel.join("stripped");
        process::run(Command::new("strip").arg("-o").arg(&stripped).arg(program))?;
        files.copy_to(&stripped, program)?;
    }
    for tool in TOOLS.into_iter().filter_map(process::find) {
        files.program(&tool)?;
    }
    // Tests read recorded cases, and compare pages with sources.
    for directory in [
        "docs",
        "sg-common/src",
        "sg-common/tests",
        "sg-userspace/src",
        "sg-userspace/tests",
    ] {
        files.copy_all(&workspace::root().join(directory))?;
    }
    files.add(
        Path::new("/etc/passwd"),
        b"root:x:0:0:root:/root:/bin/sh\n".to_vec(),
    );
    files.add(Path::new("/etc/group"), b"root:x:0:\n".to_vec());
    let modules = ["lib/modules", "usr/lib/modules"].map(|path| kernel.join(path));
    let modules = modules.iter().find(|path| path.is_dir());
    let modules =
        modules.with_context(|| format!("there are no modules in {}", kernel.display()))?;
    files.modules(modules::wanted(modules, busybox)?);
    let settings = [
        ("SG_EBPF_REQUIRED", "1".to_owned()),
        ("SG_COUNTS_DIVISOR", COUNTS_DIVISOR.to_string()),
        ("SG_PATIENCE", PATIENCE.to_string()),
    ];
    let script = guest::init(&built.suites, options.filters, &settings);
    files.add(Path::new("/init"), script.into_bytes());
    let image = kernel.join("initramfs.cpio");
    files.write(&image)?;
    guest::run(
        emulator,
        &executable(kernel)?,
        &image,
        built.suites.len(),
        options.limit,
    )
}

/// The kernel itself.
fn executable(kernel: &Path) -> Result<PathBuf> {
    let boot = kernel.join("boot");
    let entries = fs::read_dir(&boot).with_context(|| format!("read {}", boot.display()))?;
    let mut files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let found = files.find(|path| {
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with("vmlinuz-")
    });
    found.with_context(|| format!("there is no kernel in {}", boot.display()))
}

/// Whether all passed, and what is said about it.
fn report(package: &Package, outcome: &Outcome) -> (bool, String) {
    let mut summary = Summary::of(&outcome.output);
    summary.close(outcome.success);
    let release = outcome
        .release
        .as_deref()
        .unwrap_or("that did not say which it is");
    let mut text = format!(
        "Linux {release} ({} {}), emulated, {} s\n{summary}",
        package.name,
        package.version,
        outcome.took.as_secs()
    );
    if let Some(broken) = &outcome.broken {
        text.push_str(&format!("failed: {broken}\n"));
    }
    (summary.is_success() && outcome.success, text)
}
