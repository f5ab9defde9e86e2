use ipnet::IpNet;
use sg_common::layout::{TIMEOUT_DEFAULTS, Timeout};

use super::super::{Checked, Device, Source, check, check_on};
use super::list_of_file;
use crate::model::{Icmp, Model, OnRevoke, Peer, Ports, Rule, Traffic};

mod sources;

/// Ids of what the cases are about.
const WEB: &str = "sg-00000000000000001";
const APP: &str = "sg-00000000000000002";

fn sources(files: &[(&str, &str)]) -> Vec<Source> {
    let source = |(name, text): &(&str, &str)| Source::new(name, text.as_bytes().to_vec());
    files.iter().map(source).collect()
}

/// What is read, and the codes of what is found.
fn read(files: &[(&str, &str)]) -> (Option<Model>, Vec<&'static str>) {
    let Checked {
        model, diagnostics, ..
    } = check(&sources(files));
    let codes = diagnostics.iter().map(|one| one.code).collect();
    (model, codes)
}

fn model(files: &[(&str, &str)]) -> Model {
    let (model, codes) = read(files);
    assert!(codes.is_empty(), "{codes:?}");
    model.unwrap()
}

/// An answer with the group `web` that has these fields.
fn group(fields: &str) -> String {
    format!(
        "{{\"SecurityGroups\": [{{\"GroupId\": \"{WEB}\", \"GroupName\": \"web\", {fields}}}]}}"
    )
}

/// The same with these permissions.
fn permissions(ingress: &str, egress: &str) -> String {
    group(&format!(
        "\"IpPermissions\": [{ingress}], \"IpPermissionsEgress\": [{egress}]"
    ))
}

/// Rules of `describe-security-group-rules`; `{N}` is the number of the rule.
fn rules(rows: &[&str]) -> String {
    let row = |(number, row): (usize, &&str)| {
        format!("{{\"SecurityGroupRuleId\": \"sgr-{number:017x}\", \"GroupId\": \"{WEB}\", {row}}}")
    };
    let rows: Vec<String> = rows.iter().enumerate().map(row).collect();
    format!("{{\"SecurityGroupRules\": [{}]}}", rows.join(", "))
}

fn ingress(text: &str) -> Vec<Rule> {
    model(&[("f.json", text)])
        .groups
        .remove("web")
        .unwrap()
        .ingress
}

fn cidr(text: &str) -> Peer {
    Peer::Cidr(text.parse().unwrap())
}

fn told(rules: &[Rule]) -> Vec<(Traffic, Peer)> {
    let told = |rule: &Rule| (rule.traffic, rule.peer.clone());
    rules.iter().map(told).collect()
}

const ANYWHERE: &str = "\"IpRanges\": [{\"CidrIp\": \"0.0.0.0/0\"}]";

#[test]
fn everything_is_told_by_the_protocol() {
    // 7.50: no ports in groups, -1 in rules; and what others might write.
    for ports in [
        "",
        "\"FromPort\": -1, \"ToPort\": -1,",
        "\"FromPort\": 0, \"ToPort\": 0,",
        "\"FromPort\": null, \"ToPort\": null,",
    ] {
        let text = permissions(
            &format!("{{\"IpProtocol\": \"-1\", {ports} {ANYWHERE}}}"),
            "",
        );
        assert_eq!(
            told(&ingress(&text)),
            [(Traffic::All, cidr("0.0.0.0/0"))],
            "{ports}"
        );
        let row = format!(
            "\"IsEgress\": false, \"IpProtocol\": \"-1\", {ports} \"CidrIpv4\": \"0.0.0.0/0\""
        );
        let text = format!("[{}, {}]", permissions("", ""), rules(&[&row]));
        let (model, codes) = read(&[("f.json", &text)]);
        let rules = model.unwrap().groups.remove("web").unwrap().ingress;
        assert_eq!(told(&rules), [(Traffic::All, cidr("0.0.0.0/0"))], "{ports}");
        // The group says that there is none.
        assert_eq!(codes, ["sources-disagree"]);
    }
}

