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
