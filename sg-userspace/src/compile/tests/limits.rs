//! Full tables are refused by name, and large policies that fit are quick.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use sg_common::abi::{MAX_CLASSES, MAX_INTERFACES};

use super::*;

fn host(number: u32) -> IpNet {
    let address = Ipv4Addr::from(0x0a00_0000 + number);
    IpNet::V4(Ipv4Net::new_assert(address, 32))
}

fn policy_of(rules: Vec<Rule>) -> Model {
    Model {
        groups: [("g".into(), ingress(rules))].into(),
        interfaces: [("i".into(), interface(&["g"]))].into(),
        ..Model::default()
    }
}

fn refusal(model: &Model) -> CompileError {
    compile(&resolve(model, &BTreeMap::new())).unwrap_err()
}

#[test]
fn one_class_too_many_is_refused_with_its_rule() {
    let rules = |count| {
        (0..count)
            .map(|n| rule(n, tcp(80, 80), Peer::Cidr(host(n))))
            .collect()
    };
    let fits = MAX_CLASSES - 1;
    let content = compiled(&policy_of(rules(fits)));
    assert_eq!(content.classes.len(), MAX_CLASSES as usize);
    let error = refusal(&policy_of(rules(fits + 1)));
    let expected = CompileError::Capacity {
        capacity: Capacity::Classes,
        interface: "i".into(),
        direction: Direction::Ingress,
        ipv6: false,
        rule: Some(id(fits)),
    };
    assert_eq!(error, expected);
    assert!(error.to_string().contains("131071 classes"), "{error}");
}