#[test]
fn icmp_has_its_type_and_code_in_the_ports() {
    let of = |protocol: &str, from: i32, to: i32, range: &str| {
        let text = permissions(
            &format!(
                "{{\"IpProtocol\": \"{protocol}\", \"FromPort\": {from}, \"ToPort\": {to}, {range}}}"
            ),
            "",
        );
        let (model, codes) = read(&[("f.json", &text)]);
        (model.unwrap().groups["web"].ingress[0].traffic, codes)
    };
    assert_eq!(
        of("icmp", 8, -1, ANYWHERE),
        (Traffic::Icmp(Icmp::Type(8)), vec![])
    );
    assert_eq!(
        of("icmp", 3, 4, ANYWHERE),
        (Traffic::Icmp(Icmp::Code(3, 4)), vec![])
    );
    assert_eq!(
        of("1", -1, -1, ANYWHERE),
        (Traffic::Icmp(Icmp::Any), vec![])
    );
    let v6 = "\"Ipv6Ranges\": [{\"CidrIpv6\": \"::/0\"}]";
    assert_eq!(
        of("icmpv6", -1, -1, v6),
        (Traffic::Icmpv6(Icmp::Any), vec![])
    );
    // 7.51: not everything.
    assert_eq!(
        of("icmp", 0, 0, ANYWHERE),
        (
            Traffic::Icmp(Icmp::Code(0, 0)),
            vec!["icmp-echo-reply-only"]
        )
    );
}

#[test]
fn an_empty_list_lets_nothing_through_and_a_missing_one_is_remarked() {
    // 7.52.
    let empty = model(&[("f.json", &permissions("", ""))]);
    assert!(empty.groups["web"].ingress.is_empty() && empty.groups["web"].egress.is_empty());
    // What is null was written by a program that had nothing there.
    let null = model(&[(
        "f.json",
        &group("\"IpPermissions\": null, \"IpPermissionsEgress\": null"),
    )]);
    assert_eq!(null.groups, empty.groups);
    let (missing, codes) = read(&[("f.json", &group("\"IpPermissions\": []"))]);
    assert_eq!(codes, ["missing-key"]);
    assert_eq!(missing.unwrap().groups, empty.groups);
}

#[test]
fn lists_may_be_missing_and_numbers_be_strings() {
    // 7.53.
    let text = permissions(
        "{\"IpProtocol\": \"tcp\", \"FromPort\": \"443\", \"ToPort\": \"443\", \"IpRanges\": [{\"CidrIp\": \"10.0.0.0/8\", \"Description\": \"\"}], \"Ipv6Ranges\": null}",
        "",
    );
    let rules = ingress(&text);
    let https = Traffic::Tcp(Ports { from: 443, to: 443 });
    assert_eq!(told(&rules), [(https, cidr("10.0.0.0/8"))]);
    assert_eq!(rules[0].description, None);
    for wrong in ["\"4x3\"", "44.3", "true", "[443]"] {
        let text = permissions(
            &format!(
                "{{\"IpProtocol\": \"tcp\", \"FromPort\": {wrong}, \"ToPort\": 443, {ANYWHERE}}}"
            ),
            "",
        );
        assert_eq!(read(&[("f.json", &text)]).1, ["wrong-type"], "{wrong}");
    }
}

#[test]
fn a_permission_is_a_rule_for_each_peer() {
    let text = permissions(
        &format!(
            "{{\"IpProtocol\": \"udp\", \"FromPort\": 53, \"ToPort\": 53, \"IpRanges\": [{{\"CidrIp\": \"10.1.0.0/16\", \"Description\": \"one\"}}, {{\"CidrIp\": \"10.2.0.1/32\"}}], \"Ipv6Ranges\": [{{\"CidrIpv6\": \"2001:db8::/32\"}}], \"PrefixListIds\": [{{\"PrefixListId\": \"pl-01\"}}], \"UserIdGroupPairs\": [{{\"GroupId\": \"{WEB}\", \"UserId\": \"123456789012\", \"Description\": \"own\"}}]}}"
        ),
        "",
    );
    let list = (
        "pl-01.json",
        "{\"Entries\": [{\"Cidr\": \"192.0.2.0/24\"}]}",
    );
    let member = format!(
        "{{\"NetworkInterfaces\": [{{\"NetworkInterfaceId\": \"eni-1\", \"PrivateIpAddress\": \"10.1.0.9\", \"Groups\": [{{\"GroupId\": \"{WEB}\"}}]}}]}}"
    );
    let model = model(&[("f.json", &text), list, ("i.json", &member)]);
    let rules = &model.groups["web"].ingress;
    let peers: Vec<_> = rules.iter().map(|rule| rule.peer.clone()).collect();
    assert_eq!(
        peers,
        [
            cidr("10.1.0.0/16"),
            cidr("10.2.0.1/32"),
            cidr("2001:db8::/32"),
            Peer::PrefixList("pl_01".into()),
            Peer::Group("web".into()),
        ]
    );
    let said: Vec<_> = rules
        .iter()
        .map(|rule| rule.description.as_deref())
        .collect();
    assert_eq!(said, [Some("one"), None, None, None, Some("own")]);
    let ids: std::collections::HashSet<_> = rules.iter().map(|rule| rule.id).collect();
    assert_eq!(ids.len(), 5);
    assert_eq!(model.ids.groups["web"], WEB);
}

