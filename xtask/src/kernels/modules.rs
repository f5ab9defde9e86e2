//! Kernel modules, in the order in which they must be loaded.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// What the tests use and Debian builds as modules; what a kernel has built in, or does not have, is passed over.
const WANTED: &[&str] = &[
    "veth",
    "dummy",
    "bridge",
    "br_netfilter",
    "8021q",
    "macvlan",
    "ifb",
    "tun",
    "vxlan",
    "sch_ingress",
    "cls_bpf",
    "act_bpf",
    "sch_fq_codel",
    "nf_conntrack",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "af_packet",
    "af_packet_diag",
];

/// A module's name and its code.
pub(crate) struct Module {
    pub(crate) name: String,
    pub(crate) code: Vec<u8>,
}

/// The wanted modules below a kernel's `lib/modules`, each behind those that it depends on.
///
/// # Errors
/// If a module cannot be read.
pub(crate) fn wanted(kernel: &Path, busybox: &Path) -> Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    collect(kernel, &mut files)
        .with_context(|| format!("look for modules in {}", kernel.display()))?;
    let mut ordered = Vec::new();
    for name in WANTED {
        add(name, &files, busybox, &mut ordered)?;
    }
    Ok(ordered)
}

fn collect(directory: &Path, files: &mut BTreeMap<String, PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect(&path, files)?;
        } else if let Some(name) = path.file_name().and_then(|name| name.to_str())
            && let Some((name, "" | ".xz")) = name.split_once(".ko")
        {
            files.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

fn add(
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    busybox: &Path,
    ordered: &mut Vec<Module>,
) -> Result<()> {
    let name = name.replace('-', "_");
    let Some(file) = files.get(&name) else {
        return Ok(());
    };
    if ordered.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let code = read(file, busybox).with_context(|| format!("read {}", file.display()))?;
    for needed in dependencies(&code) {
        add(&needed, files, busybox, ordered)?;
    }
    ordered.push(Module { name, code });
    Ok(())
}

fn read(file: &Path, busybox: &Path) -> Result<Vec<u8>> {
    if file.extension().is_none_or(|kind| kind != "xz") {
        return Ok(fs::read(file)?);
    }
    let mut unpack = Command::new(busybox);
    unpack
        .args(["xz", "-dc"])
        .arg(file)
        .stderr(Stdio::inherit());
    let output = unpack.output().context("start busybox")?;
    if !output.status.success() {
        bail!("busybox cannot unpack it: {}", output.status);
    }
    Ok(output.stdout)
}

/// What a module's `.modinfo` says under `depends=`.
fn dependencies(code: &[u8]) -> Vec<String> {
    let mark = b"\0depends=";
    let Some(start) = code.windows(mark.len()).position(|window| window == mark) else {
        return Vec::new();
    };
    let list = code[start + mark.len()..].split(|byte| *byte == 0).next();
    let list = String::from_utf8_lossy(list.unwrap_or_default());
    let names = list.split(',').filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_a_module() {
        let code = b"\x7fELF\0license=GPL\0depends=stp,llc\0name=bridge\0";
        assert_eq!(dependencies(code), ["stp", "llc"]);
        assert!(dependencies(b"\0depends=\0name=llc\0").is_empty());
        assert!(dependencies(b"nothing").is_empty());
    }
}
