//! To and fro: what was written out reads as the model that it was made of.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};
use sg_common::layout::{TIMEOUT_DEFAULTS, TIMEOUTS, Timeout};
use sg_common::verdict::Direction;

use super::clouds::portable;
use super::*;
use crate::definition::{Severity, Source, check, render};
use crate::model::{
    Conntrack, Family, Group, Hook, Icmp, IcmpErrors, Ids, Interface, InterfaceSettings, OnRevoke,
    Orientation, Ports, RuleId, Track, timeout_range,
};

/// What is read of a conversion; places of rules aside, which are new.
fn read(converted: &Converted) -> Result<Model, String> {
    let sources: Vec<Source> = converted
        .files
        .iter()
        .map(|file| Source::new(&file.name, file.text.clone().into_bytes()))
        .collect();
    let checked = check(&sources);
    let errors = checked
        .diagnostics
        .iter()
        .any(|found| found.severity == Severity::Error);
    match checked.model {
        Some(model) if !errors => Ok(without_places(model)),
        _ => Err(render(&checked.diagnostics)),
    }
}

fn without_places(mut model: Model) -> Model {
    for group in model.groups.values_mut() {
        for rule in group.ingress.iter_mut().chain(&mut group.egress) {
            rule.origin = None;
        }
    }
    model
}

fn text_of(converted: &Converted) -> String {
    let files = converted.files.iter();
    files
        .map(|file| format!("--- {}\n{}\n", file.name, file.text))
        .collect()
}

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

fn model() -> impl Strategy<Value = Model> {
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

fn cases() -> ProptestConfig {
    ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn comes_back(model: &Model, target: Target) -> Result<(), TestCaseError> {
    let converted = convert(model, target);
    let expected = match target {
        Target::Toml => model.clone(),
        // What is beyond AWS is said, and the rest comes back.
        Target::AwsJson | Target::Terraform => portable(model).0,
    };
    let said = match target {
        Target::Toml => Vec::new(),
        Target::AwsJson | Target::Terraform => portable(model).1,
    };
    prop_assert_eq!(&converted.left_out, &said);
    match read(&converted) {
        Ok(found) => prop_assert_eq!(found, expected, "{}", text_of(&converted)),
        Err(errors) => prop_assert!(false, "{}\n{}", errors, text_of(&converted)),
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn toml_reads_as_the_same_model(model in model()) {
        comes_back(&model, Target::Toml)?;
    }

    #[test]
    fn aws_json_reads_as_the_same_model(model in model()) {
        comes_back(&model, Target::AwsJson)?;
    }

    #[test]
    #[ignore = "waits for the reader of Terraform"]
    fn terraform_reads_as_the_same_model(model in model()) {
        comes_back(&model, Target::Terraform)?;
    }
}

fn small() -> Model {
    let text = r#"
        [groups.web]
        description = "say ${x}"
        on_revoke = "reevaluate"
        ingress = [
            { protocol = "tcp", ports = 443, cidr = ["0.0.0.0/0", "::/0"], description = "the web" },
            { protocol = "icmp", type = 8, prefix_list = "offices", id = "sgr-0123456789abcdef0" },
            { protocol = "all", group = "web" },
        ]
        egress = []
        [prefix_lists.offices]
        entries = ["198.51.100.0/24", "203.0.113.16/28"]
        [interfaces.eth0]
        groups = ["web"]
        timeouts = { tcp_established = 350 }
    "#;
    let checked = check(&[Source::new("d.toml", text.into())]);
    checked.model.expect("the definition is without fault")
}

/// Compared with files beside; `SG_BLESS=1` writes them anew.
#[test]
fn the_forms_are_those_that_others_write() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/convert/tests");
    for target in Target::ALL {
        let found = text_of(&convert(&small(), target));
        let file = directory.join(format!("{}.txt", target.name()));
        if std::env::var_os("SG_BLESS").is_some() {
            std::fs::write(&file, &found).unwrap();
        }
        assert_eq!(found, std::fs::read_to_string(&file).unwrap());
    }
}

#[test]
fn what_aws_cannot_hold_is_said_and_never_widened() {
    let mut model = small();
    model.prefix_lists.insert(
        "offices".into(),
        ["198.51.100.0/24", "2001:db8::/32"]
            .map(|net| net.parse().unwrap())
            .into(),
    );
    let rules = &mut model.groups.get_mut("web").unwrap().ingress;
    rules[0].peer = Peer::GroupOf("web".into(), Family::Ipv6);
    rules[1].peer = Peer::Group("gone".into());
    rules[3].peer = Peer::PrefixList("offices".into());
    model
        .ids
        .groups
        .insert("web".into(), "0f1d2d00-0000".into());
    let (portable, left_out) = portable(&model);
    assert_eq!(
        left_out,
        [
            "the id 0f1d2d00-0000 of group web: AWS's are sg-…",
            "that offices is one prefix list: AWS's are of one family, so it is offices (ipv4) and offices (ipv6)",
            "the ingress rule \"tcp 443, group web, ipv6 only\" of group web: AWS's references to groups are of both families",
            "the ingress rule \"tcp 443, group gone\" of group web: there is no such group",
        ]
    );
    let kept: Vec<_> = portable.groups["web"]
        .ingress
        .iter()
        .map(in_words)
        .collect();
    assert_eq!(
        kept,
        [
            "\"icmp 8, prefix list offices\"",
            "\"all, prefix list offices (ipv4)\"",
            "\"all, prefix list offices (ipv6)\"",
        ]
        .map(|text| text.replace(
            "icmp 8, prefix list offices\"",
            "icmp 8, prefix list offices (ipv4)\""
        ))
    );
}

#[test]
fn an_interface_that_toml_cannot_name_is_named_anew() {
    let mut model = small();
    let interface = model.interfaces.remove("eth0").unwrap();
    model.interfaces.insert("eth%0".into(), interface);
    let converted = convert(&model, Target::Toml);
    assert_eq!(
        converted.left_out,
        ["the name of interface eth%0, which is eth_0 now"]
    );
    let read = read(&converted).unwrap();
    assert_eq!(read.interfaces["eth_0"].settings.device, "eth0");
}

#[test]
fn timeouts_that_are_aws_defaults_too_come_back() {
    let index = Timeout::TcpEstablished as usize;
    let mut model = small();
    model.ids = Ids {
        interfaces: BTreeMap::from([("eth0".to_string(), "eni-0123456789abcdef0".to_string())]),
        ..Ids::default()
    };
    let eth0 = model.interfaces.get_mut("eth0").unwrap();
    eth0.settings.timeouts[index] = TIMEOUT_DEFAULTS[index].1;
    let read = read(&convert(&model, Target::Toml)).unwrap();
    assert_eq!(read, without_places(model));
}
