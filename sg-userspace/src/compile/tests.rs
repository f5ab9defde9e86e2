use std::collections::{BTreeMap, BTreeSet};

use sg_common::layout::{NO_TRIE, policy_flags};

use super::*;
use crate::model::{Group, Interface, InterfaceSettings, Model, Peer, Ports, Rule, Traffic};
use crate::resolve::resolve;

mod limits;
mod lookup;
mod property;
mod scale;

use lookup::lookup;

/// No rule lets it pass.
const NONE: [u32; 0] = [];

/// A rule whose id is its number.
fn rule(number: u32, traffic: Traffic, peer: Peer) -> Rule {
    Rule {
        id: id(number),
        traffic,
        peer,
        description: None,
        origin: None,
    }
}

fn id(number: u32) -> RuleId {
    format!("sgr-{number:017x}").parse().unwrap()
}

fn tcp(from: u16, to: u16) -> Traffic {
    Traffic::Tcp(Ports { from, to })
}

fn cidr(text: &str) -> Peer {
    Peer::Cidr(text.parse().unwrap())
}

fn ingress(rules: Vec<Rule>) -> Group {
    Group {
        ingress: rules,
        ..Group::default()
    }
}

fn interface(groups: &[&str]) -> Interface {
    Interface {
        settings: InterfaceSettings::new("eth0"),
        groups: groups.iter().map(|name| name.to_string()).collect(),
        addresses: None,
    }
}

fn compiled(model: &Model) -> Compiled {
    compile(&resolve(model, &BTreeMap::new())).unwrap()
}

/// The same with no room for trees.
fn in_tries(model: &Model) -> Compiled {
    compile_within(&resolve(model, &BTreeMap::new()), 0).unwrap()
}

fn single(rules: Vec<Rule>) -> Compiled {
    compiled(&Model {
        groups: [("g".into(), ingress(rules))].into(),
        interfaces: [("i".into(), interface(&["g"]))].into(),
        ..Model::default()
    })
}

/// Which rules let a TCP flow towards `i` pass.
fn hit(compiled: &Compiled, remote: &str, port: u16) -> Vec<u32> {
    let hits = lookup(
        compiled,
        "i",
        Direction::Ingress,
        6,
        remote.parse().unwrap(),
        port,
    );
    let number = |hit: RuleId| u32::from_str_radix(&hit.to_string()[4..], 16).unwrap();
    hits.unwrap_or_default().into_iter().map(number).collect()
}

#[test]
fn l4_a_reference_to_nobody_allows_nobody() {
    for peer in [
        Peer::Group("missing".into()),
        Peer::Group("empty".into()),
        Peer::PrefixList("none".into()),
    ] {
        let rules = vec![
            rule(1, tcp(80, 80), peer),
            rule(2, Traffic::All, cidr("192.0.2.0/24")),
        ];
        let compiled = compiled(&Model {
            groups: [
                ("g".into(), ingress(rules)),
                ("empty".into(), Group::default()),
            ]
            .into(),
            prefix_lists: [("none".into(), Default::default())].into(),
            interfaces: [("i".into(), interface(&["g"]))].into(),
            ..Model::default()
        });
        for remote in [
            "0.0.0.0",
            "10.0.0.1",
            "255.255.255.255",
            "::",
            "2001:db8::1",
        ] {
            assert_eq!(hit(&compiled, remote, 80), NONE, "{remote}");
        }
        assert_eq!(hit(&compiled, "192.0.2.1", 80), [2]);
    }
}

#[test]
fn l2_a_narrow_prefix_does_not_hide_what_a_wide_one_allows() {
    let compiled = single(vec![
        rule(1, tcp(80, 80), cidr("10.0.0.0/8")),
        rule(2, tcp(22, 22), cidr("10.1.0.0/16")),
        rule(3, tcp(443, 443), cidr("0.0.0.0/0")),
        rule(4, tcp(80, 80), cidr("10.1.2.3/32")),
    ]);
    assert_eq!(hit(&compiled, "10.1.2.3", 80), [1, 4]);
    assert_eq!(hit(&compiled, "10.1.2.3", 22), [2]);
    assert_eq!(hit(&compiled, "10.1.2.3", 443), [3]);
    assert_eq!(hit(&compiled, "10.2.0.1", 22), NONE);
    assert_eq!(hit(&compiled, "192.0.2.1", 443), [3]);
    assert_eq!(
        hit(&compiled, "2001:db8::1", 443),
        NONE,
        "everywhere is one family's"
    );
}

