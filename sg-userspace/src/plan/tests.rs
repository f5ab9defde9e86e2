mod flows;
#[path = "../../tests/plan/packet.rs"]
mod packet;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{
    definition::{self, Source},
    resolve::resolve,
};

/// A definition, resolved; its devices are there and have no addresses.
fn resolved(text: &str) -> Resolved {
    let checked = definition::check(&[Source::new("test.toml", text.to_owned().into())]);
    let Some(model) = checked.model else {
        panic!("{:#?}\n{text}", checked.diagnostics);
    };
    resolve(&model, &BTreeMap::new())
}

/// What changes if one definition follows the other, whose interfaces are those of before, or new.
fn planned(before: &str, after: &str) -> Plan {
    let (before, after) = (resolved(before), resolved(after));
    let fates = after.interfaces.keys().map(|name| {
        let after = name.clone();
        if before.interfaces.contains_key(name) {
            let before = name.clone();
            Fate::Named { before, after }
        } else {
            Fate::Attached { after }
        }
    });
    let future = Future {
        fates: fates.collect(),
        resolved: after.clone(),
        targets: Vec::new(),
        absent: BTreeMap::new(),
    };
    let (old, new) = compiled(&before, &after).unwrap();
    policies(&old, &new, &future, true).unwrap()
}

/// Ingress rules of a group that interface `i` carries, and more.
fn with(rules: &str, more: &str) -> String {
    format!(
        "[groups.g]\negress = []\ningress = [{rules}]\n[interfaces.i]\ngroups = [\"g\"]\n{more}"
    )
}

/// What is gained and lost, in words.
fn access(plan: &Plan) -> Vec<String> {
    let mut found = Vec::new();
    for one in &plan.access {
        for (sign, reaches) in [('+', &one.gains), ('-', &one.loses)] {
            for reach in reaches {
                let peers: Vec<String> = reach.peers.spans().map(|span| span.to_string()).collect();
                let (terms, peers) = (reach.traffic.terms().join(","), peers.join(","));
                found.push(format!("{sign} {} {terms} {peers}", one.direction.name()));
            }
        }
    }
    found
}

fn effects(plan: &Plan) -> Vec<(Change, Effect)> {
    plan.rules
        .iter()
        .map(|rule| (rule.change, rule.effect))
        .collect()
}

const WIDE: &str = "{ protocol = \"tcp\", ports = \"80-90\", cidr = \"10.0.0.0/8\" },";
const NARROW: &str = "{ protocol = \"tcp\", ports = 85, cidr = \"10.1.0.0/16\" },";

#[test]
fn the_same_definition_changes_nothing() {
    let text = with(&(WIDE.to_owned() + NARROW), "");
    let plan = planned(&text, &text);
    assert!(!plan.changes, "{plan:?}");
    // Nor does where a rule stands, or in which order.
    let moved = planned(
        &text,
        &("\n\n".to_owned() + &with(&(NARROW.to_owned() + WIDE), "")),
    );
    assert!(!moved.changes, "{moved:?}");
}

#[test]
fn a_rule_that_others_cover_changes_nothing_and_says_so() {
    let both = with(&(WIDE.to_owned() + NARROW), "");
    let wide = with(WIDE, "");
    let gone = planned(&both, &wide);
    assert!(gone.changes);
    assert_eq!(effects(&gone), [(Change::Removed, Effect::Covered)]);
    assert_eq!(access(&gone), [""; 0]);
    assert_eq!(
        effects(&planned(&wide, &both)),
        [(Change::Added, Effect::Covered)]
    );

    // Another group of the interface covers as well, and so do two halves of the addresses.
    let halves = "{ protocol = \"tcp\", ports = 85, cidr = [\"10.1.0.0/17\", \"10.1.128.0/17\"] }";
    let other =
        format!("[groups.h]\negress = []\ningress = [{halves}]\n[interfaces.j]\ngroups = []\n");
    let joined = |rules| with(rules, &other).replace("[\"g\"]", "[\"g\", \"h\"]");
    let plan = planned(&joined(NARROW), &joined(""));
    assert_eq!(effects(&plan), [(Change::Removed, Effect::Covered)]);
    assert_eq!(access(&plan), [""; 0]);
}

