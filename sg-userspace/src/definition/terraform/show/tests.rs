use super::super::super::{Checked, Source, check, render};
use crate::model::{Icmp, Model, OnRevoke, Peer, Ports, Rule, Traffic};

const STATE: &str = include_str!("../../../../tests/definition/terraform-show/state.json");
const PLAN: &str = include_str!("../../../../tests/definition/terraform-show/plan.json");

fn checked(text: &str) -> Checked {
    check(&[Source::new("show.json", text.as_bytes().to_vec())])
}

fn model(text: &str) -> Model {
    let checked = checked(text);
    checked
        .model
        .unwrap_or_else(|| panic!("{}", render(&checked.diagnostics)))
}

fn codes(text: &str) -> Vec<&'static str> {
    let found = checked(text).diagnostics;
    found.iter().map(|found| found.code).collect()
}

fn cidr(text: &str) -> Peer {
    Peer::Cidr(text.parse().unwrap())
}

fn group(name: &str) -> Peer {
    Peer::Group(name.into())
}

fn tcp(port: u16) -> Traffic {
    Traffic::Tcp(Ports {
        from: port,
        to: port,
    })
}

fn what(rules: &[Rule]) -> Vec<(Traffic, Peer)> {
    let what = |rule: &Rule| (rule.traffic, rule.peer.clone());
    rules.iter().map(what).collect()
}

#[test]
fn a_state_is_a_definition() {
    let model = model(STATE);
    let web = &model.groups["web"];
    assert_eq!(web.on_revoke, OnRevoke::Reevaluate);
    assert_eq!(web.description.as_deref(), Some("web servers"));
    // What stands in the group and as a resource of its own is one rule, with the id and text of the latter.
    assert_eq!(
        what(&web.ingress),
        [
            (tcp(22), group("bastion")),
            (tcp(443), cidr("0.0.0.0/0")),
            (tcp(443), cidr("::/0")),
        ]
    );
    assert_eq!(web.ingress[0].id.to_string(), "sgr-00000000000000002");
    assert_eq!(
        web.ingress[0].description.as_deref(),
        Some("from the bastion")
    );
    assert_eq!(web.ingress[1].description.as_deref(), Some("public"));
    assert_eq!(
        what(&web.egress),
        [
            (Traffic::All, cidr("0.0.0.0/0")),
            (Traffic::All, cidr("::/0")),
        ]
    );
    let bastion = &model.groups["bastion"];
    assert_eq!(
        what(&bastion.ingress),
        [(tcp(22), Peer::PrefixList("offices".into()))]
    );
    assert_eq!(
        what(&bastion.egress),
        [(tcp(22), group("web")), (tcp(22), group("app"))]
    );
    let app = &model.groups["app"];
    assert_eq!(
        what(&app.ingress),
        [
            (tcp(8080), group("web")),
            (Traffic::Icmp(Icmp::Any), group("app")),
        ]
    );
    assert_eq!(
        what(&app.egress),
        [(
            Traffic::All,
            Peer::PrefixList("com.amazonaws.eu-west-1.s3".into())
        )]
    );
    assert_eq!(what(&model.groups["db"].egress), []);
    let offices: Vec<String> = model.prefix_lists["offices"]
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        offices,
        ["198.51.100.0/24", "203.0.113.16/28", "203.0.113.64/28"]
    );
    assert_eq!(model.ids.groups["web"], "sg-0a11000000000000a");
    // The instance and its interface are one; the attachment adds a group.
    let members = |name: &str| -> Vec<String> {
        let addresses = model.members.get(name).into_iter().flatten();
        addresses.map(ToString::to_string).collect()
    };
    assert_eq!(members("web"), ["192.0.2.10", "192.0.2.11", "2001:db8::10"]);
    assert_eq!(members("bastion"), ["192.0.2.20"]);
    assert_eq!(members("app"), ["192.0.2.20"]);
}

#[test]
fn a_plan_tells_ids_that_are_not_known_by_its_configuration() {
    let found = codes(PLAN);
    assert!(found.contains(&"unknown-value"), "{found:?}");
    let mut plan: serde_json::Value = serde_json::from_str(PLAN).unwrap();
    let app = &mut plan["configuration"]["root_module"]["module_calls"]["app"]["module"];
    app["resources"][2]["expressions"]["referenced_security_group_id"] =
        serde_json::json!({ "references": ["var.from"] });
    let model = model(&plan.to_string());
    let web = &model.groups["web"];
    assert_eq!(
        what(&web.ingress),
        [(tcp(443), cidr("0.0.0.0/0")), (tcp(22), group("bastion"))]
    );
    assert_eq!(what(&web.egress), [(Traffic::All, cidr("0.0.0.0/0"))]);
    let app = &model.groups["app"];
    assert_eq!(what(&app.ingress), [(tcp(8080), group("web"))]);
    assert_eq!(what(&app.egress), [(tcp(5432), group("web"))]);
    // The rule of port 22 is of the state before and goes with its resource.
    let db = &model.groups["db"];
    assert_eq!(what(&db.ingress), [(tcp(5432), cidr("192.0.2.0/24"))]);
    assert_eq!(db.ingress[0].id.to_string(), "sgr-00000000000000006");
    let members: Vec<&String> = model.members.keys().collect();
    assert_eq!(members, ["app", "web"]);
}

#[test]
fn what_refers_to_several_things_is_not_guessed() {
    let mut plan: serde_json::Value = serde_json::from_str(PLAN).unwrap();
    let app = "module.app.aws_security_group.this";
    let rules = &mut plan["configuration"]["root_module"];
    rules["module_calls"]["app"]["module"]["resources"][1]["expressions"]["security_group_id"] = serde_json::json!({
        "references": ["aws_security_group.this.id", "aws_security_group.this", "local.other"]
    });
    // Variables that lead to each other end.
    rules["module_calls"]["app"]["expressions"]["from"] =
        serde_json::json!({ "references": ["module.app.group_id", "module.app"] });
    rules["module_calls"]["app"]["module"]["outputs"]["group_id"]["expression"] =
        serde_json::json!({ "references": ["var.from"] });
    let found = checked(&plan.to_string());
    let unknown: Vec<&str> = found
        .diagnostics
        .iter()
        .filter(|found| found.code == "unknown-value")
        .map(|found| found.message.as_str())
        .collect();
    assert_eq!(unknown.len(), 3, "{unknown:?}");
    assert!(!unknown.iter().any(|message| message.contains(app)));
}

#[test]
fn two_states_of_one_configuration_are_told_apart_by_ids() {
    let state = |id: &str, name: &str| {
        format!(
            r#"{{"format_version":"1.0","values":{{"root_module":{{"resources":[{{"address":"aws_security_group.a","mode":"managed","type":"aws_security_group","name":"a","values":{{"id":"{id}","name":"{name}","ingress":[],"egress":[]}}}}]}}}}}}"#
        )
    };
    let sources = [
        Source::new("1.json", state("sg-1", "one").into()),
        Source::new("2.json", state("sg-2", "two").into()),
    ];
    let checked = check(&sources);
    assert_eq!(render(&checked.diagnostics), "");
    let model = checked.model.unwrap();
    assert_eq!(model.groups.len(), 2);
}

#[test]
fn nesting_ends_in_an_error() {
    let open = r#"{"child_modules":["#.repeat(40);
    let close = "]}".repeat(40);
    let text =
        format!(r#"{{"format_version":"1.0","values":{{"root_module":{open}{{}}{close}}}}}"#);
    assert_eq!(codes(&text), ["syntax"]);
}
