//! A definition into force: checked, compiled, written, flipped, attached, adopted.
//!
//! Order matters. Everything that can say no without touching the kernel comes first; the whole
//! policy is written beside the one in force and put in force by one word; an interface's record
//! is in force and its index entry written before its links exist; flows are adopted before and
//! after the links are made. If a new interface cannot be attached, those attached with it are
//! undone and the previous policy is put back.

use std::collections::BTreeSet;

use sg_common::abi::MAX_INTERFACES;
use sg_common::layout::interface_flags::PRESENT;
use sg_common::layout::{Counters, CtInterface, CtLocal};

use crate::{
    attach::{self, EGRESS, INGRESS},
    bank,
    compile::{Compiled, Membership, compile},
    detach::{self, DetachError},
    hits,
    members::InForce,
    model::Model,
    pin::Pins,
    resolve::{Resolved, resolve},
    session::{Context, Session},
    state::{Attached, HookInForce, Lock, State},
    status::chain,
    target::{self, Target},
};

mod error;
mod interface;
mod report;

pub use error::{ApplyError, InterfaceError};
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

/// Puts a definition into force and returns; enforcement stays.
///
/// # Errors
/// See [`ApplyError`].
pub fn apply(context: &Context, model: &Model, options: Options) -> Result<Report, ApplyError> {
    let lock = Lock::take(&context.state_dir)?;
    let (report, _) = apply_locked(context, &lock, model, options)?;
    Ok(report)
}

/// The same for a process that holds the lock longer than one change; it can go on changing the members
/// of what it has put in force.
///
/// # Errors
/// See [`ApplyError`].
pub fn apply_locked(
    context: &Context,
    lock: &Lock,
    model: &Model,
    options: Options,
) -> Result<(Report, InForce), ApplyError> {
    let targets = target::find(model, context.netns.as_deref())?;
    if targets.is_empty() {
        return Err(ApplyError::NoInterface);
    }
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
            check_tags(&targets, Some(&session))?;
            let missing = missing(&session, &targets);
            if !missing.is_empty() {
                let stored = lock.read_policy(&session.state)?.resolved;
                keep_orphans(
                    &mut session,
                    stored,
                    &mut resolved,
                    &missing,
                    options,
                    &mut report,
                );
            }
            session
        }
        None => {
            check_tags(&targets, None)?;
            // Compiled before anything is made, so that what does not fit leaves nothing behind.
            compile(&resolved)?;
            Session::create(context, lock, model.conntrack)?
        }
    };
    let compiled = compile(&resolved)?;
    let previous = session.state.clone();
    let outcome = change(
        &mut session,
        lock,
        &targets,
        resolved,
        compiled,
        options,
        &mut report,
    );
    match outcome {
        Ok((resolved, membership)) => {
            let in_force = InForce::new(session, resolved, membership)?;
            Ok((report, in_force))
        }
        Err(error) => match undo(&mut session, lock, previous) {
            Ok(()) => Err(error),
            Err(undo) => Err(ApplyError::Undo {
                source: Box::new(error),
                undo: chain(&undo),
            }),
        },
    }
}

