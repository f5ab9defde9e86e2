//! `sgctl stats`: counters, as `ethtool -S` prints them.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    process::ExitCode,
};

use serde::Serialize;
use sg_common::verdict::{DropReason, PassKind};
use sg_userspace::{
    definition::escape,
    hits::{self, RuleHits},
    session::Context,
    stats::{self, InterfaceStats},
};

use super::text::{out, print_json};

/// Show counters and conntrack figures.
///
/// One `name: value` a line below a heading, as `ethtool -S` prints them. The first two are the
/// figures of EC2 under their own names: conntrack_allowance_available says how many more
/// connections could be tracked, conntrack_allowance_exceeded counts packets dropped because none
/// could. Counters do not go backwards while an interface is attached.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", outcomes()))]
pub(crate) struct Stats {
    /// Interface, by its name in the definition or by its device
    #[arg(value_name = "IFACE")]
    interface: Option<String>,
    /// Show packets by rule instead: those that opened a flow that the rule allows, and those that passed
    /// by it without one
    #[arg(long, conflicts_with = "interface")]
    rules: bool,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

impl Stats {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<ExitCode> {
        if self.rules {
            return self.rules(context);
        }
        let stats = stats::read(context, self.interface.as_deref())?;
        let host = self.interface.is_none().then(|| stats.host.named());
        if self.json {
            print_json(&Answer {
                host: host.map(|named| named.into_iter().collect()),
                interfaces: stats.interfaces.iter().map(Figures::of).collect(),
            })?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut out = out();
        if let Some(named) = host {
            print(&mut out, "Host statistics:", &named)?;
        }
        for one in &stats.interfaces {
            // As ethtool: one interface needs no name above its figures.
            let heading = match self.interface {
                Some(_) => "NIC statistics:".to_owned(),
                None => format!("NIC statistics for {} ({}):", one.name, one.device),
            };
            print(&mut out, &heading, &one.named())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Stats {
    fn rules(&self, context: &Context) -> anyhow::Result<ExitCode> {
        let hits = hits::read(context)?;
        if self.json {
            print_json(&Rules { rules: hits })?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut out = out();
        let mut above = None;
        for one in &hits {
            if above != Some((&one.group, &one.direction)) {
                let group = escape(&one.group);
                writeln!(out, "{} rules of group {group}:", one.direction)?;
                above = Some((&one.group, &one.direction));
            }
            let least = if one.complete { "" } else { " at least" };
            writeln!(out, "     {}:{least} {}", one.rule, one.packets)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

const EXAMPLES: &str = "\
Examples:
  sgctl stats                    the host and every attached interface
  sgctl stats eth0               one interface, by device or by its name in the definition
  sgctl stats eth0 | grep -v ': 0$'
  sgctl stats --rules            packets by rule, over all generations
  sgctl stats --json";

/// Every kind of pass and reason of a drop, with what it means.
fn outcomes() -> String {
    let mut text = "Packets that passed, by kind:\n".to_owned();
    for kind in PassKind::ALL {
        text += &format!("  {}: {}\n", kind.name(), kind.meaning());
    }
    text += "\nPackets that were dropped, by reason, and what to do about it:\n";
    for reason in DropReason::ALL {
        text += &format!("  {}: {}\n", reason.name(), reason.meaning());
        text += &format!("      {}\n", reason.advice());
    }
    text
}

/// What `--rules --json` prints.
#[derive(Serialize)]
struct Rules {
    rules: Vec<RuleHits>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Answer {
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<BTreeMap<String, u64>>,
    interfaces: Vec<Figures>,
}

#[derive(Serialize)]
struct Figures {
    name: String,
    device: String,
    netns: Option<String>,
    id: u32,
    statistics: BTreeMap<String, u64>,
}

impl Figures {
    fn of(stats: &InterfaceStats) -> Self {
        Self {
            name: stats.name.clone(),
            device: stats.device.clone(),
            netns: stats.netns.clone(),
            id: stats.id,
            statistics: stats.named().into_iter().collect(),
        }
    }
}

fn print(out: &mut impl io::Write, heading: &str, named: &[(String, u64)]) -> io::Result<()> {
    writeln!(out, "{heading}")?;
    for (name, value) in named {
        writeln!(out, "     {name}: {value}")?;
    }
    Ok(())
}
