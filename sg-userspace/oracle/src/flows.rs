//! The list of flows, and the room in it (section 13).

use crate::{
    Flow, Rivals,
    entry::{Entry, Key},
    policy::Policy,
    rules::View,
};

/// The list of entries.
#[derive(Clone, Debug, Default)]
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

    /// A place for one more entry of an interface: of its reserve (true) or of what all share. An entry keeps
    /// the place that it was given.
    pub(crate) fn place(&self, name: &str, view: &View<'_>) -> Option<bool> {
        let View { policy, interface } = view;
        let host = u64::from(policy.allowance);
        let own = || self.0.iter().filter(|entry| entry.key.interface == name);
        let allowance = interface.allowance.map_or(host, u64::from);
        if own().count() as u64 >= allowance.min(host) {
            return None;
        }
        let reserved = own().filter(|entry| entry.reserved).count() as u64;
        if reserved < u64::from(interface.reserve) {
            return Some(true);
        }
        let reserves = policy.interfaces.values().map(|one| u64::from(one.reserve));
        let shared = self.0.iter().filter(|entry| !entry.reserved).count() as u64;
        (shared < host.saturating_sub(reserves.sum())).then_some(false)
    }

    /// Who must make room for one more unassured entry of an interface: it and the host have a share for
    /// these.
    pub(crate) fn rivals(&self, name: &str, view: &View<'_>) -> Option<Rivals> {
        let share = |allowance: u64| (allowance * 25 / 100).max(1);
        let host = u64::from(view.policy.allowance);
        let allowance = view.interface.allowance.map_or(host, u64::from).min(host);
        let unassured = |entry: &&Entry| !entry.assured;
        let own = || self.0.iter().filter(|entry| entry.key.interface == name);
        if own().filter(unassured).count() as u64 >= share(allowance)
            || own().count() as u64 >= allowance
        {
            Some(Rivals::Own)
        } else if self.0.iter().filter(unassured).count() as u64 >= share(host) {
            Some(Rivals::Any)
        } else {
            None
        }
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
