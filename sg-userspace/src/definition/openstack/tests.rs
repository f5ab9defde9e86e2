use std::collections::BTreeMap;

use super::super::{Checked, Severity, Source, check, render};
use crate::model::{Family, Icmp, Model, Peer, Ports, Traffic};

mod strict;

fn checked(files: &[(&str, String)]) -> Checked {
    let sources: Vec<_> = files
        .iter()
        .map(|(name, text)| Source::new(name, text.clone().into_bytes()))
        .collect();
    check(&sources)
}

fn codes(checked: &Checked) -> Vec<&'static str> {
    let own = |code: &&str| !["unused-group", "open-egress", "no-members"].contains(code);
    let codes = checked.diagnostics.iter().map(|found| found.code);
    codes.filter(own).collect()
}

/// A group `g` with these rules, and one `other`.
fn groups(rules: &str) -> String {
    format!(
        r#"{{"security_groups": [
            {{"id": "id-g", "name": "g", "security_group_rules": [{rules}]}},
            {{"id": "id-other", "name": "other", "security_group_rules": []}}]}}"#
    )
}

/// A rule with these keys; what else Neutron answers is null.
fn rule(keys: &str) -> String {
    let others = [
        "protocol",
        "port_range_min",
        "port_range_max",
        "remote_ip_prefix",
        "remote_group_id",
        "remote_address_group_id",
    ];
    let others = others.map(|key| format!("\"{key}\""));
    let others = others.iter().filter(|key| !keys.contains(&**key));
    let others: String = others.map(|key| format!(", {key}: null")).collect();
    format!(r#"{{"direction": "ingress", {keys}{others}}}"#)
}

fn model(files: &[(&str, String)]) -> Model {
    let checked = checked(files);
    let errors = checked
        .diagnostics
        .iter()
        .filter(|found| found.severity == Severity::Error);
    assert_eq!(errors.count(), 0, "{}", render(&checked.diagnostics));
    checked.model.unwrap()
}

fn ingress(rules: &str) -> Vec<(Traffic, Peer)> {
    let mut model = model(&[("g.json", groups(rules))]);
    let rules = model.groups.remove("g").unwrap().ingress.into_iter();
    rules.map(|rule| (rule.traffic, rule.peer)).collect()
}

fn traffic(keys: &str) -> Vec<Traffic> {
    let rules = ingress(&rule(keys));
    rules.into_iter().map(|(traffic, _)| traffic).collect()
}

fn refused(keys: &str) -> Vec<&'static str> {
    codes(&checked(&[("g.json", groups(&rule(keys)))]))
}

