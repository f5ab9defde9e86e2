//! Rust compilers that can compile for BPF: they have a `core` for it, or the source of one.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{process, workspace};

/// The BPF target of a host with this byte order.
pub(crate) const TARGET: &str = if cfg!(target_endian = "big") {
    "bpfeb-unknown-none"
} else {
    "bpfel-unknown-none"
};

/// Debian's packages with a compiler and a prebuilt BPF core, installed under `/usr`.
pub(crate) const DEBIAN_PACKAGES: [&str; 3] =
    ["rustc-web", "libstd-rust-web-dev-bpf", "rust-web-llvm"];

/// Where Debian puts its compiler.
pub(crate) const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// A compiler that can compile for BPF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compiler {
    /// The program, absolute, not a proxy of rustup.
    pub(crate) rustc: PathBuf,
    /// Cargo that goes with it.
    pub(crate) cargo: PathBuf,
    /// Where it was found.
    pub(crate) origin: String,
    /// Its version, such as `1.96.0` or `1.97.0-nightly`.
    pub(crate) release: String,
    /// Major version of its LLVM: what links its output must be at least as new.
    pub(crate) llvm: u32,
    /// Where its `core` comes from.
    pub(crate) core: Core,
}

/// Where the `core` of the BPF target comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Core {
    /// It is part of the installation.
    Prebuilt,
    /// It is built from `rust-src` by `-Z build-std`.
    Source,
}

impl Compiler {
    /// True if unstable features need no `RUSTC_BOOTSTRAP`.
    pub(crate) fn is_nightly(&self) -> bool {
        self.release.contains("-nightly") || self.release.contains("-dev")
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = match self.core {
            Core::Prebuilt => "BPF core prebuilt",
            Core::Source => "BPF core from rust-src",
        };
        write!(
            f,
            "rustc {} (LLVM {}, {core}; {})",
            self.release, self.llvm, self.origin
        )
    }
}

/// A compiler that was looked at and cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejected {
    /// Where it was found.
    pub(crate) origin: String,
    /// What it lacks.
    pub(crate) why: String,
}

/// Every compiler of this machine, the one to be tried first in front, each installation once.
pub(crate) fn candidates() -> (Vec<Compiler>, Vec<Rejected>) {
    let mut usable: Vec<Compiler> = Vec::new();
    let mut rejected: Vec<Rejected> = Vec::new();
    let mut sysroots = Vec::new();
    for (origin, rustc) in places() {
        match examine(&origin, &rustc, &mut sysroots) {
            Some(Ok(compiler)) => usable.push(compiler),
            Some(Err(why)) => rejected.push(Rejected { origin, why }),
            None => {}
        }
    }
    (usable, rejected)
}

fn places() -> Vec<(String, PathBuf)> {
    let mut places = Vec::new();
    if let Some(named) = env::var_os("SG_BPF_RUSTC").filter(|value| !value.is_empty()) {
        places.push(("SG_BPF_RUSTC".to_owned(), PathBuf::from(named)));
    }
    for channel in ["nightly", "stable"] {
        for toolchain in rustup_toolchains(channel) {
            if let Some(rustc) = rustup_which(&toolchain) {
                places.push((format!("rustup {toolchain}"), rustc));
            }
        }
    }
    if process::is_executable(Path::new(DEBIAN_RUSTC)) {
        places.push((DEBIAN_RUSTC.to_owned(), PathBuf::from(DEBIAN_RUSTC)));
    }
    if let Some(rustc) = process::find("rustc") {
        places.push((format!("{} on PATH", rustc.display()), rustc));
    }
    places
}

fn rustup_toolchains(channel: &str) -> Vec<String> {
    let list = process::output(Command::new("rustup").args(["toolchain", "list"]));
    list.unwrap_or_default()
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.starts_with(channel))
        .map(str::to_owned)
        .collect()
}

fn rustup_which(toolchain: &str) -> Option<PathBuf> {
    let mut which = Command::new("rustup");
    which
        .args(["which", "--toolchain", toolchain, "rustc"])
        .env("RUSTUP_AUTO_INSTALL", "0");
    process::output(&mut which).map(|path| PathBuf::from(path.trim()))
}

/// `None` if the installation was examined before.
fn examine(
    origin: &str,
    rustc: &Path,
    sysroots: &mut Vec<PathBuf>,
) -> Option<Result<Compiler, String>> {
    let ask = |arguments: &[&str]| process::output(Command::new(rustc).args(arguments));
    let Some(sysroot) = ask(&["--print", "sysroot"]).map(|path| PathBuf::from(path.trim())) else {
        return Some(Err(format!("{} does not run", rustc.display())));
    };
    if sysroots.contains(&sysroot) {
        return None;
    }
    sysroots.push(sysroot.clone());
    let version = ask(&["-vV"]).unwrap_or_default();
    Some(describe(origin, rustc, &sysroot, &version))
}

