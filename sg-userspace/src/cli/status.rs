//! `sgctl status`: what is enforced where.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use sg_common::layout::TIMEOUT_DEFAULTS;
use sg_userspace::{
    model::{IcmpErrors, OnRevoke, Orientation, Track},
    session::Context,
    status::{self, InterfaceStatus, Settings, SourceDestCheck, TcAttachment},
};

use super::text::{count, out, print_json};

/// Show what is enforced where.
///
/// One block per attached interface: its groups, the hook in force and why, settings that are not at
/// their defaults (with --json all of them), and warnings, such as another program that runs before
/// ours.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sgctl status
  sgctl status --json | jq '.interfaces[].warnings'

Exit status: 0 every attached interface is enforced; 1 none is attached, or one is not enforced;
2 it cannot be found out.")]
pub(crate) struct Status {
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<ExitCode> {
        let status = status::read(context)?;
        if self.json {
            print_json(&status)?;
        } else {
            print(&status)?;
        }
        Ok(if status.is_enforced() {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(1)
        })
    }
}

fn print(status: &status::Status) -> io::Result<()> {
    let mut out = out();
    if status.taken_back > 0 {
        let times = count(status.taken_back, "generation");
        writeln!(out, "{times} taken back so far (`sgctl history`)")?;
    }
    if status.interfaces.is_empty() {
        return writeln!(out, "nothing is enforced");
    }
    writeln!(
        out,
        "generation {} in force, allowance {}, accounting {}, pinned at {}",
        status.generation,
        status.allowance,
        if status.accounting { "on" } else { "off" },
        status.pins
    )?;
    if let Some(pending) = &status.pending {
        writeln!(
            out,
            "generation {} waits for `sgctl confirm` and is taken back in {} s",
            pending.generation, pending.seconds_left
        )?;
    }
    for warning in &status.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    for one in &status.interfaces {
        print_interface(&mut out, one, status.allowance)?;
    }
    Ok(())
}

fn print_interface(
    out: &mut impl io::Write,
    one: &InterfaceStatus,
    host_allowance: u32,
) -> io::Result<()> {
    let enforced = match (one.enforced, one.orphan) {
        (false, _) => "NOT ENFORCED",
        (true, true) => "enforced by its last policy; the definition does not name it",
        (true, false) => "enforced",
    };
    writeln!(out, "{}: {enforced}", one.name)?;
    write!(out, "    device {}", one.device)?;
    if let Some(netns) = &one.netns {
        write!(out, " in {netns}")?;
    }
    writeln!(out, ", ifindex {}, id {}", one.ifindex, one.id)?;
    let orientation = match one.orientation {
        Orientation::Own => "own (the workload's NIC)",
        Orientation::Host => "host (the host's end of the workload's link)",
    };
    writeln!(out, "    orientation {orientation}")?;
    writeln!(out, "    ingress by {}: {}", one.hook.name(), one.why)?;
    let tc = match one.tc {
        TcAttachment::Tcx => "",
        TcAttachment::Filter => ", by filters of a clsact qdisc: the kernel has no tcx (Linux 6.6)",
    };
    writeln!(out, "    egress by tc{tc}")?;
    if let Some(adopted) = &one.adopted {
        let (flows, sources) = (adopted.connections(), adopted.sources());
        writeln!(out, "    when it was attached {flows} adopted{sources}")?;
        for unseen in &adopted.unseen {
            writeln!(out, "    not seen then: {unseen}")?;
        }
    }
    let groups = if one.groups.is_empty() {
        "none: nothing may pass".to_owned()
    } else {
        one.groups.join(", ")
    };
    writeln!(out, "    groups {groups}")?;
    let check = match one.source_dest_check {
        SourceDestCheck::On => "on",
        SourceDestCheck::Off => "off",
        SourceDestCheck::AddressesUnknown => {
            "off: the workload's addresses are not known (`addresses` lists them)"
        }
    };
    writeln!(out, "    source and destination check {check}")?;
    let revoked = match one.on_revoke {
        OnRevoke::Keep => "keep: tracked flows outlive their rule",
        OnRevoke::Reevaluate => "reevaluate: tracked flows end with their rule",
    };
    writeln!(out, "    on_revoke {revoked}")?;
    if !one.ethertypes.is_empty() {
        let listed: Vec<String> = one
            .ethertypes
            .iter()
            .map(|kind| format!("{kind:#06x}"))
            .collect();
        writeln!(out, "    ethertypes {} pass", listed.join(", "))?;
    }
    for setting in changed(&one.settings, host_allowance) {
        writeln!(out, "    {setting}")?;
    }
    for warning in &one.warnings {
        writeln!(out, "    warning: {warning}")?;
    }
    Ok(())
}

/// Settings that are not at their defaults, by the keys of the definition.
fn changed(settings: &Settings, host_allowance: u32) -> Vec<String> {
    let mut changed = Vec::new();
    for (is, words) in [
        (
            settings.track == Track::Always,
            "track always: no flow goes untracked",
        ),
        (
            settings.tcp_loose,
            "tcp_loose true: a rule may open TCP in its middle",
        ),
        (
            settings.icmp_errors == IcmpErrors::Strict,
            "icmp_errors strict: ICMP errors pass by rule only",
        ),
        (!settings.dhcp, "dhcp false: DHCP passes by rule only"),
        (!settings.mld, "mld false: MLD passes by rule only"),
        (
            settings.nd_redirect,
            "nd_redirect true: ICMPv6 redirects pass towards the workload",
        ),
    ] {
        if is {
            changed.push(words.to_owned());
        }
    }
    if settings.allowance != host_allowance {
        changed.push(format!("allowance {}", settings.allowance));
    }
    if settings.reserve != 0 {
        changed.push(format!("reserve {}", settings.reserve));
    }
    let timeouts = TIMEOUT_DEFAULTS.iter().filter_map(|(name, default)| {
        let seconds = settings.timeouts.get(*name)?;
        (seconds != default).then(|| format!("{name} {seconds} s"))
    });
    let timeouts: Vec<String> = timeouts.collect();
    if !timeouts.is_empty() {
        changed.push(format!("timeouts {}", timeouts.join(", ")));
    }
    changed
}