#[test]
fn no_remote_is_everywhere_of_the_ethertype() {
    for (family, net) in [("IPv4", "0.0.0.0/0"), ("IPv6", "::/0")] {
        let keys = format!(r#""ethertype": "{family}", "protocol": null"#);
        let everywhere = (Traffic::All, Peer::Cidr(net.parse().unwrap()));
        assert_eq!(ingress(&rule(&keys)), [everywhere]);
    }
}

#[test]
fn a_group_without_rules_lets_nothing_out() {
    let group = &model(&[("g.json", groups(""))]).groups["g"];
    assert!(group.ingress.is_empty() && group.egress.is_empty());
}

#[test]
fn a_remote_group_means_its_members_of_the_ethertype() {
    let of = |family: &str, more: &str| {
        rule(&format!(
            r#""ethertype": "{family}", "protocol": "tcp", "port_range_min": 22, "port_range_max": 22,
               "remote_group_id": "id-other"{more}"#
        ))
    };
    let tcp = Traffic::Tcp(Ports::single(22));
    let one = |family| (tcp, Peer::GroupOf("other".into(), family));
    assert_eq!(ingress(&of("IPv4", "")), [one(Family::Ipv4)]);
    assert_eq!(ingress(&of("IPv6", "")), [one(Family::Ipv6)]);
    let both = format!(
        "{},{}",
        of("IPv4", ""),
        of("IPv6", r#", "description": "d""#)
    );
    assert_eq!(ingress(&both), [(tcp, Peer::Group("other".into()))]);
    // Nothing that was written about a rule is lost.
    let described = format!(
        "{},{}",
        of("IPv4", r#", "description": "c""#),
        of("IPv6", r#", "description": "d""#)
    );
    assert_eq!(ingress(&described), [one(Family::Ipv4), one(Family::Ipv6)]);
    // ICMP is of one family anyway.
    let ping = rule(r#""ethertype": "IPv6", "protocol": "icmp", "remote_group_id": "id-other""#);
    let peer = Peer::Group("other".into());
    assert_eq!(ingress(&ping), [(Traffic::Icmpv6(Icmp::Any), peer)]);
}

#[test]
fn protocols_by_name_and_number() {
    for (word, number) in [
        ("\"ah\"", 51),
        ("\"dccp\"", 33),
        ("\"egp\"", 8),
        ("\"esp\"", 50),
        ("\"gre\"", 47),
        ("\"igmp\"", 2),
        ("\"ipip\"", 4),
        ("\"ospf\"", 89),
        ("\"pgm\"", 113),
        ("\"rsvp\"", 46),
        ("\"sctp\"", 132),
        ("\"udplite\"", 136),
        ("\"vrrp\"", 112),
        ("\"50\"", 50),
        ("255", 255),
    ] {
        let keys = format!(r#""ethertype": "IPv4", "protocol": {word}"#);
        assert_eq!(traffic(&keys), [Traffic::Protocol(number)], "{word}");
    }
    for (word, number) in [
        ("ipv6-encap", 41),
        ("ipv6-route", 43),
        ("ipv6-frag", 44),
        ("ipv6-nonxt", 59),
        ("ipv6-opts", 60),
    ] {
        let keys = |family| format!(r#""ethertype": "{family}", "protocol": "{word}""#);
        assert_eq!(traffic(&keys("IPv6")), [Traffic::Protocol(number)]);
        assert_eq!(refused(&keys("IPv4")), ["InvalidParameterValue"]);
    }
    for word in ["null", "\"any\"", "\"0\"", "0", "\"ANY\""] {
        let keys = format!(r#""ethertype": "IPv4", "protocol": {word}"#);
        assert_eq!(traffic(&keys), [Traffic::All], "{word}");
    }
    for word in ["icmp", "icmpv6", "ipv6-icmp", "1", "58"] {
        let keys = format!(r#""ethertype": "IPv6", "protocol": "{word}""#);
        assert_eq!(traffic(&keys), [Traffic::Icmpv6(Icmp::Any)], "{word}");
    }
    for word in ["\"hopopt\"", "\"tpc\"", "256", "-1", "\"+6\""] {
        let keys = format!(r#""ethertype": "IPv4", "protocol": {word}"#);
        assert_eq!(refused(&keys), ["InvalidParameterValue"], "{word}");
    }
}

#[test]
fn ports_are_all_or_a_range_and_never_dropped() {
    let keys = |protocol: &str, from: &str, to: &str| {
        format!(
            r#""ethertype": "IPv4", "protocol": "{protocol}", "port_range_min": {from}, "port_range_max": {to}"#
        )
    };
    let all = Ports { from: 0, to: 65535 };
    assert_eq!(traffic(&keys("tcp", "null", "null")), [Traffic::Tcp(all)]);
    let some = Ports { from: 80, to: 90 };
    assert_eq!(traffic(&keys("17", "80", "\"90\"")), [Traffic::Udp(some)]);
    for (from, to) in [("80", "null"), ("90", "80"), ("1", "65536"), ("-1", "-1")] {
        let found = refused(&keys("tcp", from, to));
        assert_eq!(found, ["InvalidParameterValue"], "{from} {to}");
    }
    for protocol in ["sctp", "dccp", "udplite"] {
        assert_eq!(refused(&keys(protocol, "80", "80")), ["not-carried-over"]);
    }
    assert_eq!(refused(&keys("any", "80", "80")), ["InvalidParameterValue"]);
    let icmp = |from, to| traffic(&keys("icmp", from, to));
    assert_eq!(icmp("null", "null"), [Traffic::Icmp(Icmp::Any)]);
    assert_eq!(icmp("0", "null"), [Traffic::Icmp(Icmp::Type(0))]);
    assert_eq!(icmp("8", "0"), [Traffic::Icmp(Icmp::Code(8, 0))]);
    for (from, to) in [("null", "0"), ("256", "null"), ("-1", "-1")] {
        assert_eq!(
            refused(&keys("icmp", from, to)),
            ["InvalidParameterValue"],
            "{from} {to}"
        );
    }
}

#[test]
fn remotes_exclude_each_other_and_are_of_the_ethertype() {
    let keys =
        |family: &str, more: &str| format!(r#""ethertype": "{family}", "protocol": "esp", {more}"#);
    let net = r#""remote_ip_prefix": "10.1.2.3/8""#;
    let found = checked(&[("g.json", groups(&rule(&keys("IPv4", net))))]);
    assert_eq!(codes(&found), ["host-bits"]);
    assert_eq!(refused(&keys("IPv6", net))[1..], ["InvalidParameterValue"]);
    let both = r#""remote_ip_prefix": "10.0.0.0/8", "remote_group_id": "id-other""#;
    assert_eq!(refused(&keys("IPv4", both)), ["InvalidParameterValue"]);
    let single = r#""remote_ip_prefix": "10.0.0.1""#;
    let peer = Peer::Cidr("10.0.0.1/32".parse().unwrap());
    assert_eq!(
        ingress(&rule(&keys("IPv4", single))),
        [(Traffic::Protocol(50), peer)]
    );
    let unknown = r#""remote_address_group_id": "id-a""#;
    assert_eq!(
        refused(&keys("IPv4", unknown)),
        ["InvalidPrefixListID.NotFound"]
    );
}

#[test]
fn an_address_group_of_both_families_is_two_lists() {
    let address_group = |addresses: &str| {
        format!(r#"{{"address_group": {{"id": "id-a", "name": "a", "addresses": [{addresses}]}}}}"#)
    };
    let of = |family: &str| {
        rule(&format!(
            r#""ethertype": "{family}", "protocol": null, "remote_address_group_id": "id-a""#
        ))
    };
    let rules = format!("{},{}", of("IPv4"), of("IPv6"));
    let files = |addresses: &str| {
        [
            ("g.json", groups(&rules)),
            ("a.json", address_group(addresses)),
        ]
    };
    let mixed = model(&files(r#""192.0.2.0/24", "2001:db8::1/128""#));
    let peers = mixed.groups["g"].ingress.iter().map(|rule| &rule.peer);
    let lists = ["a (ipv4)", "a (ipv6)"].map(|name| Peer::PrefixList(name.into()));
    assert!(peers.eq(&lists));
    assert_eq!(
        mixed.prefix_lists["a (ipv6)"],
        ["2001:db8::1/128".parse().unwrap()]
    );
    let one = checked(&files(r#""192.0.2.0/24""#));
    assert_eq!(codes(&one), ["never-matches"]);
    let one = one.model.unwrap();
    assert_eq!(one.groups["g"].ingress.len(), 1);
    let ids = BTreeMap::from([("a".to_string(), "id-a".to_string())]);
    assert_eq!(one.ids.prefix_lists, ids);
}

#[test]
fn lists_of_the_command_line_are_read_as_far_as_they_tell() {
    let row = |protocol: &str, range: &str, more: &str| {
        format!(
            r#"{{"ID": "r{protocol}{range}", "IP Protocol": "{protocol}", "Ethertype": "IPv4", "IP Range": "0.0.0.0/0",
                "Port Range": "{range}", "Direction": "ingress", {more}, "Security Group": "id-g"}}"#
        )
    };
    let names = r#"[{"ID": "id-g", "Name": "g", "Description": "", "Project": "p", "Tags": []},
                    {"ID": "id-other", "Name": "other", "Description": "", "Project": "p", "Tags": []}]"#;
    let with = |rows: &[String]| {
        [
            ("names.json", names.to_string()),
            ("rules.json", format!("[{}]", rows.join(","))),
        ]
    };
    let nobody = r#""Remote Security Group": null, "Remote Address Group": null"#;
    let other = r#""Remote Security Group": "id-other", "Remote Address Group": null"#;
    let read = model(&with(&[
        row("tcp", "22:23", nobody),
        row("udp", "", other),
        row("icmp", "type=8:code=1", nobody),
    ]));
    let found: Vec<_> = read.groups["g"]
        .ingress
        .iter()
        .map(|rule| (rule.traffic, rule.peer.clone()))
        .collect();
    let everywhere = || Peer::Cidr("0.0.0.0/0".parse().unwrap());
    let all = Ports { from: 0, to: 65535 };
    assert_eq!(
        found,
        [
            (Traffic::Tcp(Ports { from: 22, to: 23 }), everywhere()),
            (
                Traffic::Udp(all),
                Peer::GroupOf("other".into(), Family::Ipv4)
            ),
            (Traffic::Icmp(Icmp::Code(8, 1)), everywhere()),
        ]
    );
    for range in ["", "type=8"] {
        let found = checked(&with(&[row("icmp", range, nobody)]));
        assert_eq!(codes(&found), ["unknown-value"], "{range}");
    }
    let found = checked(&[("names.json", names.to_string())]);
    assert_eq!(codes(&found), ["unknown-value"; 2]);
}

#[test]
fn a_rule_may_stand_in_its_group_and_in_a_list() {
    let own =
        rule(r#""id": "r", "security_group_id": "id-g", "ethertype": "IPv4", "protocol": "esp""#);
    let list = format!(r#"{{"security_group_rules": [{own}]}}"#);
    let files = [("g.json", groups(&own)), ("r.json", list)];
    assert_eq!(model(&files).groups["g"].ingress.len(), 1);
    // Rules alone tell of a group, too.
    let alone = format!(r#"{{"security_group_rule": {own}}}"#);
    assert_eq!(model(&[("r.json", alone)]).groups["id-g"].ingress.len(), 1);
}

#[test]
fn ports_are_members_by_all_addresses_that_they_may_use() {
    let port = |keys: &str| {
        format!(
            r#"{{"id": "p", "mac_address": "fa:16:3e:00:00:01", "security_groups": ["id-g"],
                "fixed_ips": [{{"ip_address": "10.0.0.5", "subnet_id": "s"}}], {keys}}}"#
        )
    };
    let with = |ports: &str| {
        [
            ("g.json", groups("")),
            ("p.json", format!(r#"{{"ports": [{ports}]}}"#)),
        ]
    };
    let pairs =
        r#""allowed_address_pairs": [{"ip_address": "10.0.0.6"}, {"ip_address": "10.0.0.5/32"}]"#;
    let members = &model(&with(&port(pairs))).members["g"];
    let expected: [std::net::IpAddr; 2] =
        ["10.0.0.5", "10.0.0.6"].map(|address| address.parse().unwrap());
    assert_eq!(members[..], expected);
    let whole = r#""allowed_address_pairs": [{"ip_address": "10.1.0.0/24"}]"#;
    assert_eq!(codes(&checked(&with(&port(whole)))), ["not-carried-over"]);
    let off = checked(&with(&port(r#""port_security_enabled": false"#)));
    assert_eq!(codes(&off), ["not-carried-over"]);
    assert!(off.model.unwrap().members.is_empty());
    let router =
        port(r#""port_security_enabled": false, "device_owner": "network:router_interface""#);
    let router = checked(&with(&router));
    assert_eq!(codes(&router), [""; 0]);
    assert!(router.model.unwrap().members.is_empty());
}

#[test]
fn what_is_not_carried_over_is_said() {
    let stateless = r#"{"security_group": {"id": "i", "name": "", "stateful": false, "security_group_rules": []}}"#;
    let found = checked(&[("g.json", stateless.into())]);
    assert_eq!(codes(&found), ["not-carried-over"]);
    assert!(found.model.unwrap().groups.contains_key("i"));
    let page =
        r#"{"security_groups": [], "security_groups_links": [{"rel": "next", "href": "x"}]}"#;
    assert_eq!(
        codes(&checked(&[("g.json", page.into())])),
        ["not-carried-over"]
    );
    let networks = r#"{"networks": []}"#;
    let found = checked(&[("n.json", networks.into())]);
    assert_eq!(codes(&found), ["not-carried-over"]);
}