fn describe(origin: &str, rustc: &Path, sysroot: &Path, version: &str) -> Result<Compiler, String> {
    let release = field(version, "release").ok_or("`rustc -vV` names no release")?;
    let needed = env!("CARGO_PKG_RUST_VERSION");
    if number_pair(release) < number_pair(needed) {
        return Err(format!("rustc {release} is older than {needed}"));
    }
    let llvm = field(version, "LLVM version")
        .and_then(|version| number_pair(version).map(|(major, _)| major))
        .ok_or("`rustc -vV` names no LLVM version")?;
    let core = core_of(sysroot).ok_or_else(|| {
        format!("rustc {release} has no BPF core: neither {TARGET} nor rust-src is installed")
    })?;
    // A proxy of rustup would choose another toolchain when it is started elsewhere.
    let own_rustc = sysroot.join("bin/rustc");
    let own_cargo = sysroot.join("bin/cargo");
    let matching_cargo = core == Core::Source && process::is_executable(&own_cargo);
    Ok(Compiler {
        rustc: if process::is_executable(&own_rustc) {
            own_rustc
        } else {
            rustc.to_owned()
        },
        cargo: if matching_cargo {
            own_cargo
        } else {
            workspace::cargo()
        },
        origin: origin.to_owned(),
        release: release.to_owned(),
        llvm,
        core,
    })
}

fn core_of(sysroot: &Path) -> Option<Core> {
    let rustlib = sysroot.join("lib/rustlib");
    let prebuilt = fs::read_dir(rustlib.join(TARGET).join("lib")).is_ok_and(|mut entries| {
        entries.any(|entry| {
            entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
        })
    });
    if prebuilt {
        return Some(Core::Prebuilt);
    }
    let library = rustlib.join("src/rust/library");
    let source = library.join("core/src/lib.rs").is_file() && library.join("Cargo.lock").is_file();
    source.then_some(Core::Source)
}

/// The value of `name: value` in the output of `rustc -vV`.
fn field<'a>(version: &'a str, name: &str) -> Option<&'a str> {
    version
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// The first two numbers of a version.
fn number_pair(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(['.', '-']).map(|part| part.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: &str = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\n\
        binary: rustc\nhost: x86_64-unknown-linux-gnu\nrelease: 1.96.0\nLLVM version: 22.1.8\n";

    /// A sysroot with these files in it, all empty.
    fn sysroot(name: &str, files: &[&str]) -> PathBuf {
        let root = env::temp_dir().join(format!("xtask-{}-{name}", std::process::id()));
        for file in files {
            let path = root.join("lib/rustlib").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
        root
    }

    #[test]
    fn a_prebuilt_core_is_found() {
        let root = sysroot("prebuilt", &[&format!("{TARGET}/lib/libcore-0123.rlib")]);
        let found = describe("here", Path::new("/x/rustc"), &root, VERSION).unwrap();
        fs::remove_dir_all(root).unwrap();
        assert_eq!(
            (found.core, found.llvm, found.release.as_str()),
            (Core::Prebuilt, 22, "1.96.0")
        );
        assert_eq!(found.rustc, Path::new("/x/rustc"));
        assert!(!found.is_nightly());
    }

    #[test]
    fn a_source_needs_its_lock_file() {
        let core = "src/rust/library/core/src/lib.rs";
        let whole = sysroot("source", &[core, "src/rust/library/Cargo.lock"]);
        let half = sysroot("half", &[core]);
        let found = [core_of(&whole), core_of(&half)];
        fs::remove_dir_all(whole).unwrap();
        fs::remove_dir_all(half).unwrap();
        assert_eq!(found, [Some(Core::Source), None]);
    }

    #[test]
    fn an_old_compiler_is_rejected_before_it_is_tried() {
        let version = VERSION.replace("1.96.0", "1.63.0");
        let error = describe("here", Path::new("rustc"), Path::new("/"), &version).unwrap_err();
        assert!(error.starts_with("rustc 1.63.0 is older than"), "{error}");
    }

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(number_pair("1.97.0-nightly"), Some((1, 97)));
        assert!(number_pair("1.100") > number_pair("1.99.1"));
        assert_eq!(number_pair("unknown"), None);
    }
}