/// Drops interfaces whose device is gone: their links are dead, and what comes under the same
/// ifindex later is another device. Where only one link is dead, the device is still the same and
/// somebody removed the link: it is made again, and tracked flows stay.
fn reap(session: &mut Session, lock: &Lock, report: &mut Report) -> Result<(), ApplyError> {
    let mut live = BTreeSet::new();
    for one in session.state.interfaces.clone() {
        let pins = [INGRESS, EGRESS].map(|hook| session.pins.link(one.id, hook));
        let place = session.state.place(&one);
        let place = place.unwrap_or(attach::Place::here(one.ifindex));
        let (mut dead, mut filters) = (0, 0);
        for pin in &pins {
            let found = attach::details(pin, place).map_err(DetachError::Attach)?;
            dead += usize::from(found.is_none_or(|found| found.ifindex != one.ifindex));
            filters += usize::from(found.is_some_and(|found| found.filter));
        }
        // Whoever removes the qdisc removes both filters.
        let removed = filters == pins.len() && interface::is_there(session, &one);
        if dead == pins.len() && !removed {
            detach::one(session, lock, &one)?;
            report.gone.push(one.name);
            continue;
        }
        // A move of ingress, or the first apply of all, was cut short before it was written down.
        let astray = attach::is_astray(&pins[0], place, one.hook).map_err(DetachError::Attach)?;
        if dead > 0 || astray {
            interface::restore(session, &one).map_err(|source| ApplyError::Interface {
                interface: one.name.clone(),
                source: Box::new(source),
            })?;
        }
        if dead > 0 {
            report.repaired.push(one.name);
        }
        live.extend(pins);
    }
    // Links of an apply that was cut short belong to nobody.
    for link in session.pins.links()? {
        if !live.contains(&link) {
            if attach::is_filter(&link).map_err(DetachError::Attach)? {
                // Where it is has not been written down: what attaches there next takes its place.
                Pins::remove(&link)?;
            } else {
                attach::detach_anywhere(&link).map_err(DetachError::Attach)?;
            }
        }
    }
    Ok(())
}

fn attached_as<'a>(session: &'a Session, target: &Target) -> Option<&'a Attached> {
    session.state.interfaces.iter().find(|one| {
        let namespace = session.state.namespace(one.namespace);
        one.ifindex == target.link.ifindex
            && namespace.is_some_and(|found| found.identity.is(target.netns.identity()))
    })
}

/// Refuses hooks that would not see tags, before anything is changed.
fn check_tags(targets: &[Target], session: Option<&Session>) -> Result<(), ApplyError> {
    for target in targets {
        let attached = session.and_then(|session| attached_as(session, target));
        interface::check_tags(target, attached).map_err(|source| ApplyError::Interface {
            interface: target.name.clone(),
            source: Box::new(source),
        })?;
    }
    Ok(())
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

/// Carries the last policy of missing interfaces over, and notes which of them go afterwards.
fn keep_orphans(
    session: &mut Session,
    mut stored: Resolved,
    resolved: &mut Resolved,
    missing: &[Attached],
    options: Options,
    report: &mut Report,
) {
    for one in missing {
        let mut name = one.name.clone();
        if resolved.interfaces.contains_key(&name) {
            // The name moved to another device: the old one goes on under both.
            name = format!("{}@{}", one.name, one.device);
            while resolved.interfaces.contains_key(&name)
                || session
                    .state
                    .interfaces
                    .iter()
                    .any(|other| other.name == name)
            {
                name.push('+');
            }
            let state = &mut session.state;
            for interfaces in [&mut state.resolved, &mut stored.interfaces] {
                if let Some(last) = interfaces.remove(&one.name) {
                    interfaces.insert(name.clone(), last);
                }
            }
            for attached in &mut state.interfaces {
                if attached.id == one.id {
                    attached.name.clone_from(&name);
                }
            }
        }
        resolved.adopt_orphan(&stored, &name);
        if options.detach_missing {
            report.detaching.push(one.id);
        } else {
            report.orphans.push(name);
        }
    }
}

/// Everything that changes the kernel.
fn change(
    session: &mut Session,
    lock: &Lock,
    targets: &[Target],
    resolved: Resolved,
    compiled: Compiled,
    options: Options,
    report: &mut Report,
) -> Result<(Resolved, Membership), ApplyError> {
    session.renew_programs(lock)?;
    let mut fresh = Vec::new();
    for (place, target) in targets.iter().enumerate() {
        let namespace = session.namespace(target.netns.identity());
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
                    mac: target.link.mac,
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
                one.mac = target.link.mac;
            }
        }
    }
    session.set_limits(&compiled)?;
    let state = &session.state;
    let id_of = |name: &str| {
        let found = state.interfaces.iter().find(|one| one.name == name);
        found.map(|one| one.id)
    };
    let change = bank::Change {
        now: session.control()?.now()?,
        undoes: false,
    };
    let vacant = bank::vacate(
        &session.tables,
        &session.object,
        &compiled,
        &mut session.runtime,
    )?;
    hits::turn_over(&session.tables, lock, &vacant, &compiled)?;
    let generation = bank::occupy(
        &session.tables,
        &session.object,
        &compiled,
        vacant,
        &mut session.runtime,
        change,
        id_of,
    )?;
    report.generation = generation;
    let previous = session.state.policy;
    let resolved = session.remember(lock, generation, resolved)?;

    for (place, target) in targets.iter().enumerate() {
        let new = fresh.iter().find(|(fresh, _)| *fresh == place);
        let done = match new {
            Some((_, id)) => interface::start(session, target, *id, options),
            None => interface::adjust(session, target),
        };
        let done = done.map_err(|source| ApplyError::Interface {
            interface: target.name.clone(),
            source: Box::new(source),
        })?;
        report.interfaces.push(done);
        lock.write(&session.state)?;
    }
    // Last, so that they stay enforced if anything before them fails.
    for one in session.state.interfaces.clone() {
        if report.detaching.contains(&one.id) {
            detach::one(session, lock, &one)?;
            report.detached.push(one.name);
        }
    }
    detach::drop_idle_namespaces(session).map_err(DetachError::from)?;
    lock.write(&session.state)?;
    // Somebody may be reading the one before.
    lock.remove_policies(&[previous, session.state.policy])?;
    Ok((resolved, compiled.membership))
}

