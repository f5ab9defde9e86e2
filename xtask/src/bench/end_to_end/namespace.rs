//! The bench's own network namespaces, and programs in them.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use sg_userspace::netns::Netns;

use crate::process;

/// What all names begin with.
const PREFIX: &str = "sgbench-e2e-";
/// Sends what no socket sends.
pub(super) const GENERATOR: &str = "sgbench-e2e-gen";
/// Holds the TCP clients.
pub(super) const CLIENTS: &str = "sgbench-e2e-clients";

/// The namespaces that a bench of as many beds as this makes.
pub(super) fn all(beds: u8) -> Vec<String> {
    let fixed = [GENERATOR, CLIENTS].map(str::to_owned);
    fixed.into_iter().chain((1..=beds).map(of_bed)).collect()
}

/// The namespace of a bed, by its number.
pub(super) fn of_bed(number: u8) -> String {
    format!("{PREFIX}{number}")
}

/// Makes the namespaces of the senders.
///
/// # Errors
/// If `ip` or the kernel refuses.
pub(super) fn senders() -> Result<()> {
    for name in [GENERATOR, CLIENTS] {
        add(name)?;
    }
    // Clients have every address that a rule may name.
    ip(CLIENTS, "route add local 10.0.0.0/8 dev lo\n")
}

/// Runs `task` in a namespace of the bench.
///
/// # Errors
/// If it cannot be entered.
pub(super) fn inside<T: Send>(namespace: &str, task: impl FnOnce() -> T + Send) -> Result<T> {
    assert!(namespace.starts_with(PREFIX), "never elsewhere");
    Ok(Netns::open(Some(namespace))?.run(task)?)
}

/// Makes a namespace.
///
/// # Errors
/// If `ip` or the kernel refuses.
pub(super) fn add(namespace: &str) -> Result<()> {
    process::run(Command::new("ip").args(["netns", "add", namespace]))?;
    inside(namespace, || -> Result<()> {
        for which in ["all", "default"] {
            // Neighbour discovery and reports of listeners would be counted with the packets.
            write(&format!("net/ipv6/conf/{which}/disable_ipv6"), "1")?;
            write(&format!("net/ipv4/conf/{which}/rp_filter"), "0")?;
        }
        write("net/ipv4/ip_forward", "0")?;
        // Connections that are over are not to fill the tables that the next sample uses.
        write("net/ipv4/tcp_max_tw_buckets", "4096")
    })??;
    ip(namespace, "link set lo up\n")
}

/// `ip` with one command a line.
///
/// # Errors
/// If it refuses one.
pub(super) fn ip(namespace: &str, commands: &str) -> Result<()> {
    run(namespace, "ip", &["-batch", "-"], commands)
}

/// Runs a program in a namespace, with `input`, to its end.
///
/// # Errors
/// If it fails.
pub(super) fn run(namespace: &str, program: &str, arguments: &[&str], input: &str) -> Result<()> {
    let place = process::find(program).with_context(|| format!("`{program}` is not here"))?;
    let output = inside(namespace, || {
        let mut child = Command::new(place)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        child.wait_with_output()
    })?
    .with_context(|| format!("run `{program}`"))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{program} {}` in {namespace}: {:.400}",
            arguments.join(" "),
            reason.trim()
        );
    }
    Ok(())
}

/// Sets a key below /proc/sys of the thread's namespace.
///
/// # Errors
/// If that is not possible.
pub(super) fn write(key: &str, value: &str) -> Result<()> {
    let path = Path::new("/proc/sys").join(key);
    fs::write(&path, value).with_context(|| format!("write {value} to {}", path.display()))
}
