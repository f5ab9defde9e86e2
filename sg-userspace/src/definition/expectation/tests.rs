use super::super::{Source, check};

const GROUPS: &str = r#"
[groups.alb]
ingress = [{ protocol = "tcp", ports = 443, cidr = ["0.0.0.0/0", "::/0"] }]
egress = [{ protocol = "tcp", ports = 8080, group = "app" }]
[groups.app]
ingress = [
    { protocol = "tcp", ports = 8080, group = "alb" },
    { protocol = "tcp", ports = 22, prefix_list = "offices" },
    { protocol = "icmp", type = 8, cidr = "10.0.0.0/8" },
]
egress = []
[prefix_lists.offices]
entries = ["198.51.100.0/24", "2001:db8:1::/48"]
[interfaces.eth0]
groups = ["alb"]
addresses = ["10.0.0.1"]
"#;

/// What becomes of one test.
fn outcome(test: &str) -> Result<String, String> {
    let text = format!("tests = [{{ {test} }}]\n{GROUPS}");
    let checked = check(&[Source::new("t.toml", text.into())]);
    match checked.tests.first() {
        Some(outcome) if outcome.passed => Ok(outcome.because.clone()),
        Some(outcome) => {
            assert!(checked.model.is_none(), "a test that fails is an error");
            Err(outcome.because.clone())
        }
        None => Err(super::super::render(&checked.diagnostics)),
    }
}

#[track_caller]
fn holds(test: &str) {
    let found = outcome(test);
    assert!(found.is_ok(), "{test}: {found:?}");
}

#[track_caller]
fn fails(test: &str, because: &str) {
    let found = outcome(test).expect_err(test);
    assert!(found.contains(because), "{test}: {found}");
}

