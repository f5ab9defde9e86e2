//! `cargo xtask clean`: removes what xtask built and what demo or tests left behind.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::{Answer, process, workspace};

/// How the network namespaces that demo and tests make are called: this, then a name of the run.
pub(crate) const NAMESPACE_PREFIXES: [&str; 2] = ["sgdemo-", "sgtest-"];

/// Where `ip netns` keeps named namespaces.
const NAMESPACES: &str = "/run/netns";

/// Carries out `cargo xtask clean`.
pub(crate) fn run() -> Result<Answer> {
    let directories = [
        workspace::object_directory(),
        workspace::ebpf_target_directory(),
        workspace::tools_directory(),
    ];
    let mut found = false;
    for directory in directories.iter().filter(|directory| directory.exists()) {
        println!("removing {}", workspace::shown(directory));
        fs::remove_dir_all(directory).with_context(|| format!("remove {}", directory.display()))?;
        found = true;
    }
    for name in leftover_namespaces(Path::new(NAMESPACES))? {
        println!("removing network namespace {name}");
        process::run(process::privileged("ip")?.args(["netns", "delete", &name]))?;
        found = true;
    }
    if !found {
        println!("nothing to remove");
    }
    Ok(Answer::Yes)
}

fn leftover_namespaces(directory: &Path) -> Result<Vec<String>> {
    let context = || format!("list {}", directory.display());
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).with_context(context)? {
        let name = entry.with_context(context)?.file_name();
        // A name that is not UTF-8 is none of ours.
        if let Some(name) = name.to_str().filter(|name| is_ours(name)) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn is_ours(namespace: &str) -> bool {
    NAMESPACE_PREFIXES
        .iter()
        .any(|prefix| namespace.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_namespaces_of_demo_and_tests_are_ours() {
        let directory = std::env::temp_dir().join(format!("xtask-{}-netns", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        for name in ["sgtest-1", "sgdemo-alb", "sg", "production", "my-sgtest-1"] {
            fs::write(directory.join(name), b"").unwrap();
        }
        let names = leftover_namespaces(&directory).unwrap();
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(names, ["sgdemo-alb", "sgtest-1"]);
        assert!(leftover_namespaces(&directory).unwrap().is_empty());
    }
}
