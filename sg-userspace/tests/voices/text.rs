//! A case as text: definitions in TOML, each followed by what happens under it.
//!
//! ```text
//! == definition
//! [conntrack]
//! …
//! == steps
//! packet i0 tc-ingress 1 020000000002…
//! pass 30
//! == definition
//! …
//! ```
//!
//! A packet names interface, hook, the packets it stands for, and its bytes. Lines before the first
//! section are a comment.

use std::{collections::BTreeMap, fmt::Write as _, net::IpAddr};

use sg_common::layout::TIMEOUT_DEFAULTS;
use sg_oracle::{
    definition,
    policy::{Group, Interface, Peer, Policy, Prefix, Rule, What},
    random::{Case, Hook, Step},
};
use toml::{Table, Value};

const HOOKS: [(&str, Hook); 3] = [
    ("xdp", Hook::Xdp),
    ("tc-ingress", Hook::TcIngress),
    ("tc-egress", Hook::TcEgress),
];

/// The text of a case.
pub(crate) fn write(case: &Case) -> String {
    let mut text = format!("== definition\n{}== steps\n", definition(&case.policy));
    for step in &case.steps {
        let _ = match step {
            Step::Packet {
                interface,
                hook,
                frame,
                packets,
            } => {
                let (hook, _) = HOOKS.iter().find(|one| one.1 == *hook).expect("a hook");
                let _ = write!(text, "packet {interface} {hook} {packets} ");
                frame.iter().try_for_each(|byte| write!(text, "{byte:02x}"))
            }
            Step::Pass(seconds) => write!(text, "pass {seconds}"),
            Step::Change(policy) => {
                write!(text, "== definition\n{}== steps", definition(policy))
            }
        };
        text.push('\n');
    }
    text
}

/// The case of a text.
pub(crate) fn read(text: &str) -> Case {
    let mut case: Option<Case> = None;
    let (_, sections) = text.split_once("== definition\n").expect("a definition");
    for section in sections.split("== definition\n") {
        let (definition, steps) = section.split_once("== steps\n").expect("steps");
        let policy = policy(&definition.parse().expect("TOML"));
        match &mut case {
            None => {
                let steps = Vec::new();
                case = Some(Case { policy, steps });
            }
            Some(case) => case.steps.push(Step::Change(Box::new(policy))),
        }
        let lines = steps.lines().filter(|line| !line.is_empty());
        let steps = lines.map(step);
        case.as_mut().expect("just made").steps.extend(steps);
    }
    case.expect("at least one section")
}

fn step(line: &str) -> Step {
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        ["pass", seconds] => Step::Pass(seconds.parse().expect("seconds")),
        ["packet", interface, hook, packets, frame] => Step::Packet {
            interface: interface.into(),
            hook: HOOKS.iter().find(|one| one.0 == hook).expect("a hook").1,
            frame: (0..frame.len() / 2)
                .map(|at| u8::from_str_radix(&frame[2 * at..2 * at + 2], 16).expect("hex"))
                .collect(),
            packets: packets.parse().expect("a number"),
        },
        _ => panic!("no step: {line}"),
    }
}

/// What [`definition`] wrote.
fn policy(table: &Table) -> Policy {
    let mut policy = Policy {
        services: addresses(table.get("services")).unwrap_or_default(),
        allowance: number(&table["conntrack"]["allowance"]) as u32,
        ..Policy::default()
    };
    for (name, list) in tables(table, "prefix_lists") {
        let entries = array(&list["entries"]).iter().map(prefix).collect();
        policy.lists.insert(name.clone(), entries);
    }
    for (name, group) in tables(table, "groups") {
        let rules = |key: &str| array(&group[key]).iter().map(rule).collect();
        let group = Group {
            reevaluate: group.contains_key("on_revoke"),
            ingress: rules("ingress"),
            egress: rules("egress"),
            members: Vec::new(),
        };
        policy.groups.insert(name.clone(), group);
    }
    for (name, members) in tables(table, "members") {
        let group = policy.groups.get_mut(name).expect("a group");
        group.members = addresses(members.get("addresses")).expect("addresses");
    }
    for (name, one) in tables(table, "interfaces") {
        policy.interfaces.insert(name.clone(), interface(one));
    }
    policy
}

