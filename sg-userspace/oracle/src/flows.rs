//! The list of flows, and the room in it (section 13).

use crate::{
    Flow,
    entry::{Entry, Key},
    policy::{Interface, Policy},
    rules::View,
};

/// The list of entries.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Entry>);

impl Table {
    /// Takes the entries away that are not live.
    pub(crate) fn expire(&mut self, policy: &Policy, now: u64, hz: u64) {
        self.0.retain(|entry| is_live(entry, policy, now, hz));
    }

    /// The place of a flow's entry until the list changes. Nothing that has expired may be in it.
    pub(crate) fn find(&self, key: &Key) -> Option<usize> {
        self.0.iter().position(|entry| entry.key == *key)
    }

    pub(crate) fn entry(&mut self, at: usize) -> &mut Entry {
        &mut self.0[at]
    }

    pub(crate) fn remove(&mut self, at: usize) {
        self.0.remove(at);
    }

    pub(crate) fn insert(&mut self, entry: Entry) {
        self.0.push(entry);
    }

    /// Whether an interface may have one more entry.
    pub(crate) fn has_room(&self, name: &str, view: &View<'_>) -> bool {
        let View { policy, interface } = view;
        let held = |name: &str| {
            self.0
                .iter()
                .filter(|entry| entry.key.interface == name)
                .count() as u64
        };
        let own = held(name);
        let host = u64::from(policy.allowance);
        if own
            >= interface
                .allowance
                .map_or(host, |own| host.min(u64::from(own)))
        {
            return false;
        }
        if own < u64::from(interface.reserve) {
            return true;
        }
        let reserves: u64 = policy
            .interfaces
            .values()
            .map(|other| u64::from(other.reserve))
            .sum();
        let beyond = |(name, other): (&String, &Interface)| {
            held(name).saturating_sub(u64::from(other.reserve))
        };
        let shared: u64 = policy.interfaces.iter().map(beyond).sum();
        shared < host.saturating_sub(reserves)
    }

    /// Whether the unassured entries hold all that they may.
    pub(crate) fn is_share_full(&self, policy: &Policy) -> bool {
        let share = (u64::from(policy.allowance) * 25 / 100).max(1);
        self.0.iter().filter(|entry| !entry.assured).count() as u64 >= share
    }

    /// The live flows, sorted.
    pub(crate) fn live(&self, policy: &Policy, now: u64, hz: u64) -> Vec<Flow> {
        let live = self
            .0
            .iter()
            .filter(|entry| is_live(entry, policy, now, hz));
        let mut flows: Vec<Flow> = live.map(Entry::flow).collect();
        flows.sort();
        flows
    }

    /// Removes an unassured entry.
    pub(crate) fn forget(&mut self, flow: &Flow) -> bool {
        let key = Key {
            interface: flow.interface.clone(),
            protocol: flow.protocol,
            local: flow.local,
            remote: flow.remote,
            local_port: flow.local_port,
            remote_port: flow.remote_port,
            local_asks: false,
        };
        let at = self.0.iter().position(|entry| {
            let key = Key {
                local_asks: entry.key.local_asks,
                ..key.clone()
            };
            entry.key == key && entry.opened_by_local == flow.opened_by_local && !entry.assured
        });
        if let Some(at) = at {
            self.0.remove(at);
        }
        at.is_some()
    }

    pub(crate) fn retain_interfaces(&mut self, kept: impl Fn(&str) -> bool) {
        self.0.retain(|entry| kept(&entry.key.interface));
    }
}

fn is_live(entry: &Entry, policy: &Policy, now: u64, hz: u64) -> bool {
    let interface = policy.interfaces.get(&entry.key.interface);
    interface.is_some_and(|interface| entry.is_live(interface, now, hz))
}
