//! `sgctl status`: what is enforced where.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use sg_userspace::{
    model::{OnRevoke, Orientation},
    session::Context,
    status::{self, InterfaceStatus, SourceDestCheck},
};

use super::text::print_json;

/// Show what is enforced where.
///
/// One block per attached interface: its groups, the hook in force and why, and warnings, such as
/// another program that runs before ours.
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
    let mut out = io::stdout().lock();
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
    for warning in &status.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    for one in &status.interfaces {
        print_interface(&mut out, one)?;
    }
    Ok(())
}

fn print_interface(out: &mut impl io::Write, one: &InterfaceStatus) -> io::Result<()> {
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
    writeln!(out, "    egress by tc")?;
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
    for warning in &one.warnings {
        writeln!(out, "    warning: {warning}")?;
    }
    Ok(())
}
