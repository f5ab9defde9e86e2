//! Program cost: what BPF_PROG_TEST_RUN takes per packet, less what an empty program takes in the
//! same place, beside the kernel's own tables with the same packets.

mod baseline;
mod case;
pub(super) mod context;
mod floor;
mod frame;
mod goal;
#[path = "../../../../sg-ebpf/src/bench/pattern.rs"]
#[allow(unreachable_pub, reason = "the file is also part of the eBPF object")]
mod pattern;
mod plan;
mod policy;
mod sample;
mod scenario;
mod traffic;
pub(crate) mod world;

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};
use sg_userspace::netns::Netns;

use super::Options;
use super::report::Findings;
use crate::ebpf::Flavour;
use crate::process;

/// Where a frame meets a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Xdp,
    TcIngress,
    TcEgress,
}

impl Hook {
    fn is_ingress(self) -> bool {
        self != Hook::TcEgress
    }

    fn name(self) -> &'static str {
        match self {
            Hook::Xdp => "XDP",
            Hook::TcIngress => "TC ingress",
            Hook::TcEgress => "TC egress",
        }
    }
}

/// Measures all cases that are wanted.
pub(crate) fn measure(options: &Options) -> Result<Findings> {
    let read = |path: std::path::PathBuf| -> Result<&'static [u8]> {
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        // The loader keeps the object for as long as the program runs.
        Ok(bytes.leak())
    };
    let objects = plan::Objects {
        enforcer: read(Flavour::Measured.place())?,
        bench: read(Flavour::Bench.place())?,
    };
    let namespace = Namespace::new()?;
    let netns = Netns::open(Some(&namespace.name))?;
    netns.run(|| scenario::measure(options, objects))?
}

/// A network namespace with devices, which test runs say that packets come in by.
struct Namespace {
    name: String,
}

impl Namespace {
    fn new() -> Result<Self> {
        let made = Self {
            name: format!("sgbench-{}", std::process::id()),
        };
        let inside = ["netns", "exec", &made.name, "ip"].map(str::to_owned);
        process::run(Command::new("ip").args(["netns", "add", &made.name]))?;
        for number in (0..world::DEVICES).step_by(2) {
            let ifindex = world::FIRST_DEVICE + number;
            let words = format!(
                "link add d{number} index {ifindex} type veth peer name d{} index {}",
                number + 1,
                ifindex + 1
            );
            process::run(Command::new("ip").args(&inside).args(words.split(' ')))?;
        }
        Ok(made)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = process::run(Command::new("ip").args(["netns", "delete", &self.name]));
    }
}
