//! What a test needs beyond plain cargo, and how it is skipped without.
//!
//! libtest cannot skip at run time. A test that cannot run says so past libtest's capture, in a
//! line that `cargo xtask test` counts, and returns. Under `SG_EBPF_REQUIRED=1`, as `cargo xtask
//! test` sets it, a lack of the object or of root is a failure instead.

#![allow(
    dead_code,
    unused_imports,
    reason = "a test program uses what it needs of it"
)]

use std::env;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::thread;

/// Returns from the test, visibly, unless everything named is there: `require!(Root, Object);`
macro_rules! require {
    ($($need:ident),+ $(,)?) => {
        if !crate::common::require::all(&[$(crate::common::require::Need::$need),+]) {
            return;
        }
    };
}
pub(crate) use require;

/// Something that a plain `cargo test` may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// The user id 0, for BPF and network namespaces.
    Root,
    /// The eBPF object inside this build.
    Object,
    /// An sgctl with another layout of the maps.
    Relaid,
}

/// The sgctl with another layout of the maps.
pub(crate) fn relaid() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/relaid/sgctl")
}

impl Need {
    fn is_met(self) -> bool {
        match self {
            Self::Root => fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0),
            Self::Object => sg_userspace::object::bytes().is_some(),
            Self::Relaid => relaid().exists(),
        }
    }

    fn lack(self) -> &'static str {
        match self {
            Self::Root => "needs root: `cargo xtask test` runs it",
            Self::Object => "needs the eBPF object: `cargo xtask test` builds it",
            Self::Relaid => {
                "needs an sgctl of another layout: `cargo xtask build --relaid` builds it"
            }
        }
    }
}

/// False if something is lacking, which has then been said.
///
/// # Panics
/// If something is lacking under `SG_EBPF_REQUIRED=1`.
#[track_caller]
pub(crate) fn all(needs: &[Need]) -> bool {
    let Some(need) = needs.iter().find(|need| !need.is_met()) else {
        return true;
    };
    let required = env::var("SG_EBPF_REQUIRED").is_ok_and(|value| value == "1");
    assert!(
        !required,
        "SG_EBPF_REQUIRED is set, but this test {}",
        need.lack()
    );
    skip(need.lack());
    false
}

/// Says that the test does not run, for want of something that not every machine has, such as a
/// facility of the kernel. The test returns after it.
#[track_caller]
pub(crate) fn skip(why: &str) {
    let thread = thread::current();
    // libtest names threads after tests, but runs them on its own with `--test-threads=1`.
    let test = thread.name().filter(|name| *name != "main").map_or_else(
        || {
            format!(
                "{}:{}",
                Location::caller().file(),
                Location::caller().line()
            )
        },
        str::to_owned,
    );
    // The handle is not captured by libtest, `eprintln!` is. One write keeps the line whole.
    let _ = io::stderr().write_all(format!("skipped: {test}: {why}\n").as_bytes());
}
