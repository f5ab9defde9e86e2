//! Definitions at random, with all that models can hold.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};
use sg_common::layout::TIMEOUTS;
use sg_common::verdict::Direction;

use crate::model::{
    Conntrack, Family, Group, Hook, Icmp, IcmpErrors, Interface, InterfaceSettings, Model,
    OnRevoke, Orientation, Peer, Ports, Rule, RuleId, Track, Traffic, timeout_range,
};

/// Names with all that may stand in one, and some that are no names anywhere else.
const NAMES: [&str; 8] = [
    "web",
    "${a}",
    "Prod (EU) #1",
    "a.b",
    "1",
    "x {y}: [z] = &;!$*+@,/_-",
    "${b",
    "$${c}",
];

fn description() -> impl Strategy<Value = Option<String>> {
    proptest::option::of("[a-zA-Z0-9 ._:/()#,@\\[\\]+=;{}!$*-]{1,20}")
}

fn number() -> impl Strategy<Value = u8> {
    prop_oneof![Just(0), Just(8), Just(255), any::<u8>()]
}

fn icmp() -> impl Strategy<Value = Icmp> {
    prop_oneof![
        Just(Icmp::Any),
        number().prop_map(Icmp::Type),
        (number(), number()).prop_map(|(kind, code)| Icmp::Code(kind, code)),
    ]
}

fn ports() -> impl Strategy<Value = Ports> {
    let port = || prop_oneof![Just(0), Just(65535), any::<u16>()];
    (port(), port()).prop_map(|(a, b)| Ports {
        from: a.min(b),
        to: a.max(b),
    })
}

fn traffic() -> impl Strategy<Value = Traffic> {
    let others = any::<u8>().prop_filter("is known by name", |n| ![1, 6, 17, 58].contains(n));
    prop_oneof![
        Just(Traffic::All),
        ports().prop_map(Traffic::Tcp),
        ports().prop_map(Traffic::Udp),
        icmp().prop_map(Traffic::Icmp),
        icmp().prop_map(Traffic::Icmpv6),
        others.prop_map(Traffic::Protocol),
    ]
}

fn net() -> impl Strategy<Value = IpNet> {
    let v4 = (any::<u32>(), 0..=32_u8);
    let v6 = (any::<u128>(), 0..=128_u8);
    prop_oneof![
        v4.prop_map(|(bits, len)| IpNet::new(Ipv4Addr::from(bits).into(), len)),
        // Not one that maps IPv4.
        v6.prop_map(|(bits, len)| IpNet::new(Ipv6Addr::from(bits | 1 << 127).into(), len)),
        Just(IpNet::new(Ipv4Addr::UNSPECIFIED.into(), 0)),
        Just(IpNet::new(Ipv6Addr::UNSPECIFIED.into(), 0)),
    ]
    .prop_map(|net| net.unwrap().trunc())
}

fn addresses() -> impl Strategy<Value = Vec<IpAddr>> {
    let address = prop_oneof![
        (0..200_u8).prop_map(|last| IpAddr::from([10, 0, 0, last])),
        (0..200_u16).prop_map(|last| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 1, last])),
    ];
    proptest::collection::vec(address, 0..6).prop_map(distinct)
}

fn distinct<T: Copy + Ord>(values: Vec<T>) -> Vec<T> {
    let mut seen = BTreeSet::new();
    values
        .into_iter()
        .filter(|value| seen.insert(*value))
        .collect()
}

/// An id of AWS, of another cloud, or none.
fn id(prefix: &'static str) -> impl Strategy<Value = Option<String>> {
    prop_oneof![
        3 => Just(None),
        2 => "[0-9a-f]{17}".prop_map(move |digits| Some(format!("{prefix}{digits}"))),
        1 => "[0-9a-f]{8}-[0-9a-f]{12}".prop_map(Some),
    ]
}

fn settings() -> impl Strategy<Value = InterfaceSettings> {
    let names = (
        "[a-z@%][a-z0-9@%.-]{0,14}",
        proptest::option::of("[a-z]{1,8}|/proc/1/ns/net"),
        proptest::option::of(select(vec![Orientation::Own, Orientation::Host])),
        select(vec![Hook::Auto, Hook::Xdp, Hook::XdpGeneric, Hook::Tc]),
    );
    let figures = (
        proptest::option::of(1000..1024_u32),
        0..10_u32,
        proptest::option::of(any::<bool>()),
        proptest::collection::vec(select(vec![0x0842_u16, 0x88cc, 0x8906]), 0..3),
    );
    let switches = proptest::array::uniform6(any::<bool>());
    let timeouts = proptest::array::uniform::<_, TIMEOUTS>(proptest::option::of(any::<Index>()));
    (names, figures, switches, timeouts).prop_map(|(names, figures, switches, timeouts)| {
        let (device, netns, orientation, hook) = names;
        let (allowance, reserve, source_dest_check, mut ethertypes) = figures;
        ethertypes.sort_unstable();
        ethertypes.dedup();
        let [always, tcp_loose, strict, dhcp, mld, nd_redirect] = switches;
        let mut settings = InterfaceSettings {
            netns,
            orientation,
            hook,
            allowance,
            reserve,
            track: if always { Track::Always } else { Track::Auto },
            tcp_loose,
            icmp_errors: match strict {
                true => IcmpErrors::Strict,
                false => IcmpErrors::Related,
            },
            dhcp,
            mld,
            nd_redirect,
            source_dest_check,
            ethertypes,
            ..InterfaceSettings::new(device)
        };
        for (place, index) in timeouts.into_iter().enumerate() {
            if let Some(index) = index {
                let range = timeout_range(place);
                let count = range.end() - range.start() + 1;
                settings.timeouts[place] = range.start() + index.index(count as usize) as u32;
            }
        }
        settings
    })
}