#[test]
fn both_sides_have_to_allow_it() {
    holds(
        r#"from = "group:alb", to = "group:app", protocol = "tcp", port = 8080, expect = "allow""#,
    );
    fails(
        r#"from = "group:alb", to = "group:app", protocol = "tcp", port = 8081, expect = "allow""#,
        "no egress rule of group alb allows it",
    );
    holds(r#"from = "group:app", to = "group:alb", protocol = "tcp", port = 443, expect = "deny""#);
    fails(
        r#"from = "group:alb", to = "group:app", protocol = "tcp", port = 8080, expect = "deny""#,
        "is allowed by egress of alb (t.toml:5) and ingress of app (t.toml:8)",
    );
}

#[test]
fn the_internet_is_whom_nothing_singles_out() {
    holds(r#"from = "internet", to = "group:alb", protocol = "tcp", port = 443, expect = "allow""#);
    holds(r#"from = "internet", to = "group:app", protocol = "tcp", port = 22, expect = "deny""#);
    holds(
        r#"from = "prefix_list:offices", to = "group:app", protocol = "tcp", port = 22, expect = "allow""#,
    );
    fails(
        r#"from = "0.0.0.0/0", to = "group:app", protocol = "tcp", port = 22, expect = "deny""#,
        "IPv4 from 198.51.100.0 to app is allowed",
    );
    fails(
        r#"from = "198.51.100.0/23", to = "group:app", protocol = "tcp", port = 22, expect = "allow""#,
        "IPv4 from 198.51.101.0 to app is denied",
    );
}

#[test]
fn addresses_of_interfaces_are_judged_by_their_groups() {
    holds(
        r#"from = "10.0.0.1", to = "group:app", protocol = "tcp", port = 8080, expect = "allow""#,
    );
    holds(r#"from = "interface:eth0", to = "group:app", protocol = "icmp", expect = "deny""#);
    holds(r#"from = "10.0.0.2", to = "group:app", protocol = "icmp", expect = "allow""#);
    holds(r#"from = "10.0.0.2", to = "group:app", protocol = "icmp", type = 13, expect = "deny""#);
    fails(
        r#"from = "10.0.0.2", to = "192.0.2.1", protocol = "tcp", port = 1, expect = "deny""#,
        "no rule of this definition",
    );
    fails(
        r#"from = "10.0.0.2", to = "group:app", protocol = "icmpv6", expect = "deny""#,
        "no address family in common",
    );
}

/// As [`outcome`], with rules of its own.
fn outcome_of(test: &str, rules: &str) -> Result<String, String> {
    let text = format!("tests = [{{ {test} }}]\n{rules}");
    let checked = check(&[Source::new("t.toml", text.into())]);
    let Some(outcome) = checked.tests.first() else {
        panic!("{}", super::super::render(&checked.diagnostics))
    };
    match outcome.passed {
        true => Ok(outcome.because.clone()),
        false => Err(outcome.because.clone()),
    }
}

#[track_caller]
fn fails_of(test: &str, rules: &str, because: &str) {
    let found = outcome_of(test, rules).expect_err(test);
    assert!(found.contains(because), "{test}: {found}");
}

#[test]
fn all_that_a_test_asks_for_is_tried() {
    fails(
        r#"from = "internet", to = "group:alb", protocol = "all", expect = "deny""#,
        "IPv4 tcp 443 from",
    );
    fails(
        r#"from = "10.0.0.2", to = "group:app", protocol = "icmp", expect = "deny""#,
        "icmp 8/0 from 10.0.0.2 to app is allowed",
    );
    holds(r#"from = "group:app", to = "internet", protocol = "all", expect = "deny""#);
    let rules = r#"
[groups.a]
ingress = [
    { protocol = "icmp", type = 3, code = 4, cidr = "0.0.0.0/0" },
    { protocol = 50, cidr = "0.0.0.0/0" },
    { protocol = "tcp", ports = "10-20", cidr = "0.0.0.0/0" },
]
egress = [{ protocol = "tcp", ports = "20-30", group = "a" }, { protocol = "udp", ports = 9, group = "a" }]
[groups.open]
ingress = [{ protocol = "all", cidr = "0.0.0.0/0" }]
egress = []
"#;
    let of = |to: &str, rest: &str| format!(r#"from = "192.0.2.1", to = "{to}", {rest}"#);
    fails_of(
        &of("group:a", r#"protocol = "icmp", type = 3, expect = "deny""#),
        rules,
        "icmp 3/4",
    );
    fails_of(
        &of(
            "group:a",
            r#"protocol = "icmp", type = 3, expect = "allow""#,
        ),
        rules,
        "icmp 3/0 from 192.0.2.1 to a is denied",
    );
    for (to, rest) in [
        (
            "group:a",
            r#"protocol = "icmp", type = 3, code = 3, expect = "deny""#,
        ),
        (
            "group:a",
            r#"protocol = "icmp", type = 3, code = 4, expect = "allow""#,
        ),
        ("group:a", r#"protocol = 51, expect = "deny""#),
        ("group:open", r#"protocol = "all", expect = "allow""#),
        ("group:open", r#"protocol = "icmp", expect = "allow""#),
    ] {
        outcome_of(&of(to, rest), rules).expect(rest);
    }
    fails_of(
        &of("group:a", r#"protocol = "all", expect = "allow""#),
        rules,
        "is denied",
    );
    // Both sides have to allow the same packet: port 20 alone.
    fails_of(
        r#"from = "group:a", to = "group:a", protocol = "all", expect = "deny""#,
        rules,
        "IPv4 tcp 20 from a to a",
    );
    let apart = rules.replace("20-30", "21-30");
    outcome_of(
        r#"from = "group:a", to = "group:a", protocol = "all", expect = "deny""#,
        &apart,
    )
    .unwrap();
    fails(
        r#"from = "10.0.0.2", to = "group:app", protocol = "icmp", code = 1, expect = "deny""#,
        "`type`",
    );
}

#[test]
fn what_depends_on_unknown_addresses_is_not_passed() {
    let rules = r#"
[groups.db]
ingress = [
    { protocol = "tcp", ports = 5432, cidr = "10.0.0.0/8" },
    { protocol = "tcp", ports = 80, cidr = "0.0.0.0/0" },
]
egress = []
[groups.app]
ingress = []
egress = [{ protocol = "tcp", ports = 5432, prefix_list = "tens" }]
[prefix_lists.tens]
entries = ["10.0.0.0/8"]
[interfaces.eth0]
groups = ["app"]
[interfaces.eth1]
groups = ["db"]
"#;
    let deny = |port: u16, rest: &str| {
        format!(
            r#"from = "group:app", to = "group:db", protocol = "tcp", port = {port}, {rest}expect = "deny""#
        )
    };
    fails_of(
        &deny(5432, ""),
        rules,
        "cannot be decided: the addresses of eth1 are not known, and egress of app (t.toml:11) is for some only",
    );
    // Decided whatever the addresses are.
    for test in [
        deny(5432, r#"family = "ipv6", "#),
        deny(80, ""),
        r#"from = "internet", to = "group:db", protocol = "tcp", port = 5432, expect = "deny""#
            .into(),
        r#"from = "group:db", to = "group:app", protocol = "all", expect = "deny""#.into(),
    ] {
        outcome_of(&test, rules).expect(&test);
    }
    fails_of(
        &deny(5432, "").replace("deny", "allow"),
        rules,
        "cannot be decided",
    );
    let known = rules
        .replace(r#"["app"]"#, "[\"app\"]\naddresses = [\"192.0.2.1\"]")
        .replace(r#"["db"]"#, "[\"db\"]\naddresses = [\"10.0.0.1\"]");
    outcome_of(&deny(5432, ""), &known).unwrap();
}

#[test]
fn members_are_those_of_every_group_that_lists_an_address() {
    let rules = r#"
[groups.a]
ingress = []
egress = [{ protocol = "all", cidr = "0.0.0.0/0" }]
[groups.jump]
ingress = []
egress = []
[groups.db]
ingress = [{ protocol = "tcp", ports = 22, group = "jump" }]
egress = []
[members.jump]
addresses = ["10.0.0.1", "10.0.0.2"]
[members.a]
addresses = ["10.0.0.2"]
[interfaces.eth0]
groups = ["a"]
addresses = ["10.0.0.1"]
"#;
    for (from, because) in [
        ("interface:eth0", "from eth0 (10.0.0.1) to db is allowed"),
        ("10.0.0.1", "from eth0 (10.0.0.1) to db is allowed"),
        ("10.0.0.2", "from 10.0.0.2 to db is allowed"),
    ] {
        fails_of(
            &format!(
                r#"from = "{from}", to = "group:db", protocol = "tcp", port = 22, expect = "deny""#
            ),
            rules,
            because,
        );
    }
    // The member elsewhere, without the interface.
    let from_group = |group: &str| {
        format!(
            r#"from = "group:{group}", to = "group:db", protocol = "tcp", port = 22, expect = "deny""#
        )
    };
    let elsewhere = rules.replace(r#""10.0.0.1", "10.0.0.2""#, r#""10.0.0.2""#);
    for group in ["a", "jump"] {
        let because = format!("from {group} (10.0.0.2) to db is allowed by egress of a");
        fails_of(&from_group(group), &elsewhere, &because);
    }
}

#[test]
fn every_wide_prefix_is_of_the_internet() {
    for (net, within) in [
        ("192.0.0.0/2", "IPv4 from 192.0.1.0 to a"),
        ("0.0.0.0/1", "IPv4 from 1.0.0.0 to a"),
        ("96.0.0.0/3", "IPv4 from 96.0.0.0 to a"),
        ("2000::/12", "IPv6 from 2000:: to a"),
        ("3000::/4", "IPv6 from 3000:: to a"),
    ] {
        let rules = format!(
            "[groups.a]\ningress = [{{ protocol = \"tcp\", ports = 22, cidr = \"{net}\" }}]\negress = []"
        );
        let test =
            r#"from = "internet", to = "group:a", protocol = "tcp", port = 22, expect = "deny""#;
        fails_of(test, &rules, within);
        // One part of it only.
        fails_of(&test.replace("deny", "allow"), &rules, "is denied");
    }
    let narrow = "[groups.a]\ningress = [{ protocol = \"tcp\", ports = 22, cidr = [\"12.0.0.0/8\", \"fc00::/7\", \"224.0.0.0/4\"] }]\negress = []";
    outcome_of(
        r#"from = "internet", to = "group:a", protocol = "tcp", port = 22, expect = "deny""#,
        narrow,
    )
    .unwrap();
}

#[test]
fn what_a_test_says_is_checked() {
    fails(
        r#"from = "group:no", to = "group:app", protocol = "tcp", port = 1, expect = "deny""#,
        "InvalidGroup.NotFound",
    );
    fails(
        r#"from = "nowhere", to = "group:app", protocol = "tcp", port = 1, expect = "deny""#,
        "is no side of a test",
    );
    fails(
        r#"from = "internet", to = "group:app", protocol = "tcp", expect = "deny""#,
        "`port`",
    );
    fails(
        r#"from = "internet", to = "group:app", protocol = "icmp", port = 1, expect = "deny""#,
        "does not belong",
    );
    fails(
        r#"from = "internet", to = "group:app", protocol = "tcp", port = 1, expect = "maybe""#,
        "cannot be",
    );
}
