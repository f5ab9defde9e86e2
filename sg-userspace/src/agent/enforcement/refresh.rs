//! What is in force, brought in line with devices and links as they are now.

use std::collections::{BTreeMap, BTreeSet};

use log::{debug, info, warn};

use crate::{
    attach::{self, EGRESS, INGRESS, Place},
    bpf::TcxHook,
    members::Outcome,
    pin::Pins,
    state::Attached,
    status::chain,
};

use super::{
    super::{
        devices::Device,
        observation::{Seen, key, observe, observe_all, open},
    },
    Enforcement, EnforcementError,
};

impl Enforcement {
    /// Whether something has changed that nobody tells of: a link that was removed, a namespace that
    /// was replaced, or, if `retry`, something that failed and may not fail again. Costs little.
    pub(in crate::agent) fn is_due(&self, retry: bool) -> bool {
        let again = self.failure.as_ref().is_some_and(|failure| failure.again);
        let lost = || self.lost_links(&self.seen);
        let moved = || {
            self.model.interfaces.iter().any(|(name, interface)| {
                let now = open(&self.context, interface).ok();
                match self.seen.get(name) {
                    Some(Some(seen)) => now.is_none_or(|now| key(now.identity()) != seen.netns),
                    Some(None) => now.is_some() && observe(&self.context, interface) != Some(None),
                    None => false,
                }
            })
        };
        (retry && again) || lost().is_ok_and(|lost| !lost.is_empty()) || moved()
    }

    /// Looks at devices and links, and puts the definition in force again if they have changed.
    /// What failed before is tried again if `retry`, or if something has changed.
    pub(in crate::agent) fn refresh(&mut self, retry: bool) {
        let seen = observe_all(&self.context, &self.model);
        let changed = seen != self.seen;
        let retry = retry || changed || self.failure.is_none();
        let lost = match self.lost_links(&seen) {
            Ok(lost) if retry => lost,
            Ok(_) => Vec::new(),
            Err(error) => return self.conclude(Err(error)),
        };
        for (interface, direction) in &lost {
            warn!("{interface}: link lost: {direction} is not attached any more");
        }
        let replaced = self.replaced(&seen);
        let replaced: Vec<_> = replaced
            .into_iter()
            .filter(|name| retry && lost.iter().all(|(lost, _)| lost != name))
            .collect();
        for interface in &replaced {
            warn!("{interface}: another device has its name and index");
        }
        if changed
            && lost.is_empty()
            && replaced.is_empty()
            && !self.unsettled
            && self.failure.is_none()
            && let Some(now) = self.readdressed(&seen)
            && self.follow(now)
        {
            return;
        }
        self.tell_changes(&seen);
        if retry && self.failure.as_ref().is_some_and(|failure| failure.again) {
            self.reload(true);
            if self.failure.is_none() {
                return;
            }
        }
        if !changed && lost.is_empty() && replaced.is_empty() && !self.unsettled {
            return;
        }
        let done = self.put_in_force(self.model.clone());
        self.unsettled &= done.is_err();
        match done {
            // Good for what was in force; what the files say now may still be out of force.
            Ok(()) if self.failure.is_some() => {}
            Err(error) => {
                self.seen = seen;
                self.conclude(Err(error));
            }
            done => self.conclude(done),
        }
    }

    /// Puts addresses in force that devices have gained or lost. Answers whether that is all there is to do:
    /// otherwise [`Self::refresh`] has to look.
    pub(in crate::agent) fn follow_members(&mut self, devices: &BTreeSet<Device>) -> bool {
        let mut now = self.seen.clone();
        for (name, seen) in &mut now {
            let Some(before) = seen else {
                continue;
            };
            if !devices.contains(&(before.netns, before.ifindex)) {
                continue;
            }
            let interface = self.model.interfaces.get(name);
            match interface.and_then(|interface| observe(&self.context, interface)) {
                Some(again) => *seen = again,
                None => return false,
            }
        }
        match self.readdressed(&now) {
            Some(now) => self.follow(now),
            None => false,
        }
    }

    /// Interfaces whose addresses are other ones, if nothing else has changed.
    fn readdressed(&self, now: &BTreeMap<String, Option<Seen>>) -> Option<BTreeMap<String, Seen>> {
        if !now.keys().eq(self.seen.keys()) {
            return None;
        }
        let changed = now.iter().filter(|(name, now)| self.seen[*name] != **now);
        let same_but_addresses = |(name, now): (&String, &Option<Seen>)| {
            let (before, now) = (self.seen[name].as_ref()?, now.as_ref()?);
            let addresses = before.addresses.clone();
            let as_before = Seen {
                addresses,
                ..now.clone()
            };
            (as_before == *before).then(|| (name.clone(), now.clone()))
        };
        changed.map(same_but_addresses).collect()
    }

    /// Puts addresses in force by changing members of the generation in force. Answers whether that did.
    fn follow(&mut self, now: BTreeMap<String, Seen>) -> bool {
        let Some(in_force) = &mut self.in_force else {
            return false;
        };
        let addresses = now.iter();
        let addresses = addresses.map(|(name, seen)| (name.clone(), seen.addresses.clone()));
        match in_force.follow(&self.lock, &self.model, &addresses.collect()) {
            Ok(Outcome::InForce { joined, left }) => {
                for name in now.keys() {
                    info!("{name}: addresses changed");
                }
                debug!("{joined} addresses joined groups, {left} left, in the generation in force");
                let now = now.into_iter().map(|(name, seen)| (name, Some(seen)));
                self.seen.extend(now);
                true
            }
            Ok(Outcome::NeedsGeneration(why)) => {
                debug!("addresses changed, and it takes a new generation: {why}");
                self.unsettled = true;
                false
            }
            Err(error) => {
                self.unsettled = true;
                warn!(
                    "cannot change members in force, applying anew: {}",
                    chain(&error)
                );
                false
            }
        }
    }

    /// Attached interfaces and directions whose link does not sit on its device, though there is one.
    fn lost_links(
        &self,
        seen: &BTreeMap<String, Option<Seen>>,
    ) -> Result<Vec<(String, &'static str)>, EnforcementError> {
        let pins = Pins::new(&self.context.bpffs);
        let mut lost = Vec::new();
        for one in &self.links {
            if seen.get(&one.name).is_some_and(Option::is_none) {
                continue;
            }
            let netns = self.netns.get(&one.namespace);
            let place = netns.map_or(Place::here(one.ifindex), |netns| {
                Place::within(netns, one.ifindex)
            });
            for direction in [INGRESS, EGRESS] {
                if !attach::is_on(&pins.link(one.id, direction), place)? {
                    lost.push((one.name.clone(), direction));
                }
            }
        }
        Ok(lost)
    }

    /// Attached interfaces whose device has moved to another namespace while another one has taken its name and
    /// its index.
    fn replaced(&self, seen: &BTreeMap<String, Option<Seen>>) -> Vec<String> {
        let pins = Pins::new(&self.context.bpffs);
        let is_here = |one: &Attached| {
            let found = seen.get(&one.name)?.as_ref()?;
            if found.ifindex != one.ifindex {
                return None;
            }
            let netns = open(&self.context, self.model.interfaces.get(&one.name)?).ok()?;
            let pin = pins.link(one.id, EGRESS);
            let here = netns.run(|| attach::stands_here(&pin, one.ifindex, TcxHook::Egress));
            here.ok()?.ok()
        };
        let replaced = self.links.iter().filter(|one| is_here(one) == Some(false));
        replaced.map(|one| one.name.clone()).collect()
    }
}