fn give_id(session: &mut Session) -> Result<u32, ApplyError> {
    let tables = &session.tables;
    let id = session.state.give_id(|id| {
        // The other bank may still speak of it, and a new interface must not inherit what it says.
        let remembered = |bank: u32| {
            let record = tables.interfaces.get(&(bank * MAX_INTERFACES + id));
            record.map(|record| record.is_some_and(|one| one.flags & PRESENT != 0))
        };
        let idle = tables.occupancy(id)?.tracked == 0;
        Ok::<_, ApplyError>(idle && !remembered(0)? && !remembered(1)?)
    })?;
    tables.ct_interfaces.set(&id, &CtInterface::ZERO)?;
    tables.ct_local.set_per_cpu(&id, &CtLocal::ZERO)?;
    tables.counters.set_per_cpu(&id, &Counters::ZERO)?;
    Ok(id)
}

/// Takes back what a failed change has done: new interfaces go, the previous policy returns, and
/// ingress to the hook where it was.
fn undo(session: &mut Session, lock: &Lock, previous: State) -> Result<(), ApplyError> {
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
    state.resolved.retain(|name, _| names.contains(name));
    let resolved = lock.read_policy(&state)?.resolved;
    let compiled = compile(&resolved)?;
    session.set_limits(&compiled)?;
    let id_of = |name: &str| {
        let found = state.interfaces.iter().find(|one| one.name == name);
        found.map(|one| one.id)
    };
    let change = bank::Change {
        now: session.control()?.now()?,
        undoes: true,
    };
    let vacant = bank::vacate(
        &session.tables,
        &session.object,
        &compiled,
        &mut session.runtime,
    )?;
    hits::turn_over(&session.tables, lock, &vacant, &compiled)?;
    let generation = bank::occupy(
        &session.tables,
        &session.object,
        &compiled,
        vacant,
        &mut session.runtime,
        change,
        id_of,
    )?;
    state.namespaces.clone_from(&session.state.namespaces);
    let moved = std::mem::replace(&mut session.state, state);
    session.remember(lock, generation, resolved)?;
    for place in 0..session.state.interfaces.len() {
        let before = session.state.interfaces[place].clone();
        let now = moved.interfaces.iter().find(|one| one.id == before.id);
        let Some(now) = now.filter(|now| now.hook != before.hook) else {
            continue;
        };
        if let Err(source) = interface::move_back(session, &before, now.hook) {
            // What is remembered is what is in force.
            let one = &mut session.state.interfaces[place];
            (one.hook, one.why) = (now.hook, now.why.clone());
            lock.write(&session.state)?;
            return Err(ApplyError::Interface {
                interface: before.name,
                source: Box::new(source),
            });
        }
    }
    lock.write(&session.state)?;
    Ok(lock.remove_policies(&[session.state.policy])?)
}
