//! What a plan says about access is what the oracle says about packets, before and after.

mod packet;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use packet::Packet;
use sg_common::verdict;
use sg_oracle::{
    Arrival, Direction, Oracle, Verdict,
    policy::{Peer, Policy, Prefix, Rule, What},
    random::{Source, changed, policy},
};
use sg_userspace::{
    definition::{self, Source as File},
    plan::{self, Access, Reach},
    resolve::{Resolved, resolve},
};

/// Pairs of definitions, and packets of each.
const PAIRS: u64 = 300;
const PACKETS: usize = 400;
/// Port or identifier of whoever begins.
const OPENER_PORT: u16 = 40_001;

/// A policy by way of its definition, which must allow a host more flows than a random one does.
fn resolved(policy: &Policy) -> Resolved {
    let mut definable = policy.clone();
    definable.allowance = policy.allowance.max(1024);
    let text = sg_oracle::definition(&definable);
    let checked = definition::check(&[File::new("test.toml", text.clone().into())]);
    let Some(model) = checked.model else {
        panic!("{:#?}\n{text}", checked.diagnostics);
    };
    resolve(&model, &BTreeMap::new())
}

/// A policy in force, of which only the rules are asked: nothing is remembered of a packet.
struct Judge {
    oracle: Oracle,
    policy: Policy,
}

impl Judge {
    fn new(policy: &Policy) -> Self {
        let mut oracle = Oracle::new(250);
        oracle.apply(policy.clone(), 0);
        Self {
            oracle,
            policy: policy.clone(),
        }
    }

    /// Whether a rule lets the packet begin something; `None` if something else than rules decides.
    fn allows(&mut self, interface: &str, packet: &Packet) -> Option<bool> {
        let Some(found) = self.policy.interfaces.get(interface) else {
            return Some(false);
        };
        let arrival = Arrival {
            ingress: (packet.direction == Direction::In) != found.host,
            frame: &packet.frame(),
            tagged: false,
            merged: false,
            packets: 1,
        };
        let judgement = self.oracle.judge(0, interface, &arrival);
        self.oracle.end(interface);
        match judgement.verdict {
            Verdict::Pass("new" | "untracked" | "stateless")
            | Verdict::Drop("conntrack_allowance_exceeded") => Some(true),
            Verdict::Drop("no_rule" | "icmp_unrelated") => Some(false),
            _ => None,
        }
    }
}

/// Addresses and ports where something may begin or end under a policy.
#[derive(Default)]
struct Edges {
    addresses: BTreeSet<IpAddr>,
    ports: BTreeSet<u16>,
}

impl Edges {
    fn add(&mut self, policy: &Policy) {
        for interface in policy.interfaces.values() {
            self.addresses.extend(interface.addresses.iter().flatten());
        }
        for list in policy.lists.values() {
            list.iter().for_each(|prefix| self.prefix(prefix));
        }
        for group in policy.groups.values() {
            self.addresses.extend(&group.members);
            for rule in group.ingress.iter().chain(&group.egress) {
                self.rule(rule);
            }
        }
    }

    fn rule(&mut self, rule: &Rule) {
        if let Peer::Prefix(prefix) = &rule.peer {
            self.prefix(prefix);
        }
        if let What::Tcp(low, high) | What::Udp(low, high) = rule.what {
            let around = [low.wrapping_sub(1), low, high, high.wrapping_add(1)];
            self.ports.extend(around);
        }
    }

    /// The first and the last address of a prefix, and those beside them.
    fn prefix(&mut self, Prefix(address, length): &Prefix) {
        match address {
            IpAddr::V4(address) => {
                let hosts = u32::MAX.checked_shr(u32::from(*length)).unwrap_or(0);
                let (low, high) = (address.to_bits() & !hosts, address.to_bits() | hosts);
                for one in [low.wrapping_sub(1), low, high, high.wrapping_add(1)] {
                    self.addresses.insert(Ipv4Addr::from_bits(one).into());
                }
            }
            IpAddr::V6(address) => {
                let hosts = u128::MAX.checked_shr(u32::from(*length)).unwrap_or(0);
                let (low, high) = (address.to_bits() & !hosts, address.to_bits() | hosts);
                for one in [low.wrapping_sub(1), low, high, high.wrapping_add(1)] {
                    self.addresses.insert(Ipv6Addr::from_bits(one).into());
                }
            }
        }
    }
}

