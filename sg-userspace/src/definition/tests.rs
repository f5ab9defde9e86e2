use std::net::IpAddr;

use proptest::prelude::*;
use sg_common::layout::Timeout;

use super::*;
use crate::model::{
    Hook, Icmp, IcmpErrors, Interface, Orientation, Peer, Ports, Rule, Track, Traffic,
};

/// What each test says of `[groups.g]`, with nothing else to complain of.
fn group(text: &str) -> String {
    format!("[groups.g]\negress = []\n{text}\n")
}

fn ingress(entry: &str) -> String {
    group(&format!("ingress = [{entry}]"))
}

fn checked(files: &[&str]) -> Checked {
    let name = |number| format!("{number}.toml");
    let sources: Vec<_> = files
        .iter()
        .enumerate()
        .map(|(number, text)| Source::new(&name(number), text.as_bytes().to_vec()))
        .collect();
    check(&sources)
}

fn model(text: &str) -> Model {
    let checked = checked(&[text]);
    assert_eq!(render(&checked.diagnostics), "");
    checked.model.unwrap()
}

fn rules(entry: &str) -> Vec<Rule> {
    let mut model = model(&ingress(entry));
    model.groups.remove("g").unwrap().ingress
}

fn traffic(keys: &str) -> Vec<Traffic> {
    let rules = rules(&format!(r#"{{ {keys}, cidr = "10.0.0.0/8" }}"#));
    rules.into_iter().map(|rule| rule.traffic).collect()
}

/// Codes and positions of what is found.
fn found(files: &[&str]) -> Vec<(&'static str, usize, usize)> {
    let diagnostics = checked(files).diagnostics;
    diagnostics
        .iter()
        .map(|found| {
            let place = found.place.as_ref().unwrap();
            (found.code, place.line, place.column)
        })
        .collect()
}

fn codes(text: &str) -> Vec<&'static str> {
    found(&[text]).into_iter().map(|(code, ..)| code).collect()
}

fn interface(keys: &str) -> Interface {
    let mut model = model(&format!("[interfaces.i]\ngroups = []\n{keys}"));
    model.interfaces.remove("i").unwrap()
}

fn ports(from: u16, to: u16) -> Ports {
    Ports { from, to }
}

#[test]
fn protocols_by_name_and_number() {
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
    assert_eq!(traffic("protocol = 50"), [Traffic::Protocol(50)]);
    assert_eq!(traffic("protocol = 0"), [Traffic::Protocol(0)]);
    for bad in ["256", "-2", r#""256""#, r#""tpc""#, r#""+6""#, "6.0", "[]"] {
        let text = ingress(&format!(r#"{{ protocol = {bad}, cidr = "10.0.0.0/8" }}"#));
        assert_eq!(codes(&text).len(), 1, "{bad}");
    }
}

#[test]
fn ports_are_numbers_ranges_and_lists() {
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
    let many = ingress(&text.replace("ports = 1", "ports = [1, 2]"));
    assert_eq!(codes(&many), ["InvalidParameterValue"]);
    let bad = ingress(&text.replace("sgr-", "sg-"));
    assert_eq!(codes(&bad), ["InvalidSecurityGroupRuleId.Malformed"]);
}

#[test]
fn prefixes_are_canonical_or_refused() {
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
    assert_eq!(
        codes(&entry(r#", group = "other""#)),
        ["InvalidGroup.NotFound"]
    );
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
fn egress_is_a_conscious_choice() {
    let without = "[groups.g]\n";
    assert_eq!(found(&[without]), [("missing-egress", 1, 9)]);
    let allow = model(&format!("defaults.egress = \"allow\"\n{without}"));
    let peers: Vec<_> = allow.groups["g"]
        .egress
        .iter()
        .map(|rule| rule.peer.clone())
        .collect();
    assert_eq!(
        peers,
        ["0.0.0.0/0", "::/0"].map(|net| Peer::Cidr(net.parse().unwrap()))
    );
    assert!(
        model(&format!("defaults.egress = \"deny\"\n{without}")).groups["g"]
            .egress
            .is_empty()
    );
    // It settles it for its own file only.
    assert_eq!(
        codes(&format!("defaults.egress = \"explicit\"\n{without}")),
        ["missing-egress"]
    );
    assert_eq!(
        found(&["defaults.egress = \"deny\"", without]),
        [("missing-egress", 1, 9)]
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
    let overlapping =
        r#"{ protocol = "tcp", ports = [1, "1-2"], cidr = ["10.0.0.0/8", "10.1.0.0/16"] }"#;
    assert_eq!(
        rules(overlapping).len(),
        4,
        "fact 1.40: only exact equals are duplicates"
    );
}

#[test]
fn an_interface_with_everything() {
    let text = r#"
        device = "ens5"
        netns = "/proc/1/ns/net"
        orientation = "host"
        hook = "xdp-generic"
        allowance = 5000
        reserve = 100
        addresses = ["10.0.0.1", "fe80::1"]
        track = "always"
        tcp_loose = true
        icmp_errors = "strict"
        dhcp = false
        mld = false
        nd_redirect = true
        timeouts = { profile = "nitro-v6", udp = 60, udp_stream = 60, icmp = 1, other = 432000 }
    "#;
    let interface = interface(text);
    let addresses: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap(), "fe80::1".parse().unwrap()];
    assert_eq!(interface.addresses, Some(addresses));
    let settings = interface.settings;
    assert_eq!(
        (settings.device.as_str(), settings.netns.as_deref()),
        ("ens5", Some("/proc/1/ns/net"))
    );
    assert_eq!(settings.orientation, Some(Orientation::Host));
    assert_eq!(settings.hook, Hook::XdpGeneric);
    assert_eq!((settings.allowance, settings.reserve), (Some(5000), 100));
    assert_eq!(
        (settings.track, settings.icmp_errors),
        (Track::Always, IcmpErrors::Strict)
    );
    assert_eq!((settings.tcp_loose, settings.nd_redirect), (true, true));
    assert_eq!((settings.dhcp, settings.mld), (false, false));
    let seconds = |timeout: Timeout| settings.timeouts[timeout as usize];
    assert_eq!(seconds(Timeout::TcpEstablished), 350);
    assert_eq!(seconds(Timeout::Udp), 60);
    assert_eq!(seconds(Timeout::UdpStream), 60);
    assert_eq!(
        (seconds(Timeout::Icmp), seconds(Timeout::Other)),
        (1, 432_000)
    );
    assert_eq!(seconds(Timeout::TcpSynSent), 120);
}

#[test]
fn an_interface_with_nothing() {
    let bare = interface("");
    assert_eq!(bare.settings, crate::model::InterfaceSettings::new("i"));
    assert_eq!(bare.addresses, None);
    assert_eq!(interface("addresses = []").addresses, Some(vec![]));
    let own = interface("timeouts = { profile = \"nitro-v6\", tcp_established = 60 }");
    assert_eq!(own.settings.timeouts[Timeout::TcpEstablished as usize], 60);
}

#[test]
fn bad_values_of_an_interface() {
    for bad in [
        "device = \"\"",
        "device = \"a/b\"",
        "device = \"sixteen-letters-\"",
        "netns = \"\"",
        "netns = \"..\"",
        "netns = \"a/b\"",
        "orientation = \"mine\"",
        "hook = \"xpd\"",
        "allowance = 0",
        "allowance = 262145",
        "reserve = 262145",
        "reserve = -1",
        "timeouts.udp = 29",
        "timeouts.udp = 61",
        "timeouts.udp_stream = 181",
        "timeouts.tcp_established = 59",
        "timeouts.icmp = 0",
        "timeouts.other = 432001",
        "timeouts.profile = \"nitro\"",
        "addresses = [\"127.0.0.1\"]",
        "addresses = [\"ff02::1\"]",
        "addresses = [\"0.0.0.0\"]",
        "addresses = [\"10.0.0.1/24\"]",
        "addresses = [\"::ffff:10.0.0.1\"]",
    ] {
        let text = format!("[interfaces.i]\ngroups = []\n{bad}");
        assert_eq!(codes(&text), ["InvalidParameterValue"], "{bad}");
    }
    for bad in [
        "device = 1",
        "dhcp = \"yes\"",
        "timeouts = 3",
        "groups = \"g\"",
        "addresses = \"10.0.0.1\"",
    ] {
        let groups = if bad.starts_with("groups") {
            ""
        } else {
            "groups = []"
        };
        assert_eq!(
            codes(&format!("[interfaces.i]\n{groups}\n{bad}")),
            ["wrong-type"],
            "{bad}"
        );
    }
    assert_eq!(codes("[interfaces.i]"), ["missing-key"]);
    assert_eq!(
        codes("[interfaces.i]\ngroups = []\nspeed = 1"),
        ["unknown-key"]
    );
    let twice =
        "[interfaces.a]\ndevice = \"e\"\ngroups = []\n[interfaces.b]\ndevice = \"e\"\ngroups = []";
    assert_eq!(codes(twice), ["duplicate-device"]);
}

#[test]
fn groups_of_an_interface_are_limited() {
    let text = |count: usize, quotas: &str| {
        let names: Vec<_> = (0..count).map(|number| format!("g{number}")).collect();
        let groups = names
            .iter()
            .map(|name| format!("[groups.{name}]\negress = []\n"));
        let groups: String = groups.collect();
        format!("defaults.quotas = \"{quotas}\"\n{groups}[interfaces.i]\ngroups = {names:?}")
    };
    const CODE: &str = "SecurityGroupsPerInterfaceLimitExceeded";
    assert_eq!(codes(&text(5, "aws")), NONE);
    assert_eq!(codes(&text(16, "warn")), [CODE]);
    assert!(checked(&[&text(16, "warn")]).model.is_some());
    assert!(checked(&[&text(6, "aws")]).model.is_none());
    assert_eq!(codes(&text(17, "warn")), [CODE]);
    assert!(checked(&[&text(17, "warn")]).model.is_none());
}

const NONE: [&str; 0] = [];

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
}

#[test]
fn files_are_one_definition() {
    let group = "[groups.a]\negress = []\n";
    let use_it = "[interfaces.i]\ngroups = [\"a\"]\n";
    assert!(checked(&[use_it, group]).model.is_some());
    let duplicate = checked(&[group, "[groups.A]\negress = []\n"]);
    let [found] = &duplicate.diagnostics[..] else {
        panic!("{:?}", duplicate.diagnostics);
    };
    assert_eq!(found.code, "InvalidGroup.Duplicate");
    assert_eq!(found.place.as_ref().unwrap().file, "1.toml");
    assert_eq!(found.related.as_ref().unwrap().place.file, "0.toml");
    let conntrack = "[conntrack]\nallowance = 2048\n";
    assert_eq!(found_codes(&[conntrack, conntrack]), ["duplicate-name"]);
    assert_eq!(found_codes(&[use_it, use_it, group]), ["duplicate-name"]);
    let members = "[members.a]\naddresses = [\"10.0.0.1\"]\n";
    assert_eq!(found_codes(&[group, members, members]), ["duplicate-name"]);
}

fn found_codes(files: &[&str]) -> Vec<&'static str> {
    found(files).into_iter().map(|(code, ..)| code).collect()
}

#[test]
fn services_are_link_local() {
    let text = r#"services = ["169.254.169.254", "fd00:ec2::254", "fe80::1", "169.254.169.254"]"#;
    let services: Vec<_> = model(text).services.iter().map(IpAddr::to_string).collect();
    assert_eq!(services, ["169.254.169.254", "fd00:ec2::254", "fe80::1"]);
    for bad in ["10.0.0.2", "fd00:ec3::254", "169.255.0.1", "nonsense"] {
        assert_eq!(
            codes(&format!("services = [\"{bad}\"]")),
            ["InvalidParameterValue"],
            "{bad}"
        );
    }
}

#[test]
fn conntrack_has_bounds() {
    let conntrack = model("[conntrack]\nallowance = 1024\naccounting = false").conntrack;
    assert_eq!((conntrack.allowance, conntrack.accounting), (1024, false));
    assert_eq!(model("").conntrack.allowance, 262_144);
    for bad in ["1023", "16777217", "99999999999999999999"] {
        assert_eq!(
            codes(&format!("conntrack.allowance = {bad}")),
            ["InvalidParameterValue"]
        );
    }
}

#[test]
fn names_are_those_of_aws() {
    for bad in [
        "",
        " a",
        "a ",
        "sg-1",
        "SG-1",
        "a|b",
        "a\\u001bb",
        "ü",
        &"x".repeat(256),
    ] {
        let text = format!("[groups.\"{bad}\"]\negress = []");
        assert_eq!(codes(&text), ["InvalidParameterValue"], "{bad}");
    }
    let text = "[groups.\"a._-:/()#,@[]+=&;{}!$* b\"]\negress = []";
    assert_eq!(codes(text), NONE);
}

#[test]
fn what_is_wrong_is_reported_together_by_position() {
    let files = [
        "nonsense = 1\n[groups.g]\nx = 2\n",
        "[interfaces.i]\ngroups = [\"h\"]\nallowance = true\n",
    ];
    assert_eq!(
        found(&files),
        [
            ("unknown-key", 1, 1),
            ("missing-egress", 2, 9),
            ("unknown-key", 3, 1),
            ("InvalidGroup.NotFound", 2, 11),
            ("wrong-type", 3, 13),
        ]
    );
}

#[test]
fn what_is_not_toml_does_not_hide_the_rest() {
    let text =
        "[groups.g]\negress = []\ningress = = 1\n[interfaces.i]\ngroups = [\"g\"]\nhook = \"no\"\n";
    let found = found(&[text]);
    assert_eq!(
        found.first().map(|(code, line, _)| (*code, *line)),
        Some(("syntax", 3))
    );
    assert!(
        found.contains(&("InvalidParameterValue", 6, 8)),
        "{found:?}"
    );
    assert_eq!(codes("[groups.g]\negress = []\negress = []"), ["syntax"]);
}

/// The structure of a definition with things to go wrong in every place.
fn noise() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "[groups.a]\n",
        "[groups.b]\n",
        "[interfaces.i]\n",
        "[prefix_lists.l]\n",
        "[members.a]\n",
        "[defaults]\n",
        "[[groups]]\n",
        "egress = []\n",
        "ingress = [",
        "entries = [",
        "groups = [",
        "{",
        "}",
        "]",
        "\n",
        "\"",
        ",",
        "= ",
        "protocol = ",
        "\"tcp\"",
        "-1",
        "ports = ",
        "\"1-2\"",
        "cidr = ",
        "\"10.0.0.0/8\"",
        "\"::/0\"",
        "group = \"a\"",
        "addresses = ",
        "\u{202e}",
        "\x1b",
        "timeouts.udp = 30\n",
        "'''",
        "#",
        "id = \"sgr-\"",
        "type = 8",
        "99999999999999999999",
        "1979-05-27",
        "nan",
    ]);
    prop::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_judged_and_shown(text in noise()) {
        let checked = checked(&[&text]);
        let failed = checked.diagnostics.iter().any(|found| found.severity == Severity::Error);
        prop_assert_eq!(checked.model.is_none(), failed);
        let shown = render(&checked.diagnostics);
        prop_assert!(!shown.contains(|c: char| c.is_control() && c != '\n'));
        prop_assert!(!shown.contains('\u{202e}'), "a hidden reordering");
    }
}