#[test]
fn an_empty_policy_lets_nothing_pass() {
    let compiled = compiled(&Model {
        interfaces: [("i".into(), interface(&[]))].into(),
        ..Model::default()
    });
    let nothing = Policy {
        trie: NO_TRIE,
        ..Policy::ZERO
    };
    assert_eq!(compiled.interfaces[0].policy, [nothing; 4]);
    assert_eq!(compiled.classes, [Class::ZERO]);
    assert_eq!(compiled.rule_sets, [Vec::<u32>::new()]);
    assert_eq!(compiled.ranges, []);
}

/// Fact 1.41: a reference to a group that is gone is nobody, never everybody.
#[test]
fn a_group_that_does_not_exist_has_no_members() {
    let compiled = single(vec![
        rule(1, tcp(80, 80), Peer::Group("gone".into())),
        rule(2, tcp(22, 22), cidr("10.0.0.0/8")),
    ]);
    assert_eq!(hit(&compiled, "10.1.2.3", 80), NONE);
    assert_eq!(hit(&compiled, "10.1.2.3", 22), [2]);
    assert_eq!((&compiled.members4, &compiled.members6), (&vec![], &vec![]));
}

#[test]
fn equal_policies_are_compiled_once() {
    let rules = || vec![rule(1, tcp(80, 80), cidr("10.0.0.0/8"))];
    let egress_only = Group {
        egress: vec![rule(2, tcp(80, 80), cidr("10.0.0.0/8"))],
        ..Group::default()
    };
    let model = Model {
        groups: [("g".into(), ingress(rules())), ("e".into(), egress_only)].into(),
        interfaces: [
            ("a".into(), interface(&["g"])),
            ("b".into(), interface(&["e", "g"])),
        ]
        .into(),
        ..Model::default()
    };
    let compiled = in_tries(&model);
    let towards = policy_index(Direction::Ingress, false);
    let [a, b] = &compiled.interfaces[..] else {
        panic!("two interfaces");
    };
    assert_eq!(a.policy[towards], b.policy[towards]);
    assert_eq!(compiled.tries4.len(), 2, "one ingress, one egress");
    assert_eq!(compiled.tries6.len(), 0);
}

#[test]
fn a_list_is_one_class_and_one_entry_per_widest_prefix() {
    let list = ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.0/24"];
    let compiled = in_tries(&Model {
        groups: [(
            "g".into(),
            ingress(vec![rule(1, tcp(80, 80), Peer::PrefixList("l".into()))]),
        )]
        .into(),
        prefix_lists: [("l".into(), list.map(|net| net.parse().unwrap()).to_vec())].into(),
        interfaces: [("i".into(), interface(&["g"]))].into(),
        ..Model::default()
    });
    let nets: Vec<_> = compiled.tries4[0]
        .entries
        .iter()
        .map(|(net, _)| net.to_string())
        .collect();
    assert_eq!(nets, ["10.0.0.0/8", "192.0.2.0/24"]);
    assert_eq!(compiled.classes.len(), 2);
    assert_eq!(hit(&compiled, "10.1.2.3", 80), [1]);
}

