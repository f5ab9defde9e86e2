//! What the agent keeps in force: the definition as it was last good, on the devices as they are.
//!
//! Everything here blocks; the agent's loop runs it on another thread, one call at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use log::{debug, error, info, warn};

use crate::{
    apply::{self, ApplyError, Change, Report},
    attach::{self, AttachError, EGRESS, INGRESS, Place},
    definition::{self, Diagnostic, Severity, SourceError},
    detach::{self, DetachError, Detached},
    members::{InForce, Outcome},
    model::Model,
    netns::{Netns, NetnsIdentity},
    pin::Pins,
    session::Context,
    state::{Attached, Lock, StateError},
    status::chain,
};

use super::{
    devices::{Device, Wanted},
    observation::{Seen, key, observe, observe_all, open},
    record::{Record, RecordError},
};

/// The definition in force and what came of it.
pub(super) struct Enforcement {
    context: Context,
    lock: Lock,
    files: Vec<PathBuf>,
    adopt: bool,
    /// The definition last put in force.
    model: Model,
    /// What its members can be changed in, unless putting it in force has failed since.
    in_force: Option<InForce>,
    /// A change of members may have been made by half: a generation has to follow, whatever is seen by then.
    unsettled: bool,
    /// The devices it was put in force on.
    seen: BTreeMap<String, Option<Seen>>,
    /// What is attached, as it was last written down.
    links: Vec<Attached>,
    /// Their namespaces, by number.
    netns: BTreeMap<u32, NetnsIdentity>,
    /// Our ids of interfaces that were not attached before.
    attached: BTreeSet<u32>,
    record: Record,
    /// Why the last attempt failed.
    failure: Option<Failure>,
}

struct Failure {
    text: String,
    /// Whether it may go away without a change of the files.
    again: bool,
}

