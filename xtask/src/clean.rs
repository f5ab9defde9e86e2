//! `cargo xtask clean`: removes what xtask built and what demo or tests left behind.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};

use crate::{Answer, process, workspace};

/// How namespaces and directories of demo, tests and benchmarks are called: this, then a name of the run.
/// Nothing else is ever touched outside of `target`.
const PREFIXES: [&str; 3] = ["sgbench-", "sgdemo-", "sgtest-"];

/// Where `ip netns` keeps named namespaces.
const NAMESPACES: &str = "/run/netns";

/// Where pins and state are, each run's in a directory of its own.
const DIRECTORIES: [&str; 2] = ["/sys/fs/bpf", "/run"];

/// Carries out `cargo xtask clean`.
pub(crate) fn run() -> Result<Answer> {
    let directories = [
        workspace::object_directory(),
        workspace::ebpf_target_directory(),
        workspace::tools_directory(),
        workspace::fuzz_directory(),
    ];
    let mut found = false;
    for directory in directories.iter().filter(|directory| directory.exists()) {
        println!("removing {}", workspace::shown(directory));
        fs::remove_dir_all(directory).with_context(|| format!("remove {}", directory.display()))?;
        found = true;
    }
    for name in leftovers(Path::new(NAMESPACES))? {
        end_processes(&name)?;
        println!("removing network namespace {name}");
        process::run(process::privileged("ip")?.args(["netns", "delete", &name]))?;
        found = true;
    }
    for parent in DIRECTORIES.map(Path::new) {
        for name in leftovers(parent)? {
            let directory = parent.join(name);
            println!("removing {}", directory.display());
            process::run(process::privileged("rm")?.arg("-r").arg(directory))?;
            found = true;
        }
    }
    if !found {
        println!("nothing to remove");
    }
    Ok(Answer::Yes)
}

/// Ends what still runs in a namespace and would keep it alive without its name.
fn end_processes(namespace: &str) -> Result<()> {
    let list = process::output(process::privileged("ip")?.args(["netns", "pids", namespace]));
    for pid in list.unwrap_or_default().split_whitespace() {
        println!("ending process {pid} in network namespace {namespace}");
        // It may have ended by itself by now.
        let _ = process::output(process::privileged("kill")?.arg(pid));
    }
    Ok(())
}

/// Names of demo and tests in a directory, which need not exist.
fn leftovers(directory: &Path) -> Result<Vec<String>> {
    let mut names = list(directory).with_context(|| format!("list {}", directory.display()))?;
    names.retain(|name| PREFIXES.iter().any(|prefix| name.starts_with(prefix)));
    names.sort();
    Ok(names)
}

fn list(directory: &Path) -> Result<Vec<String>> {
    match fs::read_dir(directory) {
        Ok(entries) => {
            let entries = entries.collect::<io::Result<Vec<_>>>()?;
            // A name that is not UTF-8 is none of ours.
            Ok(entries
                .into_iter()
                .filter_map(|entry| entry.file_name().into_string().ok())
                .collect())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        // The BPF file system is open to root alone.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let names = process::output(process::privileged("ls")?.arg("-1").arg(directory));
            Ok(names
                .context("`ls` failed")?
                .lines()
                .map(str::to_owned)
                .collect())
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_demo_and_tests_are_leftovers() {
        let directory = std::env::temp_dir().join(format!("xtask-{}-clean", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        for name in ["sgtest-1", "sgdemo-alb", "sg", "production", "my-sgtest-1"] {
            fs::write(directory.join(name), b"").unwrap();
        }
        let names = leftovers(&directory);
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(names.unwrap(), ["sgdemo-alb", "sgtest-1"]);
        assert!(leftovers(&directory).unwrap().is_empty());
    }
}