/// What each of two interfaces looks prefixes up in, with room for so many nodes.
#[test]
fn the_largest_tries_become_trees_first() {
    let hosts = |group: u32, count: u32| {
        let rules = (0..count).map(|n| {
            let peer = cidr(&format!("10.{group}.{n}.7/32"));
            rule(group * 100 + n, tcp(80 + n as u16, 80 + n as u16), peer)
        });
        ingress(rules.collect())
    };
    let model = Model {
        groups: [("few".into(), hosts(1, 3)), ("many".into(), hosts(2, 20))].into(),
        interfaces: [
            ("a".into(), interface(&["few"])),
            ("b".into(), interface(&["many"])),
        ]
        .into(),
        ..Model::default()
    };
    // Three hosts are seven intervals, one node; twenty are 41, six leaves and what is above.
    for (nodes, trees, tries) in [
        (0, [false, false], 2),
        (6, [true, false], 1),
        (7, [false, true], 1),
        (8, [true, true], 0),
    ] {
        let compiled = compile_within(&resolve(&model, &BTreeMap::new()), nodes).unwrap();
        let towards = policy_index(Direction::Ingress, false);
        let found = [0, 1].map(|one: usize| {
            compiled.interfaces[one].policy[towards].flags & policy_flags::TREE != 0
        });
        assert_eq!((found, compiled.tries4.len()), (trees, tries), "{nodes}");
        let hits = |name: &str, remote: &str, port| {
            let remote = remote.parse().unwrap();
            lookup(&compiled, name, Direction::Ingress, 6, remote, port).is_some()
        };
        assert!(hits("a", "10.1.2.7", 82) && !hits("a", "10.1.2.8", 82));
        assert!(hits("b", "10.2.19.7", 99) && !hits("b", "10.2.19.7", 98));
    }
}

#[test]
fn open_means_every_port_from_everywhere() {
    let open = |rules| {
        let towards = policy_index(Direction::Ingress, false);
        single(rules).interfaces[0].policy[towards].flags & !policy_flags::TREE
    };
    let everywhere = || cidr("0.0.0.0/0");
    assert_eq!(
        open(vec![rule(1, Traffic::All, everywhere())]),
        policy_flags::OPEN_TCP | policy_flags::OPEN_UDP,
    );
    assert_eq!(
        open(vec![rule(1, tcp(0, 65535), everywhere())]),
        policy_flags::OPEN_TCP
    );
    let halves = [
        rule(1, tcp(0, 79), everywhere()),
        rule(2, tcp(79, 65535), everywhere()),
    ];
    assert_eq!(open(halves.to_vec()), policy_flags::OPEN_TCP);
    assert_eq!(open(vec![rule(1, tcp(1, 65535), everywhere())]), 0);
    assert_eq!(open(vec![rule(1, Traffic::All, cidr("::/0"))]), 0);
    // Fact 3.11: the two halves of the address space are not "everywhere".
    let halves = [
        rule(1, Traffic::All, cidr("0.0.0.0/1")),
        rule(2, Traffic::All, cidr("128.0.0.0/1")),
    ];
    assert_eq!(open(halves.to_vec()), 0);
}

