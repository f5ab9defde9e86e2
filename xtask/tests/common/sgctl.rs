//! The program `sgctl`, built by another package of the workspace.

use std::path::Path;

/// Where `cargo test --workspace` has put it.
///
/// # Panics
/// If it is not there.
pub(crate) fn sgctl() -> String {
    let directory = Path::new(env!("CARGO_BIN_EXE_xtask")).parent().unwrap();
    let program = directory.join("sgctl");
    assert!(
        program.exists(),
        "{} is missing: run `cargo test --workspace`, or `cargo xtask test`",
        program.display()
    );
    program.into_os_string().into_string().unwrap()
}
