//! Ending enforcement: of one interface, or of all with everything that is pinned.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    attach::{self, AttachError, EGRESS, INGRESS, ON_ITS_WAY},
    confirm::{self, SettleError},
    control::{Control, ControlError},
    history,
    index::{self, IndexError},
    netns::NetnsError,
    pin::{PinError, Pins},
    programs::ProgramsError,
    rcu::Expedited,
    session::{Context, Session},
    state::{Attached, Lock, State, StateError},
    status::chain,
    table::TableError,
    view::{names, within},
};

/// What was detached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detached {
    /// Names of the interfaces.
    pub interfaces: Vec<String>,
    /// Tracked flows that ended with them.
    pub flows: u64,
    /// Whether nothing is left, so that maps, programs and state were removed.
    pub all: bool,
}

/// Why enforcement did not end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DetachError {
    /// Nothing of that name is attached.
    #[error(
        "no attached interface is called {name}, or several are; attached: {attached} (--netns tells equal devices apart)"
    )]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        attached: String,
    },
    /// A generation waits to be confirmed, or what a change has left cannot be put right.
    #[error(transparent)]
    Settle(#[from] SettleError),
    /// A map failed.
    #[error(transparent)]
    Table(#[from] TableError),
    /// State or lock.
    #[error(transparent)]
    State(#[from] StateError),
    /// The namespace cannot be opened.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// A link cannot be detached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The interface index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Flows cannot be ended.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Programs cannot be removed.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    /// Pins cannot be removed.
    #[error(transparent)]
    Pins(#[from] PinError),
}

/// Detaches one interface, by its name in the definition or its device.
///
/// Its flows end. With the last interface everything pinned is removed.
///
/// # Errors
/// See [`DetachError`].
pub fn interface(context: &Context, name: &str) -> Result<Detached, DetachError> {
    let lock = Lock::take(&context.state_dir)?;
    let unknown = |attached: &[Attached]| DetachError::Unknown {
        name: name.to_owned(),
        attached: names(attached),
    };
    let Some(mut session) = confirm::open(context, &lock)? else {
        return Err(unknown(&[]));
    };
    let within = within(context)?;
    let Some(found) = session.state.find(name, within.as_ref()).cloned() else {
        return Err(unknown(&session.state.interfaces));
    };
    let flows = one(&mut session, &lock, &found)?;
    let all = session.state.interfaces.is_empty();
    if all {
        session.pins.remove_all()?;
        lock.clear()?;
    }
    Ok(Detached {
        interfaces: vec![found.name],
        flows,
        all,
    })
}

/// Detaches interfaces by our ids, for a process that holds the lock; what is not attached any more
/// is passed over. With the last interface everything pinned is removed.
///
/// # Errors
/// See [`DetachError`].
pub fn several(
    context: &Context,
    lock: &Lock,
    ids: &BTreeSet<u32>,
) -> Result<Detached, DetachError> {
    let mut detached = Detached::default();
    let Some(mut session) = confirm::open(context, lock)? else {
        return Ok(detached);
    };
    let expedited = Expedited::begin(lock, ids.len());
    for found in session.state.interfaces.clone() {
        if ids.contains(&found.id) {
            detached.flows += end(&mut session, &found)?;
            detached.interfaces.push(found.name);
        }
    }
    drop(expedited);
    drop_idle_namespaces(&mut session)?;
    lock.write(&session.state)?;
    detached.all = session.state.interfaces.is_empty();
    if detached.all {
        session.pins.remove_all()?;
        lock.clear()?;
    }
    Ok(detached)
}

/// Detaches everything and removes all pins and the state, whatever condition they are in. The definitions that
/// were in force are kept: who ended enforcement to get out of trouble wants the last good one back.
///
/// # Errors
/// See [`DetachError`].
pub fn all(context: &Context) -> Result<Detached, DetachError> {
    let lock = Lock::take(&context.state_dir)?;
    let pins = Pins::new(&context.bpffs);
    pins.check()?;
    // The state lends names, and says where filters are; one that cannot be read must not keep links in place.
    let state = lock.read().ok().flatten();
    if let Some(state) = &state {
        end_waiting(context, &lock, state);
    }
    let others = pins.others()?.into_iter();
    let all = others.map(|version| Pins::of_version(&context.bpffs, version));
    for pins in all.chain([Pins::before(&context.bpffs), pins]) {
        let links = pins.links()?;
        let _expedited = Expedited::begin(&lock, links.len() / 2);
        for link in links {
            let state = state.as_ref();
            match state.and_then(|state| state.place(state.of_pin(&link)?)) {
                Some(place) => attach::detach(&link, place)?,
                None => attach::detach_anywhere(&link)?,
            }
        }
        pins.remove_all()?;
    }
    lock.clear()?;
    Ok(Detached {
        interfaces: state.map_or_else(Vec::new, |state| {
            state.interfaces.into_iter().map(|one| one.name).collect()
        }),
        flows: 0,
        all: true,
    })
}

/// Writes down what became of a generation that had to be confirmed, as far as that can be found out: one that
/// waits is not waited for any more.
fn end_waiting(context: &Context, lock: &Lock, state: &State) {
    let Ok(Some(found)) = confirm::peek(context) else {
        return;
    };
    let generation = found.generation();
    let confirmed = found.pending().is_none() && !found.took_back(generation);
    if let Err(error) = history::settled(lock, state.runtime, generation, confirmed) {
        log::warn!(
            "what became of generation {generation} is not written down: {}",
            chain(&error)
        );
    }
}

/// Detaches one interface of an open session; what is shared stays. Returns how many flows ended.
pub(crate) fn one(
    session: &mut Session,
    lock: &Lock,
    attached: &Attached,
) -> Result<u64, DetachError> {
    let flows = end(session, attached)?;
    drop_idle_namespaces(session)?;
    lock.write(&session.state)?;
    Ok(flows)
}

/// The same, written down nowhere, so that no file system stands in the way.
pub(crate) fn end(session: &mut Session, attached: &Attached) -> Result<u64, DetachError> {
    for hook in [EGRESS, INGRESS, ON_ITS_WAY] {
        let pin = session.pins.link(attached.id, hook);
        match session.state.place(attached) {
            Some(place) => attach::detach(&pin, place)?,
            None => attach::detach_anywhere(&pin)?,
        }
    }
    index::remove(
        &session.tables.interface_index,
        attached.namespace,
        attached.ifindex,
        attached.id,
    )?;
    // Looking through all tables takes milliseconds, and packets of the interface come no more.
    let flows = match session.tables.occupancy(attached.id)?.tracked {
        0 => 0,
        _ => flush(session, attached.id)?,
    };
    session.state.interfaces.retain(|one| one.id != attached.id);
    session.state.resolved.remove(&attached.name);
    Ok(flows)
}

/// Ends all flows of an interface.
pub(crate) fn flush(session: &Session, id: u32) -> Result<u64, DetachError> {
    let control: Control = session.control()?;
    Ok(control.flush(id, session.runtime.buckets)?)
}

/// Removes the programs of namespaces without interfaces.
pub(crate) fn drop_idle_namespaces(session: &mut Session) -> Result<(), PinError> {
    let used: BTreeSet<u32> = session
        .state
        .interfaces
        .iter()
        .map(|one| one.namespace)
        .collect();
    for namespace in &session.state.namespaces {
        if !used.contains(&namespace.number) {
            Pins::remove_programs(&session.pins.programs(namespace.number))?;
        }
    }
    let namespaces = &mut session.state.namespaces;
    namespaces.retain(|namespace| used.contains(&namespace.number));
    Ok(())
}
