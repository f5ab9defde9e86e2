//! What is in force, read without the writer's lock, and what a definition would make of it.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    thread,
    time::Duration,
};

use super::PlanError;
use crate::{
    apply,
    attach::{self, EGRESS, INGRESS},
    bpf::LinkDetails,
    model::Model,
    resolve::{Resolved, resolve},
    session::Context,
    state::{Attached, Policy, State},
    target::{self, Target},
    view::{View, ViewError},
};

/// Attempts to read what is in force between two changes, and the pause after each: half a second in all.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(50);

/// What is in force.
pub(super) struct InForce {
    pub(super) view: View,
    pub(super) resolved: Resolved,
    /// The generation that the maps are at, if another is remembered.
    pub(super) other_generation: Option<u32>,
}

/// Reads what is in force; `None`: nothing is.
///
/// A writer replaces policy, state and maps one after the other, so all are read until they belong together.
///
/// # Errors
/// See [`PlanError`].
pub(super) fn read(context: &Context) -> Result<Option<InForce>, PlanError> {
    let mut last = attempt(context);
    for _ in 1..ATTEMPTS {
        match &last {
            Ok(None) => return Ok(None),
            Ok(Some(found)) if found.other_generation.is_none() => break,
            _ => thread::sleep(PAUSE),
        }
        last = attempt(context);
    }
    last
}

fn attempt(context: &Context) -> Result<Option<InForce>, PlanError> {
    let view = match View::open(context) {
        Err(ViewError::Nothing) => return Ok(None),
        view => view?,
    };
    let resolved = Policy::read(&context.state_dir, &view.state)?.resolved;
    let again = State::read(&context.state_dir)?;
    let settled = again.is_some_and(|again| {
        let state = &view.state;
        (again.generation, again.policy) == (state.generation, state.policy)
            && again.learnt == state.learnt
            && again.interfaces == state.interfaces
    });
    if !settled {
        return Err(PlanError::Busy);
    }
    let generation = view.tables.generation().map_err(ViewError::from)?;
    Ok(Some(InForce {
        other_generation: (generation != view.state.generation).then_some(generation),
        view,
        resolved,
    }))
}

/// What becomes of an interface. Names are those of the policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is enforced from then on.
    Attached { after: String },
    /// It stays enforced, by the definition.
    Named { before: String, after: String },
    /// The definition does not name it; it keeps its policy.
    Orphaned { before: String, after: String },
    /// The definition does not name it, and it is opened.
    Detached { before: String },
    /// Its device is gone; it is forgotten.
    Gone { before: String },
}

/// What a definition comes to.
pub(super) struct Future {
    pub(super) resolved: Resolved,
    pub(super) fates: Vec<Fate>,
    /// Devices that are there.
    pub(super) targets: Vec<Target>,
    /// Why there are no others, by interface.
    pub(super) absent: BTreeMap<String, String>,
}

impl Fate {
    /// The names of an enforced interface before and after.
    pub(super) fn names(&self) -> (Option<&str>, Option<&str>) {
        match self {
            Fate::Attached { after } => (None, Some(after)),
            Fate::Named { before, after } | Fate::Orphaned { before, after } => {
                (Some(before), Some(after))
            }
            Fate::Detached { before } | Fate::Gone { before } => (Some(before), None),
        }
    }
}

/// Resolves a definition as `apply` would now, but for devices that are not there.
///
/// # Errors
/// See [`PlanError`].
pub(super) fn look_ahead(
    context: &Context,
    model: &Model,
    in_force: Option<&InForce>,
    detach_missing: bool,
) -> Result<Future, PlanError> {
    let (targets, absent) = target::find_present(model, context.netns.as_deref())?;
    let mut resolved = resolve(model, &target::addresses(&targets));
    for target in &targets {
        if let Some(interface) = resolved.interfaces.get_mut(&target.name) {
            interface.settings.orientation = Some(target.orientation);
        }
    }
    let mut fates = Vec::new();
    let Some(InForce {
        view,
        resolved: stored,
        ..
    }) = in_force
    else {
        fates.extend(model.interfaces.keys().map(|name| Fate::Attached {
            after: name.clone(),
        }));
        return Ok(Future {
            resolved,
            fates,
            targets,
            absent,
        });
    };
    let mut live = Vec::new();
    for one in &view.state.interfaces {
        if is_gone(view, one)? {
            fates.push(Fate::Gone {
                before: one.name.clone(),
            });
        } else {
            live.push(one);
        }
    }
    let mut named = BTreeSet::new();
    for name in model.interfaces.keys() {
        let target = targets.iter().find(|target| target.name == *name);
        let known = live.iter().find(|one| match target {
            Some(target) => is_on(view, one, target),
            None => one.name == *name,
        });
        let after = name.clone();
        fates.push(match known {
            Some(one) => {
                named.insert(one.id);
                if let Some(interface) = resolved.interfaces.get_mut(name) {
                    // Where the device cannot be asked any more, it is what it was.
                    let settings = &mut interface.settings;
                    settings.orientation = settings.orientation.or(Some(one.orientation));
                }
                Fate::Named {
                    before: one.name.clone(),
                    after,
                }
            }
            None => Fate::Attached { after },
        });
    }
    let missing = live.into_iter().filter(|one| !named.contains(&one.id));
    let mut stored = Cow::Borrowed(stored);
    for one in missing {
        let before = one.name.clone();
        if detach_missing {
            fates.push(Fate::Detached { before });
            continue;
        }
        let after = resolved.name_of_orphan(&before, &one.device, |name| {
            let mut all = view.state.interfaces.iter();
            all.any(|other| other.name == name)
        });
        if after != before
            && let Some(last) = stored.to_mut().interfaces.remove(&before)
        {
            stored.to_mut().interfaces.insert(after.clone(), last);
        }
        resolved.adopt_orphan(&stored, &after);
        fates.push(Fate::Orphaned { before, after });
    }
    Ok(Future {
        resolved,
        fates,
        targets,
        absent,
    })
}

/// Whether nothing is left of an interface to enforce, as `apply` looks at it.
fn is_gone(view: &View, one: &Attached) -> Result<bool, PlanError> {
    let place = view.state.place(one);
    let place = place.unwrap_or(attach::Place::here(one.ifindex));
    let mut found = Vec::new();
    for hook in [INGRESS, EGRESS] {
        found.extend(attach::details(&view.pins.link(one.id, hook), place)?);
    }
    // One that lives on elsewhere is not what the definition names here.
    let elsewhere = |found: &LinkDetails| found.ifindex != 0 && found.ifindex != one.ifindex;
    Ok(found.iter().any(elsewhere) || apply::is_gone(&found, &view.state, one))
}

fn is_on(view: &View, one: &Attached, target: &Target) -> bool {
    let namespace = view.state.namespace(one.namespace);
    one.ifindex == target.link.ifindex
        && namespace.is_some_and(|found| found.identity.is(target.netns.identity()))
}
