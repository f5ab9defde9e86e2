//! A definition into force: checked, compiled, written, flipped, attached, adopted.
//!
//! Order matters. Everything that can say no without touching the kernel comes first; the whole
//! policy is written beside the one in force and put in force by one word; an interface's record
//! is in force and its index entry written before its links exist; flows are adopted before and
//! after the links are made. If a new interface cannot be attached, those attached with it are
//! undone and the previous policy is put back.

use std::{collections::BTreeSet, net::IpAddr};

use sg_common::layout::{Counters, CtInterface};

use crate::{
    adopt::{AdoptError, Adoption},
    attach::{self, AttachError, EGRESS, INGRESS},
    bank::{self, BankError},
    bpf::TcxHook,
    compile::{CompileError, Compiled, compile},
    control::ControlError,
    detach::{self, DetachError},
    index::{self, IndexError},
    model::{Hook, Model, Orientation},
    netns::NetnsError,
    pin::PinError,
    programs::ProgramsError,
    resolve::{Resolved, resolve},
    session::{Context, Session, SessionError},
    state::{Attached, HookInForce, Lock, RuleSets, StateError},
    table::TableError,
    target::{self, Target, TargetError},
};

mod report;

pub(crate) use report::ahead;
pub use report::{Change, InterfaceReport, Report};

/// How a definition is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Detach interfaces that the definition no longer names, rather than keep their last policy.
    pub detach_missing: bool,
    /// Track the flows that exist when an interface is first attached.
    pub adopt: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            detach_missing: false,
            adopt: true,
        }
    }
}

