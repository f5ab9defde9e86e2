//! Definitions that programs of others write, and what they read of ours.
//!
//! `cargo xtask setup` installs the programs; without them these tests are skipped.

#[path = "../common/require.rs"]
#[expect(unused_macros, reason = "what is required here is told in other words")]
mod require;

mod hcl;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// The environment that `cargo xtask setup` installs them in.
fn environment() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/python")
}

/// An empty directory of a test's own.
fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).expect("a directory can be made");
    directory
}

#[track_caller]
fn succeeds(command: &mut Command) -> Output {
    let output = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}: {said}",
        output.status
    );
    output
}
