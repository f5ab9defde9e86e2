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
fn every_address_of_an_interface_is_a_member() {
    // Fact 1.28: primary, secondary, and those of the other family.
    let addresses = ["10.0.0.2", "10.0.0.3", "2001:db8::2", "2001:db8::3"];
    let current = [("web1".into(), addresses.map(address).to_vec())];
    let resolved = resolve(&model(), &current.into());
    for remote in addresses {
        assert!(allowed(&resolved, "app1", remote, 8080), "{remote}");
    }
    assert!(!allowed(&resolved, "app1", "2001:db8::4", 8080));
}

#[test]
fn members_of_one_group_are_strangers_without_a_rule() {
    // Fact 1.23: only a group that refers to itself lets its members talk to each other.
    let with = |rules| Model {
        groups: [("g".into(), group(rules))].into(),
        interfaces: [
            ("a".into(), interface(&["g"], Some(&["10.0.0.1"]))),
            ("b".into(), interface(&["g"], Some(&["10.0.0.2"]))),
        ]
        .into(),
        ..Model::default()
    };
    let sharing = resolve(&with(vec![]), &BTreeMap::new());
    assert!(!allowed(&sharing, "a", "10.0.0.2", 80));
    let itself = vec![rule("g", 80, Peer::Group("g".into()))];
    let referring = resolve(&with(itself), &BTreeMap::new());
    assert!(allowed(&referring, "a", "10.0.0.2", 80));
    assert!(allowed(&referring, "b", "10.0.0.1", 80));
    assert!(!allowed(&referring, "a", "10.0.0.3", 80));
}

#[test]
fn l7_a_family_never_stands_for_the_other() {
    // Fact 1.21.
    for (everywhere, remote, other) in [
        ("0.0.0.0/0", "192.0.2.1", "2001:db8::1"),
        ("::/0", "2001:db8::1", "192.0.2.1"),
    ] {
        let all = vec![rule("g", 80, Peer::Cidr(everywhere.parse().unwrap()))];
        let resolved = resolve(
            &Model {
                groups: [("g".into(), group(all))].into(),
                interfaces: [("i".into(), interface(&["g"], None))].into(),
                ..Model::default()
            },
            &BTreeMap::new(),
        );
        assert!(allowed(&resolved, "i", remote, 80));
        assert!(!allowed(&resolved, "i", other, 80));
    }
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
fn what_was_stored_without_newer_keys_reads_as_their_defaults() {
    let mut resolved = resolve(&model(), &BTreeMap::new());
    let mut value = serde_json::to_value(&resolved).unwrap();
    for group in value["groups"].as_object_mut().unwrap().values_mut() {
        assert!(group.as_object_mut().unwrap().remove("on_revoke").is_some());
    }
    for interface in value["interfaces"].as_object_mut().unwrap().values_mut() {
        let settings = interface["settings"].as_object_mut().unwrap();
        for key in ["source_dest_check", "ethertypes"] {
            assert!(settings.remove(key).is_some(), "{key}");
        }
    }
    assert_eq!(serde_json::from_value::<Resolved>(value).unwrap(), resolved);
    // And what they say comes back.
    for group in resolved.groups.values_mut() {
        group.on_revoke = OnRevoke::Reevaluate;
    }
    for interface in resolved.interfaces.values_mut() {
        interface.settings.source_dest_check = Some(false);
        interface.settings.ethertypes = vec![0x88cc];
    }
    let text = serde_json::to_string(&resolved).unwrap();
    assert_eq!(serde_json::from_str::<Resolved>(&text).unwrap(), resolved);
}

#[test]
fn an_orphan_keeps_its_policy_apart_from_equal_names() {
    let mut model = model();
    if let Some(app) = model.groups.get_mut("app") {
        app.on_revoke = OnRevoke::Reevaluate;
    }
    let stored = resolve(&model, &BTreeMap::new());

    let mut next = model;
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
    let on_revoke = |name: &Name| merged.groups[name].on_revoke;
    let app = &merged.interfaces["app1"].groups[0];
    assert_eq!(on_revoke(app), OnRevoke::Reevaluate);
    let new = Name::of_definition("app");
    assert_eq!(on_revoke(&new), OnRevoke::Keep, "the new group of the name");

    // Another change later: the orphan is taken from what was stored with it, unchanged.
    let mut again = resolve(&next, &BTreeMap::new());
    assert!(again.adopt_orphan(&merged, "app1"));
    assert_eq!(again, merged);
}
