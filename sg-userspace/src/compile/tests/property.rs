//! Random policies over small spaces: the compiled form answers as the rules do, one by one.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::model::{Family, Icmp};
use crate::resolve::Resolved;

const GROUPS: [&str; 4] = ["a", "b", "c", "d"];
const LISTS: [&str; 2] = ["l", "m"];
const INTERFACES: [&str; 2] = ["i", "j"];

/// Ports where ranges begin and end.
fn port() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0), Just(1), Just(65534), Just(65535), 78..84_u16]
}

fn ports() -> impl Strategy<Value = Ports> {
    (port(), port()).prop_map(|(a, b)| Ports {
        from: a.min(b),
        to: a.max(b),
    })
}

fn icmp() -> impl Strategy<Value = Icmp> {
    let number = || prop_oneof![Just(0_u8), Just(8), Just(255)];
    prop_oneof![
        Just(Icmp::Any),
        number().prop_map(Icmp::Type),
        (number(), number()).prop_map(|(kind, code)| Icmp::Code(kind, code)),
    ]
}

fn traffic() -> impl Strategy<Value = Traffic> {
    prop_oneof![
        1 => Just(Traffic::All),
        4 => ports().prop_map(Traffic::Tcp),
        2 => ports().prop_map(Traffic::Udp),
        1 => icmp().prop_map(Traffic::Icmp),
        1 => icmp().prop_map(Traffic::Icmpv6),
        1 => prop_oneof![Just(0_u8), Just(47), Just(255)].prop_map(Traffic::Protocol),
    ]
}

/// Addresses that prefixes of every length tell apart: high and low bits vary.
fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0..4_u32, 0..8_u32).prop_map(|(high, low)| Ipv4Addr::from(high << 30 | low).into()),
        (0..4_u128, 0..8_u128).prop_map(|(high, low)| Ipv6Addr::from(high << 126 | low).into()),
    ]
}

fn net() -> impl Strategy<Value = IpNet> {
    let len = prop_oneof![
        Just(0_u8),
        1..4_u8,
        Just(16),
        28..33_u8,
        Just(64),
        124..129_u8
    ];
    (address(), len).prop_map(|(address, len)| {
        let longest = if address.is_ipv6() { 128 } else { 32 };
        let net = IpNet::new(address, len.min(longest)).unwrap();
        net.trunc()
    })
}

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::Ipv4), Just(Family::Ipv6)]
}

fn peer() -> impl Strategy<Value = Peer> {
    prop_oneof![
        5 => net().prop_map(Peer::Cidr),
        1 => prop::sample::select(&LISTS[..]).prop_map(|name| Peer::PrefixList(name.into())),
        2 => prop::sample::select(&GROUPS[..]).prop_map(|name| Peer::Group(name.into())),
        1 => (prop::sample::select(&GROUPS[..]), family())
            .prop_map(|(name, family)| Peer::GroupOf(name.into(), family)),
    ]
}

fn groups_of_interface() -> impl Strategy<Value = Vec<String>> {
    prop::sample::subsequence(&GROUPS[..], 0..=GROUPS.len())
        .prop_map(|names| names.into_iter().map(String::from).collect())
}

fn model() -> impl Strategy<Value = Model> {
    let rules = prop::collection::vec((0..GROUPS.len(), any::<bool>(), traffic(), peer()), 0..24);
    let lists = prop::collection::vec(prop::collection::vec(net(), 0..4), LISTS.len());
    let members = prop::collection::vec(prop::collection::vec(address(), 0..6), GROUPS.len());
    let interfaces = prop::collection::vec(groups_of_interface(), INTERFACES.len());
    (rules, lists, members, interfaces).prop_map(|(rules, lists, members, interfaces)| {
        let mut groups: BTreeMap<String, Group> = BTreeMap::new();
        for name in GROUPS {
            groups.insert(name.into(), Group::default());
        }
        for (number, (group, egress, traffic, peer)) in (1..).zip(rules) {
            let group = groups.get_mut(GROUPS[group]).unwrap();
            let rules = if egress {
                &mut group.egress
            } else {
                &mut group.ingress
            };
            rules.push(rule(number, traffic, peer));
        }
        let named =
            |names: &[&str]| -> Vec<String> { names.iter().map(|n| n.to_string()).collect() };
        Model {
            groups,
            prefix_lists: named(&LISTS).into_iter().zip(lists).collect(),
            members: named(&GROUPS).into_iter().zip(members).collect(),
            interfaces: named(&INTERFACES)
                .into_iter()
                .zip(interfaces)
                .map(|(name, groups)| {
                    let interface = Interface {
                        groups,
                        ..interface(&[])
                    };
                    (name, interface)
                })
                .collect(),
            ..Model::default()
        }
    })
}

