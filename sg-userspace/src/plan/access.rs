//! Who gains and who loses access to what.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use serde::{Serialize, Serializer};
use sg_common::{
    layout::{Policy, policy_index},
    verdict::Direction,
};

use super::{
    PlanError,
    difference::{Comparison, Deciding, Piece},
    lookup::{Lookup, NO_POLICY},
    peers::{Peers, Ranges, push},
    traffic::{NOTHING, Packets},
};
use crate::{
    model::{Peer, RuleId, protocol},
    resolve::{Name, Resolved},
};

/// What changes for new flows in one direction and family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Access {
    /// Interfaces of which this is true. Examples name rules of one of them.
    pub interfaces: Vec<String>,
    /// Direction as the workload sees it.
    #[serde(serialize_with = "by_name")]
    pub direction: Direction,
    /// 4 or 6.
    pub family: u8,
    /// What may begin that might not.
    pub gains: Vec<Reach>,
    /// What might begin and may not any more.
    pub loses: Vec<Reach>,
}

/// Exactly these packets, from or to exactly these peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reach {
    /// The other side: sources of ingress, destinations of egress.
    pub peers: Peers,
    /// What.
    pub traffic: Packets,
    /// One of the packets.
    pub example: Example,
}

/// A packet that both policies were asked about, rule by rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Example {
    /// IP protocol number.
    pub protocol: u8,
    /// The other side.
    pub peer: IpAddr,
    /// Destination port of TCP and UDP; `type << 8 | code` of ICMP; else 0.
    pub port: u16,
    /// The lowest rule that allows it by the policy in force; `None`: none does.
    pub before: Option<RuleId>,
    /// The same by the policy planned.
    pub after: Option<RuleId>,
}

impl Example {
    /// Protocol and port in words, as [`Packets::terms`].
    pub fn traffic(&self) -> String {
        let Self { protocol, port, .. } = *self;
        let [kind, code] = port.to_be_bytes();
        match protocol {
            protocol::TCP => format!("tcp {port}"),
            protocol::UDP => format!("udp {port}"),
            protocol::ICMP if self.peer.is_ipv4() => format!("icmp {kind}/{code}"),
            protocol::ICMPV6 if self.peer.is_ipv6() => format!("icmpv6 {kind}/{code}"),
            number => format!("protocol {number}"),
        }
    }
}

fn by_name<S: Serializer>(direction: &Direction, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(direction.name())
}

/// An interface by its names before and after, which are the same unless it was renamed. `None`: it is not
/// enforced then.
pub(super) type Pair<'a> = (Option<&'a str>, Option<&'a str>);

/// A policy before and after, by everything that decides.
type Key = ([u32; 4], [u32; 4]);

/// Interfaces whose policies are equal, before and after.
struct Equal<'a> {
    names: Vec<String>,
    pair: Pair<'a>,
    before: Policy,
    after: Policy,
}

/// Ranges of addresses, each distinct list once: where many rules refer to the same group or list, they are long.
type Shared = HashSet<Arc<Ranges>>;

/// Compares both policies of every interface.
///
/// # Errors
/// [`PlanError::Contradiction`].
pub(super) fn compare(
    (before, old): (&Resolved, &Lookup),
    (after, new): (&Resolved, &Lookup),
    pairs: &[Pair<'_>],
) -> Result<(Vec<Access>, Deciding), PlanError> {
    let mut comparison = Comparison::new(old, new);
    let mut shared = Shared::new();
    let mut all = Vec::new();
    for direction in Direction::ALL {
        for ipv6 in [false, true] {
            let place = policy_index(direction, ipv6);
            let mut found: Vec<Access> = Vec::new();
            let mut places: HashMap<Vec<(bool, u32, *const Ranges)>, usize> = HashMap::new();
            for one in distinct(old, new, pairs, place) {
                let pieces = comparison.pieces(&one.before, &one.after, ipv6);
                if pieces.is_empty() {
                    continue;
                }
                let changes = [true, false].map(|gained| gather(&pieces, gained, &mut shared));
                // Equal lists are one list, so where it is says which.
                let key = [true, false]
                    .into_iter()
                    .zip(&changes)
                    .flat_map(|(gained, sets)| {
                        sets.iter()
                            .map(move |(set, peers)| (gained, *set, Arc::as_ptr(peers)))
                    });
                let at = *places.entry(key.collect()).or_insert_with(|| {
                    let [gains, loses] = changes.map(|sets| {
                        let reaches = sets.into_iter();
                        reaches
                            .filter_map(|set| reach(&comparison, set, ipv6))
                            .collect()
                    });
                    found.push(Access {
                        interfaces: Vec::new(),
                        direction,
                        family: if ipv6 { 6 } else { 4 },
                        gains,
                        loses,
                    });
                    found.len() - 1
                });
                ask((before, after), &one, &mut found[at])?;
                found[at].interfaces.extend(one.names);
            }
            all.append(&mut found);
        }
    }
    for access in &mut all {
        access.interfaces.sort();
    }
    all.sort_by(|one, other| one.interfaces.cmp(&other.interfaces));
    Ok((all, comparison.deciding()))
}

/// Asks the rules of an interface about every example, and notes what those of the first one say.
fn ask(
    (before, after): (&Resolved, &Resolved),
    equal: &Equal<'_>,
    access: &mut Access,
) -> Result<(), PlanError> {
    let direction = access.direction;
    let is_first = access.interfaces.is_empty();
    for (gained, reaches) in [(true, &mut access.gains), (false, &mut access.loses)] {
        let packets: Vec<Packet> = reaches.iter().map(|one| one.example.packet()).collect();
        let [was, is] = [(before, equal.pair.0), (after, equal.pair.1)].map(|(policy, name)| {
            name.map_or_else(
                || vec![None; packets.len()],
                |name| allowing(policy, name, direction, &packets),
            )
        });
        for (reach, (was, is)) in reaches.iter_mut().zip(was.into_iter().zip(is)) {
            if (was.is_none(), is.is_none()) != (gained, !gained) {
                return Err(PlanError::Contradiction {
                    interface: equal.names[0].clone(),
                    direction,
                    packet: format!("{} {}", reach.example.traffic(), reach.example.peer),
                });
            }
            if is_first {
                (reach.example.before, reach.example.after) = (was, is);
            }
        }
    }
    Ok(())
}

/// The pairs of policies that interfaces have, each once.
fn distinct<'a>(old: &Lookup, new: &Lookup, pairs: &[Pair<'a>], place: usize) -> Vec<Equal<'a>> {
    let policy = |side: &Lookup, name: Option<&str>| {
        let found = name.and_then(|name| side.interface(name));
        found.map_or(NO_POLICY, |interface| interface.policy[place])
    };
    let words = |policy: &Policy| [policy.trie, policy.any_class, policy.scope, policy.flags];
    let mut found: Vec<Equal<'_>> = Vec::new();
    let mut places: HashMap<Key, usize> = HashMap::new();
    for &pair in pairs {
        let Some(name) = pair.1.or(pair.0) else {
            continue;
        };
        let (before, after) = (policy(old, pair.0), policy(new, pair.1));
        let place = *places
            .entry((words(&before), words(&after)))
            .or_insert_with(|| {
                found.push(Equal {
                    names: Vec::new(),
                    pair,
                    before,
                    after,
                });
                found.len() - 1
            });
        found[place].names.push(name.to_owned());
    }
    found
}