/// Why a definition did not come into force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The definition enforces nothing.
    #[error("the definition names no interface, so there is nothing to enforce")]
    NoInterface,
    /// A device cannot be enforced.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The policy does not fit.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// What is pinned cannot be opened or made.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// State or lock.
    #[error(transparent)]
    State(#[from] StateError),
    /// Writing the policy failed; the one before stays in force.
    #[error("cannot write the new policy; the one before stays in force")]
    Bank(#[from] BankError),
    /// A map failed.
    #[error(transparent)]
    Table(#[from] TableError),
    /// An interface cannot be detached.
    #[error(transparent)]
    Detach(#[from] DetachError),
    /// The namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// Pins cannot be removed.
    #[error(transparent)]
    Pins(#[from] PinError),
    /// An interface cannot be attached; everything is as it was.
    #[error("interface {interface} is not enforced; nothing was changed")]
    Interface {
        /// The interface.
        interface: String,
        /// Why.
        source: InterfaceError,
    },
}

/// Why one interface cannot be enforced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InterfaceError {
    /// The index has no place for it.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Its flows cannot be adopted.
    #[error(transparent)]
    Adopt(#[from] AdoptError),
    /// Its links cannot be made.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// Programs cannot be opened.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    /// The state cannot be written.
    #[error(transparent)]
    State(#[from] StateError),
    /// A conntrack command failed.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A map failed.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Its old flows cannot be ended.
    #[error(transparent)]
    Detach(#[from] Box<DetachError>),
}

/// Puts a definition into force and returns; enforcement stays.
///
/// # Errors
/// See [`ApplyError`].
pub fn apply(context: &Context, model: &Model, options: Options) -> Result<Report, ApplyError> {
    let lock = Lock::take(&context.state_dir)?;
    apply_locked(context, &lock, model, options)
}

/// The same for a process that holds the lock longer than one change.
///
/// # Errors
/// See [`ApplyError`].
pub fn apply_locked(
    context: &Context,
    lock: &Lock,
    model: &Model,
    options: Options,
) -> Result<Report, ApplyError> {
    attach::require_tcx().map_err(|source| ApplyError::Interface {
        interface: model.interfaces.keys().next().cloned().unwrap_or_default(),
        source: source.into(),
    })?;
    let targets = target::find(model, context.netns.as_deref())?;
    let first = targets.first().ok_or(ApplyError::NoInterface)?;
    let mut resolved = resolve(model, &target::addresses(&targets));
    for target in &targets {
        if let Some(interface) = resolved.interfaces.get_mut(&target.name) {
            interface.settings.orientation = Some(target.orientation);
        }
    }
    let mut report = Report::default();
    let mut session = match Session::open(context, lock)? {
        Some(mut session) => {
            session.check_conntrack(model.conntrack)?;
            reap(&mut session, lock, &mut report)?;
            let missing = missing(&session, &targets);
            keep_orphans(&mut session, &mut resolved, &missing, options, &mut report);
            session
        }
        None => {
            // Compiled before anything is made, so that what does not fit leaves nothing behind.
            compile(&resolved)?;
            Session::create(context, lock, model.conntrack, first.netns.identity())?
        }
    };
    let compiled = compile(&resolved)?;
    let previous = session.state.clone();
    let outcome = change(
        &mut session,
        lock,
        &targets,
        resolved,
        &compiled,
        options,
        &mut report,
    );
    match outcome {
        Ok(()) => Ok(report),
        Err(error) => {
            undo(&mut session, lock, previous)?;
            Err(error)
        }
    }
}

/// Drops interfaces whose device is gone: their links are dead, and what comes under the same
/// ifindex later is another device.
fn reap(session: &mut Session, lock: &Lock, report: &mut Report) -> Result<(), ApplyError> {
    let mut live = BTreeSet::new();
    for one in session.state.interfaces.clone() {
        if is_live(session, &one).map_err(|error| DetachError::Attach(error))? {
            live.insert(session.pins.link(one.id, INGRESS));
            live.insert(session.pins.link(one.id, EGRESS));
        } else {
            detach::one(session, lock, &one)?;
            report.gone.push(one.name);
        }
    }
    // Links of an apply that was cut short belong to nobody.
    for link in session.pins.links()? {
        if !live.contains(&link) {
            attach::detach(&link).map_err(DetachError::Attach)?;
        }
    }
    Ok(())
}

/// Whether both links of an interface sit on its device.
pub(crate) fn is_live(session: &Session, one: &Attached) -> Result<bool, AttachError> {
    for hook in [INGRESS, EGRESS] {
        let details = attach::details(&session.pins.link(one.id, hook))?;
        if details.is_none_or(|details| details.ifindex != one.ifindex) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn attached_as<'a>(session: &'a Session, target: &Target) -> Option<&'a Attached> {
    session.state.interfaces.iter().find(|one| {
        let namespace = session.state.namespace(one.namespace);
        one.ifindex == target.link.ifindex
            && namespace.is_some_and(|found| found.identity.is(target.netns.identity()))
    })
}

/// Attached interfaces that no target is.
fn missing(session: &Session, targets: &[Target]) -> Vec<Attached> {
    let named: BTreeSet<u32> = targets
        .iter()
        .filter_map(|target| attached_as(session, target))
        .map(|one| one.id)
        .collect();
    let all = session.state.interfaces.iter();
    all.filter(|one| !named.contains(&one.id))
        .cloned()
        .collect()
}

/// Carries the last policy of missing interfaces over, or notes that they go.
fn keep_orphans(
    session: &mut Session,
    resolved: &mut Resolved,
    missing: &[Attached],
    options: Options,
    report: &mut Report,
) {
    for one in missing {
        if options.detach_missing {
            report.detaching.push(one.id);
            continue;
        }
        let mut name = one.name.clone();
        if resolved.interfaces.contains_key(&name) {
            // The name moved to another device: the old one goes on under both.
            name = format!("{}@{}", one.name, one.device);
            let state = &mut session.state;
            if let Some(last) = state.resolved.interfaces.remove(&one.name) {
                state.resolved.interfaces.insert(name.clone(), last);
            }
            for attached in &mut state.interfaces {
                if attached.id == one.id {
                    attached.name.clone_from(&name);
                }
            }
        }
        resolved.adopt_orphan(&session.state.resolved, &name);
        report.orphans.push(name);
    }
}

/// Everything that changes the kernel.
fn change(
    session: &mut Session,
    lock: &Lock,
    targets: &[Target],
    resolved: Resolved,
    compiled: &Compiled,
    options: Options,
    report: &mut Report,
) -> Result<(), ApplyError> {
    for one in session.state.interfaces.clone() {
        if report.detaching.contains(&one.id) {
            detach::one(session, lock, &one)?;
            report.detached.push(one.name);
        }
    }
    let mut fresh = Vec::new();
    for (place, target) in targets.iter().enumerate() {
        let namespace = session.namespace(lock, target.netns.identity())?;
        let known = attached_as(session, target).map(|one| one.id);
        let id = match known {
            Some(id) => id,
            None => {
                let id = give_id(session)?;
                session.state.interfaces.push(Attached {
                    id,
                    name: target.name.clone(),
                    device: target.link.name.clone(),
                    ifindex: target.link.ifindex,
                    namespace,
                    orientation: target.orientation,
                    hook: HookInForce::Tc,
                    why: String::new(),
                });
                fresh.push((place, id));
                id
            }
        };
        for one in &mut session.state.interfaces {
            if one.id == id {
                one.name.clone_from(&target.name);
                one.device.clone_from(&target.link.name);
            }
        }
    }
    session.set_limits(compiled)?;
    let state = &session.state;
    let id_of = |name: &str| {
        let found = state.interfaces.iter().find(|one| one.name == name);
        found.map(|one| one.id)
    };
    let generation = bank::put_in_force(
        &session.tables,
        &session.object,
        compiled,
        session.runtime.hz,
        id_of,
    )?;
    report.generation = generation;
    session.state.generation = generation;
    session.state.resolved = resolved;
    session.state.rule_sets = RuleSets::of(compiled);
    lock.write(&session.state)?;

    for (place, target) in targets.iter().enumerate() {
        let new = fresh.iter().find(|(fresh, _)| *fresh == place);
        let done = match new {
            Some((_, id)) => start(session, target, *id, options),
            None => adjust(session, target),
        };
        let done = done.map_err(|source| ApplyError::Interface {
            interface: target.name.clone(),
            source,
        })?;
        report.interfaces.push(done);
        lock.write(&session.state)?;
    }
    Ok(())
}

fn give_id(session: &mut Session) -> Result<u32, ApplyError> {
    let tables = &session.tables;
    let id = session.state.give_id(|id| {
        let occupancy = tables.occupancy(id)?;
        Ok::<_, ApplyError>(occupancy.tracked == 0)
    })?;
    tables.ct_interfaces.set(&id, &CtInterface::ZERO)?;
    tables.counters.set_per_cpu(&id, &Counters::ZERO)?;
    Ok(id)
}

/// Attaches a new interface.
fn start(
    session: &mut Session,
    target: &Target,
    id: u32,
    options: Options,
) -> Result<InterfaceReport, InterfaceError> {
    let namespace = session
        .state
        .interfaces
        .iter()
        .find(|one| one.id == id)
        .map_or(0, |one| one.namespace);
    index::insert(
        &session.tables.interface_index,
        namespace,
        target.link.ifindex,
        id,
    )?;
    let control = session.control()?;
    let addresses = adoptable(session, target);
    let mut adoption = Adoption::new(&control, &target.netns, id, &addresses);
    let adopting = options.adopt && target.orientation == Orientation::Own;
    if adopting {
        adoption.run()?;
    }
    let mut set = session.programs(namespace)?;
    let attached = attach::attach(
        &session.pins,
        &mut set,
        &target.netns,
        &target.link,
        id,
        target.hook,
    )?;
    if adopting {
        adoption.run()?;
    }
    let adopted = adoption.adopted;
    for one in &mut session.state.interfaces {
        if one.id == id {
            one.hook = attached.hook;
            one.why.clone_from(&attached.why);
        }
    }
    let mut report = InterfaceReport::new(target, id, attached, Change::Attached);
    report.adopted = adopted;
    report.warnings = cautions(target);
    if options.adopt && !adopting {
        report.warnings.push(format!(
            "flows that exist on {} are the workload's and cannot be seen from here: those that no rule lets begin again are cut",
            target.link.name
        ));
    }
    if adopted.refused > 0 {
        report.warnings.push(format!(
            "{} existing flows found no room and are cut: raise `allowance`",
            adopted.refused
        ));
    }
    Ok(report)
}

/// Brings an attached interface in line with its settings.
fn adjust(session: &mut Session, target: &Target) -> Result<InterfaceReport, InterfaceError> {
    let found = attached_as(session, target)
        .expect("the caller found it attached")
        .clone();
    if found.orientation != target.orientation {
        // Local and remote have changed sides: what is tracked is told from the wrong end.
        detach::flush(session, found.id).map_err(Box::new)?;
    }
    let mut set = session.programs(found.namespace)?;
    let in_force = match found.hook {
        HookInForce::Xdp => Hook::Xdp,
        HookInForce::XdpGeneric => Hook::XdpGeneric,
        HookInForce::Tc => Hook::Tc,
    };
    let mut attached = attach::Attachment {
        hook: found.hook,
        why: found.why.clone(),
    };
    if target.hook != Hook::Auto && target.hook != in_force {
        attached = attach::move_ingress(
            &session.pins,
            &mut set,
            &target.netns,
            &target.link,
            found.id,
            target.hook,
        )?;
    }
    for one in &mut session.state.interfaces {
        if one.id == found.id {
            one.orientation = target.orientation;
            one.hook = attached.hook;
            one.why.clone_from(&attached.why);
        }
    }
    let hook = attached.hook;
    let mut report = InterfaceReport::new(target, found.id, attached, Change::Updated);
    report.warnings = cautions(target);
    let mut hooks = vec![(set.egress_id()?, TcxHook::Egress)];
    if hook == HookInForce::Tc {
        hooks.push((set.ingress_id()?, TcxHook::Ingress));
    }
    for (ours, hook) in hooks {
        let ahead = target
            .netns
            .run(|| attach::ahead_of(ours, &target.link, hook));
        let ahead = ahead.map_err(AttachError::from)??;
        report
            .warnings
            .extend(report::ahead(&target.link.name, hook, ahead));
    }
    Ok(report)
}

fn cautions(target: &Target) -> Vec<String> {
    target.link.caution().into_iter().collect()
}

/// Addresses whose flows are the interface's: what the device has and what the definition says.
fn adoptable(session: &Session, target: &Target) -> Vec<IpAddr> {
    let listed = session
        .state
        .resolved
        .interfaces
        .get(&target.name)
        .and_then(|interface| interface.addresses.clone());
    let mut addresses = target.link.addresses.clone();
    addresses.extend(listed.into_iter().flatten());
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// Takes back what a failed change has done: new interfaces go, the previous policy returns.
fn undo(
    session: &mut Session,
    lock: &Lock,
    previous: crate::state::State,
) -> Result<(), ApplyError> {
    let known: BTreeSet<u32> = previous.interfaces.iter().map(|one| one.id).collect();
    for one in session.state.interfaces.clone() {
        if !known.contains(&one.id) {
            detach::one(session, lock, &one)?;
        }
    }
    if session.state.interfaces.is_empty() {
        session.pins.remove_all()?;
        lock.clear()?;
        return Ok(());
    }
    // Interfaces that were to be detached are gone already and have no record any more.
    let remaining: BTreeSet<u32> = session.state.interfaces.iter().map(|one| one.id).collect();
    let mut state = previous;
    state.interfaces.retain(|one| remaining.contains(&one.id));
    let names: BTreeSet<&String> = state.interfaces.iter().map(|one| &one.name).collect();
    state
        .resolved
        .interfaces
        .retain(|name, _| names.contains(name));
    let compiled = compile(&state.resolved)?;
    session.set_limits(&compiled)?;
    let id_of = |name: &str| {
        let found = state.interfaces.iter().find(|one| one.name == name);
        found.map(|one| one.id)
    };
    state.generation = bank::put_in_force(
        &session.tables,
        &session.object,
        &compiled,
        session.runtime.hz,
        id_of,
    )?;
    state.namespaces.clone_from(&session.state.namespaces);
    session.state = state;
    Ok(lock.write(&session.state)?)
}