/// Every combination that the spaces above can tell apart.
fn packets() -> impl Iterator<Item = (Direction, u8, IpAddr, u16)> {
    let v4 = (0..4_u32)
        .flat_map(|high| (0..9_u32).map(move |low| IpAddr::from(Ipv4Addr::from(high << 30 | low))));
    let v6 = (0..4_u128).flat_map(|high| {
        (0..9_u128).map(move |low| IpAddr::from(Ipv6Addr::from(high << 126 | low)))
    });
    let remotes: Vec<IpAddr> = v4.chain(v6).collect();
    Direction::ALL.into_iter().flat_map(move |direction| {
        let remotes = remotes.clone();
        [0, 1, 6, 17, 47, 58, 255]
            .into_iter()
            .flat_map(move |protocol| {
                let values: &[u16] = match protocol {
                    6 | 17 => &[0, 1, 2, 77, 78, 79, 80, 81, 82, 83, 84, 65533, 65534, 65535],
                    1 | 58 => &[
                        0x0000, 0x0001, 0x00ff, 0x0800, 0x0808, 0x08ff, 0x0900, 0xff00, 0xffff,
                    ],
                    _ => &[0, 443],
                };
                let remotes = remotes.clone();
                remotes.into_iter().flat_map(move |remote| {
                    values
                        .iter()
                        .map(move |value| (direction, protocol, remote, *value))
                })
            })
    })
}

fn agree(resolved: &Resolved, compiled: &Compiled) -> Result<(), TestCaseError> {
    for interface in INTERFACES {
        for (direction, protocol, remote, port) in packets() {
            let expected: BTreeSet<RuleId> = resolved
                .matching(interface, direction, protocol, remote, port)
                .map(|rule| rule.id)
                .collect();
            let found = lookup(compiled, interface, direction, protocol, remote, port);
            let packet = format!("{interface} {direction:?} {protocol} {remote} {port}");
            prop_assert_eq!(found.is_some(), !expected.is_empty(), "{}", packet);
            prop_assert_eq!(found.unwrap_or_default(), expected, "{}", packet);
        }
    }
    Ok(())
}

fn well_formed(compiled: &Compiled) -> Result<(), TestCaseError> {
    for class in &compiled.classes {
        for slice in class.slices {
            let ranges = &compiled.ranges[slice.start as usize..][..slice.len as usize];
            for range in ranges {
                prop_assert!(range.low <= range.high);
                prop_assert!((range.rule_set as usize) < compiled.rule_sets.len());
            }
            for pair in ranges.windows(2) {
                prop_assert!(pair[0].high < pair[1].low);
            }
        }
    }
    for trie in compiled.tries4.iter().chain(&compiled.tries6) {
        prop_assert!(!trie.entries.is_empty());
        for (net, class) in &trie.entries {
            prop_assert!(net.prefix_len() > 0 && *net == net.trunc());
            prop_assert!((*class as usize) < compiled.classes.len());
        }
        for pair in trie.entries.windows(2) {
            prop_assert!(pair[0].0 < pair[1].0, "a prefix twice, or out of order");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn l2_compiled_answers_as_the_rules_do(
        model in model(),
        nodes in prop_oneof![Just(0), 1..10_u32, Just(MAX_NODES)],
    ) {
        let resolved = resolve(&model, &BTreeMap::new());
        let compiled = compile_within(&resolved, nodes).unwrap();
        prop_assert!(compiled.nodes.len() <= nodes as usize);
        well_formed(&compiled)?;
        agree(&resolved, &compiled)?;
    }

    #[test]
    fn an_orphan_is_compiled_as_it_was(old in model(), new in model()) {
        let stored = resolve(&old, &BTreeMap::new());
        let mut new = new;
        new.interfaces.remove("i");
        let mut merged = resolve(&new, &BTreeMap::new());
        merged.adopt_orphan(&stored, "i");
        let compiled = compile(&merged).unwrap();
        agree(&merged, &compiled)?;
        for (direction, protocol, remote, port) in packets() {
            prop_assert_eq!(
                stored.evaluate("i", direction, protocol, remote, port),
                merged.evaluate("i", direction, protocol, remote, port)
            );
        }
    }
}
