//! The machine that a report is about.

use std::fmt;
use std::fs;

use serde::{Deserialize, Serialize};

/// What figures depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// Model name of the first CPU.
    pub(crate) cpu: String,
    /// Number of online CPUs.
    pub(crate) cpus: usize,
    /// MiB of memory.
    pub(crate) memory: u64,
    /// Release and version of the kernel.
    pub(crate) kernel: String,
    /// `net.core.bpf_jit_enable` and `bpf_jit_harden`.
    pub(crate) jit: String,
    /// Frequency governor of the first CPU, if it has one.
    pub(crate) governor: String,
    /// Vulnerabilities of the CPU that the kernel mitigates, and how.
    pub(crate) mitigations: Vec<String>,
}

impl Machine {
    /// This one.
    pub(crate) fn this() -> Self {
        let info = read("/proc/cpuinfo");
        let field = |name: &str| {
            let line = info.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':'))
                .map(|(_, value)| value.trim().to_owned())
        };
        let memory = read("/proc/meminfo");
        let memory = memory.split_whitespace().nth(1).unwrap_or_default();
        Self {
            cpu: field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory: memory.parse().unwrap_or(0) / 1024,
            kernel: format!(
                "{} {}",
                read("/proc/sys/kernel/osrelease").trim(),
                read("/proc/sys/kernel/version").trim()
            ),
            jit: format!(
                "{}, hardened {}",
                or_unknown(&read("/proc/sys/net/core/bpf_jit_enable")),
                or_unknown(&read("/proc/sys/net/core/bpf_jit_harden"))
            ),
            governor: or_unknown(&read(
                "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
            )),
            mitigations: mitigations(),
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn or_unknown(text: &str) -> String {
    match text.trim() {
        "" => "unknown".to_owned(),
        known => known.to_owned(),
    }
}

fn mitigations() -> Vec<String> {
    let Ok(directory) = fs::read_dir("/sys/devices/system/cpu/vulnerabilities") else {
        return Vec::new();
    };
    let mut found: Vec<String> = directory
        .flatten()
        .filter_map(|entry| {
            let state = fs::read_to_string(entry.path()).ok()?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let state = state.trim();
            (!state.starts_with("Not affected")).then(|| format!("{name}: {state}"))
        })
        .collect();
    found.sort();
    found
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}, {} CPUs, {} MiB; governor {}",
            self.cpu, self.cpus, self.memory, self.governor
        )?;
        writeln!(f, "Linux {}; BPF JIT {}", self.kernel, self.jit)?;
        for one in &self.mitigations {
            writeln!(f, "  {one:.116}")?;
        }
        Ok(())
    }
}
