//! Figures of what is enforced: occupancy, refusals, packets and bytes by what happened to them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sg_common::{
    abi::MAX_INTERFACES,
    conntrack::State,
    layout::{Count, Counters, CtLocal},
    verdict::{Direction, DropReason, OUTCOMES, PASS_KINDS, PassKind, Verdict},
};

use crate::{
    flows::{self, FlowsError, protocol_name},
    session::Context,
    table::TableError,
    view::{View, ViewError, age},
};

/// Figures of the host and of its interfaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// All interfaces together.
    pub host: HostStats,
    /// Each interface.
    pub interfaces: Vec<InterfaceStats>,
}

/// Conntrack figures, of the host or of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conntrack {
    /// Flows that may be tracked.
    pub allowance: u64,
    /// Flows that could still be tracked.
    pub available: u64,
    /// Packets dropped because no further flow could be tracked.
    pub exceeded: u64,
    /// Flows tracked.
    pub tracked: u64,
    /// Most flows tracked at a time.
    pub peak: u64,
    /// Tracked flows that are not assured.
    pub unassured: u64,
    /// Flows made in the last second.
    pub new_per_second: u64,
    /// Flows made.
    pub created: u64,
    /// Flows that idled out.
    pub expired: u64,
    /// Flows replaced while unassured.
    pub replaced: u64,
    /// Flows removed by command or by a new generation.
    pub removed: u64,
}

/// Figures of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStats {
    /// Generation in force.
    pub generation: u32,
    /// Occupancy of the tables.
    pub conntrack: Conntrack,
    /// Packets dropped on devices that no interface claims.
    pub unclaimed: [Packets; 2],
}

/// Figures of one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStats {
    /// Name in the definition.
    pub name: String,
    /// Device.
    pub device: String,
    /// Path of its network namespace; `None`: the one sgctl ran in.
    pub netns: Option<String>,
    /// Our id.
    pub id: u32,
    /// Its share of the tables.
    pub conntrack: Conntrack,
    /// Live flows by protocol and state; every combination that can occur is there.
    pub states: Vec<StateCount>,
    /// Packets by direction and what happened to them.
    pub verdicts: Vec<VerdictCount>,
}

/// Live flows of one protocol in one state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateCount {
    /// `tcp`, `udp`, `icmp`, `icmpv6` or `other`.
    pub protocol: String,
    /// As `sgctl ct list` shows it.
    pub state: String,
    /// How many.
    pub flows: u64,
}

/// Packets of one direction with one outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictCount {
    /// `ingress` or `egress`.
    pub direction: String,
    /// Whether they went on.
    pub passed: bool,
    /// Kind of pass, or reason of the drop.
    pub outcome: String,
    /// How many.
    pub packets: u64,
    /// Bytes, Ethernet headers included.
    pub bytes: u64,
}

/// A number of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packets {
    /// Packets.
    pub packets: u64,
    /// Bytes, Ethernet headers included.
    pub bytes: u64,
}

