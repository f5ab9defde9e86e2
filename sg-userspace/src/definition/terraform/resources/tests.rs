use super::super::super::document::json;
use super::super::super::tree::{Group, RemoteInterface};
use super::*;
use crate::model::{Icmp, Peer, Traffic};

/// Makes a tree of resources, each an address and its attributes as JSON.
fn read(meaning: Meaning, resources: &[(&str, &str)]) -> (File, Vec<&'static str>) {
    let resources = resources.iter().map(|(address, attributes)| {
        let (kind, name) = address.split_once('.').unwrap();
        let attributes = json::parse(0, attributes).unwrap();
        Resource {
            address: (*address).into(),
            kind: kind.into(),
            name: name.into(),
            at: attributes.at,
            attributes,
        }
    });
    let mut findings = Findings::default();
    let file = tree(resources.collect(), meaning, &mut findings);
    let source = super::super::super::Source::new("test", vec![b' '; 4096]);
    let found = findings.into_diagnostics(&[source]);
    (file, found.iter().map(|found| found.code).collect())
}

fn configuration(resources: &[(&str, &str)]) -> (File, Vec<&'static str>) {
    read(Meaning::Configuration, resources)
}

fn group(attributes: &str) -> (Group, Vec<&'static str>) {
    let (mut file, codes) = configuration(&[("aws_security_group.a", attributes)]);
    (file.groups.remove(0), codes)
}

