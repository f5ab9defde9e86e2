//! `cargo xtask check`: lock files, formatting, lints, generated pages, and no generated object in
//! the tree.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{Answer, docs, process, workspace};

/// Carries out `cargo xtask check`; every check is made, whatever the others say.
pub(crate) fn run() -> Result<Answer> {
    let mut failed = Vec::new();
    for (name, mut command) in commands() {
        println!("+ {}", process::shown(&command));
        let status = command
            .status()
            .with_context(|| format!("start the check of {name}"))?;
        if !status.success() {
            failed.push(name);
        }
    }
    let generated = generated_files()?;
    for (path, kind) in &generated {
        eprintln!("{path} is tracked but generated: {kind}");
    }
    if !generated.is_empty() {
        failed.push("no generated object in the tree");
    }
    if docs::run(&docs::Arguments { check: true })? == Answer::No {
        failed.push("generated pages");
    }
    if failed.is_empty() {
        println!("all checks passed");
        return Ok(Answer::Yes);
    }
    println!("failed: {}", failed.join(", "));
    Ok(Answer::No)
}

fn commands() -> Vec<(&'static str, Command)> {
    let here = |arguments: &[&str]| {
        let mut command = process::cargo();
        command.args(arguments);
        command
    };
    // The eBPF crate is a workspace of its own; for the host it is an ordinary program.
    let ebpf = |arguments: &[&str]| {
        let mut command = process::cargo();
        command
            .current_dir(workspace::root().join("sg-ebpf"))
            .args(arguments);
        command.env("CARGO_TARGET_DIR", workspace::ebpf_target_directory());
        command
    };
    // So is the fuzz crate, whose libFuzzer nothing else needs.
    let fuzz = |arguments: &[&str]| {
        let mut command = process::cargo();
        command
            .current_dir(workspace::root().join("sg-userspace/fuzz"))
            .args(arguments);
        command
    };
    let locked = ["metadata", "--quiet", "--locked", "--format-version=1"];
    let silent = |mut command: Command| {
        command.stdout(std::process::Stdio::null());
        command
    };
    vec![
        ("lock file", silent(here(&locked))),
        ("lock file of sg-ebpf", silent(ebpf(&locked))),
        ("lock file of the fuzz crate", silent(fuzz(&locked))),
        ("formatting", here(&["fmt", "--all", "--check"])),
        ("formatting of sg-ebpf", ebpf(&["fmt", "--check"])),
        ("formatting of the fuzz crate", fuzz(&["fmt", "--check"])),
        (
            "lints",
            here(&[
                "clippy",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ]),
        ),
        (
            "lints of sg-ebpf",
            ebpf(&[
                "clippy",
                "--all-targets",
                "--all-features",
                "--",
                "-D",
                "warnings",
            ]),
        ),
    ]
}

/// Tracked files that are build products, and what they are.
fn generated_files() -> Result<Vec<(String, &'static str)>> {
    let root = workspace::root();
    let mut git = Command::new("git");
    git.current_dir(&root).args(["ls-files", "-z"]);
    let Some(list) = process::output(&mut git) else {
        bail!(
            "`git ls-files` failed in {}: not a git work tree?",
            root.display()
        );
    };
    let mut generated = Vec::new();
    for path in list.split('\0').filter(|path| !path.is_empty()) {
        let file = root.join(path);
        // Deleted in the work tree, or a link to nowhere.
        if !file.is_file() {
            continue;
        }
        if let Some(kind) = generated_kind(Path::new(path), &beginning(&file)?) {
            generated.push((path.to_owned(), kind));
        }
    }
    Ok(generated)
}

fn beginning(path: &Path) -> Result<Vec<u8>> {
    let context = || format!("read {}", path.display());
    let file = File::open(path).with_context(context)?;
    let mut bytes = Vec::new();
    file.take(8).read_to_end(&mut bytes).with_context(context)?;
    Ok(bytes)
}

fn generated_kind(path: &Path, beginning: &[u8]) -> Option<&'static str> {
    match beginning {
        [0x7f, b'E', b'L', b'F', ..] => return Some("an ELF file"),
        [b'B', b'C', 0xc0, 0xde, ..] => return Some("LLVM bitcode"),
        b"!<arch>\n" => return Some("a library archive"),
        _ => {}
    }
    let extension = path.extension()?.to_str()?;
    matches!(extension, "o" | "a" | "so" | "rlib" | "rmeta" | "bc")
        .then_some("its name is that of an object")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_known_by_content_and_by_name() {
        assert_eq!(
            generated_kind(Path::new("data"), b"\x7fELF\x02\x01"),
            Some("an ELF file")
        );
        assert_eq!(
            generated_kind(Path::new("data"), b"BC\xc0\xde5\x14"),
            Some("LLVM bitcode")
        );
        assert_eq!(
            generated_kind(Path::new("lib"), b"!<arch>\n"),
            Some("a library archive")
        );
        assert!(generated_kind(Path::new("x/sg.bpf.o"), b"").is_some());
        assert_eq!(generated_kind(Path::new("src/main.rs"), b"//! The"), None);
        assert_eq!(generated_kind(Path::new("LICENSE"), b"MIT"), None);
    }
}