#[test]
fn flags_and_figures_follow_the_definition() {
    let mut model = Model {
        interfaces: [("i".into(), interface(&[]))].into(),
        ..Model::default()
    };
    let record = &compiled(&model).interfaces[0];
    assert_eq!(
        record.flags,
        interface_flags::PRESENT | interface_flags::DHCP | interface_flags::MLD,
    );
    assert_eq!(record.allowance, model.conntrack.allowance);

    let own = model.interfaces.get_mut("i").unwrap();
    own.addresses = Some(vec!["10.0.0.1".parse().unwrap()]);
    own.settings = InterfaceSettings {
        orientation: Some(Orientation::Host),
        track: Track::Always,
        tcp_loose: true,
        icmp_errors: IcmpErrors::Strict,
        dhcp: false,
        mld: false,
        nd_redirect: true,
        allowance: Some(77),
        reserve: 7,
        ethertypes: vec![0x88cc],
        ..InterfaceSettings::new("eth0")
    };
    model.services = vec!["169.254.169.254".parse().unwrap()];
    let compiled = compiled(&model);
    let record = &compiled.interfaces[0];
    assert_eq!(
        record.flags,
        interface_flags::PRESENT
            | interface_flags::HOST
            | interface_flags::TRACK_ALWAYS
            | interface_flags::TCP_LOOSE
            | interface_flags::ICMP_STRICT
            | interface_flags::ND_REDIRECT
            | interface_flags::ADDRESSES_KNOWN
            | interface_flags::SERVICES
            | interface_flags::SOURCE_DEST_CHECK
            | interface_flags::ETHERTYPES,
    );
    assert_eq!(record.ethertypes, [0x88cc]);
    assert_eq!((record.allowance, record.reserve), (77, 7));
    assert_eq!(record.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(compiled.services, model.services);
}

#[test]
fn addresses_are_checked_on_host_interfaces_unless_the_definition_says_otherwise() {
    let checks = |orientation, said, known: bool| {
        let mut own = interface(&[]);
        own.settings.orientation = orientation;
        own.settings.source_dest_check = said;
        own.addresses = known.then(|| vec!["10.0.0.1".parse().unwrap()]);
        let model = Model {
            interfaces: [("a".into(), own)].into(),
            ..Model::default()
        };
        let flags = compiled(&model).interfaces[0].flags;
        flags & interface_flags::SOURCE_DEST_CHECK != 0
    };
    // What is not given is the workload's own: the loader asks where it may be otherwise.
    for (orientation, by_default) in [
        (None, false),
        (Some(Orientation::Own), false),
        (Some(Orientation::Host), true),
    ] {
        for (said, expected) in [(None, by_default), (Some(true), true), (Some(false), false)] {
            assert_eq!(
                checks(orientation, said, true),
                expected,
                "{orientation:?} {said:?}"
            );
            assert!(
                !checks(orientation, said, false),
                "{orientation:?} {said:?}"
            );
        }
    }
}

#[test]
fn one_group_that_reevaluates_is_enough() {
    let reevaluates = |names: &[&str]| {
        let cuts = Group {
            on_revoke: OnRevoke::Reevaluate,
            ..Group::default()
        };
        let model = Model {
            groups: [("cuts".into(), cuts), ("keeps".into(), Group::default())].into(),
            interfaces: [("a".into(), interface(names))].into(),
            ..Model::default()
        };
        compiled(&model).interfaces[0].flags & interface_flags::REEVALUATE != 0
    };
    assert!(reevaluates(&["cuts"]));
    assert!(reevaluates(&["keeps", "cuts"]));
    assert!(!reevaluates(&["keeps"]));
    assert!(!reevaluates(&[]));
}

#[test]
fn identities_count_only_groups_that_rules_refer_to() {
    let member = |text: &str| vec![text.parse().unwrap()];
    let compiled = compiled(&Model {
        groups: [
            (
                "g".into(),
                ingress(vec![
                    rule(1, tcp(1, 1), Peer::Group("x".into())),
                    rule(2, tcp(2, 2), Peer::Group("y".into())),
                ]),
            ),
            ("x".into(), Group::default()),
            ("y".into(), Group::default()),
            ("z".into(), Group::default()),
        ]
        .into(),
        members: [
            (
                "x".into(),
                vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()],
            ),
            ("y".into(), member("10.0.0.2")),
            (
                "z".into(),
                vec!["10.0.0.1".parse().unwrap(), "10.0.0.3".parse().unwrap()],
            ),
        ]
        .into(),
        interfaces: [("i".into(), interface(&["g"]))].into(),
        ..Model::default()
    });
    let addresses: Vec<_> = compiled
        .members4
        .iter()
        .map(|(address, _)| address.to_string())
        .collect();
    assert_eq!(addresses, ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(hit(&compiled, "10.0.0.1", 1), [1]);
    assert_eq!(hit(&compiled, "10.0.0.1", 2), NONE);
    assert_eq!(hit(&compiled, "10.0.0.2", 2), [2]);
    assert_eq!(hit(&compiled, "10.0.0.3", 1), NONE);
    let distinct: BTreeSet<_> = compiled
        .members4
        .iter()
        .map(|(_, identity)| identity)
        .collect();
    assert_eq!(distinct.len(), 2);
}
