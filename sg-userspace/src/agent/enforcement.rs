//! What the agent keeps in force: the definition as it was last good, on the devices as they are.
//!
//! Everything here blocks; the agent's loop runs it on another thread, one call at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use log::{debug, warn};

use crate::{
    apply::{self, ApplyError},
    attach::AttachError,
    definition::{self, Diagnostic, Severity, Source, SourceError},
    detach::{self, DetachError, Detached},
    devices::devices,
    history::{self, Origin},
    members::InForce,
    model::Model,
    netns::{Netns, NetnsIdentity},
    session::Context,
    state::{Attached, Lock, StateError},
    status::chain,
};

use super::{
    Options,
    devices::Wanted,
    observation::{Seen, observe_all, open},
    record::{Record, RecordError},
};

mod refresh;
mod report;

/// The definition in force and what came of it.
pub(super) struct Enforcement {
    context: Context,
    lock: Lock,
    options: Options,
    /// The definition last put in force.
    model: Model,
    /// The text that was read last.
    sources: Vec<Source>,
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
    /// Generation last put in force; 0: none.
    generation: u32,
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
    pub(super) fn start(context: Context, options: Options) -> Result<Self, EnforcementError> {
        let mut enforcement = Self {
            lock: Lock::take(&context.state_dir)?,
            context,
            options,
            model: Model::default(),
            sources: Vec::new(),
            in_force: None,
            unsettled: false,
            seen: BTreeMap::new(),
            links: Vec::new(),
            netns: BTreeMap::new(),
            attached: BTreeSet::new(),
            record: Record::of_this_process(),
            generation: 0,
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

    fn read(&mut self) -> Result<Model, EnforcementError> {
        self.sources = definition::source::read_trusted(
            &self.options.files,
            &self.options.trust,
            self.options.format,
        )?;
        let checked =
            definition::check_on(&self.sources, &|| devices(self.context.netns.as_deref()));
        let Some(model) = checked.model else {
            return Err(EnforcementError::Definition {
                diagnostics: checked.diagnostics,
            });
        };
        for diagnostic in &checked.diagnostics {
            warn!("{}", report::one_line(diagnostic));
        }
        Ok(model)
    }

    fn put_in_force(&mut self, model: Model) -> Result<(), EnforcementError> {
        let new = model != self.model;
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
                adopt: self.options.adopt,
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
            // What is applied anew because devices have changed is the same definition, whatever the files say.
            if new {
                self.keep(report.generation);
            }
            self.tell(&report);
        }
        self.seen = seen;
        self.model = model;
        Ok(())
    }

    /// Keeps the definition for `sgctl rollback`.
    fn keep(&self, generation: u32) {
        let origin = Origin {
            sources: &self.sources,
            how: "run",
            netns: self.context.netns.as_deref(),
        };
        if let Err(error) = history::record(&self.lock, generation, &origin, false) {
            warn!(
                "the definition is in force, but cannot be kept: {}",
                chain(&error)
            );
        }
    }
}

fn errors(diagnostics: &[Diagnostic]) -> String {
    match definition::count(diagnostics, Severity::Error) {
        1 => "an error".to_owned(),
        many => format!("{many} errors"),
    }
}