#[test]
fn too_many_ranges_are_refused() {
    // Every host adds one port to two hundred that everywhere has: each class is 201 ranges.
    let shared = (0..200).map(|n| rule(n, tcp(n as u16 * 2, n as u16 * 2), cidr("0.0.0.0/0")));
    let hosts = (200..3200).map(|n| rule(n, tcp(60_000, 60_000), Peer::Cidr(host(n))));
    let error = refusal(&policy_of(shared.chain(hosts).collect()));
    assert!(
        matches!(
            error,
            CompileError::Capacity {
                capacity: Capacity::Ranges,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn rules_that_overlap_without_end_are_refused_in_time() {
    let overlapping = (0..200_000).map(|n| {
        let low = (n % 30_000) as u16;
        rule(
            n,
            tcp(low, 65_535 - (n / 30_000) as u16 - low),
            cidr("0.0.0.0/0"),
        )
    });
    let model = policy_of(overlapping.collect());
    let start = Instant::now();
    let error = refusal(&model);
    assert!(
        matches!(
            error,
            CompileError::Capacity {
                capacity: Capacity::RuleSets,
                ..
            }
        ),
        "{error}"
    );
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[test]
fn tries_are_limited_by_distinct_policies() {
    let count = Capacity::Tries.limit();
    // More distinct policies than one trie region holds need as many interfaces, which do not fit.
    assert!(
        count >= 2 * (MAX_INTERFACES as usize - 1),
        "two tries per interface and family"
    );
}

#[test]
fn interfaces_beyond_the_ids_are_refused() {
    let model = |count: u32| Model {
        interfaces: (0..count)
            .map(|n| (n.to_string(), interface(&[])))
            .collect(),
        ..Model::default()
    };
    assert_eq!(compiled(&model(MAX_INTERFACES - 1)).interfaces.len(), 1023);
    assert_eq!(
        refusal(&model(MAX_INTERFACES)),
        CompileError::Interfaces {
            count: 1024,
            limit: 1023
        },
    );
}

#[test]
fn reserves_must_fit_the_allowance() {
    let mut model = policy_of(vec![]);
    model.interfaces.get_mut("i").unwrap().settings.reserve = model.conntrack.allowance + 1;
    assert!(matches!(refusal(&model), CompileError::Reserves { .. }));
}

#[test]
fn many_rules_compile_quickly() {
    // A hundred thousand rules: 256 hosts, each with 400 ports of its own.
    let rules = (0..102_400).map(|n| {
        let port = (n / 256 * 2) as u16;
        rule(n, tcp(port, port), Peer::Cidr(host(n % 256)))
    });
    let model = policy_of(rules.collect());
    let resolved = resolve(&model, &BTreeMap::new());
    let start = Instant::now();
    let compiled = compile(&resolved).unwrap();
    let elapsed = start.elapsed();
    assert_eq!(compiled.ranges.len(), 102_400);
    // Unoptimised and on a loaded machine this takes a fraction of it; a quadratic step does not.
    assert!(elapsed < Duration::from_secs(20), "{elapsed:?}");
}

#[test]
fn a_long_chain_of_nested_prefixes_is_not_quadratic() {
    // One list of 100 000 hosts below every length of covering prefix.
    let mut entries: Vec<IpNet> = (0..100_000).map(host).collect();
    entries
        .extend((8..32).map(|len| IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), len))));
    let model = Model {
        prefix_lists: [("l".into(), entries)].into(),
        ..policy_of(vec![
            rule(1, tcp(80, 80), Peer::PrefixList("l".into())),
            rule(2, tcp(22, 22), cidr("10.0.0.7/32")),
        ])
    };
    let start = Instant::now();
    let compiled = in_tries(&model);
    assert!(start.elapsed() < Duration::from_secs(20));
    assert_eq!(
        compiled.tries4[0].entries.len(),
        2,
        "the widest prefix, and the host with a rule more"
    );
    assert_eq!(hit(&compiled, "10.0.0.7", 80), [1]);
    assert_eq!(hit(&compiled, "10.0.0.7", 22), [2]);
}

fn capacity_of(error: CompileError) -> Capacity {
    match error {
        CompileError::Capacity { capacity, rule, .. } => {
            assert!(rule.is_some() || capacity == Capacity::Prefixes);
            capacity
        }
        CompileError::Members { capacity, .. } => capacity,
        other => panic!("{other}"),
    }
}

#[test]
fn a_list_named_by_too_many_rules_is_refused() {
    let entries: Vec<IpNet> = (0..600_000).map(host).collect();
    let rules = (0..7).map(|n| rule(n, tcp(n as u16, n as u16), Peer::PrefixList("l".into())));
    let model = Model {
        prefix_lists: [("l".into(), entries)].into(),
        ..policy_of(rules.collect())
    };
    let error = refusal(&model);
    assert!(error.to_string().contains("4194304 prefixes"), "{error}");
    assert_eq!(error.rule(), Some(id(6)), "the seventh is one too many");
    assert_eq!(capacity_of(error), Capacity::Prefixes);
}

#[test]
#[ignore = "a quarter of a minute unoptimised; see CONTRIBUTING.md"]
fn a_list_in_too_many_policies_is_refused() {
    let entries: Vec<IpNet> = (0..600_000).map(|n| host(2 * n)).collect();
    let group = |n: u32| {
        let named = rule(n, tcp(n as u16, n as u16), Peer::PrefixList("l".into()));
        (n.to_string(), ingress(vec![named]))
    };
    let model = |count| Model {
        groups: (0..count).map(group).collect(),
        prefix_lists: [("l".into(), entries.clone())].into(),
        interfaces: (0..count)
            .map(|n: u32| (n.to_string(), interface(&[&n.to_string()])))
            .collect(),
        ..Model::default()
    };
    compiled(&model(6));
    assert_eq!(capacity_of(refusal(&model(7))), Capacity::Prefixes);
}

#[test]
#[ignore = "half a minute unoptimised; see CONTRIBUTING.md"]
fn members_of_too_many_sets_of_groups_are_refused() {
    // Every pair of 200 groups has a member of its own, and 106 interfaces refer to all groups.
    let name = |n: u32| format!("m{n}");
    let mut members: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for (number, (a, b)) in (0..)
        .zip((0..200).flat_map(|a| (0..a).map(move |b| (a, b))))
        .collect::<Vec<(u32, (u32, u32))>>()
    {
        let address = IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number));
        members.entry(name(a)).or_default().push(address);
        members.entry(name(b)).or_default().push(address);
    }
    let referring = (0..200).map(|n| rule(n, tcp(n as u16, n as u16), Peer::Group(name(n))));
    let own = |n: u32| {
        let own = rule(200 + n, tcp(9, 9), cidr("10.0.0.0/8"));
        (n.to_string(), ingress(vec![own]))
    };
    let model = Model {
        groups: (0..200)
            .map(|n| (name(n), Group::default()))
            .chain((0..106).map(own))
            .chain([("g".into(), ingress(referring.collect()))])
            .collect(),
        members,
        interfaces: (0..106)
            .map(|n: u32| (n.to_string(), interface(&["g", &n.to_string()])))
            .collect(),
        ..Model::default()
    };
    let error = refusal(&model);
    assert!(error.to_string().contains("group `m"), "{error}");
    assert!(
        error.to_string().contains("4194304 combinations"),
        "{error}"
    );
    assert_eq!(capacity_of(error), Capacity::Identities);
}
