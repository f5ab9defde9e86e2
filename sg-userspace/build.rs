//! Embeds the eBPF object. It is never compiled here: `cargo xtask build` does that, with another
//! compiler.
//!
//! Taken in this order: the file named by `SG_EBPF_OBJECT`; `target/ebpf/sg.bpf.o` of the
//! workspace; an empty stub, so that everything but enforcement builds and tests with plain stable
//! Rust. `SG_EBPF_REQUIRED=1` turns the stub into an error.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=SG_EBPF_OBJECT");
    println!("cargo::rustc-check-cfg=cfg(ebpf_stub)");

    match embed() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!("cargo::error={message}");
            ExitCode::FAILURE
        }
    }
}

fn embed() -> Result<(), String> {
    let embedded = PathBuf::from(variable("OUT_DIR")?).join("sg.bpf.o");
    if let Some(named) = env::var_os("SG_EBPF_OBJECT").filter(|value| !value.is_empty()) {
        return copy(Path::new(&named), &embedded);
    }
    let built = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("../target/ebpf/sg.bpf.o");
    if built.is_file() {
        return copy(&built, &embedded);
    }
    stub(&built, &embedded)
}

fn copy(object: &Path, embedded: &Path) -> Result<(), String> {
    println!("cargo::rerun-if-changed={}", object.display());
    fs::copy(object, embedded)
        .map(drop)
        .map_err(|error| format!("copy the eBPF object {}: {error}", object.display()))
}

fn stub(built: &Path, embedded: &Path) -> Result<(), String> {
    println!("cargo::rerun-if-env-changed=SG_EBPF_REQUIRED");
    // A watched file that does not exist makes cargo run this script, and rebuild the crate, every
    // time; an empty directory in which the object will appear does not.
    match built
        .parent()
        .filter(|parent| fs::create_dir_all(parent).is_ok())
    {
        Some(parent) => println!("cargo::rerun-if-changed={}", parent.display()),
        None => println!("cargo::rerun-if-changed={}", built.display()),
    }
    if env::var("SG_EBPF_REQUIRED").is_ok_and(|value| value == "1") {
        return Err("there is no eBPF object to embed; build it with `cargo xtask build`".into());
    }
    println!(
        "cargo::warning=built without the eBPF object: sgctl can check definitions but not \
         enforce them; `cargo xtask build` builds both"
    );
    println!("cargo::rustc-cfg=ebpf_stub");
    fs::write(embedded, b"").map_err(|error| format!("write {}: {error}", embedded.display()))
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}"))
}
