//! A configuration with all forms in which groups and rules are written, down to the model.

use crate::definition::{Severity, Source, check, count, render};
use crate::model::{OnRevoke, Peer, Rule};

const GROUPS: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/definition/terraform/groups.tf"
));

fn shown(rules: &[Rule]) -> Vec<String> {
    let rule = |rule: &Rule| {
        let peer = match &rule.peer {
            Peer::Cidr(net) => net.to_string(),
            Peer::PrefixList(name) => format!("list {name}"),
            Peer::Group(name) => format!("group {name}"),
            Peer::GroupOf(name, family) => format!("group {name}, {family:?}"),
        };
        let description = rule.description.as_deref().unwrap_or("-");
        format!("{}, {peer}: {description}", rule.traffic)
    };
    rules.iter().map(rule).collect()
}

#[test]
fn every_form_of_a_rule_becomes_the_rule() {
    let checked = check(&[Source::new("groups.tf", GROUPS.into())]);
    let found = render(&checked.diagnostics);
    assert_eq!(count(&checked.diagnostics, Severity::Error), 0, "{found}");
    let model = checked.model.unwrap();
    let rules = |name: &str| {
        let group = &model.groups[name];
        [shown(&group.ingress), shown(&group.egress)]
    };
    assert_eq!(
        model.groups.keys().collect::<Vec<_>>(),
        ["app", "bastion", "db", "default", "front"]
    );
    assert_eq!(
        rules("front"),
        [
            vec![
                "tcp 443, 0.0.0.0/0: the web, for all",
                "tcp 443, ::/0: the web, for all",
                "tcp 22, 192.0.2.0/24: administration",
                "tcp 22, 198.51.100.7/32: administration",
                "tcp 22, list offices: administration",
                "tcp 22, group front: administration",
                "tcp 22, group bastion: administration",
            ],
            vec!["all, 0.0.0.0/0: -", "all, ::/0: -"],
        ]
    );
    assert_eq!(
        rules("bastion"),
        [vec!["tcp 22, list offices: from the offices"], vec![]]
    );
    assert_eq!(
        rules("app"),
        [
            vec![
                "tcp 8080-8081, group front: -",
                "icmp 8, 10.0.0.0/8: health check"
            ],
            vec!["all, 2001:db8::/32: -", "udp 53, list offices: -"],
        ]
    );
    assert_eq!(
        rules("db"),
        [
            vec!["tcp 3306, group app: -", "tcp 0-65535, group db: -"],
            vec!["all, 10.0.0.0/8: -"],
        ]
    );
    assert_eq!(
        rules("default"),
        [vec!["all, group default: -"], vec!["all, 0.0.0.0/0: -"]]
    );
    let front = &model.groups["front"];
    assert_eq!(
        front.description.as_deref(),
        Some("What the world talks to")
    );
    assert_eq!(front.on_revoke, OnRevoke::Reevaluate);
    let offices = &model.prefix_lists["offices"];
    let offices: Vec<String> = offices.iter().map(ToString::to_string).collect();
    assert_eq!(offices, ["203.0.113.16/28", "198.51.100.0/24"]);
    let members = |name: &str| -> Vec<String> {
        let members = &model.members[name];
        members.iter().map(ToString::to_string).collect()
    };
    assert_eq!(members("front"), ["10.0.1.10"]);
    assert_eq!(members("app"), ["10.0.2.10"]);
    assert_eq!(members("db"), ["10.0.2.10"]);
}
