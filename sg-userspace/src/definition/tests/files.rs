//! Files as a whole: names, settings, what is reported together.

use super::*;

#[test]
fn l13_egress_is_a_conscious_choice() {
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
        "pl-1",
        "Eni-1",
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