/// What a rule's peer is, before names are known.
#[derive(Clone, Debug)]
enum Whom {
    Net(IpNet),
    List(Index),
    Group(Index),
    GroupOf(Index, Family),
    Gone,
}

fn whom() -> impl Strategy<Value = Whom> {
    let family = select(vec![Family::Ipv4, Family::Ipv6]);
    prop_oneof![
        8 => net().prop_map(Whom::Net),
        4 => any::<Index>().prop_map(Whom::List),
        4 => any::<Index>().prop_map(Whom::Group),
        2 => (any::<Index>(), family).prop_map(|(index, family)| Whom::GroupOf(index, family)),
        1 => Just(Whom::Gone),
    ]
}

type Written = (bool, Traffic, Whom, Option<String>, Option<u64>);

fn group() -> impl Strategy<Value = (Option<String>, bool, Vec<Written>)> {
    let id = proptest::option::weighted(0.3, any::<u64>());
    let rule = (any::<bool>(), traffic(), whom(), description(), id);
    let rules = proptest::collection::vec(rule, 0..6);
    (description(), any::<bool>(), rules)
}

/// A definition with everything in it.
pub(super) fn model() -> impl Strategy<Value = Model> {
    let groups = proptest::collection::vec((group(), id("sg-"), addresses()), 0..4);
    let list = (proptest::collection::vec(net(), 0..6), id("pl-"));
    let lists = proptest::collection::vec(list, 0..4);
    let interface = (
        settings(),
        subsequence((0..4).collect::<Vec<usize>>(), 0..=4),
        proptest::option::of(addresses()),
        id("eni-"),
        any::<bool>(),
    );
    let interfaces = proptest::collection::vec(interface, 0..3);
    let names = Just(NAMES.to_vec()).prop_shuffle();
    let host = (any::<bool>(), any::<bool>(), addresses());
    (groups, lists, interfaces, names, host).prop_map(|(groups, lists, interfaces, names, host)| {
        let mut model = Model::default();
        let group_names = &names[..groups.len()];
        let list_names = &names[..lists.len()];
        for (name, (nets, id)) in list_names.iter().zip(lists) {
            let nets = distinct(nets);
            model.prefix_lists.insert(name.to_string(), nets);
            if let Some(id) = id {
                model.ids.prefix_lists.insert(name.to_string(), id);
            }
        }
        for (name, ((description, again, rules), id, members)) in group_names.iter().zip(groups) {
            let mut group = Group {
                description,
                on_revoke: if again {
                    OnRevoke::Reevaluate
                } else {
                    OnRevoke::Keep
                },
                ..Group::default()
            };
            let mut seen = BTreeSet::new();
            for (egress, traffic, whom, description, id) in rules {
                let direction = if egress {
                    Direction::Egress
                } else {
                    Direction::Ingress
                };
                let named =
                    |names: &[&str], index: &Index| names[index.index(names.len())].to_string();
                let peer = match whom {
                    Whom::Net(net) => Peer::Cidr(net),
                    Whom::List(_) if list_names.is_empty() => continue,
                    Whom::List(index) => Peer::PrefixList(named(list_names, &index)),
                    Whom::Group(index) => Peer::Group(named(group_names, &index)),
                    Whom::GroupOf(index, family) => {
                        Peer::GroupOf(named(group_names, &index), family)
                    }
                    Whom::Gone => Peer::Group("gone".into()),
                };
                if !seen.insert((egress, traffic, peer.clone())) {
                    continue;
                }
                let id = match id {
                    Some(id) => format!("sgr-{:017x}", id).parse().unwrap(),
                    None => RuleId::derive(name, direction, &traffic, &peer),
                };
                let rules = if egress {
                    &mut group.egress
                } else {
                    &mut group.ingress
                };
                let description = description.map(Arc::from);
                rules.push(Rule {
                    id,
                    traffic,
                    peer,
                    description,
                    origin: None,
                });
            }
            model.groups.insert(name.to_string(), group);
            if let Some(id) = id {
                model.ids.groups.insert(name.to_string(), id);
            }
            if !members.is_empty() {
                model.members.insert(name.to_string(), members);
            }
        }
        for (number, (settings, groups, addresses, id, by_device)) in
            interfaces.into_iter().enumerate()
        {
            let mut settings = settings;
            settings.device = format!(
                "{number}{}",
                &settings.device[..settings.device.len().min(14)]
            );
            let name = match by_device && settings.device.chars().all(|c| c != '%') {
                true => settings.device.clone(),
                false => format!("interface {number}"),
            };
            let groups = groups
                .into_iter()
                .filter_map(|place| group_names.get(place));
            let groups = groups.map(|name| name.to_string()).collect();
            if let Some(id) = id {
                model.ids.interfaces.insert(name.clone(), id);
            }
            model.interfaces.insert(
                name,
                Interface {
                    settings,
                    groups,
                    addresses,
                },
            );
        }
        let (allowance, accounting, services) = host;
        model.conntrack = Conntrack {
            allowance: if allowance {
                5000
            } else {
                Conntrack::default().allowance
            },
            accounting,
        };
        model.services = services
            .into_iter()
            .filter_map(|address| match address {
                IpAddr::V4(address) => Some([169, 254, 0, address.octets()[3]].into()),
                IpAddr::V6(_) => None,
            })
            .collect();
        model.services.sort_unstable();
        model
    })
}
