//! What is refused rather than guessed.

use sg_common::verdict::Direction;

use super::super::super::tree::{At, Entry, Located};
use super::super::rule::{Halves, add};
use super::{checked, codes, groups, ingress, model, refused, rule, traffic};
use crate::model::{Family, Peer, Ports, Traffic};

#[test]
fn names_are_no_ids() {
    let id = "6f1d0000-0000-4000-8000-000000000001";
    // One is called as another's id is, and stands before it.
    let lists = format!(
        r#"{{"address_groups": [{{"id": "a", "name": "{id}", "addresses": ["203.0.113.0/24"]}},
                               {{"id": "{id}", "name": "b", "addresses": ["192.0.2.1/32"]}}]}}"#
    );
    let own = |key: &str, id: &str| {
        rule(&format!(
            r#""id": "r", "ethertype": "IPv4", "{key}": "{id}""#
        ))
    };
    let of = |id: &str| own("remote_address_group_id", id);
    let found = checked(&[("g.json", groups(&of(id))), ("a.json", lists.clone())]);
    assert_eq!(codes(&found), ["ambiguous-name"]);
    let found = checked(&[("g.json", groups(&of("b"))), ("a.json", lists)]);
    assert_eq!(codes(&found), ["InvalidPrefixListID.NotFound"]);
    // A rule's group.
    let rules = own("security_group_id", "id-g");
    let files = [
        (
            "g.json",
            r#"{"security_groups": [{"id": "x", "name": "id-g"}, {"id": "id-g", "name": "g"}]}"#
                .to_string(),
        ),
        (
            "r.json",
            format!(r#"{{"security_group_rules": [{rules}]}}"#),
        ),
    ];
    let read = model(&files);
    assert_eq!(read.groups["g"].ingress.len(), 1);
    assert_eq!(read.groups["id-g"].ingress.len(), 0);
    // A remote group, and the group of a port.
    let name = own("remote_group_id", "other");
    let found = checked(&[("g.json", groups(&name))]);
    assert_eq!(codes(&found), ["InvalidGroup.NotFound"]);
    let ports = r#"{"ports": [{"id": "p", "security_groups": ["other"], "fixed_ips": []}]}"#;
    let found = checked(&[("g.json", groups("")), ("p.json", ports.into())]);
    assert_eq!(codes(&found), ["InvalidGroup.NotFound"]);
}

#[test]
fn what_a_rule_does_not_say_is_not_everything() {
    let whole = rule(r#""ethertype": "IPv4""#);
    assert_eq!(traffic(r#""ethertype": "IPv4""#), [Traffic::All]);
    for key in [
        "protocol",
        "port_range_min",
        "port_range_max",
        "remote_ip_prefix",
        "remote_group_id",
    ] {
        let without = whole.replace(&format!(", \"{key}\": null"), "");
        assert_ne!(without, whole);
        let found = checked(&[("g.json", groups(&without))]);
        assert_eq!(codes(&found), ["unknown-value"], "{key}");
    }
    // Neutron may be without address groups.
    let without = whole.replace(r#", "remote_address_group_id": null"#, "");
    assert_eq!(ingress(&without).len(), 1);
    for keys in [
        r#""protocol": """#,
        r#""remote_ip_prefix": """#,
        r#""remote_group_id": "", "protocol": """#,
    ] {
        let found = refused(&format!(r#""ethertype": "IPv4", {keys}"#));
        assert!(!found.is_empty(), "{keys}");
    }
    let columns = [
        r#""IP Protocol": "tcp""#,
        r#""IP Range": "0.0.0.0/0""#,
        r#""Port Range": "22:22""#,
        r#""Remote Security Group": null"#,
        r#""Remote Address Group": null"#,
    ];
    let row = |left_out: &str| {
        let columns = columns.iter().filter(|column| **column != left_out);
        let columns: String = columns.map(|column| format!(", {column}")).collect();
        let row = format!(
            r#"[{{"ID": "r", "Ethertype": "IPv4", "Direction": "ingress", "Security Group": "g"{columns}}}]"#
        );
        checked(&[("r.json", row)])
    };
    assert_eq!(codes(&row("")), [""; 0]);
    // By that column the kind is recognised.
    for column in &columns[1..] {
        assert_eq!(codes(&row(column)), ["unknown-value"], "{column}");
    }
}

#[test]
fn rules_of_one_id_are_one_or_an_error() {
    let with = |id: &str, protocol: &str| {
        rule(&format!(
            r#""id": "{id}", "ethertype": "IPv4", "protocol": "{protocol}""#
        ))
    };
    let two = |one: String, other: String| format!("{one},{other}");
    assert_eq!(ingress(&two(with("r", "tcp"), with("r", "tcp"))).len(), 1);
    // An empty id is none.
    assert_eq!(ingress(&two(with("", "tcp"), with("", "udp"))).len(), 2);
    let differing = groups(&two(with("r", "tcp"), with("r", "udp")));
    assert_eq!(codes(&checked(&[("g.json", differing)])), ["duplicate-id"]);
    let elsewhere = format!(
        r#"{{"security_groups": [{{"id": "a", "name": "a", "security_group_rules": [{rule}]}},
                                {{"id": "b", "name": "b", "security_group_rules": [{rule}]}}]}}"#,
        rule = with("r", "tcp")
    );
    assert_eq!(codes(&checked(&[("g.json", elsewhere)])), ["duplicate-id"]);
}

#[test]
fn many_rules_of_remote_groups_are_paired_without_searching_all() {
    const COUNT: u16 = 60_000;
    let at = At {
        file: 0,
        start: 0,
        end: 0,
    };
    let entry = |family, port| Entry {
        at,
        id: None,
        traffic: vec![Located {
            value: Traffic::Tcp(Ports::single(port)),
            at,
        }],
        peers: vec![Located {
            value: Peer::GroupOf("other".into(), family),
            at,
        }],
        description: Some(format!("d{port}")),
    };
    let (mut halves, mut entries) = (Halves::new(), Vec::new());
    let start = std::time::Instant::now();
    for family in [Family::Ipv4, Family::Ipv6] {
        for port in 0..COUNT {
            let entry = entry(family, port);
            add(&mut halves, 0, Direction::Ingress, &mut entries, entry);
        }
    }
    assert_eq!(entries.len(), usize::from(COUNT));
    let whole = Peer::Group("other".into());
    assert!(entries.iter().all(|entry| entry.peers[0].value == whole));
    // To compare each with each takes minutes.
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}
