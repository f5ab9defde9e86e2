//! Child processes: environment, privilege, and output that is both shown and kept.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::workspace;

/// True if this process has the user id 0.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// Finds an executable on `PATH`, or where administrators' tools are although the `PATH` of an
/// ordinary user leaves them out.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| is_executable(candidate))
}

/// True for a file that somebody may execute.
pub(crate) fn is_executable(path: &Path) -> bool {
    fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// `program` as root: as it is if we are root, by way of sudo otherwise.
///
/// # Errors
/// If we are not root and there is no sudo.
pub(crate) fn privileged(program: &str) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    let Some(sudo) = find("sudo") else {
        bail!("`{program}` needs root, and there is no sudo: run this command as root");
    };
    let mut command = Command::new(sudo);
    command.arg(program);
    Ok(command)
}

/// Cargo for the crates of the root workspace, with the compiler and flags of the user, run in the
/// root of the repository.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(workspace::cargo());
    command.current_dir(workspace::root()).stdin(Stdio::null());
    without_package(&mut command);
    command
}

/// Takes from a command's environment what cargo tells this package about itself.
pub(crate) fn without_package(command: &mut Command) {
    remove_environment(command, is_package_variable);
}

/// A cargo of another toolchain, or for another purpose: nothing that was meant for the compiler
/// of the root workspace reaches it. Registry and network settings do.
pub(crate) fn foreign_cargo(cargo: &Path, directory: &Path) -> Command {
    let mut command = Command::new(cargo);
    command.current_dir(directory).stdin(Stdio::null());
    remove_environment(&mut command, |name| {
        is_package_variable(name) || is_build_setting(name)
    });
    command
}

fn remove_environment(command: &mut Command, unwanted: impl Fn(&str) -> bool) {
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(&unwanted) {
            command.env_remove(name);
        }
    }
}

/// What cargo tells the package that it runs, which is this one.
fn is_package_variable(name: &str) -> bool {
    name.starts_with("CARGO_PKG_")
        || name.starts_with("CARGO_MANIFEST_")
        || name.starts_with("CARGO_BIN_")
        || matches!(
            name,
            "CARGO_CRATE_NAME" | "CARGO_PRIMARY_PACKAGE" | "OUT_DIR"
        )
}

/// What decides how cargo builds.
fn is_build_setting(name: &str) -> bool {
    [
        "CARGO_BUILD_",
        "CARGO_PROFILE_",
        "CARGO_TARGET_",
        "CARGO_UNSTABLE_",
        "CARGO_CFG_",
    ]
    .iter()
    .any(|prefix| name.starts_with(prefix))
        || (name.starts_with("RUSTC") && name != "RUSTC_LOG")
        || matches!(
            name,
            "CARGO"
                | "CARGO_ENCODED_RUSTFLAGS"
                | "CARGO_INCREMENTAL"
                | "CARGO_MAKEFLAGS"
                | "LD_LIBRARY_PATH"
                | "MAKEFLAGS"
                | "RUSTDOC"
                | "RUSTDOCFLAGS"
                | "RUSTFLAGS"
                | "RUSTUP_TOOLCHAIN"
                | "RUST_RECURSION_COUNT"
        )
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs to the end.
///
/// # Errors
/// If the program cannot be started or does not succeed.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("start `{}`", shown(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", shown(command));
    }
    Ok(())
}

/// The standard output of a command that succeeds; what it says on standard error is dropped.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs to the end; shows what the program prints on both channels, in the order in which it is
/// printed, and returns it as well.
///
/// # Errors
/// If the program cannot be started.
pub(crate) fn run_observed(command: &mut Command) -> Result<(ExitStatus, String)> {
    let start = || format!("start `{}`", shown(command));
    let (reader, writer) = io::pipe().with_context(start)?;
    let both = writer.try_clone().with_context(start)?;
    let context = start();
    let mut child = command
        .stdout(writer)
        .stderr(both)
        .spawn()
        .context(context)?;
    // The command holds the writing ends; the reader sees the end only when they are gone.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let text = Arc::new(Mutex::new(Vec::new()));
    let (ended, end) = mpsc::channel();
    thread::spawn({
        let text = Arc::clone(&text);
        move || {
            forward(reader, &text);
            let _ = ended.send(());
        }
    });
    let status = child.wait().context("wait for a child process")?;
    // A process that the child left behind may hold the channels open for ever.
    let _ = end.recv_timeout(LEFTOVER_OUTPUT);
    let text = text.lock().unwrap_or_else(PoisonError::into_inner);
    Ok((status, String::from_utf8_lossy(&text).into_owned()))
}

/// How long output may still come after the child has ended.
const LEFTOVER_OUTPUT: Duration = Duration::from_secs(5);

fn forward(source: impl Read, text: &Mutex<Vec<u8>>) {
    let mut source = BufReader::new(source);
    let mut line = Vec::new();
    while source
        .read_until(b'\n', &mut line)
        .is_ok_and(|read| read > 0)
    {
        // A reader of ours that has gone away is no reason to stop the work.
        let _ = io::stderr().write_all(&line);
        text.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .append(&mut line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_settings_are_kept_from_a_foreign_cargo_but_registries_are_not() {
        for name in [
            "RUSTC",
            "RUSTFLAGS",
            "RUSTC_WRAPPER",
            "CARGO_TARGET_DIR",
            "LD_LIBRARY_PATH",
        ] {
            assert!(is_build_setting(name), "{name}");
        }
        for name in [
            "CARGO_HOME",
            "CARGO_NET_OFFLINE",
            "CARGO_REGISTRIES_X_INDEX",
            "RUSTUP_HOME",
        ] {
            assert!(
                !is_build_setting(name) && !is_package_variable(name),
                "{name}"
            );
        }
    }

    #[test]
    fn both_channels_are_read_in_order() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; echo three; exit 3"]);
        let (status, text) = run_observed(&mut command).unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!(text, "one\ntwo\nthree\n");
    }
}
