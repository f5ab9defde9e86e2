//! Programs of others, written in Python, whose output tests read: in an environment of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{debian, process, workspace};

/// What is installed, and in which versions.
const REQUIREMENTS: &str = include_str!("../requirements.txt");

/// The environment; tests look for programs in its `bin`.
fn environment() -> PathBuf {
    workspace::tools_directory().join("python")
}

/// Says what was installed, and where; written when all of it was.
fn stamp() -> PathBuf {
    environment().join("installed.txt")
}

/// An environment that was copied elsewhere calls the programs of the first.
fn stamped() -> String {
    format!("# in {}\n{REQUIREMENTS}", environment().display())
}

/// True if everything is installed.
pub(crate) fn is_installed() -> bool {
    fs::read_to_string(stamp()).is_ok_and(|installed| installed == stamped())
}

/// Installs what is missing. Where that fails, as without a way to PyPI, it is said and no more: the tests that
/// need it skip.
pub(crate) fn ensure() {
    if is_installed() {
        return;
    }
    let environment = workspace::shown(&environment());
    println!("installing Python packages in {environment}");
    if let Err(error) = install() {
        println!("tests of others' programs will be skipped: {error:#}");
    }
}

fn install() -> Result<()> {
    let directory = environment();
    if process::find("python3").is_none() {
        venv_package()?;
    }
    if create(&directory).is_err() {
        venv_package()?;
        create(&directory)?;
    }
    let requirements = workspace::root().join("xtask/requirements.txt");
    let mut pip = Command::new(directory.join("bin/python"));
    // No package is built here: what has no wheel would run a script of its own.
    pip.args(["-m", "pip", "install", "--no-input", "--quiet"])
        .args(["--disable-pip-version-check", "--only-binary", ":all:"])
        .args(["--retries", "2", "--requirement"])
        .arg(requirements)
        .stdin(Stdio::null());
    process::run(&mut pip)?;
    fs::write(stamp(), stamped()).with_context(|| format!("write {}", stamp().display()))
}

/// Makes an empty environment.
fn create(directory: &Path) -> Result<()> {
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv", "--clear"])
        .arg(directory)
        .stdin(Stdio::null());
    process::run(&mut venv)
}

fn venv_package() -> Result<()> {
    if !debian::is_here() {
        bail!("python3 cannot make an environment, and there is no apt to install its package by");
    }
    debian::install(&["python3-venv"], "tests of others' programs")
}