fn direction(direction: Direction) -> verdict::Direction {
    match direction {
        Direction::In => verdict::Direction::Ingress,
        Direction::Out => verdict::Direction::Egress,
    }
}

/// Whether a packet is in a set of a plan.
fn is_among(
    plan: &[Access],
    interface: &str,
    packet: &Packet,
    which: impl Fn(&Access) -> &Vec<Reach>,
) -> bool {
    let family = if packet.remote.is_ipv6() { 6 } else { 4 };
    let mut sets = plan
        .iter()
        .filter(|access| access.family == family && access.direction == direction(packet.direction))
        .filter(|access| access.interfaces.iter().any(|name| name == interface))
        .flat_map(which);
    sets.any(|reach| {
        reach.peers.contains(packet.remote) && reach.traffic.contains(packet.protocol, packet.port)
    })
}

/// Random packets between a workload and those whom the policies speak of.
fn packet(source: &mut Source<'_>, edges: &[Vec<IpAddr>; 2], ports: &[u16]) -> Packet {
    let ipv6 = source.one_in(2);
    let remote = *source
        .among(&edges[usize::from(ipv6)])
        .expect("some are always there");
    let icmp = if ipv6 { 58 } else { 1 };
    let protocol = source.of(&[
        6,
        6,
        6,
        17,
        17,
        icmp,
        icmp,
        47,
        50,
        2,
        0,
        255,
        132,
        59 - icmp,
    ]);
    let port = if protocol == icmp {
        let kind = source.of(&[8, 128, 0, 129, 13, 200, 255]);
        u16::from_be_bytes([kind, source.of(&[0, 0, 1, 255])])
    } else {
        *source.among(ports).expect("some are always there")
    };
    let local = if ipv6 {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()
    } else {
        Ipv4Addr::new(10, 0, 0, 1).into()
    };
    Packet {
        direction: source.of(&[Direction::In, Direction::Out]),
        local,
        remote,
        protocol,
        port,
        opener_port: OPENER_PORT,
    }
}

/// The address of a workload, where it is known.
fn workload(policy: &Policy, interface: &str, ipv6: bool) -> Option<IpAddr> {
    let found = policy.interfaces.get(interface)?;
    let mut own = found.addresses.iter().flatten();
    own.find(|address| address.is_ipv6() == ipv6).copied()
}

/// Definitions of which one follows the other, or that have nothing to do with each other.
fn pair(source: &mut Source<'_>) -> (Policy, Policy) {
    let before = policy(source);
    if source.one_in(4) {
        return (before, policy(source));
    }
    let mut all = vec![before.clone()];
    for _ in 0..1 + source.below(4) {
        let next = changed(source, &all);
        all.push(next);
    }
    (before, all.pop().expect("there are two at least"))
}