#[test]
fn rules_with_ids_are_preferred() {
    let row = "\"IsEgress\": false, \"IpProtocol\": \"tcp\", \"FromPort\": 22, \"ToPort\": 22, \"CidrIpv4\": \"10.0.0.0/8\", \"Description\": \"ssh\"";
    let ssh = "{\"IpProtocol\": \"tcp\", \"FromPort\": 22, \"ToPort\": 22, \"IpRanges\": [{\"CidrIp\": \"10.0.0.0/8\"}]}";
    let http = ssh.replace("22", "80");
    let all = "{\"IpProtocol\": \"-1\", \"IpRanges\": [{\"CidrIp\": \"0.0.0.0/0\"}]}";
    let rows = rules(&[row]);
    let read = |ingress: &str, egress: &str| {
        let (model, codes) = read(&[("g.json", &permissions(ingress, egress)), ("r.json", &rows)]);
        (model.unwrap().groups.remove("web").unwrap(), codes)
    };
    let (same, codes) = read(ssh, "");
    assert!(codes.is_empty(), "{codes:?}");
    assert_eq!(same.ingress[0].id.to_string(), "sgr-00000000000000000");
    assert_eq!(same.ingress[0].description.as_deref(), Some("ssh"));
    let (other, codes) = read(&format!("{ssh}, {http}"), "");
    assert_eq!(
        (other.ingress, codes),
        (same.ingress.clone(), vec!["sources-disagree"])
    );
    // All rows are here: there are none of the other direction.
    let (one_way, codes) = read(ssh, all);
    assert_eq!(codes, ["sources-disagree"]);
    assert_eq!(told(&one_way.egress), []);
    // Without the groups, rules are all there is.
    let alone = model(&[("r.json", &rows)]);
    assert_eq!(
        told(&alone.groups["sg_00000000000000001"].ingress),
        told(&same.ingress)
    );
    assert_eq!(alone.ids.groups["sg_00000000000000001"], WEB);
}

#[test]
fn a_rule_has_one_peer() {
    let row = |peers: &str| {
        let text = rules(&[&format!(
            "\"IsEgress\": true, \"IpProtocol\": \"-1\"{peers}"
        )]);
        read(&[("r.json", &text)]).1
    };
    assert_eq!(row(""), ["missing-key"]);
    assert_eq!(
        row(", \"CidrIpv4\": \"10.0.0.0/8\", \"CidrIpv6\": \"::/0\""),
        ["missing-key"]
    );
    assert_eq!(row(", \"CidrIpv4\": \"::/0\""), ["InvalidParameterValue"]);
    assert_eq!(
        row(", \"CidrIpv4\": \"10.0.0.0/8\", \"CidrIpv6\": \"\""),
        [""; 0]
    );
    assert_eq!(row(", \"CidrIpv4\": \"10.0.0.1/8\""), ["host-bits"]);
}

#[test]
fn what_is_behind_a_peering_that_is_not_active_matches_nothing() {
    let pair = |more: &str| {
        let text = permissions(
            &format!(
                "{{\"IpProtocol\": \"-1\", \"UserIdGroupPairs\": [{{\"GroupId\": \"{APP}\", \"UserId\": \"210987654321\", \"VpcPeeringConnectionId\": \"pcx-1\"{more}}}]}}"
            ),
            "",
        );
        let app = text.replace(WEB, APP).replace("\"web\"", "\"app\"");
        let app = app.replace("\"IpProtocol\": \"-1\"", "\"IpProtocol\": \"50\"");
        let member = format!(
            "{{\"NetworkInterfaces\": [{{\"NetworkInterfaceId\": \"eni-1\", \"PrivateIpAddress\": \"10.1.0.9\", \"Groups\": [{{\"GroupId\": \"{APP}\"}}]}}]}}"
        );
        let (model, codes) = read(&[("f.json", &text), ("g.json", &app), ("i.json", &member)]);
        (model.unwrap().groups["web"].ingress.len(), codes)
    };
    assert_eq!(pair(""), (1, vec![]));
    assert_eq!(pair(", \"PeeringStatus\": \"active\""), (1, vec![]));
    let (rules, codes) = pair(", \"PeeringStatus\": \"deleted\"");
    assert_eq!((rules, codes), (0, vec!["not-carried-over"; 2]));
}

