//! What AWS's quotas allow on one interface fits, and is judged as the rules say, one by one.

use std::net::{Ipv4Addr, Ipv6Addr};

use sg_common::abi::MAX_CLASSES;

use super::*;

/// Rules of one interface, direction and family (fact 2.4), and entries of a prefix list (fact 2.10).
const QUOTA: u32 = 1000;

/// The prefixes of a list: hosts of its own, and one prefix around all hosts of the next list.
fn list(number: u32, entries: u32) -> Vec<IpNet> {
    let v4 = |number: u32, entry: u32, len| {
        let address = Ipv4Addr::from(0x0b00_0000 + number * 1024 + entry);
        IpNet::new(address.into(), len).unwrap()
    };
    let v6 = |number: u32, entry: u32, len| {
        let address = [0x2001, 0xdb8, number as u16, entry as u16, 0, 0, 0, 0];
        IpNet::new(Ipv6Addr::from(address).into(), len).unwrap()
    };
    let next = (number + 1) % QUOTA;
    let around = [v4(next, 0, 22), v6(next, 0, 48)];
    let hosts = (1..entries).flat_map(|entry| [v4(number, entry, 32), v6(number, entry, 64)]);
    around.into_iter().chain(hosts).collect()
}

/// A rule for each list, of TCP ports in and of UDP ports out.
fn of_lists(entries: u32) -> Model {
    let name = |number: u32| format!("l{number}");
    let rules = |first: u32, traffic: fn(Ports) -> Traffic| -> Vec<Rule> {
        (0..QUOTA)
            .map(|number| {
                let ports = Ports {
                    from: number as u16 * 60,
                    to: number as u16 * 60 + 99,
                };
                rule(
                    first + number,
                    traffic(ports),
                    Peer::PrefixList(name(number)),
                )
            })
            .collect()
    };
    let group = Group {
        ingress: rules(0, Traffic::Tcp),
        egress: rules(QUOTA, Traffic::Udp),
        ..Group::default()
    };
    Model {
        groups: [("g".into(), group)].into(),
        prefix_lists: (0..QUOTA)
            .map(|number| (name(number), list(number, entries)))
            .collect(),
        interfaces: [("i".into(), interface(&["g"]))].into(),
        ..Model::default()
    }
}

/// Compares compiled and written rules where `remotes` and `ports` meet; both answers must occur.
fn judged_alike(
    resolved: &Resolved,
    compiled: &Compiled,
    remotes: &[IpAddr],
    ports: impl Fn(usize) -> Vec<u16>,
) {
    let mut allowed = [0, 0];
    for (number, remote) in remotes.iter().enumerate() {
        for port in ports(number) {
            for (direction, protocol) in [(Direction::Ingress, 6), (Direction::Egress, 17)] {
                let matching = resolved.matching("i", direction, protocol, *remote, port);
                let expected: BTreeSet<RuleId> = matching.map(|rule| rule.id).collect();
                let found = lookup(compiled, "i", direction, protocol, *remote, port);
                let packet = format!("{direction:?} {remote} {port}");
                assert_eq!(found.is_some(), !expected.is_empty(), "{packet}");
                assert_eq!(found.unwrap_or_default(), expected, "{packet}");
                allowed[usize::from(!expected.is_empty())] += 1;
            }
        }
    }
    assert!(allowed.iter().all(|count| *count > 0), "{allowed:?}");
}

fn lists_are_judged_as_written(entries: u32) {
    let resolved = resolve(&of_lists(entries), &BTreeMap::new());
    let compiled = compile_within(&resolved, 0).unwrap();
    let in_tries = [&compiled.tries4, &compiled.tries6]
        .map(|tries| tries.iter().map(|trie| trie.entries.len()).sum::<usize>());
    assert_eq!(in_tries, [2 * (QUOTA * entries) as usize; 2]);
    assert!(compiled.classes.len() < MAX_CLASSES as usize / 10);
    let remotes: Vec<IpAddr> = [0, 1, 499, 998, 999]
        .into_iter()
        .flat_map(|number: u32| {
            let host = entries - 1;
            let v4 = 0x0b00_0000 + number * 1024;
            let v6 = [0x2001, 0xdb8, number as u16, host as u16, 0, 0, 0, 9];
            [
                IpAddr::V4(Ipv4Addr::from(v4 + host)),
                IpAddr::V4(Ipv4Addr::from(v4 + 1023)),
                IpAddr::V6(Ipv6Addr::from(v6)),
            ]
        })
        .collect();
    let ports = |place| {
        let number = [0_u16, 1, 499, 998, 999][place / 3];
        let own = number * 60;
        let around = (number + 999) % 1000 * 60;
        vec![own, own + 99, own + 100, around, around + 99, 65_535]
    };
    judged_alike(&resolved, &compiled, &remotes, ports);
    let compiled = compile(&resolved).unwrap();
    let fits = compiled.tries4.is_empty() && compiled.tries6.is_empty();
    assert_eq!(fits, entries < QUOTA);
    judged_alike(&resolved, &compiled, &remotes, ports);
}

