//! What `create.py` asked for, and what a model says of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::Deserialize;
use sg_userspace::{
    definition::Device,
    model::{Icmp, Model, OnRevoke, Peer, Ports, Rule, Traffic},
};

/// Everything that was created, by name.
#[derive(Deserialize)]
pub(crate) struct Asked {
    /// Ids.
    groups: BTreeMap<String, String>,
    lists: BTreeMap<String, List>,
    interfaces: BTreeMap<String, Interface>,
    rules: Vec<Permission>,
}

#[derive(Deserialize)]
struct List {
    id: String,
    entries: Vec<String>,
}

#[derive(Deserialize)]
struct Interface {
    mac: String,
    groups: Vec<String>,
    addresses: Vec<IpAddr>,
}

/// A rule with one peer.
#[derive(Deserialize)]
struct Permission {
    group: String,
    direction: String,
    protocol: String,
    ports: Option<(i64, i64)>,
    kind: String,
    peer: String,
    description: Option<String>,
}

impl Asked {
    /// Compares everything but where it stands, descriptions for peers of some kinds; the server has groups and
    /// lists of its own.
    #[track_caller]
    pub(crate) fn compare(&self, model: &Model, described: &[&str]) {
        for (name, id) in &self.groups {
            assert_eq!(&model.ids.groups[name], id);
            let group = &model.groups[name];
            let description = format!("{name} of the test");
            assert_eq!(group.description.as_deref(), Some(&*description));
            let on_revoke = match name.as_str() {
                "bastion" => OnRevoke::Reevaluate,
                _ => OnRevoke::Keep,
            };
            assert_eq!(group.on_revoke, on_revoke, "{name}");
            assert_eq!(
                shown(&group.ingress),
                self.shown(name, "ingress", described),
                "{name}"
            );
            assert_eq!(
                shown(&group.egress),
                self.shown(name, "egress", described),
                "{name}"
            );
            let members = model.members.get(name).into_iter().flatten();
            let members: BTreeSet<IpAddr> = members.copied().collect();
            assert_eq!(members, self.members(name), "{name}");
        }
        for (name, list) in &self.lists {
            assert_eq!(model.ids.prefix_lists[name], list.id);
            let entries: BTreeSet<String> = model.prefix_lists[name]
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(entries, list.entries.iter().cloned().collect(), "{name}");
        }
    }

    /// This host's device that is the interface.
    pub(crate) fn device(&self, interface: &str) -> Device {
        let bytes = self.interfaces[interface].mac.split(':');
        let mut bytes = bytes.map(|byte| u8::from_str_radix(byte, 16).expect("a byte"));
        Device {
            name: "eth5".into(),
            mac: Some(std::array::from_fn(|_| bytes.next().expect("six bytes"))),
            addresses: Vec::new(),
        }
    }

    fn members(&self, group: &str) -> BTreeSet<IpAddr> {
        let interfaces = self.interfaces.values();
        interfaces
            .filter(|interface| interface.groups.iter().any(|own| own == group))
            .flat_map(|interface| interface.addresses.iter().copied())
            .collect()
    }

    fn shown(&self, group: &str, direction: &str, described: &[&str]) -> BTreeSet<String> {
        let of_it = |rule: &&Permission| rule.group == group && rule.direction == direction;
        let rules = self.rules.iter().filter(of_it);
        let show = |rule: &Permission| {
            let description = rule.description.as_deref();
            let description = description.filter(|_| described.contains(&&*rule.kind));
            show(rule.traffic(), &rule.peer(), description)
        };
        rules.map(show).collect()
    }
}

impl Permission {
    /// By the words of the API's documentation, and not by what is tested.
    fn traffic(&self) -> Traffic {
        let port = |port: i64| u16::try_from(port).expect("a port");
        match (self.protocol.as_str(), self.ports) {
            ("-1", None) => Traffic::All,
            ("tcp", Some((from, to))) => Traffic::Tcp(Ports {
                from: port(from),
                to: port(to),
            }),
            ("udp", Some((from, to))) => Traffic::Udp(Ports {
                from: port(from),
                to: port(to),
            }),
            ("icmp", Some((-1, -1))) => Traffic::Icmp(Icmp::Any),
            ("icmp", Some((kind, -1))) => {
                Traffic::Icmp(Icmp::Type(u8::try_from(kind).expect("a type")))
            }
            ("icmpv6", Some((-1, -1))) => Traffic::Icmpv6(Icmp::Any),
            (number, _) => Traffic::Protocol(number.parse().expect("a number")),
        }
    }

    fn peer(&self) -> Peer {
        match self.kind.as_str() {
            "group" => Peer::Group(self.peer.clone()),
            "list" => Peer::PrefixList(self.peer.clone()),
            _ => Peer::Cidr(self.peer.parse().expect("a prefix")),
        }
    }
}

fn shown(rules: &[Rule]) -> BTreeSet<String> {
    let show = |rule: &Rule| show(rule.traffic, &rule.peer, rule.description.as_deref());
    let shown: BTreeSet<String> = rules.iter().map(show).collect();
    assert_eq!(shown.len(), rules.len(), "{shown:?}");
    shown
}

fn show(traffic: Traffic, peer: &Peer, description: Option<&str>) -> String {
    format!("{traffic} {peer:?} {description:?}")
}
