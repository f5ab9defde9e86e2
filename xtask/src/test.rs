//! `cargo xtask test`: every test of the workspace, with object and root, and a summary; or random packets
//! for as long as one likes.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::ebpf::{self, Flavour};
use crate::summary::Summary;
use crate::{Answer, build, kernels, mutants, process, python, setup};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Test optimised code, and the object without log output.
    #[arg(long)]
    release: bool,
    /// Instead, put the deliberate faults of xtask/mutants.toml into a copy of the code, one by one, and
    /// see that a test fails; arguments after `--` choose faults by name. Takes about twenty minutes.
    #[arg(long, conflicts_with = "release")]
    mutants: bool,
    /// Instead, for half of so many minutes, let oracle, pipeline and loaded programs judge random packets, with
    /// new seeds until they disagree; then change, kill and break the enforcer under traffic.
    #[arg(long, value_name = "MINUTES", conflicts_with_all = ["mutants", "filters"])]
    soak: Option<u32>,
    /// Instead, run the tests of the kernel's side on Debian's kernel of this series, such as 6.1 or 6.12, in an
    /// emulator (QEMU without KVM, so it takes a while); may be given several times. Needs no root. Kernels and
    /// emulator are fetched from Debian's archive once and kept under target/kernels.
    #[arg(long, value_name = "SERIES", conflicts_with_all = ["mutants", "soak"])]
    kernel: Vec<String>,
    /// How long each of those kernels may take.
    #[arg(
        long,
        value_name = "MINUTES",
        default_value_t = 90,
        requires = "kernel"
    )]
    kernel_limit: u64,
    /// Passed to every test program: name filters and options such as `--test-threads=1`.
    #[arg(last = true)]
    filters: Vec<String>,
}

/// Carries out `cargo xtask test`.
pub(crate) fn run(arguments: &Arguments) -> Result<Answer> {
    if !arguments.kernel.is_empty() {
        return kernels::run(&kernels::Options {
            series: &arguments.kernel,
            limit: Duration::from_secs(60 * arguments.kernel_limit),
            filters: &arguments.filters,
        });
    }
    if !process::is_root() {
        if process::find("sudo").is_none() {
            bail!("the tests need root, and there is no sudo: run this command as root");
        }
        println!("the tests need root: their programs are run by sudo, building is not");
    }
    setup::tools(&[setup::DEMO, setup::TESTS].concat())?;
    ebpf::build(Flavour::of(arguments.release))?;
    if arguments.mutants {
        return mutants::run(&arguments.filters);
    }

    if arguments.soak.is_none() {
        python::ensure();
        build::relaid(arguments.release)?;
    }
    let mut cargo = tests(arguments)?;
    if arguments.soak.is_some() {
        let done = cargo.status().context("start cargo")?.success();
        return Ok(if done { Answer::Yes } else { Answer::No });
    }
    let (status, output) = process::run_observed(&mut cargo)?;
    let mut summary = Summary::of(&output);
    summary.close(status.success());
    print!("\n{summary}");
    Ok(if summary.is_success() {
        Answer::Yes
    } else {
        Answer::No
    })
}

fn tests(arguments: &Arguments) -> Result<Command> {
    let mut cargo = process::cargo();
    cargo.args(["test", "--color", "never"]);
    if arguments.release {
        cargo.arg("--release");
    }
    if let Some(minutes) = arguments.soak {
        cargo.args(["-p", "sg-userspace", "--test", "dataplane"]);
        cargo.args(["--test", "edges", "--"]);
        cargo.args(["soak", "--exact", "--ignored", "--nocapture"]);
        let half = minutes.div_ceil(2).to_string();
        cargo.env("SG_VOICES_MINUTES", &half);
        cargo.env("SG_EDGES_MINUTES", half);
    } else {
        cargo.args(["--workspace", "--no-fail-fast", "--"]);
        cargo.args(&arguments.filters);
    }
    cargo.env("SG_EBPF_REQUIRED", "1");
    if !process::is_root() {
        let (name, value) = runner()?;
        cargo.env(name, value);
    }
    Ok(cargo)
}

/// The setting that makes cargo start test programs by sudo, so that what it builds stays the
/// user's.
fn runner() -> Result<(String, &'static str)> {
    let version = process::output(Command::new("rustc").arg("-vV")).unwrap_or_default();
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("`rustc -vV` names no host")?;
    let host = host.to_uppercase().replace('-', "_");
    let sudo = "sudo --preserve-env=SG_EBPF_REQUIRED,SG_VOICES_MINUTES,SG_VOICES_SEED,SG_EDGES_MINUTES,SG_EDGES_SEED,SG_COUNTS_DIVISOR,SG_PATIENCE,RUST_BACKTRACE,CARGO_MANIFEST_DIR";
    Ok((format!("CARGO_TARGET_{host}_RUNNER"), sudo))
}