/// Why a definition is not in force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnforcementError {
    /// The files cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// They hold mistakes.
    #[error("the definition has {}", errors(diagnostics))]
    Definition {
        /// Mistakes and warnings.
        diagnostics: Vec<Diagnostic>,
    },
    /// It cannot be put in force.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// State or lock.
    #[error(transparent)]
    State(#[from] StateError),
    /// A link cannot be examined.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The agent's record cannot be written.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl Enforcement {
    /// Puts the definition in force for the first time. Devices that are not there are waited for.
    ///
    /// # Errors
    /// See [`EnforcementError`]; what was in force before stays.
    pub(super) fn start(
        context: Context,
        files: Vec<PathBuf>,
        adopt: bool,
    ) -> Result<Self, EnforcementError> {
        let mut enforcement = Self {
            lock: Lock::take(&context.state_dir)?,
            context,
            files,
            adopt,
            model: Model::default(),
            in_force: None,
            unsettled: false,
            seen: BTreeMap::new(),
            links: Vec::new(),
            netns: BTreeMap::new(),
            attached: BTreeSet::new(),
            record: Record::of_this_process(),
            failure: None,
        };
        let model = enforcement.read()?;
        enforcement.put_in_force(model)?;
        enforcement.succeeded()?;
        Ok(enforcement)
    }

    /// Reads the files again, and puts them in force if they say something else; a definition with
    /// mistakes leaves everything as it is.
    pub(super) fn reload(&mut self, force: bool) {
        let done = self.read().and_then(|model| {
            if model == self.model && self.failure.is_none() && !force {
                debug!("the definition says what it said before");
                return Ok(());
            }
            self.put_in_force(model)
        });
        self.conclude(done);
    }

    /// Whether something has changed that nobody tells of: a link that was removed, a namespace that
    /// was replaced, or, if `retry`, something that failed and may not fail again. Costs little.
    pub(super) fn is_due(&self, retry: bool) -> bool {
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
    pub(super) fn refresh(&mut self, retry: bool) {
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
        if changed
            && lost.is_empty()
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
        if !changed && lost.is_empty() && !self.unsettled {
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
    pub(super) fn follow_members(&mut self, devices: &BTreeSet<Device>) -> bool {
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

    /// The namespaces to listen to, with the devices of interest in each.
    pub(super) fn namespaces(&self) -> Vec<(NetnsIdentity, Wanted)> {
        let mut namespaces: Vec<(NetnsIdentity, Wanted)> = Vec::new();
        for (name, interface) in &self.model.interfaces {
            let Ok(netns) = open(&self.context, interface) else {
                continue;
            };
            let identity = netns.identity();
            let known = namespaces.iter().position(|(found, _)| found.is(identity));
            let place = known.unwrap_or_else(|| {
                namespaces.push((identity.clone(), Wanted::default()));
                namespaces.len() - 1
            });
            let wanted = &mut namespaces[place].1;
            wanted.names.insert(interface.settings.device.clone());
            if let Some(Some(seen)) = self.seen.get(name) {
                wanted.indexes.insert(seen.ifindex);
            }
        }
        namespaces
    }

    /// Where namespaces of the definition are found by path.
    pub(super) fn namespace_paths(&self) -> Vec<PathBuf> {
        let paths: BTreeSet<PathBuf> = self
            .model
            .interfaces
            .values()
            .filter_map(|interface| {
                let name = interface.settings.netns.as_deref();
                name.or(self.context.netns.as_deref()).map(Netns::place)
            })
            .collect();
        paths.into_iter().collect()
    }

    /// Ends the agent's work, detaching what it attached if asked to.
    ///
    /// # Errors
    /// See [`DetachError`].
    pub(super) fn finish(self, detach_on_exit: bool) -> Result<Detached, DetachError> {
        let detached = if detach_on_exit {
            detach::several(&self.context, &self.lock, &self.attached)
        } else {
            Ok(Detached::default())
        };
        if let Err(error) = Record::remove(&self.context.state_dir) {
            warn!("{}", chain(&error));
        }
        detached
    }

    /// Names of the interfaces that are attached.
    pub(super) fn enforced(&self) -> Vec<String> {
        self.links.iter().map(|one| one.name.clone()).collect()
    }

    fn read(&self) -> Result<Model, EnforcementError> {
        let checked = definition::load(&self.files)?;
        let Some(model) = checked.model else {
            return Err(EnforcementError::Definition {
                diagnostics: checked.diagnostics,
            });
        };
        for diagnostic in &checked.diagnostics {
            warn!("{}", one_line(diagnostic));
        }
        Ok(model)
    }

    fn put_in_force(&mut self, model: Model) -> Result<(), EnforcementError> {
        // What changes from here on is told by rtnetlink and looked at afterwards.
        let seen = observe_all(&self.context, &model);
        let mut present = model.clone();
        present
            .interfaces
            .retain(|name, _| seen.get(name).is_none_or(Option::is_some));
        let absent: Vec<&String> = model
            .interfaces
            .keys()
            .filter(|name| !present.interfaces.contains_key(*name))
            .collect();
        for name in &absent {
            let device = &model.interfaces[*name].settings.device;
            // One that was there before has been told of as lost.
            if !self.seen.contains_key(*name) {
                warn!("{name}: there is no device {device}; it is attached when it appears");
            }
        }
        self.record.absent = absent.len() as u64;
        let waiting = present.interfaces.is_empty() && !absent.is_empty();
        if !waiting {
            let options = apply::Options {
                adopt: self.adopt,
                ..apply::Options::default()
            };
            self.in_force = None;
            let done = apply::apply_locked(&self.context, &self.lock, &present, options);
            let state = self.lock.read()?;
            (self.links, self.netns) = state.map_or_else(Default::default, |state| {
                let namespaces = state.namespaces.into_iter();
                let namespaces = namespaces.map(|one| (one.number, one.identity));
                (state.interfaces, namespaces.collect())
            });
            let (report, in_force) = done?;
            self.in_force = Some(in_force);
            self.tell(&report);
        }
        self.seen = seen;
        self.model = model;
        Ok(())
    }

    fn tell(&mut self, report: &Report) {
        for name in &report.gone {
            debug!("{name}: forgotten, its device is gone");
        }
        for name in &report.repaired {
            warn!("{name}: a link that was removed is attached again");
        }
        self.record.repaired += report.repaired.len() as u64;
        for one in &report.interfaces {
            let (name, device) = (&one.name, &one.device);
            if one.change == Change::Attached {
                self.attached.insert(one.id);
                let (hook, adopted) = (one.hook.name(), one.adopted.connections());
                info!("{name} ({device}): attached, ingress by {hook}, {adopted} adopted");
            }
            for warning in &one.warnings {
                warn!("{name}: {warning}");
            }
        }
        for name in &report.orphans {
            warn!(
                "{name} is attached but the definition does not name it: it keeps its last policy"
            );
        }
        info!("applied generation {}", report.generation);
    }

    fn tell_changes(&self, seen: &BTreeMap<String, Option<Seen>>) {
        for (name, now) in seen {
            match (self.seen.get(name).and_then(Option::as_ref), now) {
                (Some(before), Some(now)) if before.addresses != now.addresses => {
                    info!("{name}: addresses changed");
                    debug!("{name}: addresses {:?}", now.addresses);
                }
                (Some(before), Some(now)) if before.stripped_tags != now.stripped_tags => {
                    info!("{name}: VLAN sub-interfaces or the offload of their tags changed");
                }
                (Some(_), None) => warn!("{name}: link lost: there is no such device any more"),
                (None, Some(_)) => info!("{name}: its device has appeared"),
                _ => {}
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
            for direction in [INGRESS, EGRESS] {
                let netns = self.netns.get(&one.namespace);
                let place = netns.map_or(Place::here(one.ifindex), |netns| {
                    Place::within(netns, one.ifindex)
                });
                if !attach::is_on(&pins.link(one.id, direction), place)? {
                    lost.push((one.name.clone(), direction));
                }
            }
        }
        Ok(lost)
    }

    fn conclude(&mut self, done: Result<(), EnforcementError>) {
        let concluded = match done {
            Ok(()) => self.succeeded(),
            Err(error) => self.failed(&error),
        };
        if let Err(error) = concluded {
            warn!("{}", chain(&error));
        }
    }

    fn succeeded(&mut self) -> Result<(), RecordError> {
        self.failure = None;
        self.record.definition_errors = 0;
        self.record.reload_successful = true;
        self.record.reload_success_seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        self.record.write(&self.context.state_dir)
    }

    fn failed(&mut self, failure: &EnforcementError) -> Result<(), RecordError> {
        let mut text = chain(failure);
        self.record.definition_errors = 1;
        if let EnforcementError::Definition { diagnostics } = failure {
            self.record.definition_errors = definition::count(diagnostics, Severity::Error) as u64;
            for diagnostic in diagnostics {
                text.push_str("; ");
                text.push_str(&one_line(diagnostic));
            }
        }
        self.record.reload_successful = false;
        // The same failure, met again and again while waiting, is news only once.
        if self.failure.as_ref().is_some_and(|last| last.text == text) {
            debug!("reload failed again: {text}");
        } else {
            error!("reload failed, what was in force stays: {text}");
        }
        let again = !matches!(
            failure,
            EnforcementError::Definition { .. } | EnforcementError::Source(_)
        );
        self.failure = Some(Failure { text, again });
        self.record.write(&self.context.state_dir)
    }
}

fn one_line(diagnostic: &Diagnostic) -> String {
    let mut text = match &diagnostic.place {
        Some(place) => format!("{}:{}:{}: ", place.file, place.line, place.column),
        None => String::new(),
    };
    text.push_str(&diagnostic.message);
    if let Some(help) = &diagnostic.help {
        text.push_str(&format!(" ({help})"));
    }
    text
}

fn errors(diagnostics: &[Diagnostic]) -> String {
    match definition::count(diagnostics, Severity::Error) {
        1 => "an error".to_owned(),
        many => format!("{many} errors"),
    }
}