/// Why figures cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StatsError {
    /// What is in force cannot be opened.
    #[error(transparent)]
    View(#[from] ViewError),
    /// Flows cannot be counted.
    #[error(transparent)]
    Flows(#[from] FlowsError),
    /// A map cannot be read.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Reads the figures of the host and all interfaces, or of the one called `interface` in the
/// definition or by its device.
///
/// # Errors
/// See [`StatsError`].
pub fn read(context: &Context, interface: Option<&str>) -> Result<Stats, StatsError> {
    let view = View::open(context)?;
    let now = view.now().map_err(ViewError::from)?;
    let chosen = view.interfaces(context, interface)?;
    let mut states: BTreeMap<(u32, &str, State), u64> = BTreeMap::new();
    flows::each(&view, |entry| {
        let key = (entry.interface, protocol_name(entry.protocol), entry.state);
        *states.entry(key).or_default() += 1;
    })?;
    let host = host(&view, now)?;
    let mut interfaces = Vec::with_capacity(chosen.len());
    for one in chosen {
        let netns = view
            .state
            .namespace(one.namespace)
            .and_then(|namespace| namespace.identity.path.as_ref())
            .map(|path| path.display().to_string());
        interfaces.push(InterfaceStats {
            name: one.name.clone(),
            device: one.device.clone(),
            netns,
            id: one.id,
            conntrack: conntrack(&view, one.id, now)?,
            states: combinations()
                .map(|(protocol, state)| StateCount {
                    protocol: protocol.to_owned(),
                    state: state.name().to_owned(),
                    flows: states.get(&(one.id, protocol, state)).copied().unwrap_or(0),
                })
                .collect(),
            verdicts: verdicts(&counters(&view, one.id)?),
        });
    }
    Ok(Stats { host, interfaces })
}

impl Conntrack {
    /// Names and values, in the order they are printed. The first two are spelled as AWS does.
    pub fn named(&self) -> [(&'static str, u64); 11] {
        [
            ("conntrack_allowance_available", self.available),
            ("conntrack_allowance_exceeded", self.exceeded),
            ("conntrack_allowance", self.allowance),
            ("conntrack_tracked", self.tracked),
            ("conntrack_peak", self.peak),
            ("conntrack_unassured", self.unassured),
            ("conntrack_new_per_second", self.new_per_second),
            ("conntrack_created", self.created),
            ("conntrack_expired", self.expired),
            ("conntrack_replaced", self.replaced),
            ("conntrack_removed", self.removed),
        ]
    }
}

impl HostStats {
    /// Names and values, in the order they are printed.
    pub fn named(&self) -> Vec<(String, u64)> {
        let mut named = vec![("generation".to_owned(), u64::from(self.generation))];
        let conntrack = self.conntrack.named();
        named.extend(conntrack.map(|(name, value)| (name.to_owned(), value)));
        for (direction, count) in Direction::ALL.iter().zip(&self.unclaimed) {
            let name = format!(
                "{}_dropped_{}",
                direction.name(),
                DropReason::InterfaceUnknown.name()
            );
            named.push((format!("{name}_packets"), count.packets));
            named.push((format!("{name}_bytes"), count.bytes));
        }
        named
    }
}

impl InterfaceStats {
    /// Names and values, in the order they are printed.
    pub fn named(&self) -> Vec<(String, u64)> {
        let conntrack = self.conntrack.named();
        let mut named: Vec<(String, u64)> = conntrack
            .map(|(name, value)| (name.to_owned(), value))
            .into();
        for one in &self.states {
            // `other_other` would say nothing twice.
            let name = if one.protocol == one.state {
                format!("conntrack_{}", one.protocol)
            } else {
                format!("conntrack_{}_{}", one.protocol, one.state)
            };
            named.push((name, one.flows));
        }
        for direction in Direction::ALL {
            for (passed, word) in [(true, "passed"), (false, "dropped")] {
                let total = self.total(direction, passed);
                let direction = direction.name();
                named.push((format!("{direction}_{word}_packets"), total.packets));
                named.push((format!("{direction}_{word}_bytes"), total.bytes));
                let same = |one: &&VerdictCount| one.direction == direction && one.passed == passed;
                for one in self.verdicts.iter().filter(same) {
                    let name = format!("{direction}_{word}_{}", one.outcome);
                    named.push((format!("{name}_packets"), one.packets));
                    named.push((format!("{name}_bytes"), one.bytes));
                }
            }
        }
        named
    }

    /// Packets of a direction that passed, or that were dropped.
    pub fn total(&self, direction: Direction, passed: bool) -> Packets {
        let same = |one: &&VerdictCount| one.direction == direction.name() && one.passed == passed;
        self.verdicts
            .iter()
            .filter(same)
            .fold(Packets::default(), |sum, one| Packets {
                packets: sum.packets + one.packets,
                bytes: sum.bytes + one.bytes,
            })
    }
}

/// Protocol and state of every flow there can be.
fn combinations() -> impl Iterator<Item = (&'static str, State)> {
    State::TRACKED.into_iter().flat_map(|state| {
        let protocols: &[&str] = match state {
            State::UdpSingle | State::UdpStream => &["udp"],
            State::Icmp => &["icmp", "icmpv6"],
            State::Other => &["other"],
            _ => &["tcp"],
        };
        protocols.iter().map(move |protocol| (*protocol, state))
    })
}

fn host(view: &View, now: u32) -> Result<HostStats, StatsError> {
    let mut conntrack = Conntrack::default();
    for id in 1..MAX_INTERFACES {
        for one in view.tables.ct_local.get_per_cpu(&id)? {
            conntrack.exceeded += one.refused;
            conntrack.created += one.created;
            conntrack.expired += one.expired;
            conntrack.replaced += one.replaced;
            conntrack.removed += one.removed;
            conntrack.new_per_second += rate(&one, now, view.runtime.hz);
        }
    }
    let occupancy = view.tables.host_occupancy()?;
    conntrack.tracked = occupancy.tracked;
    conntrack.peak = occupancy.peak;
    conntrack.unassured = occupancy.unassured;
    conntrack.allowance = u64::from(view.runtime.allowance);
    conntrack.available = conntrack.allowance.saturating_sub(conntrack.tracked);
    let unknown = counters(view, 0)?;
    let outcome = Verdict::Drop(DropReason::InterfaceUnknown).outcome();
    let unclaimed = unknown.counts.map(|outcomes| packets(outcomes[outcome]));
    Ok(HostStats {
        generation: view.tables.generation()?,
        conntrack,
        unclaimed,
    })
}

/// What an interface could still track is bounded by its own cap, and by its unused reserve plus
/// what nobody has reserved and nobody uses.
fn conntrack(view: &View, id: u32, now: u32) -> Result<Conntrack, StatsError> {
    let record = view.record(id)?;
    let one = view.tables.occupancy(id)?;
    let host = view.tables.host_occupancy()?;
    let shared_in_use = host.tracked.saturating_sub(host.reserved);
    let locals = view.tables.ct_local.get_per_cpu(&id)?;
    let own = u64::from(record.reserve).saturating_sub(one.reserved);
    let shared = u64::from(view.runtime.shared).saturating_sub(shared_in_use);
    let allowance = u64::from(record.allowance);
    Ok(Conntrack {
        allowance,
        available: allowance.saturating_sub(one.tracked).min(own + shared),
        exceeded: one.refused,
        tracked: one.tracked,
        peak: one.peak,
        unassured: one.unassured,
        new_per_second: locals
            .iter()
            .map(|local| rate(local, now, view.runtime.hz))
            .sum(),
        created: one.created,
        expired: one.expired,
        replaced: one.replaced,
        removed: one.removed,
    })
}

/// New flows of one CPU in the last full second. The kernel turns the window only when a flow is made, so an
/// old window says that nothing was made since.
fn rate(one: &CtLocal, now: u32, hz: u32) -> u64 {
    if one.created == 0 {
        return 0;
    }
    match age(now, one.window as u32) {
        age if age < hz => one.per_second,
        age if age < hz.saturating_mul(2) => one.window_created,
        _ => 0,
    }
}

fn counters(view: &View, id: u32) -> Result<Counters, TableError> {
    let mut sum = Counters::ZERO;
    for cpu in view.tables.counters.get_per_cpu(&id)? {
        for (sum, one) in sum.counts.iter_mut().zip(&cpu.counts) {
            for (sum, one) in sum.iter_mut().zip(one) {
                sum.packets = sum.packets.wrapping_add(one.packets);
                sum.bytes = sum.bytes.wrapping_add(one.bytes);
            }
        }
    }
    Ok(sum)
}

fn verdicts(counters: &Counters) -> Vec<VerdictCount> {
    let mut verdicts = Vec::with_capacity(2 * OUTCOMES);
    for direction in Direction::ALL {
        for verdict in Verdict::all() {
            let count = counters.counts[direction as usize][verdict.outcome()];
            let (passed, outcome) = match verdict {
                Verdict::Pass(kind) => (true, PassKind::name(kind)),
                Verdict::Drop(reason) => (false, DropReason::name(reason)),
            };
            debug_assert_eq!(passed, verdict.outcome() < PASS_KINDS);
            verdicts.push(VerdictCount {
                direction: direction.name().to_owned(),
                passed,
                outcome: outcome.to_owned(),
                packets: count.packets,
                bytes: count.bytes,
            });
        }
    }
    verdicts
}

fn packets(count: Count) -> Packets {
    Packets {
        packets: count.packets,
        bytes: count.bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_lead_with_those_of_aws() {
        let stats = InterfaceStats {
            name: "a".into(),
            device: "a".into(),
            netns: None,
            id: 1,
            conntrack: Conntrack::default(),
            states: combinations()
                .map(|(protocol, state)| StateCount {
                    protocol: protocol.into(),
                    state: state.name().into(),
                    flows: 0,
                })
                .collect(),
            verdicts: verdicts(&Counters::ZERO),
        };
        let named = stats.named();
        assert_eq!(named[0].0, "conntrack_allowance_available");
        assert_eq!(named[1].0, "conntrack_allowance_exceeded");
        let mut names: Vec<&String> = named.iter().map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), named.len());
    }

    #[test]
    fn a_rate_ends_when_nothing_is_made_any_more() {
        let one = CtLocal {
            created: 5,
            window: 1000,
            window_created: 3,
            per_second: 2,
            ..CtLocal::ZERO
        };
        assert_eq!(rate(&one, 1050, 100), 2);
        assert_eq!(rate(&one, 1150, 100), 3);
        assert_eq!(rate(&one, 1250, 100), 0);
    }
}