/// What is gained or lost, with those together who gain or lose the same.
fn gather(pieces: &[Piece], gained: bool, shared: &mut Shared) -> Vec<(u32, Arc<Ranges>)> {
    let mut order = Vec::new();
    let mut peers: HashMap<u32, Ranges> = HashMap::new();
    for piece in pieces {
        let set = if gained { piece.gained } else { piece.lost };
        if set == NOTHING {
            continue;
        }
        let ranges = peers.entry(set).or_insert_with(|| {
            order.push(set);
            Vec::new()
        });
        push(ranges, piece.low, piece.high);
    }
    let mut share = |ranges: Ranges| match shared.get(&ranges) {
        Some(known) => Arc::clone(known),
        None => {
            let ranges = Arc::new(ranges);
            shared.insert(Arc::clone(&ranges));
            ranges
        }
    };
    let sets = order.into_iter();
    sets.filter_map(|set| Some((set, share(peers.remove(&set)?))))
        .collect()
}

/// A set with its example, of which the rules are not yet asked.
fn reach(
    comparison: &Comparison<'_>,
    (set, peers): (u32, Arc<Ranges>),
    ipv6: bool,
) -> Option<Reach> {
    let peers = Peers::new(ipv6, peers);
    let traffic = comparison.sets.packets(set, ipv6);
    let (protocol, port) = traffic.example()?;
    let example = Example {
        protocol,
        peer: peers.example()?,
        port,
        before: None,
        after: None,
    };
    Some(Reach {
        peers,
        traffic,
        example,
    })
}

/// Peer, protocol, port.
type Packet = (IpAddr, u8, u16);

impl Example {
    fn packet(&self) -> Packet {
        (self.peer, self.protocol, self.port)
    }
}

/// The lowest rule that allows each packet, as [`Resolved::evaluate`] finds it, which takes too long for one
/// packet after the other where both rules and packets are many: here each rule looks for its packets.
fn allowing(
    resolved: &Resolved,
    interface: &str,
    direction: Direction,
    packets: &[Packet],
) -> Vec<Option<RuleId>> {
    let mut order: Vec<usize> = (0..packets.len()).collect();
    order.sort_by_key(|place| packets[*place].0);
    let within = |net: &ipnet::IpNet| {
        let from = order.partition_point(|place| packets[*place].0 < net.network());
        let to = order.partition_point(|place| packets[*place].0 <= net.broadcast());
        &order[from..to.max(from)]
    };
    let mut named: BTreeMap<&Peer<Name>, Vec<usize>> = BTreeMap::new();
    let mut allowing: Vec<Option<RuleId>> = vec![None; packets.len()];
    for rule in resolved.rules_of(interface, direction) {
        let covered = match &rule.peer {
            Peer::Cidr(net) => within(net),
            peer => named.entry(peer).or_insert_with(|| match peer {
                Peer::Group(name) | Peer::GroupOf(name, _) => {
                    let group = resolved.groups.get(name);
                    let is_member = |place: &usize| {
                        let address = packets[*place].0;
                        let of_family = !matches!(peer, Peer::GroupOf(_, family) if family.is_ipv6() != address.is_ipv6());
                        of_family && group.is_some_and(|group| group.members.contains(&address))
                    };
                    order.iter().copied().filter(is_member).collect()
                }
                Peer::PrefixList(name) => {
                    let entries = resolved.prefix_lists.get(name);
                    let entries = entries.into_iter().flatten();
                    let mut covered: Vec<usize> = entries.flat_map(within).copied().collect();
                    covered.sort_unstable();
                    covered.dedup();
                    covered
                }
                Peer::Cidr(_) => Vec::new(),
            }),
        };
        for place in covered {
            let (peer, protocol, port) = packets[*place];
            if rule.traffic.matches(peer.is_ipv6(), protocol, port) {
                let lowest = &mut allowing[*place];
                *lowest = Some(lowest.map_or(rule.id, |lowest| lowest.min(rule.id)));
            }
        }
    }
    allowing
}