fn block(keys: &str) -> (Option<Traffic>, Vec<&'static str>) {
    let text =
        format!(r#"{{"egress": [], "ingress": [{{{keys}, "cidr_blocks": ["10.0.0.0/8"]}}]}}"#);
    let (group, codes) = group(&text);
    (
        group.ingress.first().map(|entry| entry.traffic[0].value),
        codes,
    )
}

#[test]
fn everything_is_minus_one_and_ports_are_not_everything() {
    for protocol in [r#""-1""#, "-1", r#""all""#] {
        let keys = format!(r#""protocol": {protocol}, "from_port": 0, "to_port": 0"#);
        assert_eq!(block(&keys), (Some(Traffic::All), vec![]), "{keys}");
    }
    // Fact 7.11.
    let keys = r#""protocol": "-1", "from_port": 0, "to_port": 65535"#;
    assert_eq!(block(keys).1, ["InvalidParameterValue"]);
    // Fact 7.51.
    let keys = r#""protocol": "icmp", "from_port": 0, "to_port": 0"#;
    assert_eq!(
        block(keys),
        (
            Some(Traffic::Icmp(Icmp::Code(0, 0))),
            vec!["icmp-echo-reply-only"]
        )
    );
    let keys = r#""protocol": "1", "from_port": "-1", "to_port": "-1""#;
    assert_eq!(block(keys), (Some(Traffic::Icmp(Icmp::Any)), vec![]));
    let keys = r#""protocol": "tcp""#;
    assert_eq!(block(keys), (None, vec!["InvalidParameterValue"]));
}

#[test]
fn missing_egress_is_not_empty_egress() {
    assert_eq!(group("{}").0.egress.map(|rules| rules.len()), None);
    assert_eq!(
        group(r#"{"egress": null}"#)
            .0
            .egress
            .map(|rules| rules.len()),
        None
    );
    assert_eq!(
        group(r#"{"egress": []}"#).0.egress.map(|rules| rules.len()),
        Some(0)
    );
    let (file, _) = read(Meaning::State, &[("aws_security_group.a", "{}")]);
    assert!(file.groups[0].egress.is_some());
    let (file, _) = configuration(&[("aws_default_security_group.a", "{}")]);
    assert!(file.groups[0].egress.is_some());
    assert_eq!(file.groups[0].name.value, "default");
    let rule = r#"{"security_group_id": "aws_security_group.a", "ip_protocol": "-1", "cidr_ipv4": "0.0.0.0/0"}"#;
    let (file, codes) = configuration(&[
        ("aws_security_group.a", "{}"),
        ("aws_vpc_security_group_egress_rule.r", rule),
    ]);
    assert_eq!(file.groups[0].egress.as_ref().unwrap().len(), 1);
    assert_eq!(codes, [""; 0]);
}

#[test]
fn a_block_has_as_many_sources_as_it_names() {
    let (group, codes) = group(
        r#"{"id": "sg-1", "egress": [], "ingress": [{"protocol": "tcp", "from_port": 1, "to_port": 2,
            "cidr_blocks": ["10.0.0.0/8", "192.0.2.0/24"], "ipv6_cidr_blocks": ["2001:db8::/32"],
            "prefix_list_ids": ["pl-1"], "security_groups": ["123456789012/sg-2", "sg-3"], "self": true}]}"#,
    );
    assert_eq!(codes, [""; 0]);
    let peers: Vec<&Peer> = group.ingress[0]
        .peers
        .iter()
        .map(|peer| &peer.value)
        .collect();
    let named = |name: &str| Peer::Group(name.into());
    assert_eq!(
        peers,
        [
            &Peer::Cidr("10.0.0.0/8".parse().unwrap()),
            &Peer::Cidr("192.0.2.0/24".parse().unwrap()),
            &Peer::Cidr("2001:db8::/32".parse().unwrap()),
            &Peer::PrefixList("pl-1".into()),
            &named("sg-1"),
            &named("sg-2"),
            &named("sg-3"),
        ]
    );
}

#[test]
fn rules_in_two_places_are_said_to_be() {
    let block =
        r#"[{"protocol": "tcp", "from_port": 1, "to_port": 1, "cidr_blocks": ["10.0.0.0/8"]}]"#;
    let group = format!(r#"{{"id": "sg-1", "egress": [], "ingress": {block}}}"#);
    let rule = r#"{"security_group_id": "sg-1", "ip_protocol": "tcp", "from_port": 1, "to_port": 1, "cidr_ipv4": "10.0.0.0/8"}"#;
    let resources = [
        ("aws_security_group.a", &*group),
        ("aws_vpc_security_group_ingress_rule.r", rule),
    ];
    let (file, codes) = configuration(&resources);
    assert_eq!(codes, ["mixed-rules"]);
    assert_eq!(file.groups[0].ingress.len(), 2);
    let (file, codes) = read(Meaning::State, &resources);
    assert_eq!(codes, [""; 0]);
    assert_eq!(file.groups[0].ingress.len(), 1);
}

#[test]
fn names_that_terraform_makes_up_are_addresses() {
    let name = |address, attributes| {
        let (mut file, codes) = configuration(&[(address, attributes)]);
        (file.groups.remove(0).name.value, codes)
    };
    assert_eq!(
        name("aws_security_group.a", r#"{"name": "web", "egress": []}"#),
        ("web".into(), vec![])
    );
    assert_eq!(
        name(
            "aws_security_group.a[\"x\"]",
            r#"{"name_prefix": "web-", "egress": []}"#
        ),
        ("a[x]".into(), vec![])
    );
    assert_eq!(
        name(
            "aws_security_group.a",
            r#"{"name": "sg-wéb", "egress": []}"#
        ),
        ("sg_w_b".into(), vec!["renamed"])
    );
}

fn interfaces(resources: &[(&str, &str)]) -> (Vec<RemoteInterface>, Vec<&'static str>) {
    let (file, codes) = configuration(resources);
    (file.remote_interfaces, codes)
}

fn groups_of(interface: &RemoteInterface) -> Vec<&str> {
    let groups = interface.groups.value.iter();
    groups.map(|group| group.value.as_str()).collect()
}

#[test]
fn interfaces_have_groups_of_their_own_or_the_default_one() {
    let instance = r#"{"private_ip": "192.0.2.1"}"#;
    let (found, codes) = interfaces(&[("aws_instance.a", instance)]);
    assert_eq!((found.len(), codes), (0, vec!["not-carried-over"]));
    let (found, codes) = interfaces(&[
        ("aws_instance.a", instance),
        ("aws_default_security_group.d", "{}"),
    ]);
    assert_eq!(codes, [""; 0]);
    assert_eq!(groups_of(&found[0]), ["aws_default_security_group.d"]);
    let (found, codes) = interfaces(&[
        (
            "aws_network_interface.a",
            r#"{"security_groups": ["sg-1"]}"#,
        ),
        (
            "aws_network_interface_sg_attachment.b",
            r#"{"security_group_id": "sg-2", "network_interface_id": "aws_network_interface.a"}"#,
        ),
        (
            "aws_network_interface_sg_attachment.c",
            r#"{"security_group_id": "sg-2", "network_interface_id": "eni-9"}"#,
        ),
        (
            "aws_instance.c",
            r#"{"network_interface": [{"network_interface_id": "aws_network_interface.a"}]}"#,
        ),
    ]);
    // One attachment leads nowhere, and the interface has no address.
    assert_eq!(codes, ["not-carried-over", "not-carried-over"]);
    assert_eq!(found.len(), 1);
    assert_eq!(groups_of(&found[0]), ["sg-1", "sg-2"]);
}

#[test]
fn a_default_group_is_that_of_one_vpc() {
    let found = |instance: &str, default: &str| {
        let resources = [
            ("aws_instance.a", instance),
            ("aws_default_security_group.d", default),
            ("aws_subnet.s", r#"{"id": "subnet-1", "vpc_id": "vpc-1"}"#),
        ];
        interfaces(&resources).0.len()
    };
    let plain = r#"{"private_ip": "192.0.2.1"}"#;
    let placed = r#"{"private_ip": "192.0.2.1", "subnet_id": "subnet-1"}"#;
    assert_eq!(found(plain, "{}"), 1);
    assert_eq!(found(placed, r#"{"vpc_id": "vpc-1"}"#), 1);
    assert_eq!(found(placed, r#"{"vpc_id": "vpc-2"}"#), 0);
    assert_eq!(found(placed, "{}"), 0);
    assert_eq!(found(plain, r#"{"vpc_id": "vpc-1"}"#), 0);
    let elsewhere = r#"{"private_ip": "192.0.2.1", "subnet_id": "subnet-2"}"#;
    assert_eq!(found(elsewhere, r#"{"vpc_id": "vpc-1"}"#), 0);
}

#[test]
fn a_name_behind_an_account_is_none_of_this_file() {
    let peers = |word: &str| {
        let text = format!(
            r#"{{"egress": [], "ingress": [{{"protocol": "-1", "from_port": 0, "to_port": 0, "security_groups": ["{word}"]}}]}}"#
        );
        group(&text).0.ingress[0].peers[0].value.clone()
    };
    for (word, peer) in [
        ("123456789012/db", "123456789012/db"),
        (
            "999999999999/aws_security_group.db",
            "999999999999/aws_security_group.db",
        ),
        ("123456789012/sg-1", "sg-1"),
    ] {
        assert_eq!(peers(word), Peer::Group(peer.into()));
    }
}

#[test]
fn ids_are_checked() {
    let read = |id: &str| {
        let text = format!(r#"{{"id": "{id}", "egress": []}}"#);
        let (mut file, codes) = read(Meaning::State, &[("aws_security_group.a", &text)]);
        (file.groups.remove(0).ids.len(), codes)
    };
    assert_eq!(read("sg-1"), (2, vec![]));
    for bad in ["pl-x/../evil", "pl-1", "a b"] {
        assert_eq!(read(bad), (1, vec!["InvalidParameterValue"]), "{bad}");
    }
}

#[test]
fn what_has_groups_and_is_not_read_is_reported() {
    for (address, attributes, reported) in [
        ("aws_lb.a", r#"{"security_groups": ["sg-1"]}"#, true),
        ("aws_lb.a", r#"{"security_groups": []}"#, false),
        (
            "aws_lambda_function.a",
            r#"{"vpc_config": [{"security_group_ids": ["sg-1"]}]}"#,
            true,
        ),
        ("aws_vpc.a", "{}", false),
        ("openstack_networking_secgroup_v2.a", "{}", true),
    ] {
        let (_, codes) = configuration(&[(address, attributes)]);
        assert_eq!(!codes.is_empty(), reported, "{address} {attributes}");
    }
}