#[test]
fn what_is_left_of_a_rule_is_exact() {
    let both = with(&(WIDE.to_owned() + NARROW), "");
    let plan = planned(&both, &with(NARROW, ""));
    assert_eq!(effects(&plan), [(Change::Removed, Effect::Access)]);
    assert_eq!(
        access(&plan),
        [
            "- ingress tcp 80-90 10.0.0.0/16,10.2.0.0-10.255.255.255",
            "- ingress tcp 80-84,tcp 86-90 10.1.0.0/16"
        ]
    );
    let everything = "{ protocol = \"all\", cidr = \"::/0\" }";
    let numbers = "{ protocol = \"tcp\", ports = 0, cidr = \"::/0\" }, { protocol = 50, cidr = \"::/0\" }, { protocol = \"icmpv6\", type = 128, code = 0, cidr = \"::/0\" }";
    assert_eq!(
        access(&planned(&with(numbers, ""), &with(everything, ""))),
        [
            "+ ingress tcp 1-65535,udp,icmpv6 0-127,icmpv6 128/1-128/255,icmpv6 129-255,protocol 0-5,protocol 7-16,protocol 18-49,protocol 51-57,protocol 59-255 ::/0"
        ]
    );
}

#[test]
fn rules_without_effect_say_why() {
    let list = "[prefix_lists.none]\nentries = []\n[groups.nobody]\negress = []\n[groups.idle]\negress = []\ningress = [X]\n";
    let idle = list.replace('X', WIDE);
    let before = with("", &list.replace('X', ""));
    let rules = "{ protocol = \"tcp\", ports = 1, prefix_list = \"none\" }, { protocol = \"tcp\", ports = 2, group = \"nobody\" }, { protocol = \"icmp\", type = 8, cidr = \"::/0\" }";
    let plan = planned(&before, &with(rules, &idle));
    let mut found = effects(&plan);
    found.sort_by_key(|(_, effect)| *effect as u8);
    assert_eq!(
        found,
        [
            (Change::Added, Effect::NoInterface),
            (Change::Added, Effect::NoPeer),
            (Change::Added, Effect::NoPeer),
            (Change::Added, Effect::NoPeer)
        ]
    );
    assert_eq!(access(&plan), [""; 0]);
}

#[test]
fn a_rule_with_an_id_of_its_own_is_changed_and_not_replaced() {
    let rule = |port: u16, text: &str| {
        with(
            &format!(
                "{{ id = \"sgr-0123456789abcdef0\", protocol = \"tcp\", ports = {port}, cidr = \"10.0.0.0/8\", description = \"{text}\" }}"
            ),
            "",
        )
    };
    let plan = planned(&rule(80, "a"), &rule(81, "a"));
    assert_eq!(effects(&plan), [(Change::Changed, Effect::Access)]);
    assert_eq!(
        access(&plan),
        ["+ ingress tcp 81 10.0.0.0/8", "- ingress tcp 80 10.0.0.0/8"]
    );
    let plan = planned(&rule(80, "a"), &rule(80, "b"));
    assert_eq!(effects(&plan), [(Change::Changed, Effect::None)]);
    assert!(plan.changes && plan.access.is_empty());
}

#[test]
fn members_and_lists_change_access_without_a_rule() {
    let rules = "{ protocol = \"tcp\", ports = 1, group = \"m\" }, { protocol = \"tcp\", ports = 2, prefix_list = \"l\" }, { protocol = \"tcp\", ports = 1, cidr = \"10.0.0.2/32\" }";
    let text = |members: &str, entries: &str| {
        with(
            rules,
            &format!(
                "[groups.m]\negress = []\n[members.m]\naddresses = [{members}]\n[prefix_lists.l]\nentries = [{entries}]\n"
            ),
        )
    };
    let plan = planned(
        &text(
            "\"10.0.0.1\", \"10.0.0.2\", \"10.0.0.3\"",
            "\"10.0.0.0/30\"",
        ),
        &text(
            "\"10.0.0.3\", \"10.0.0.4\", \"2001:db8::1\"",
            "\"10.0.0.0/31\"",
        ),
    );
    assert_eq!(effects(&plan), []);
    assert_eq!(
        access(&plan),
        [
            "+ ingress tcp 1 10.0.0.4/32",
            // 10.0.0.2 stays by its address.
            "- ingress tcp 1 10.0.0.1/32",
            "- ingress tcp 2 10.0.0.2/31",
            "+ ingress tcp 1 2001:db8::1/128"
        ]
    );
    let [members] = &plan.members[..] else {
        panic!("{:?}", plan.members);
    };
    assert_eq!((members.joined_count, members.left_count), (2, 2));
    assert_eq!(plan.prefix_lists.len(), 1);
}

