use super::*;
use crate::model::{Ports, RuleId, Traffic};

fn rule(group: &str, port: u16, peer: Peer) -> Rule {
    let traffic = Traffic::Tcp(Ports::single(port));
    Rule {
        id: RuleId::derive(group, Direction::Ingress, &traffic, &peer),
        traffic,
        peer,
        description: None,
        origin: None,
    }
}

fn group(ingress: Vec<Rule>) -> Group {
    Group {
        ingress,
        ..Group::default()
    }
}

fn interface(groups: &[&str], addresses: Option<&[&str]>) -> Interface {
    Interface {
        settings: InterfaceSettings::new("eth0"),
        groups: groups.iter().map(|name| name.to_string()).collect(),
        addresses: addresses.map(|list| list.iter().map(|text| address(text)).collect()),
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// `app` lets `web` and the list `offices` in; `web` is whoever carries it.
fn model() -> Model {
    let app = vec![
        rule("app", 8080, Peer::Group("web".into())),
        rule("app", 22, Peer::PrefixList("offices".into())),
    ];
    Model {
        groups: [("app".into(), group(app)), ("web".into(), group(vec![]))].into(),
        prefix_lists: [("offices".into(), vec!["192.0.2.0/24".parse().unwrap()])].into(),
        interfaces: [
            ("app1".into(), interface(&["app"], Some(&["10.0.0.1"]))),
            ("web1".into(), interface(&["web"], None)),
        ]
        .into(),
        members: [("web".into(), vec![address("10.0.0.9")])].into(),
        ..Model::default()
    }
}

fn allowed(resolved: &Resolved, interface: &str, remote: &str, port: u16) -> bool {
    let rule = resolved.evaluate(interface, Direction::Ingress, 6, address(remote), port);
    rule.is_some()
}

#[test]
fn members_are_listed_read_and_remote_addresses() {
    let current = [
        (
            "web1".to_string(),
            vec![
                address("10.0.0.2"),
                address("fe80::2"),
                address("127.0.0.1"),
            ],
        ),
        ("app1".to_string(), vec![address("10.0.0.3")]),
    ];
    let resolved = resolve(&model(), &current.into());
    let web = &resolved.groups[&Name::of_definition("web")];
    assert_eq!(
        web.members,
        [address("10.0.0.2"), address("10.0.0.9")].into()
    );
    let app = &resolved.groups[&Name::of_definition("app")];
    assert_eq!(
        app.members,
        [address("10.0.0.1")].into(),
        "a list wins over what is read"
    );
    let addresses = &resolved.interfaces["web1"].addresses;
    assert!(addresses.as_ref().unwrap().contains(&address("fe80::2")));

    assert!(allowed(&resolved, "app1", "10.0.0.2", 8080));
    assert!(!allowed(&resolved, "app1", "10.0.0.2", 22));
    assert!(!allowed(&resolved, "app1", "10.0.0.3", 8080));
    assert!(allowed(&resolved, "app1", "192.0.2.7", 22));
    assert!(
        !allowed(&resolved, "web1", "10.0.0.9", 8080),
        "no rules, nothing passes"
    );
    assert!(!allowed(&resolved, "nowhere", "10.0.0.2", 8080));
}

#[test]
fn unknown_addresses_stay_unknown() {
    let resolved = resolve(&model(), &BTreeMap::new());
    assert_eq!(resolved.interfaces["web1"].addresses, None);
}

#[test]
fn what_is_stored_reads_back_equal() {
    let mut resolved = resolve(&Model::default(), &BTreeMap::new());
    assert!(resolved.adopt_orphan(&resolve(&model(), &BTreeMap::new()), "app1"));
    let text = serde_json::to_string(&resolved).unwrap();
    assert_eq!(serde_json::from_str::<Resolved>(&text).unwrap(), resolved);
}

#[test]
fn an_orphan_keeps_its_policy_apart_from_equal_names() {
    let stored = resolve(&model(), &BTreeMap::new());

    let mut next = model();
    next.interfaces.remove("app1");
    next.members = [("web".into(), vec![address("10.0.0.77")])].into();
    next.prefix_lists = [("offices".into(), vec![])].into();
    next.groups.insert("app".into(), group(vec![]));
    let mut merged = resolve(&next, &BTreeMap::new());
    assert_eq!(merged.orphans_of(&stored).collect::<Vec<_>>(), ["app1"]);
    assert!(merged.adopt_orphan(&stored, "app1"));
    assert!(!merged.adopt_orphan(&stored, "app1"), "it is there already");
    assert!(!merged.adopt_orphan(&stored, "other"));

    assert!(merged.interfaces["app1"].orphan);
    assert!(allowed(&merged, "app1", "10.0.0.9", 8080), "a member then");
    assert!(
        !allowed(&merged, "app1", "10.0.0.77", 8080),
        "a member of the new group only"
    );
    assert!(allowed(&merged, "app1", "192.0.2.7", 22));
    let web = &merged.groups[&Name::of_definition("web")];
    assert_eq!(web.members, [address("10.0.0.77")].into());

    // Another change later: the orphan is taken from what was stored with it, unchanged.
    let mut again = resolve(&next, &BTreeMap::new());
    assert!(again.adopt_orphan(&merged, "app1"));
    assert_eq!(again, merged);
}
