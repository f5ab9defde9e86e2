//! A definition into force: checked, compiled, written, flipped, attached, adopted.
//!
//! Order matters. Everything that can say no without touching the kernel comes first; the whole
//! policy is written beside the one in force and put in force by one word; an interface's record
//! is in force and its index entry written before its links exist; flows are adopted before and
//! after the links are made. What is to be true afterwards is written down before the one word
//! is, beside what was true before (`state/changing.rs`), so that a change that ends anywhere is
//! either made or not. If a new interface cannot be attached, the generation before is put back by
//! one word again, and those attached with it are detached.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use sg_common::abi::MAX_INTERFACES;
use sg_common::layout::{Counters, CtInterface, CtLocal};

use crate::{
    adopt::{self, Adopt, Adoption},
    attach::{self, AttachError},
    bank,
    compile::{Compiled, Membership, compile},
    confirm::{self, SettleError},
    detach::{self, DetachError},
    history::{self, Origin},
    hits,
    members::InForce,
    model::Model,
    rcu::Expedited,
    resolve::{Resolved, resolve},
    session::{Context, Session},
    shape::Object,
    state::{Attached, Changing, HookInForce, Lock},
    status::chain,
    target::{self, Target},
    upgrade,
};

mod back;
mod error;
mod interface;
mod place;
mod report;

use back::{Waiting, undo};
pub use error::{ApplyError, InterfaceError};
pub(crate) use interface::is_there;
use interface::{ProgramIds, in_interface};
pub(crate) use place::is_gone;
pub(crate) use report::ahead;
pub use report::{Change, InterfaceReport, Report};

/// How a definition is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Detach interfaces that the definition no longer names, rather than keep their last policy.
    pub detach_missing: bool,
    /// Which of the flows that exist are tracked when an interface is first attached.
    pub adopt: Adopt,
    /// Take the change back after this time unless it is confirmed: see [`crate::confirm`].
    pub confirm_within: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            detach_missing: false,
            adopt: Adopt::All,
            confirm_within: None,
        }
    }
}

/// Puts a definition into force and returns; enforcement stays. Where it comes from is kept with it.
///
/// # Errors
/// See [`ApplyError`].
pub fn apply(
    context: &Context,
    model: &Model,
    origin: &Origin<'_>,
    options: Options,
) -> Result<Report, ApplyError> {
    let lock = Lock::take(&context.state_dir)?;
    let (mut report, ..) = change_locked(context, &lock, model, options)?;
    let waits = options.confirm_within.is_some();
    // It is in force: what cannot be gone back to later is a warning.
    if let Err(error) = history::record(&lock, report.generation, origin, waits) {
        report.not_kept = Some(chain(&error));
    }
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
    let (report, session, resolved, membership) = change_locked(context, lock, model, options)?;
    let in_force = InForce::new(session, resolved, membership)?;
    Ok((report, in_force))
}

/// What was done, and what is in force then.
type Done = (Report, Session, Resolved, Membership);

