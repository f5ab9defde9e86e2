//! bpf-linker: the ones of this machine, and how to build one.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{process, workspace};

/// The version that is built if there is none.
const VERSION: &str = "0.13.0";

/// The LLVM versions that bpf-linker [`VERSION`] can be built with.
const LLVM_VERSIONS: [u32; 3] = [21, 22, 23];

/// An installed bpf-linker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Linker {
    /// The program, absolute.
    pub(crate) path: PathBuf,
    /// Its version, as it prints it.
    pub(crate) version: String,
    /// Major version of its LLVM; `None` if it is linked in statically, since it does not say.
    pub(crate) llvm: Option<u32>,
}

impl Linker {
    /// True unless its LLVM is known to be older than that of the compiler, whose output it could
    /// then not read (`Invalid record`).
    pub(crate) fn may_read(&self, compiler_llvm: u32) -> bool {
        self.llvm.is_none_or(|llvm| llvm >= compiler_llvm)
    }
}

impl fmt::Display for Linker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = workspace::shown(&self.path);
        match self.llvm {
            Some(llvm) => write!(f, "{} (LLVM {llvm}; {path})", self.version),
            None => write!(
                f,
                "{} (LLVM linked in, version unknown; {path})",
                self.version
            ),
        }
    }
}

/// Every bpf-linker of this machine that runs, the one to be tried first in front.
pub(crate) fn installed() -> Vec<Linker> {
    let named = env::var_os("BPF_LINKER")
        .filter(|value| !value.is_empty())
        .map(PathBuf::from);
    let cached = LLVM_VERSIONS.map(|llvm| cache(llvm).join("bin/bpf-linker"));
    let mut linkers: Vec<Linker> = Vec::new();
    for path in named
        .into_iter()
        .chain(process::find("bpf-linker"))
        .chain(cached)
    {
        if linkers.iter().all(|known| known.path != path) {
            linkers.extend(examine(&path));
        }
    }
    linkers
}

fn examine(path: &Path) -> Option<Linker> {
    let version = process::output(Command::new(path).arg("--version"))?
        .trim()
        .to_owned();
    let llvm = fs::read(path)
        .ok()
        .and_then(|program| shared_llvm(&program));
    Some(Linker {
        path: path.to_owned(),
        version,
        llvm,
    })
}

/// The major version in the name of the shared LLVM library that a program is linked to:
/// `libLLVM.so.22.1` from LLVM 18 on, `libLLVM-17.so.1` before.
fn shared_llvm(program: &[u8]) -> Option<u32> {
    [b"libLLVM.so.".as_slice(), b"libLLVM-"]
        .iter()
        .find_map(|name| {
            let start = program
                .windows(name.len())
                .position(|window| window == *name)?
                + name.len();
            let digits: Vec<u8> = program[start..]
                .iter()
                .copied()
                .take_while(u8::is_ascii_digit)
                .collect();
            String::from_utf8(digits).ok()?.parse().ok()
        })
}

/// LLVM versions with which a linker for this compiler can be built, the compiler's own first.
pub(crate) fn buildable(compiler_llvm: u32) -> impl Iterator<Item = u32> {
    LLVM_VERSIONS
        .into_iter()
        .filter(move |&llvm| llvm >= compiler_llvm)
}

/// Builds bpf-linker against `/usr/lib/llvm-<llvm>` and keeps it under `target/tools`.
///
/// # Errors
/// If cargo cannot build it.
pub(crate) fn build(llvm: u32) -> Result<Linker> {
    let root = cache(llvm);
    let scratch = workspace::tools_directory().join("build");
    let prefix = format!("/usr/lib/llvm-{llvm}");
    eprintln!(
        "building bpf-linker {VERSION} with LLVM {llvm} in {}",
        workspace::shown(&root)
    );
    let mut install = process::foreign_cargo(&workspace::cargo(), &workspace::root());
    install
        .args(["install", "bpf-linker", "--version", VERSION, "--locked", "--no-default-features"])
        .args(["--features", &format!("llvm-{llvm}")])
        .arg("--root")
        .arg(&root)
        .arg("--target-dir")
        .arg(&scratch)
        // Without it the build looks in the wrong place: `unable to find library -lLLVM`.
        .env("LLVM_PREFIX", prefix);
    process::run(&mut install)?;
    fs::remove_dir_all(&scratch).with_context(|| format!("remove {}", scratch.display()))?;
    match examine(&root.join("bin/bpf-linker")) {
        Some(linker) => Ok(linker),
        None => bail!("the bpf-linker built in {} does not run", root.display()),
    }
}

fn cache(llvm: u32) -> PathBuf {
    workspace::tools_directory().join(format!("bpf-linker-{VERSION}-llvm{llvm}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_of_a_linker_is_read_from_its_needed_libraries() {
        assert_eq!(shared_llvm(b"\0libLLVM.so.22.1\0libc.so.6\0"), Some(22));
        assert_eq!(shared_llvm(b"\0libLLVM-17.so.1\0"), Some(17));
        assert_eq!(shared_llvm(b"\0libc.so.6\0LLVM version 22\0"), None);
    }

    #[test]
    fn a_linker_must_not_be_older_than_the_compiler() {
        let linker = |llvm| Linker {
            path: PathBuf::new(),
            version: String::new(),
            llvm,
        };
        assert!(linker(Some(22)).may_read(22) && linker(Some(23)).may_read(22));
        assert!(!linker(Some(21)).may_read(22));
        assert!(linker(None).may_read(22));
        assert_eq!(buildable(22).collect::<Vec<_>>(), [22, 23]);
        assert_eq!(buildable(24).count(), 0);
    }
}