#[test]
fn a_group_that_no_file_defines_is_stale() {
    let text = permissions(
        &format!(
            "{{\"IpProtocol\": \"-1\", \"UserIdGroupPairs\": [{{\"GroupId\": \"{APP}\", \"UserId\": \"210987654321\"}}]}}"
        ),
        "",
    );
    assert_eq!(read(&[("f.json", &text)]).1, ["stale-rule"]);
    // TOML beside may stand in for it.
    let beside = format!(
        "[groups.partner]\nid = \"{APP}\"\negress = []\n[members.partner]\naddresses = [\"10.9.0.1\"]\n"
    );
    let model = model(&[("f.json", &text), ("partner.toml", &beside)]);
    assert_eq!(
        model.groups["web"].ingress[0].peer,
        Peer::Group("partner".into())
    );
}

const INTERFACE: &str = "{\"NetworkInterfaceId\": \"eni-0a\", \"MacAddress\": \"02:00:5e:00:53:01\", \"SourceDestCheck\": true, \"PrivateIpAddress\": \"10.0.1.5\", \"PrivateIpAddresses\": [{\"PrivateIpAddress\": \"10.0.1.5\", \"Primary\": true, \"Association\": {\"PublicIp\": \"198.51.100.7\"}}, {\"PrivateIpAddress\": \"10.0.1.6\", \"Primary\": false}], \"Ipv6Addresses\": [{\"Ipv6Address\": \"2001:db8:1::5\"}], \"Association\": {\"PublicIp\": \"198.51.100.7\"}, \"ConnectionTrackingConfiguration\": {\"TcpEstablishedTimeout\": 3600, \"UdpTimeout\": 45}, \"Groups\": [{\"GroupId\": \"sg-00000000000000001\", \"GroupName\": \"web\"}]";

#[test]
fn private_addresses_of_all_kinds_are_members() {
    let text = format!(
        "[{{\"NetworkInterfaces\": [{INTERFACE}, \"Ipv4Prefixes\": [{{\"Ipv4Prefix\": \"10.0.2.16/28\"}}]}}]}}, {}]",
        permissions("", "")
    );
    let members = &model(&[("f.json", &text)]).members["web"];
    let has = |address: &str| members.contains(&address.parse().unwrap());
    for address in [
        "10.0.1.5",
        "10.0.1.6",
        "2001:db8:1::5",
        "10.0.2.16",
        "10.0.2.31",
    ] {
        assert!(has(address), "{address}");
    }
    assert_eq!(members.len(), 3 + 16, "{members:?}");
}

#[test]
fn a_prefix_with_too_many_addresses_is_reported() {
    let text = format!(
        "[{{\"NetworkInterfaces\": [{INTERFACE}, \"Ipv6Prefixes\": [{{\"Ipv6Prefix\": \"2001:db8:1:0:1::/80\"}}]}}]}}, {}]",
        permissions("", "")
    );
    let device = Device {
        name: "eth7".into(),
        mac: Some([2, 0, 0x5e, 0, 0x53, 1]),
        addresses: Vec::new(),
    };
    let checked = check_on(&sources(&[("f.json", &text)]), &|| Ok(vec![device.clone()]));
    let codes: Vec<_> = checked.diagnostics.iter().map(|one| one.code).collect();
    assert_eq!(codes, ["not-carried-over"]);
    let own = &checked.model.unwrap().interfaces["eth7"];
    assert_eq!(own.settings.source_dest_check, Some(false));
}

#[test]
fn an_interface_of_this_host_is_found_with_its_settings() {
    let text = format!(
        "[{{\"NetworkInterfaces\": [{INTERFACE}}}]}}, {}]",
        permissions("", "")
    );
    let device = Device {
        name: "eth7".into(),
        mac: Some([2, 0, 0x5e, 0, 0x53, 1]),
        addresses: Vec::new(),
    };
    let checked = check_on(&sources(&[("f.json", &text)]), &|| Ok(vec![device.clone()]));
    let model = checked.model.unwrap();
    let own = &model.interfaces["eth7"];
    assert_eq!(own.groups, ["web"]);
    assert_eq!(own.addresses.as_ref().unwrap().len(), 3);
    assert_eq!(own.settings.source_dest_check, Some(true));
    let timeout = |which: Timeout| own.settings.timeouts[which as usize];
    assert_eq!(timeout(Timeout::TcpEstablished), 3600);
    assert_eq!(timeout(Timeout::Udp), 45);
    let (_, default) = TIMEOUT_DEFAULTS[Timeout::UdpStream as usize];
    assert_eq!(timeout(Timeout::UdpStream), default);
    assert_eq!(model.ids.interfaces["eth7"], "eni-0a");
    assert!(model.members.is_empty());
    let out_of_range = text.replace("3600", "59");
    assert_eq!(
        read(&[("f.json", &out_of_range)]).1,
        ["InvalidParameterValue"]
    );
}

