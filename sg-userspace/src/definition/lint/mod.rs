//! What is no mistake, but perhaps not what was meant: found on demand, by `sgctl check`.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use sg_common::verdict::Direction;

use super::escape::quote;
use super::expectation::is_wide;
use super::findings::Findings;
use super::source::Source;
use super::tree::{At, Definition};
use crate::model::{Group, Model, Peer, Rule, Traffic, protocol};

mod family;
mod shadowed;

/// What to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lints {
    /// Ports that should not be open to the world, over TCP or UDP.
    pub management_ports: Vec<u16>,
}

impl Default for Lints {
    /// SSH and Remote Desktop.
    fn default() -> Self {
        Self {
            management_ports: vec![22, 3389],
        }
    }
}

impl Lints {
    /// Adds what is found.
    pub(super) fn look(
        &self,
        definition: &Definition,
        model: &Model,
        sources: &[Source],
        findings: &mut Findings,
    ) {
        let places = Places::new(definition, sources);
        let mut look = Look {
            model,
            places,
            findings,
        };
        for (name, group) in &model.groups {
            look.management_ports(group, &self.management_ports);
            look.egress(name, group);
            look.shadowed(group);
            look.families(name, group);
        }
        look.unused();
    }
}

struct Look<'m, 'f> {
    model: &'m Model,
    places: Places<'m>,
    findings: &'f mut Findings,
}

/// Where things stand.
struct Places<'m> {
    sources: BTreeMap<&'m str, (u32, &'m Source)>,
    groups: BTreeMap<&'m str, At>,
    prefix_lists: BTreeMap<&'m str, At>,
}

impl<'m> Places<'m> {
    fn new(definition: &'m Definition, sources: &'m [Source]) -> Self {
        let files = || definition.files.iter();
        let groups = files().flat_map(|file| &file.groups);
        let lists = files().flat_map(|file| &file.prefix_lists);
        Self {
            sources: (0..)
                .zip(sources)
                .map(|(file, source)| (&*source.name, (file, source)))
                .collect(),
            groups: groups
                .map(|group| (group.name.value.as_str(), group.name.at))
                .collect(),
            prefix_lists: lists
                .map(|list| (list.name.value.as_str(), list.name.at))
                .collect(),
        }
    }

    /// The line of a rule; `None` for one that a default added.
    fn rule(&self, rule: &Rule) -> Option<At> {
        let origin = rule.origin.as_ref()?;
        let (file, source) = self.sources.get(&*origin.file)?;
        let line = source.line(origin.line as usize)?;
        Some(At {
            file: *file,
            start: line.start as u32,
            end: line.end as u32,
        })
    }
}

impl Look<'_, '_> {
    /// A way in for whoever guesses passwords.
    fn management_ports(&mut self, group: &Group, ports: &[u16]) {
        for rule in &group.ingress {
            let Some(at) = self.places.rule(rule) else {
                continue;
            };
            let open = |port: &&u16| {
                let over = |number| rule.traffic.matches(false, number, **port);
                over(protocol::TCP) || over(protocol::UDP)
            };
            let open: Vec<String> = ports.iter().filter(open).map(u16::to_string).collect();
            // Two halves are the world, too.
            if open.is_empty() || !self.has_net(&rule.peer, is_wide) {
                continue;
            }
            let message = match open.as_slice() {
                [port] => format!("management port {port} is open to the world"),
                ports => format!(
                    "management ports {} are open to the world",
                    ports.join(", ")
                ),
            };
            self.findings
                .warning("open-management-port", at, message)
                .help("name the addresses, the prefix list or the group that it is for");
        }
    }

    /// Whether a peer is, or has, such a prefix.
    fn has_net(&self, peer: &Peer, such: impl Fn(&IpNet) -> bool) -> bool {
        match peer {
            Peer::Cidr(net) => such(net),
            Peer::PrefixList(name) => self.entries(name).iter().any(such),
            Peer::Group(_) | Peer::GroupOf(..) => false,
        }
    }

    fn entries(&self, list: &str) -> &[IpNet] {
        self.model.prefix_lists.get(list).map_or(&[], Vec::as_slice)
    }

    /// AWS's default lets everything out; that should be somebody's choice.
    fn egress(&mut self, name: &str, group: &Group) {
        let whole = |net: &IpNet| net.prefix_len() == 0;
        let mut open = group
            .egress
            .iter()
            .filter(|rule| rule.traffic == Traffic::All && self.has_net(&rule.peer, whole));
        let Some(rule) = open.next() else { return };
        const HELP: &str = "list what it has to reach; `egress = []` lets out nothing but replies";
        if let Some(at) = self.places.rule(rule) {
            let message = format!("everything may leave group {}", quote(name));
            self.findings.note("open-egress", at, message).help(HELP);
        } else if let Some(at) = self.places.groups.get(name) {
            let message = format!(
                "everything may leave group {}, since nothing else is said",
                quote(name)
            );
            self.findings
                .warning("open-egress", *at, message)
                .help(HELP);
        }
    }

    /// What nobody uses is forgotten, and somebody's hole tomorrow.
    fn unused(&mut self) {
        let (mut groups, mut lists) = (BTreeSet::new(), BTreeSet::new());
        for interface in self.model.interfaces.values() {
            groups.extend(interface.groups.iter().map(String::as_str));
        }
        for group in self.model.groups.values() {
            for direction in Direction::ALL {
                for rule in group.rules(direction) {
                    match &rule.peer {
                        Peer::Cidr(_) => {}
                        Peer::PrefixList(name) => drop(lists.insert(name.as_str())),
                        Peer::Group(name) | Peer::GroupOf(name, _) => {
                            groups.insert(name.as_str());
                        }
                    }
                }
            }
        }
        for name in self.model.groups.keys() {
            if let Some(at) = self
                .places
                .groups
                .get(name.as_str())
                .filter(|_| !groups.contains(name.as_str()))
            {
                let message = format!(
                    "group {} is on no interface here and in no rule",
                    quote(name)
                );
                self.findings
                    .note("unused-group", *at, message)
                    .help("attach it by `[interfaces.NAME] groups`, or remove it");
            }
        }
        for name in self.model.prefix_lists.keys() {
            if let Some(at) = self
                .places
                .prefix_lists
                .get(name.as_str())
                .filter(|_| !lists.contains(name.as_str()))
            {
                let message = format!("prefix list {} is in no rule", quote(name));
                self.findings.note("unused-prefix-list", *at, message);
            }
        }
    }
}

#[cfg(test)]
mod tests;
