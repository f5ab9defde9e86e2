use super::super::{Source, examine};
use super::Lints;

/// Codes and lines of what is found, in the order of the file.
fn found(text: &str) -> Vec<(&'static str, usize)> {
    let sources = [Source::new("t.toml", text.into())];
    let checked = examine(&sources, &|| Ok(Vec::new()), Some(&Lints::default()));
    assert!(checked.model.is_some(), "{:?}", checked.diagnostics);
    let found = checked.diagnostics.iter();
    found
        .map(|found| {
            (
                found.code,
                found.place.as_ref().map_or(0, |place| place.line),
            )
        })
        .collect()
}

#[test]
fn management_ports_are_not_for_the_world() {
    let text = r#"
[groups.a]
ingress = [
    { protocol = "tcp", ports = 22, cidr = "0.0.0.0/0" },
    { protocol = "tcp", ports = "3000-4000", cidr = "::/0" },
    { protocol = "all", prefix_list = "all" },
    { protocol = "tcp", ports = 22, cidr = "10.0.0.0/8" },
    { protocol = "tcp", ports = 443, cidr = "0.0.0.0/0" },
    { protocol = "tcp", ports = 22, cidr = "128.0.0.0/1" },
    { protocol = "tcp", ports = 22, cidr = "2000::/3" },
    { protocol = "tcp", ports = 22, cidr = "fc00::/7" },
]
egress = []
[prefix_lists.all]
entries = ["0.0.0.0/0"]
[interfaces.e]
groups = ["a"]
"#;
    let open: Vec<_> = found(text)
        .into_iter()
        .filter(|(code, _)| *code == "open-management-port")
        .collect();
    assert_eq!(
        open,
        [
            ("open-management-port", 4),
            ("open-management-port", 5),
            ("open-management-port", 6),
            ("open-management-port", 9),
            ("open-management-port", 10)
        ]
    );
}

#[test]
fn what_may_leave_is_somebodys_choice() {
    let text = r#"
[defaults]
egress = "allow"
[groups.a]
[groups.b]
egress = [{ protocol = "all", cidr = "0.0.0.0/0" }]
[groups.c]
egress = [{ protocol = "tcp", ports = 443, cidr = "0.0.0.0/0" }]
[interfaces.e]
groups = ["a", "b", "c"]
"#;
    assert_eq!(found(text), [("open-egress", 4), ("open-egress", 6)]);
}

#[test]
fn rules_within_others_are_found() {
    let text = r#"
[groups.a]
egress = []
ingress = [
    { protocol = "tcp", ports = "1-100", cidr = "10.0.0.0/8" },
    { protocol = "tcp", ports = 50, cidr = "10.1.0.0/16" },
    { protocol = "tcp", ports = "50-101", cidr = "10.1.0.0/16" },
    { protocol = "udp", ports = 50, cidr = "10.1.0.0/16" },
    { protocol = "tcp", ports = 7, prefix_list = "tens" },
    { protocol = "all", prefix_list = "fives" },
    { protocol = "icmp", type = 8, code = 0, cidr = "5.0.0.0/32" },
    { protocol = "udp", ports = 9, group = "a" },
    { protocol = "udp", ports = "8-10", group = "a" },
    { protocol = "tcp", ports = 9, prefix_list = "same" },
    { protocol = "tcp", ports = 9, prefix_list = "again" },
]
[prefix_lists]
tens.entries = ["10.2.0.0/16", "10.3.0.0/16"]
fives.entries = ["5.0.0.0/24", "5.1.0.0/24"]
same.entries = ["6.0.0.0/24"]
again.entries = ["6.0.0.0/24"]
[interfaces.e]
groups = ["a"]
"#;
    let lines = [6, 9, 11, 12, 15];
    assert_eq!(found(text), lines.map(|line| ("shadowed-rule", line)));
}

#[test]
fn what_is_not_used_and_cannot_match_is_found() {
    let text = r#"
[groups.a]
ingress = [{ protocol = "tcp", ports = 1, cidr = "::/0" }, { protocol = "icmpv6", group = "a" }]
egress = [{ protocol = "tcp", ports = 1, cidr = "0.0.0.0/0" }]
[groups.b]
egress = []
[prefix_lists.l]
entries = ["10.0.0.0/8"]
[interfaces.e]
groups = ["a"]
addresses = ["192.0.2.1"]
"#;
    assert_eq!(
        found(text),
        [
            ("never-matches-here", 3),
            ("never-matches-here", 3),
            ("unused-group", 5),
            ("unused-prefix-list", 7)
        ]
    );
}

#[test]
fn a_quota_that_is_almost_used_up_is_told_of() {
    let rules: Vec<String> = (1..=50)
        .map(|port| format!("{{ protocol = \"tcp\", ports = {port}, cidr = \"10.0.0.0/8\" }}"))
        .collect();
    let text = format!(
        "[groups.a]\negress = []\ningress = [{}]\n[interfaces.e]\ngroups = [\"a\"]",
        rules.join(", ")
    );
    assert_eq!(found(&text), [("quota-headroom", 1)]);
}