#[test]
fn sets_of_a_plan_are_what_the_oracle_says_of_packets() {
    let (mut gained, mut lost, mut same, mut examples) = (0, 0, 0, 0);
    for seed in 0..PAIRS {
        let source = &mut Source::Seed(seed);
        let (before, after) = pair(source);
        let plan = plan::access(&resolved(&before), &resolved(&after)).unwrap();
        let (mut old, mut new) = (Judge::new(&before), Judge::new(&after));

        let mut edges = Edges::default();
        edges.add(&before);
        edges.add(&after);
        edges.addresses.extend([
            IpAddr::from([198, 51, 100, 7]),
            IpAddr::from([0x2001, 0xdb8, 9, 9, 0, 0, 0, 7]),
        ]);
        edges.ports.extend([0, 1, 80, 65_535]);
        let ports: Vec<u16> = edges.ports.into_iter().collect();
        let addresses = [false, true].map(|ipv6| {
            let addresses = edges.addresses.iter().copied();
            addresses.filter(|one| one.is_ipv6() == ipv6).collect()
        });
        let names: Vec<String> = after.interfaces.keys().cloned().collect();
        for _ in 0..PACKETS {
            let Some(name) = source.among(&names) else {
                break;
            };
            let mut packet = packet(source, &addresses, &ports);
            let own = workload(&after, name, packet.remote.is_ipv6());
            packet.local = own.unwrap_or(packet.local);
            let (Some(was), Some(is)) = (old.allows(name, &packet), new.allows(name, &packet))
            else {
                continue;
            };
            let said = (
                is_among(&plan, name, &packet, |access| &access.gains),
                is_among(&plan, name, &packet, |access| &access.loses),
            );
            assert_eq!(
                said,
                (!was && is, was && !is),
                "seed {seed}: {name} {packet:?}: the oracle says {was} before and {is} after\n{}\n{}",
                sg_oracle::definition(&before),
                sg_oracle::definition(&after)
            );
            match (was, is) {
                (false, true) => gained += 1,
                (true, false) => lost += 1,
                _ => same += 1,
            }
        }
        examples += ask_examples(&plan, (&mut old, &mut new), &after, seed);
    }
    println!("{gained} packets gained, {lost} lost, {same} as before, {examples} examples asked");
    assert!(gained > 1000 && lost > 1000 && same > 10_000 && examples > 500);
}

/// Has the oracle say of every example what the plan says; answers how many it could.
fn ask_examples(
    plan: &[Access],
    (old, new): (&mut Judge, &mut Judge),
    after: &Policy,
    seed: u64,
) -> usize {
    let mut asked = 0;
    for access in plan {
        let name = &access.interfaces[0];
        let reaches = access.gains.iter().chain(&access.loses);
        for example in reaches.map(|reach| reach.example) {
            let ipv6 = example.peer.is_ipv6();
            let packet = Packet {
                direction: match access.direction {
                    verdict::Direction::Ingress => Direction::In,
                    verdict::Direction::Egress => Direction::Out,
                },
                local: workload(after, name, ipv6).unwrap_or_else(|| {
                    if ipv6 {
                        [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into()
                    } else {
                        [10, 0, 0, 1].into()
                    }
                }),
                remote: example.peer,
                protocol: example.protocol,
                port: example.port,
                opener_port: OPENER_PORT,
            };
            let judged = (old.allows(name, &packet), new.allows(name, &packet));
            if let (Some(was), Some(is)) = judged {
                let said = (example.before.is_some(), example.after.is_some());
                assert_eq!(said, (was, is), "seed {seed}: {name} {packet:?}");
                asked += 1;
            }
        }
    }
    asked
}

#[test]
fn twenty_thousand_rules_are_compared_in_bounded_time() {
    let rules = |first: u32| {
        let rule = |number: u32| {
            let address = Ipv4Addr::from_bits(0x0b00_0000 + 2 * number);
            let port = 1 + number % 60_000;
            format!("{{ protocol = \"tcp\", ports = {port}, cidr = \"{address}/32\" }},\n")
        };
        let rules: String = (first..first + 20_000).map(rule).collect();
        let text = format!(
            "[groups.g]\negress = []\ningress = [\n{rules}]\n[interfaces.i]\ngroups = [\"g\"]\n"
        );
        let checked = definition::check(&[File::new("test.toml", text.into())]);
        resolve(&checked.model.unwrap(), &BTreeMap::new())
    };
    let (before, after) = (rules(0), rules(10_000));
    let start = Instant::now();
    let plan = plan::access(&before, &after).unwrap();
    let took = start.elapsed();
    let [access] = &plan[..] else {
        panic!("{} sets", plan.len());
    };
    assert_eq!((access.gains.len(), access.loses.len()), (10_000, 10_000));
    assert!(took < Duration::from_secs(60), "{took:?}");
}