#[test]
fn a_thousand_rules_with_a_list_each() {
    lists_are_judged_as_written(100);
}

#[test]
#[ignore = "a minute unoptimised; see CONTRIBUTING.md"]
fn a_thousand_rules_with_a_thousand_prefixes_each() {
    lists_are_judged_as_written(QUOTA);
}

#[test]
fn sixteen_groups_of_sixty_two_rules() {
    let names: Vec<String> = (0..16).map(|group| format!("g{group}")).collect();
    let rules = |group: u32, first: u32, traffic: fn(Ports) -> Traffic| -> Vec<Rule> {
        (0..62)
            .map(|number| {
                let from = ((group * 62 + number) * 60) as u16;
                let len = [8, 12, 16, 20, 24][number as usize % 5];
                let net = IpNet::new(Ipv4Addr::new(10, group as u8, number as u8, 0).into(), len);
                let traffic = traffic(Ports {
                    from,
                    to: from + 99,
                });
                let peer = Peer::Cidr(net.unwrap().trunc());
                rule(first + group * 62 + number, traffic, peer)
            })
            .collect()
    };
    let group = |number: u32| Group {
        ingress: rules(number, 0, Traffic::Tcp),
        egress: rules(number, QUOTA, Traffic::Udp),
        ..Group::default()
    };
    let carried: Vec<&str> = names.iter().map(String::as_str).collect();
    let model = Model {
        groups: names.iter().cloned().zip((0..16).map(group)).collect(),
        interfaces: [("i".into(), interface(&carried))].into(),
        ..Model::default()
    };
    let resolved = resolve(&model, &BTreeMap::new());
    let compiled = compile(&resolved).unwrap();
    assert_eq!(compiled.rules.len(), 16 * 62 * 2);
    let remotes: Vec<IpAddr> = (0..16)
        .flat_map(|group| [0, 1, 31, 61].map(|third| Ipv4Addr::new(10, group, third, 7).into()))
        .collect();
    judged_alike(&resolved, &compiled, &remotes, |_| {
        (0..60_000)
            .step_by(997)
            .chain([59_580, 59_679, 65_535])
            .collect()
    });
}

/// A hundred thousand addresses in `groups` groups, each address in `each` of them.
fn of_members(groups: u32, each: u32) -> Model {
    let name = |number: u32| format!("m{number}");
    let address = |number: u32| IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number));
    let mut members: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for number in 0..100_000 {
        for turn in 0..each {
            // A different set of groups for neighbours.
            let group = (number + turn * (1 + number / groups)) % groups;
            let list = members.entry(name(group)).or_default();
            if list.last() != Some(&address(number)) {
                list.push(address(number));
            }
        }
    }
    let rules = |first: u32, traffic: fn(Ports) -> Traffic| -> Vec<Rule> {
        let rules = (0..groups).map(|number| {
            let ports = Ports::single(number as u16 + 1);
            rule(first + number, traffic(ports), Peer::Group(name(number)))
        });
        rules.collect()
    };
    let group = Group {
        ingress: rules(0, Traffic::Tcp),
        egress: rules(groups, Traffic::Udp),
        ..Group::default()
    };
    let peers = (0..groups).map(|number| (name(number), Group::default()));
    Model {
        groups: peers.chain([("g".into(), group)]).collect(),
        members,
        interfaces: [("i".into(), interface(&["g"]))].into(),
        ..Model::default()
    }
}

fn members_are_judged_as_written(groups: u32, each: u32, identities: usize) {
    let resolved = resolve(&of_members(groups, each), &BTreeMap::new());
    let compiled = compile(&resolved).unwrap();
    assert_eq!(compiled.members4.len(), 100_000);
    let distinct: BTreeSet<u32> = compiled.members4.iter().map(|(_, own)| *own).collect();
    assert_eq!(distinct.len(), identities);
    let remotes: Vec<IpAddr> = (0..100_100)
        .step_by(4_999)
        .map(|number| Ipv4Addr::from(0x0a00_0000 + number).into())
        .chain([Ipv4Addr::new(9, 255, 255, 255).into()])
        .collect();
    judged_alike(&resolved, &compiled, &remotes, |_| {
        (0..=groups as u16 + 1)
            .step_by(1 + groups as usize / 50)
            .collect()
    });
}

#[test]
fn a_hundred_thousand_members_of_one_group() {
    members_are_judged_as_written(1, 1, 1);
}

#[test]
fn a_hundred_thousand_members_of_a_thousand_groups() {
    members_are_judged_as_written(1000, 1, 1000);
}

#[test]
fn a_hundred_thousand_members_of_two_groups_each() {
    members_are_judged_as_written(200, 2, 20_100);
}
