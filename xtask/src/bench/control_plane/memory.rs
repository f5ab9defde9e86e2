//! Kernel memory per tracked flow, rule and member, as the kernel accounts for maps.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::process::Stdio;

use anyhow::{Context as _, Result};
use sg_common::abi::map;
use sg_userspace::bpf;
use sg_userspace::pin::Pins;
use sg_userspace::table::Table;
use sg_userspace::tables::Tables;

use super::super::Options;
use super::super::report::{Figure, Findings};
use super::at_most;
use super::definition;
use super::enforcer::Enforcer;

pub(super) const NAME: &str = "kernel memory";

/// Tracked flows of the host in the tables that are measured.
const ALLOWANCE: u32 = 1 << 20;

pub(super) fn measure(options: &Options, findings: &mut Findings) -> Result<()> {
    for accounting in [false, true] {
        let enforcer = Enforcer::new(options)?;
        let interface = Enforcer::interface(&enforcer.near, "db", "\"g\"");
        let text = format!(
            "[conntrack]\nallowance = {ALLOWANCE}\naccounting = {accounting}\n{}{interface}",
            definition::one_group(10)
        );
        let file = enforcer.write("memory.toml", &text)?;
        enforcer.run(&["apply", &file], Stdio::null())?;
        let pins = Pins::new(&enforcer.context.bpffs);
        let with = if accounting { "with" } else { "without" };
        for (family, goal) in [("4", [64.0, 96.0]), ("6", [96.0, 128.0])] {
            let bytes = flow_tables(&pins, family)?;
            let each = bytes as f64 / f64::from(ALLOWANCE);
            let name = format!("per tracked flow, IPv{family}, {with} accounting");
            findings
                .figures
                .push(Figure::new(NAME, &name, "B", vec![each]));
            let goal = goal[usize::from(accounting)];
            let what = format!("memory per flow, IPv{family}, {with} accounts");
            let detail = format!("{bytes} bytes of tables for {ALLOWANCE} flows");
            findings
                .goals
                .push(at_most(&what, "B", goal, vec![each], detail));
        }
    }
    rules_and_members(options, findings)
}

/// What the generation in force and the one before take, which both stand in the kernel.
fn rules_and_members(options: &Options, findings: &mut Findings) -> Result<()> {
    let enforcer = Enforcer::new(options)?;
    let in_force = |text: &str| -> Result<u64> {
        let file = enforcer.write("memory.toml", text)?;
        // Twice: both banks.
        for _ in 0..2 {
            enforcer.run(&["apply", &file], Stdio::null())?;
        }
        policy_maps(&Pins::new(&enforcer.context.bpffs))
    };
    let rules = |count| {
        let interface = Enforcer::interface(&enforcer.near, "db", "\"g\"");
        in_force(&(definition::one_group(count) + &interface))
    };
    let members = |count| {
        let interface = Enforcer::interface(&enforcer.near, "db", "\"db\"");
        in_force(&(definition::members(count) + &interface))
    };
    let least = rules(10)?;
    let per = |more: u64, count: u32| more.saturating_sub(least) as f64 / f64::from(count);
    let figures = [
        (
            "fixed, for two generations",
            "MiB",
            least as f64 / f64::from(1 << 20),
        ),
        (
            "per rule beyond that, 100 k of one interface",
            "B",
            per(rules(100_000)?, 100_000),
        ),
        (
            "per member beyond that, 1 M",
            "B",
            per(members(1_000_000)?, 1_000_000),
        ),
    ];
    for (name, unit, value) in figures {
        findings
            .figures
            .push(Figure::new(NAME, name, unit, vec![value]));
    }
    Ok(())
}

/// Bytes of the conntrack tables of a family.
fn flow_tables(pins: &Pins, family: &str) -> Result<u64> {
    let names = map::ALL.iter().filter(|name| is_flow_table(name));
    names
        .filter(|name| name.trim_end_matches("_OLD").ends_with(family))
        .map(|name| pinned(pins, name))
        .sum()
}

fn is_flow_table(name: &str) -> bool {
    ["CT4", "CT6", "TAGS", "ACCOUNT"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// Bytes of the maps that hold policies, with their inner maps.
fn policy_maps(pins: &Pins) -> Result<u64> {
    let mut bytes = 0;
    for name in [
        map::CLASSES,
        map::RANGES,
        map::TREES,
        map::RULE_HITS,
        map::INTERFACES,
    ] {
        bytes += pinned(pins, name)?;
    }
    let tables = Tables::open(pins)?;
    for bank in 0..2 {
        bytes += inner::<[u8; 4]>(&tables.members4, bank)?;
        bytes += inner::<[u8; 16]>(&tables.members6, bank)?;
    }
    for index in 0..tables.tries4.entries() {
        if tables.tries4.get(&index)?.is_some() {
            bytes += inner::<[u8; 8]>(&tables.tries4, index)?;
        }
    }
    Ok(bytes)
}

fn inner<K: aya::Pod>(outer: &Table<u32, u32>, index: u32) -> Result<u64> {
    if outer.get(&index)?.is_none() {
        return Ok(0);
    }
    locked(Table::<K, u32>::inner(outer, index)?.fd())
}

fn pinned(pins: &Pins, name: &str) -> Result<u64> {
    let opened = bpf::open_pinned(&pins.map(name))?;
    locked(opened.with_context(|| format!("no map {name}"))?.as_fd())
}

/// What the kernel says of a map of ours: `memlock` of /proc/self/fdinfo.
fn locked(map: BorrowedFd<'_>) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", map.as_raw_fd());
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    let bytes = line.with_context(|| format!("no memlock in {path}"))?;
    bytes.trim().parse().context("memlock is a number")
}