fn change_locked(
    context: &Context,
    lock: &Lock,
    model: &Model,
    options: Options,
) -> Result<Done, ApplyError> {
    Object::prepare();
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
    let mut report = Report {
        upgraded: upgrade::take_over(context, lock)?,
        ..Report::default()
    };
    if options.confirm_within.is_some() && options.detach_missing {
        return Err(ApplyError::Irrevocable(
            "an interface that is detached cannot be attached again by a timer: leave out --detach-missing, and apply with it when this is confirmed".to_owned(),
        ));
    }
    let mut session = confirm::open(context, lock)?;
    if let Some(unfit) = &session
        && let Err(error) = unfit.check_conntrack(model.conntrack)
    {
        // What does not fit anyway is not worth the work.
        compile(&resolved)?;
        let mut wanted = model.conntrack;
        if options.confirm_within.is_some() {
            // There is to be room for the limits that may return.
            wanted.allowance = wanted.allowance.max(unfit.runtime.allowance);
        }
        let moved = upgrade::resize(context, lock, wanted)?;
        report.upgraded = Some(moved.ok_or(error)?);
        session = confirm::open(context, lock)?;
    }
    let mut session = match session {
        Some(mut session) => {
            place::settle(&mut session, lock, &targets, &mut report)?;
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
    let generation = session.tables.generation()?.wrapping_add(1);
    let before = session.state.clone();
    let changing = Changing::new(generation, before, &session.tables.runtime()?);
    session.state.changing = Some(Box::new(changing.clone()));
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
        Ok((resolved, membership)) => Ok((report, session, resolved, membership)),
        Err(error) => match undo(session, lock, &changing) {
            Ok(()) => Err(error),
            // The kernel has what was before; the rest follows at the next change.
            Err(ApplyError::Settle(SettleError::State(_))) => Err(error),
            Err(undo) => Err(ApplyError::Undo {
                source: Box::new(error),
                undo: chain(&undo),
            }),
        },
    }
}

fn attached_as<'a>(session: &'a Session, target: &Target) -> Option<&'a Attached> {
    session.state.interfaces.iter().find(|one| {
        one.ifindex == target.link.ifindex
            && session
                .state
                .namespace(one.namespace)
                .is_some_and(|found| found.identity.is(target.netns.identity()))
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
        let name = resolved.name_of_orphan(&one.name, &one.device, |name| {
            let mut all = session.state.interfaces.iter();
            all.any(|other| other.name == name)
        });
        if name != one.name {
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
    for target in targets {
        let known = attached_as(session, target);
        let turned = known.is_some_and(|known| known.orientation != target.orientation);
        if turned && options.confirm_within.is_some() {
            return Err(ApplyError::Irrevocable(format!(
                "interface {} changes its orientation, which no timer can take back: apply without --confirm-within",
                target.name
            )));
        }
    }
    session.renew_programs(lock)?;
    let mut fresh = BTreeMap::new();
    for target in targets {
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
                    adopted: None,
                });
                fresh.insert(target.name.as_str(), id);
                // The generation in force must not have to wait for that.
                let set = session.programs(namespace);
                let loaded = attach::load(&set, &target.link, target.hook);
                loaded.map_err(|source| ApplyError::Interface {
                    interface: target.name.clone(),
                    source: Box::new(source.into()),
                })?;
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
    let state = &session.state;
    let id_of = |name: &str| {
        let found = state.interfaces.iter().find(|one| one.name == name);
        found.map(|one| one.id)
    };
    let now = session.control()?.now()?;
    let before = session.tables.runtime()?;
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
        session.runtime.hz,
        id_of,
    )?;
    report.generation = generation;
    let previous = session.state.policy;
    let resolved = session.remember(lock, generation, resolved)?;
    let waiting = Waiting::begin(session, generation, confirm::limits_of(&before), options)?;
    session.set_limits(&compiled);
    bank::flip(&session.tables, &mut session.runtime, generation, now)?;

    let in_force = adopt::InForce {
        resolved: &resolved,
        compiled: &compiled,
        generation,
    };
    let mut adoption = Adoption::new(options.adopt, in_force);
    let expedited = Expedited::begin(lock, fresh.len() + report.detaching.len());
    let mut written = Instant::now();
    let mut ours = ProgramIds::new();
    let mut begin = |target| -> Result<(), ApplyError> {
        let target: &Target = target;
        let done = match fresh.get(target.name.as_str()) {
            Some(id) => interface::start(session, target, *id, &mut adoption),
            None => interface::adjust(session, target, &mut ours),
        };
        report
            .interfaces
            .push(done.map_err(|source| in_interface(&target.name, source))?);
        if adoption.is_due() {
            interface::settle(session, &mut adoption, report)?;
        }
        if written.elapsed() > UNWRITTEN {
            lock.write(&session.state)?;
            written = Instant::now();
        }
        waiting
            .as_ref()
            .map_or(Ok(()), |waiting| waiting.again(session))
    };
    // Entering a namespace takes a thread: once for all in a row, within which it is there already.
    let same = |one: &Target, next: &Target| one.netns.identity().is(next.netns.identity());
    for some in targets.chunk_by(same) {
        let entered = some[0].netns.run(|| some.iter().try_for_each(&mut begin));
        entered
            .map_err(|source| in_interface(&some[0].name, AttachError::from(source).into()))??;
    }
    interface::settle(session, &mut adoption, report)?;
    // Not while the kernel may take it back, which writes the same record.
    if waiting.is_none() {
        session.review_if_due();
    }
    // Last, so that they stay enforced if anything before them fails.
    for one in session.state.interfaces.clone() {
        if report.detaching.contains(&one.id) {
            detach::end(session, &one)?;
            report.detached.push(one.name);
            if written.elapsed() > UNWRITTEN {
                lock.write(&session.state)?;
                written = Instant::now();
            }
        }
    }
    drop(expedited);
    detach::drop_idle_namespaces(session).map_err(DetachError::from)?;
    match waiting {
        Some(waiting) => waiting.again(session)?,
        None => session.state.changing = None,
    }
    // Everything is in force, and what was written before says so: the next change can do this, too. The policy before
    // stays, for somebody may be reading it.
    let tidied = lock
        .write(&session.state)
        .and_then(|()| lock.remove_policies(&[previous, session.state.policy]));
    if let Err(error) = tidied {
        report.untidy = Some(chain(&error));
    }
    Ok((resolved, compiled.membership))
}

/// How much of the work may be unknown to the state: it is written whole, which takes long where there are many
/// interfaces. Before the first link is made it names all of them, so one that was cut short is found by its
/// links, and one whose links are gone is forgotten (`place.rs`).
const UNWRITTEN: Duration = Duration::from_millis(250);

fn give_id(session: &mut Session) -> Result<u32, ApplyError> {
    let tables = &session.tables;
    let id = session.state.give_id(|id| {
        // The other bank may still speak of it, and a new interface must not inherit what it says.
        let remembered = |bank: u32| {
            let record = tables.interfaces.get(&(bank * MAX_INTERFACES + id));
            record.map(|record| record.is_some_and(|one| one.flags != 0))
        };
        let idle = tables.occupancy(id)?.tracked == 0;
        Ok::<_, ApplyError>(idle && !remembered(0)? && !remembered(1)?)
    })?;
    tables.ct_interfaces.set(&id, &CtInterface::ZERO)?;
    tables.ct_local.set_per_cpu(&id, &CtLocal::ZERO)?;
    tables.counters.set_per_cpu(&id, &Counters::ZERO)?;
    Ok(id)
}
