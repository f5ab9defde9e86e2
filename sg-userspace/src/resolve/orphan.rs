//! Interfaces that a new definition names no longer keep what was last applied to them.

use std::collections::BTreeSet;

use super::{Name, Resolved, ResolvedGroup, ResolvedInterface, ResolvedRule};
use crate::model::{Peer, Rule};

impl Resolved {
    /// Names of the interfaces of `stored` that this policy does not have.
    pub fn orphans_of<'a>(&'a self, stored: &'a Resolved) -> impl Iterator<Item = &'a str> {
        stored
            .interfaces
            .keys()
            .filter(|name| !self.interfaces.contains_key(*name))
            .map(String::as_str)
    }

    /// What an interface that this policy does not have goes on under: its name, unless that is another
    /// device's now; then under both, with as many signs as it takes until nobody `is_called` so.
    pub(crate) fn name_of_orphan(
        &self,
        name: &str,
        device: &str,
        is_called: impl Fn(&str) -> bool,
    ) -> String {
        if !self.interfaces.contains_key(name) {
            return name.to_owned();
        }
        let mut both = format!("{name}@{device}");
        while self.interfaces.contains_key(&both) || is_called(&both) {
            both.push('+');
        }
        both
    }

    /// Takes over an interface of the policy last applied, with its rules, lists and the members
    /// its rules refer to as they were then. None of them mixes with equal names of this policy.
    ///
    /// Answers false, and changes nothing, if `stored` has no such interface or this policy names
    /// it itself.
    pub fn adopt_orphan(&mut self, stored: &Resolved, interface: &str) -> bool {
        let Some(orphan) = stored.interfaces.get(interface) else {
            return false;
        };
        if self.interfaces.contains_key(interface) {
            return false;
        }
        for name in &orphan.groups {
            self.freeze_rules(stored, name, interface);
        }
        for peer in peers(stored, orphan) {
            self.freeze_peer(stored, &peer, interface);
        }
        let frozen = ResolvedInterface {
            groups: orphan
                .groups
                .iter()
                .map(|group| group.frozen(interface))
                .collect(),
            orphan: true,
            ..orphan.clone()
        };
        self.interfaces.insert(interface.into(), frozen);
        true
    }

    fn freeze_rules(&mut self, stored: &Resolved, name: &Name, interface: &str) {
        let Some(group) = stored.groups.get(name) else {
            return;
        };
        let freeze = |rules: &[ResolvedRule]| -> Vec<ResolvedRule> {
            let freeze = |rule: &ResolvedRule| Rule {
                peer: rule.peer.map_name(|name| name.frozen(interface)),
                ..rule.clone()
            };
            rules.iter().map(freeze).collect()
        };
        let frozen = self.groups.entry(name.frozen(interface)).or_default();
        frozen.on_revoke = group.on_revoke;
        frozen.ingress = freeze(&group.ingress);
        frozen.egress = freeze(&group.egress);
    }

    fn freeze_peer(&mut self, stored: &Resolved, peer: &Peer<Name>, interface: &str) {
        match peer {
            Peer::Cidr(_) => {}
            Peer::PrefixList(name) => {
                let entries = stored.prefix_lists.get(name).cloned();
                self.prefix_lists
                    .insert(name.frozen(interface), entries.unwrap_or_default());
            }
            Peer::Group(name) | Peer::GroupOf(name, _) => {
                let members = stored.groups.get(name).map(|group| group.members.clone());
                let frozen: &mut ResolvedGroup =
                    self.groups.entry(name.frozen(interface)).or_default();
                frozen.members = members.unwrap_or_default();
            }
        }
    }
}

fn peers(stored: &Resolved, orphan: &ResolvedInterface) -> BTreeSet<Peer<Name>> {
    orphan
        .groups
        .iter()
        .filter_map(|name| stored.groups.get(name))
        .flat_map(|group| group.ingress.iter().chain(&group.egress))
        .filter(|rule| !matches!(rule.peer, Peer::Cidr(_)))
        .map(|rule| rule.peer.clone())
        .collect()
}
