//! Where things are.

use std::env;
use std::path::{Path, PathBuf};

/// The root of the repository, absolute.
pub(crate) fn root() -> PathBuf {
    // Set by `cargo run`; the value at compile time serves when the program is started directly.
    let package = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package
        .parent()
        .map_or_else(|| package.clone(), Path::to_path_buf)
}

/// `path` as seen from the root of the repository, for messages.
pub(crate) fn shown(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}

/// Holds the finished eBPF object and nothing else, since `sg-userspace/build.rs` watches it.
pub(crate) fn object_directory() -> PathBuf {
    root().join("target/ebpf")
}

/// The finished eBPF object.
pub(crate) fn object() -> PathBuf {
    object_directory().join("sg.bpf.o")
}

/// sgctl with another layout of the maps, and its object.
pub(crate) fn relaid_directory() -> PathBuf {
    root().join("target/relaid")
}

/// Reports of benchmarks.
pub(crate) fn bench_directory() -> PathBuf {
    root().join("target/bench")
}

/// Kernels that tests run on in an emulator, and the emulator.
pub(crate) fn kernels_directory() -> PathBuf {
    root().join("target/kernels")
}

/// Cargo's target directory for the eBPF crate, for either target.
pub(crate) fn ebpf_target_directory() -> PathBuf {
    root().join("target/ebpf-build")
}

/// Tools built for this repository.
pub(crate) fn tools_directory() -> PathBuf {
    root().join("target/tools")
}

/// What fuzzing builds and finds.
pub(crate) fn fuzz_directory() -> PathBuf {
    root().join("target/fuzz")
}

/// The cargo that runs this program.
pub(crate) fn cargo() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}