#[test]
fn entries_belong_to_the_list_of_the_wrapper_or_of_the_file_name() {
    let rule = permissions(
        "{\"IpProtocol\": \"-1\", \"PrefixListIds\": [{\"PrefixListId\": \"pl-0a\"}]}",
        "",
    );
    let lists = "{\"PrefixLists\": [{\"PrefixListId\": \"pl-0a\", \"PrefixListName\": \"offices\", \"AddressFamily\": \"IPv4\"}]}";
    let entries = "{\"Entries\": [{\"Cidr\": \"192.0.2.0/24\"}]}";
    let wrapped = "{\"PrefixListId\": \"pl-0a\", \"Entries\": [{\"Cidr\": \"192.0.2.0/24\"}]}";
    let net: IpNet = "192.0.2.0/24".parse().unwrap();
    for (name, text) in [
        ("pl-0a.json", entries),
        ("dump/x.pl-0a.entries.json", entries),
        ("entries.json", wrapped),
        ("pl-0a.json", "[{\"Cidr\": \"192.0.2.0/24\"}]"),
    ] {
        let files = [("g.json", &*rule), ("l.json", lists), (name, text)];
        assert_eq!(model(&files).prefix_lists["offices"], [net], "{name}");
    }
    let of_service = lists.replace(
        "\"AddressFamily\": \"IPv4\"",
        "\"Cidrs\": [\"192.0.2.0/24\"]",
    );
    assert_eq!(
        model(&[("g.json", &rule), ("l.json", &of_service)]).prefix_lists["offices"],
        [net]
    );
    let codes = |files: &[(&str, &str)]| read(files).1;
    assert_eq!(
        codes(&[("g.json", &rule), ("l.json", lists)]),
        ["InvalidPrefixListID.NotFound"]
    );
    assert_eq!(codes(&[("l.json", lists)]), ["not-carried-over"]);
    assert_eq!(codes(&[("entries.json", entries)]), ["missing-key"]);
    let ipv6 = lists.replace("IPv4", "IPv6");
    assert_eq!(
        codes(&[("l.json", &ipv6), ("pl-0a.json", entries)]),
        ["InvalidParameterValue"]
    );
}

#[test]
fn ids_are_found_in_file_names() {
    for (name, id) in [
        ("pl-0a1.json", Some("pl-0a1")),
        ("a/b/pl-0a1.entries.json", Some("pl-0a1")),
        ("x.pl-0a1.json", Some("pl-0a1")),
        ("appl-0a1.json", None),
        ("pl-.json", None),
        ("pl-1/entries.json", None),
        ("pl-1-pl-2.json", Some("pl-2")),
    ] {
        assert_eq!(list_of_file(name), id, "{name}");
    }
}

#[test]
fn pages_may_overlap_and_the_last_must_be_there() {
    let page = |token: &str| permissions("", "").replacen('{', &format!("{{{token}"), 1);
    let (first, last) = (page("\"NextToken\": \"x\", "), page(""));
    assert_eq!(
        model(&[("1.json", &first), ("2.json", &last)]).groups.len(),
        1
    );
    assert_eq!(read(&[("1.json", &first)]).1, ["not-carried-over"]);
    let other = last.replace("\"web\"", "\"www\"");
    assert_eq!(
        read(&[("1.json", &first), ("2.json", &other)]).1,
        ["duplicate-id"]
    );
}

#[test]
fn a_tag_says_what_becomes_of_flows() {
    let text = |tag: &str| {
        group(&format!(
            "\"IpPermissions\": [], \"IpPermissionsEgress\": [], \"Tags\": [{{\"Key\": \"a\", \"Value\": \"b\"}}, {{\"Key\": \"sgctl:on_revoke\", \"Value\": \"{tag}\"}}]"
        ))
    };
    let found = model(&[("f.json", &text("reevaluate"))]).groups["web"].on_revoke;
    assert_eq!(found, OnRevoke::Reevaluate);
    assert_eq!(
        read(&[("f.json", &text("maybe"))]).1,
        ["InvalidParameterValue"]
    );
}

#[test]
fn groups_of_one_name_are_told_apart() {
    let text = format!(
        "[{}, {}]",
        permissions("", ""),
        permissions("", "").replace(WEB, APP)
    );
    let model = model(&[("f.json", &text)]);
    let names: Vec<_> = model.groups.keys().collect();
    assert_eq!(names, [&format!("web ({WEB})"), &format!("web ({APP})")]);
}
