//! Groups and their rules.

use super::*;

#[test]
fn l6_protocols_by_name_and_number() {
    let tcp = Traffic::Tcp(ports(22, 22));
    for protocol in [r#""tcp""#, "6", r#""6""#] {
        assert_eq!(
            traffic(&format!("protocol = {protocol}, ports = 22")),
            [tcp]
        );
    }
    for protocol in [r#""all""#, "-1", r#""-1""#] {
        assert_eq!(traffic(&format!("protocol = {protocol}")), [Traffic::All]);
    }
    assert_eq!(
        traffic("protocol = 17, ports = 53"),
        [Traffic::Udp(ports(53, 53))]
    );
    assert_eq!(
        traffic("protocol = 1, type = 8"),
        [Traffic::Icmp(Icmp::Type(8))]
    );
    let of_v6 = rules(r#"{ protocol = 58, cidr = "2001:db8::/32" }"#);
    assert_eq!(of_v6[0].traffic, Traffic::Icmpv6(Icmp::Any));
    assert_eq!(traffic("protocol = 50"), [Traffic::Protocol(50)]);
    assert_eq!(traffic("protocol = 0"), [Traffic::Protocol(0)]);
    for bad in ["256", "-2", r#""256""#, r#""tpc""#, r#""+6""#, "6.0", "[]"] {
        let text = ingress(&format!(r#"{{ protocol = {bad}, cidr = "10.0.0.0/8" }}"#));
        assert_eq!(codes(&text).len(), 1, "{bad}");
    }
}

#[test]
fn a_number_needs_what_its_name_needs() {
    // Facts 1.11, 1.16: 1, 6, 17 and 58 are the names; no other number has ports.
    for (number, expected) in [
        (1, "InvalidParameterValue"),
        (6, "InvalidParameterValue"),
        (17, "InvalidParameterValue"),
    ] {
        let text = ingress(&format!(
            r#"{{ protocol = {number}, cidr = "10.0.0.0/8" }}"#
        ));
        assert_eq!(found(&[&text]), [(expected, 3, 12)], "{number}");
    }
    for number in ["132", "-1", "0"] {
        let text = format!(r#"{{ protocol = {number}, ports = 80, cidr = "10.0.0.0/8" }}"#);
        assert_eq!(codes(&ingress(&text)), ["ignored"], "{number}");
        let model = checked(&[&ingress(&text)]).model.unwrap();
        let [rule] = &model.groups["g"].ingress[..] else {
            panic!("{number} is one rule");
        };
        assert!(rule.traffic.matches(false, number.parse().unwrap_or(6), 81));
        let with_type = text.replace("ports = 80", "type = 8");
        assert_eq!(codes(&ingress(&with_type)), ["InvalidParameterValue"]);
    }
}

#[test]
fn icmp_is_of_its_own_family() {
    let never = |protocol: &str, cidr: &str| {
        let entry = format!(r#"{{ protocol = "{protocol}", type = 8, cidr = "{cidr}" }}"#);
        codes(&ingress(&entry))
    };
    assert_eq!(never("icmp", "::/0"), ["never-matches"]);
    assert_eq!(never("icmpv6", "0.0.0.0/0"), ["never-matches"]);
    assert_eq!(never("icmp", "0.0.0.0/0"), NONE);
    assert_eq!(never("icmpv6", "::/0"), NONE);
}

#[test]
fn l5_ports_are_numbers_ranges_and_lists() {
    assert_eq!(
        traffic(r#"protocol = "tcp", ports = [0, "443", "8000-8100", 65535]"#),
        [(0, 0), (443, 443), (8000, 8100), (65535, 65535)]
            .map(|(from, to)| Traffic::Tcp(ports(from, to))),
    );
    for bad in [
        "65536",
        "-1",
        r#""""#,
        r#""-""#,
        r#""1-""#,
        r#""-1""#,
        r#""2-1""#,
        r#""1-2-3""#,
        r#""+1""#,
        r#""1 - 2""#,
        "1.5",
        "true",
    ] {
        let text = ingress(&format!(
            r#"{{ protocol = "tcp", ports = {bad}, cidr = "10.0.0.0/8" }}"#
        ));
        assert_eq!(codes(&text).len(), 1, "{bad}");
    }
    let missing = ingress(r#"{ protocol = "tcp", cidr = "10.0.0.0/8" }"#);
    assert_eq!(codes(&missing), ["InvalidParameterValue"]);
    let ignored = ingress(r#"{ protocol = "all", ports = 1, cidr = "10.0.0.0/8" }"#);
    assert_eq!(codes(&ignored), ["ignored"]);
}

#[test]
fn icmp_types_and_codes() {
    let icmp = |keys: &str| traffic(&format!(r#"protocol = "icmp", {keys}"#));
    assert_eq!(icmp("type = -1"), [Traffic::Icmp(Icmp::Any)]);
    assert_eq!(icmp("type = -1, code = -1"), [Traffic::Icmp(Icmp::Any)]);
    assert_eq!(icmp("type = 3, code = -1"), [Traffic::Icmp(Icmp::Type(3))]);
    assert_eq!(
        icmp("type = 3, code = 4"),
        [Traffic::Icmp(Icmp::Code(3, 4))]
    );
    let of_v6 = rules(r#"{ protocol = "icmpv6", cidr = "2001:db8::/32" }"#);
    assert_eq!(of_v6[0].traffic, Traffic::Icmpv6(Icmp::Any));
    for bad in [
        "",
        ", code = 0",
        ", type = 256",
        ", type = 8, code = 65535",
        ", type = -1, code = 0",
        ", type = 8, ports = 1",
    ] {
        let text = ingress(&format!(
            r#"{{ protocol = "icmp"{bad}, cidr = "10.0.0.0/8" }}"#
        ));
        assert_eq!(codes(&text), ["InvalidParameterValue"], "{bad}");
    }
    let tcp = ingress(r#"{ protocol = "tcp", ports = 1, type = 8, cidr = "10.0.0.0/8" }"#);
    assert_eq!(codes(&tcp), ["InvalidParameterValue"]);
}

#[test]
fn an_entry_is_a_rule_for_each_port_and_peer() {
    let rules = rules(
        r#"{ protocol = "tcp", ports = [1, 2], cidr = ["10.0.0.0/8", "::/0"], description = "d" }"#,
    );
    assert_eq!(rules.len(), 4);
    let mut ids: Vec<_> = rules.iter().map(|rule| rule.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4);
    assert!(
        rules
            .iter()
            .all(|rule| rule.description.as_deref() == Some("d"))
    );
    assert!(
        rules
            .iter()
            .all(|rule| rule.origin.as_ref().unwrap().line == 3)
    );
}

#[test]
fn ids_are_given_or_derived() {
    let text =
        r#"{ protocol = "tcp", ports = 1, cidr = "10.0.0.0/8", id = "sgr-00000000000000001" }"#;
    assert_eq!(rules(text)[0].id.to_string(), "sgr-00000000000000001");
    let two = ingress(&format!(
        "{text}, {}",
        text.replace("ports = 1", "ports = 2")
    ));
    assert_eq!(codes(&two), ["duplicate-id"]);
    let group = |name: &str| format!("[groups.{name}]\negress = [{text}]\n");
    assert_eq!(
        found(&[&group("a"), &group("b")]),
        [("duplicate-id", 2, 68)],
        "in two files"
    );
    let many = ingress(&text.replace("ports = 1", "ports = [1, 2]"));
    assert_eq!(codes(&many), ["InvalidParameterValue"]);
    let bad = ingress(&text.replace("sgr-", "sg-"));
    assert_eq!(codes(&bad), ["InvalidSecurityGroupRuleId.Malformed"]);
}

#[test]
fn l3_prefixes_are_canonical_or_refused() {
    let net = |text: &str| {
        let entry = format!(r#"{{ protocol = "all", cidr = "{text}" }}"#);
        let checked = checked(&[&ingress(&entry)]);
        let codes: Vec<_> = checked.diagnostics.iter().map(|found| found.code).collect();
        let rule = checked
            .model
            .map(|model| model.groups["g"].ingress[0].peer.clone());
        (rule.map(|peer| format!("{peer:?}")), codes)
    };
    let cidr = |text: &str| Some(format!("{:?}", Peer::<String>::Cidr(text.parse().unwrap())));
    assert_eq!(
        net("100.68.0.18/18"),
        (cidr("100.68.0.0/18"), vec!["host-bits"])
    );
    assert_eq!(
        net("2001:db8::1/64"),
        (cidr("2001:db8::/64"), vec!["host-bits"])
    );
    for good in ["0.0.0.0/0", "::/0", "192.0.2.1/32", "2001:db8::1/128"] {
        assert_eq!(net(good), (cidr(good), vec![]));
    }
    for (bad, code) in [
        ("10.0.0.0/33", "InvalidParameterValue"),
        ("10.0.0.0/99999999", "InvalidParameterValue"),
        ("::/129", "InvalidParameterValue"),
        ("::ffff:10.0.0.0/104", "InvalidParameterValue"),
        ("10.0.0.1", "InvalidPermission.Malformed"),
        ("10.0.0/8", "InvalidPermission.Malformed"),
        ("10.0.0.010/32", "InvalidPermission.Malformed"),
        ("10.0.0.0/+8", "InvalidPermission.Malformed"),
        ("10.0.0.0/", "InvalidPermission.Malformed"),
        ("10.0.0.0/255.0.0.0", "InvalidPermission.Malformed"),
        ("fe80::%eth0/64", "InvalidPermission.Malformed"),
        ("everywhere", "InvalidPermission.Malformed"),
        ("", "InvalidPermission.Malformed"),
    ] {
        assert_eq!(net(bad), (None, vec![code]), "{bad}");
    }
}

#[test]
fn exactly_one_kind_of_peer() {
    let entry = |peers: &str| ingress(&format!(r#"{{ protocol = "all"{peers} }}"#));
    assert_eq!(codes(&entry("")), ["missing-key"]);
    assert_eq!(
        codes(&entry(r#", cidr = "::/0", group = "g""#)),
        ["InvalidParameterValue"]
    );
    assert_eq!(codes(&entry(", cidr = []")), ["empty"]);
    assert_eq!(codes(&entry(", cidr = 10")), ["wrong-type"]);
    assert_eq!(codes(&entry(r#", group = "other""#)), ["stale-rule"]);
    assert_eq!(
        codes(&entry(r#", prefix_list = "other""#)),
        ["InvalidPrefixListID.NotFound"]
    );
}

#[test]
fn a_group_may_refer_to_itself() {
    let text = ingress(r#"{ protocol = "all", group = "g" }"#) + "[interfaces.i]\ngroups = [\"g\"]";
    assert_eq!(
        model(&text).groups["g"].ingress[0].peer,
        Peer::Group("g".into())
    );
}

#[test]
fn equal_rules_are_harmless_unless_aws_is_asked_for() {
    let entry = r#"{ protocol = "tcp", ports = 1, cidr = ["10.0.0.0/8", "10.1.0.0/8"] }"#;
    let warned = checked(&[&ingress(entry)]);
    let codes: Vec<_> = warned.diagnostics.iter().map(|found| found.code).collect();
    assert_eq!(codes, ["host-bits", "InvalidPermission.Duplicate"]);
    assert_eq!(warned.model.unwrap().groups["g"].ingress.len(), 1);
    let strict = format!("defaults.quotas = \"aws\"\n{}", ingress(entry));
    assert!(checked(&[&strict]).model.is_none());
    for (one, other) in [
        ("ports = 80", r#"ports = "80-80""#),
        ("ports = 80", r#"ports = "80""#),
        (r#"ports = "0-65535""#, r#"ports = "00-065535""#),
    ] {
        let entry = |ports: &str, protocol: &str, cidr: &str| {
            format!("{{ protocol = {protocol}, {ports}, cidr = \"{cidr}\" }}")
        };
        let first = entry(one, r#""tcp""#, "2001:db8::/32");
        let second = entry(other, "6", "2001:0DB8:0::/32");
        let found = found(&[&ingress(&format!("{first},\n{second}"))]);
        assert_eq!(found, [("InvalidPermission.Duplicate", 4, 1)], "{other}");
    }
    let overlapping =
        r#"{ protocol = "tcp", ports = [1, "1-2"], cidr = ["10.0.0.0/8", "10.1.0.0/16"] }"#;
    assert_eq!(
        rules(overlapping).len(),
        4,
        "fact 1.40: only exact equals are duplicates"
    );
}

#[test]
fn rules_of_a_group_are_counted_by_direction_and_family() {
    const CODE: &str = "RulesPerSecurityGroupLimitExceeded";
    let text = |ports: u16, cidr: &str| {
        let ports: Vec<_> = (1..=ports).collect();
        ingress(&format!(
            r#"{{ protocol = "tcp", ports = {ports:?}, cidr = {cidr} }}"#
        ))
    };
    assert_eq!(codes(&text(60, r#"["10.0.0.0/8", "2001:db8::/32"]"#)), NONE);
    assert_eq!(codes(&text(61, r#""10.0.0.0/8""#)), [CODE]);
    // A list counts by its entries, a group on both sides (facts 2.6, 2.8).
    let list = "[prefix_lists.l]\nentries = [\"10.0.0.0/8\", \"10.0.0.0/9\"]\n";
    let of_list =
        |ports| list.to_string() + &text(ports, "[]").replace("cidr = []", "prefix_list = \"l\"");
    assert_eq!(codes(&of_list(30)), NONE);
    assert_eq!(codes(&of_list(31)), [CODE]);
    let of_group = |ports| text(ports, "[]").replace("cidr = []", "group = \"g\"");
    let carried = "[interfaces.i]\ngroups = [\"g\"]\n";
    assert_eq!(codes(&(of_group(60) + carried)), NONE);
    assert_eq!(codes(&(of_group(61) + carried)), [CODE, CODE]);
}

#[test]
fn l4_what_refers_to_nobody_is_reported() {
    // Fact 1.41: AWS keeps such rules, which match nothing, and lists them as stale.
    let text = ingress(r#"{ protocol = "all", group = "h" }"#);
    assert_eq!(found(&[&text]), [("stale-rule", 3, 40)]);
    assert!(checked(&[&text]).model.is_some(), "it is enforced");
    let strict = "[defaults]\nstale_references = \"error\"\n";
    assert_eq!(found(&[strict, &text]), [("InvalidGroup.NotFound", 3, 40)]);
    let empty = format!("{text}[groups.h]\negress = []\n");
    assert_eq!(found(&[&empty]), [("no-members", 3, 40)]);
    assert!(checked(&[&empty]).model.is_some(), "it is enforced");
    let listed = format!("{empty}[members.h]\naddresses = [\"10.0.0.1\"]\n");
    assert_eq!(found(&[&listed]), []);
    let carried = format!("{empty}[interfaces.i]\ngroups = [\"h\"]\n");
    assert_eq!(found(&[&carried]), []);
}

#[test]
fn a_list_may_hold_both_families() {
    let text = "[prefix_lists.l]\nentries = [\"10.0.0.0/8\", \"2001:db8::/32\"]\n".to_owned()
        + &ingress(r#"{ protocol = "icmp", type = 8, prefix_list = "l" }"#);
    assert_eq!(model(&text).prefix_lists["l"].len(), 2);
}

#[test]
fn a_group_says_what_becomes_of_flows_whose_rule_goes() {
    let on_revoke = |keys: &str| model(&group(keys)).groups["g"].on_revoke;
    assert_eq!(on_revoke(""), OnRevoke::Keep);
    assert_eq!(on_revoke("on_revoke = \"keep\""), OnRevoke::Keep);
    assert_eq!(
        on_revoke("on_revoke = \"reevaluate\""),
        OnRevoke::Reevaluate
    );
    for bad in ["\"cut\"", "\"Keep\"", "\"\""] {
        let text = group(&format!("on_revoke = {bad}"));
        assert_eq!(codes(&text), ["InvalidParameterValue"], "{bad}");
    }
    for bad in ["true", "1", "[\"keep\"]"] {
        let text = group(&format!("on_revoke = {bad}"));
        assert_eq!(codes(&text), ["wrong-type"], "{bad}");
    }
}

#[test]
fn a_group_may_stand_for_its_members_of_one_family() {
    let of = |keys: &str| {
        let text = format!("{{ protocol = \"tcp\", ports = 22, {keys} }}");
        let members = "[members.g]\naddresses = [\"10.0.0.1\"]";
        model(&format!("{}\n{members}", ingress(&text)))
            .groups
            .remove("g")
            .unwrap()
            .ingress
    };
    let [both, v4, v6] = ["", ", family = \"ipv4\"", ", family = \"ipv6\""]
        .map(|family| of(&format!("group = \"g\"{family}")).remove(0));
    assert_eq!(both.peer, Peer::Group("g".into()));
    assert_eq!(v4.peer, Peer::GroupOf("g".into(), Family::Ipv4));
    assert_eq!(v6.peer, Peer::GroupOf("g".into(), Family::Ipv6));
    assert!(both.id != v4.id && v4.id != v6.id);
    let refused = |keys: &str| {
        codes(&ingress(&format!(
            "{{ protocol = \"tcp\", ports = 22, {keys} }}"
        )))
    };
    assert_eq!(
        refused("cidr = \"10.0.0.0/8\", family = \"ipv4\""),
        ["InvalidParameterValue"]
    );
    assert_eq!(
        refused("group = \"g\", family = \"both\""),
        ["InvalidParameterValue"]
    );
}