fn tables<'t>(table: &'t Table, key: &str) -> impl Iterator<Item = (&'t String, &'t Table)> {
    let all = table.get(key).and_then(Value::as_table).into_iter();
    all.flatten()
        .map(|(name, value)| (name, value.as_table().expect("a table")))
}

fn interface(table: &Table) -> Interface {
    let host = string(&table["orientation"]) == "host";
    let flag = |key: &str, usual: bool| {
        table
            .get(key)
            .map_or(usual, |value| value.as_bool().expect("a boolean"))
    };
    let seconds = |name: &'static str| {
        let given = table.get("timeouts")?.get(name)?;
        Some((name, number(given) as u32))
    };
    let kinds = table.get("ethertypes").map(array).unwrap_or_default();
    Interface {
        host,
        groups: array(&table["groups"]).iter().map(string).collect(),
        addresses: addresses(table.get("addresses")),
        source_dest_check: flag("source_dest_check", host),
        track_always: table.contains_key("track"),
        tcp_loose: flag("tcp_loose", false),
        icmp_strict: table.contains_key("icmp_errors"),
        dhcp: flag("dhcp", true),
        mld: flag("mld", true),
        nd_redirect: flag("nd_redirect", false),
        ethertypes: kinds.iter().map(|kind| number(kind) as u16).collect(),
        allowance: table.get("allowance").map(|value| number(value) as u32),
        reserve: table.get("reserve").map_or(0, number) as u32,
        timeouts: TIMEOUT_DEFAULTS
            .iter()
            .filter_map(|(name, _)| seconds(name))
            .collect::<BTreeMap<_, _>>(),
    }
}

fn rule(value: &Value) -> Rule {
    let table = value.as_table().expect("a rule");
    let peer = if let Some(cidr) = table.get("cidr") {
        Peer::Prefix(prefix(cidr))
    } else if let Some(list) = table.get("prefix_list") {
        Peer::List(string(list))
    } else {
        Peer::Group(string(&table["group"]))
    };
    let byte = |key: &str| {
        table
            .get(key)
            .and_then(|value| u8::try_from(number(value)).ok())
    };
    let what = match &table["protocol"] {
        Value::Integer(number) => What::Number(*number as u8),
        name => match name.as_str().expect("a protocol") {
            "all" => What::All,
            "tcp" => ports(table, What::Tcp),
            "udp" => ports(table, What::Udp),
            "icmp" => What::Icmp(byte("type"), byte("code")),
            _ => What::Icmpv6(byte("type"), byte("code")),
        },
    };
    Rule { what, peer }
}

fn ports(table: &Table, what: impl Fn(u16, u16) -> What) -> What {
    match &table["ports"] {
        Value::Integer(port) => what(*port as u16, *port as u16),
        range => {
            let (low, high) = range
                .as_str()
                .and_then(|text| text.split_once('-'))
                .expect("a range");
            what(low.parse().expect("a port"), high.parse().expect("a port"))
        }
    }
}

fn prefix(value: &Value) -> Prefix {
    let text = string(value);
    let (address, length) = text.split_once('/').expect("a prefix");
    Prefix(
        address.parse().expect("an address"),
        length.parse().expect("a length"),
    )
}

fn addresses(value: Option<&Value>) -> Option<Vec<IpAddr>> {
    let address = |value: &Value| string(value).parse().expect("an address");
    Some(array(value?).iter().map(address).collect())
}

fn array(value: &Value) -> &[Value] {
    value.as_array().expect("an array")
}

fn string(value: &Value) -> String {
    value.as_str().expect("a string").into()
}

fn number(value: &Value) -> i64 {
    value.as_integer().expect("a number")
}