#[test]
fn interfaces_with_the_same_change_stand_together() {
    let more = "[interfaces.j]\ngroups = [\"g\"]\n[interfaces.k]\ngroups = []\n";
    let plan = planned(&with("", more), &with(WIDE, more));
    let [access] = &plan.access[..] else {
        panic!("{:?}", plan.access);
    };
    assert_eq!(access.interfaces, ["i", "j"]);
    let example = access.gains[0].example;
    assert_eq!(
        (example.before, example.after),
        (None, Some(plan.rules[0].id))
    );
    assert_eq!(
        (
            example.protocol,
            example.peer.to_string().as_str(),
            example.port
        ),
        (6, "10.0.0.1", 80)
    );
}

#[test]
fn settings_are_named_as_the_definition_names_them() {
    let plan = planned(
        &with(WIDE, ""),
        &with(
            WIDE,
            "tcp_loose = true\ntimeouts = { udp = 40 }\n[conntrack]\nallowance = 2048\n",
        ),
    );
    let [interface] = &plan.interfaces[..] else {
        panic!("{:?}", plan.interfaces);
    };
    let named: Vec<String> = interface
        .settings
        .iter()
        .map(|one| format!("{} {} {}", one.key, one.before, one.after))
        .collect();
    assert_eq!(named, ["tcp_loose false true", "udp 30 40"]);
    assert_eq!(plan.host[0].key, "allowance");
    assert!(plan.access.is_empty());
}

/// Every key, with those above it.
fn keys(value: &serde_json::Value, above: &str, found: &mut BTreeSet<String>) {
    if let Some(array) = value.as_array() {
        array.iter().for_each(|one| keys(one, above, found));
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        let path = format!("{above}.{key}");
        keys(value, &path, found);
        found.insert(path);
    }
}

#[test]
fn the_form_of_json_is_what_its_page_says() {
    let rule = |port: u16| {
        format!(
            "{{ protocol = \"tcp\", ports = {port}, prefix_list = \"l\", description = \"d\" }}"
        )
    };
    let more = "[groups.m]\negress = []\n[members.m]\naddresses = [X]\n[prefix_lists.l]\nentries = [\"10.0.0.0/8\", Y]\n[conntrack]\nallowance = Z\n";
    let text = |port, values: [&str; 3]| {
        let more = more
            .replace('X', values[0])
            .replace('Y', values[1])
            .replace('Z', values[2]);
        with(&rule(port), &format!("tcp_loose = {}\n{more}", port == 81))
    };
    let mut plan = planned(
        &text(80, ["\"10.0.0.1\"", "", "2048"]),
        &text(81, ["\"10.0.0.2\"", "\"11.0.0.0/8\"", "4096"]),
    );
    plan.flows.interfaces = vec![InterfaceFlows {
        untracked: Some(Untracked::default()),
        ..InterfaceFlows::default()
    }];
    let mut found = BTreeSet::new();
    keys(&serde_json::to_value(&plan).unwrap(), "", &mut found);
    let page = include_str!("../../../docs/plan.md");
    let mut named = String::new();
    for path in &found {
        let key = path.rsplit('.').next().unwrap_or_default();
        assert!(
            page.contains(&format!("`{key}`")),
            "{path} is not on the page"
        );
        named.push_str(path);
        named.push('\n');
    }
    assert_eq!(named, include_str!("tests/keys.txt"));
}
