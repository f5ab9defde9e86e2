//! From an earlier layout of maps to the present one, under traffic.
//!
//! Each layout has pins of its own (`<bpffs>/v<ABI_VERSION>`), so the new maps and programs are made beside the old.
//! Then, in this order, each step safe to be done again and enforcement whole after each:
//!
//! 1. *Switch*: every link gets the new program in place of the old one. In the new maps no generation is in force,
//!    so the new programs would drop everything; and what they would drop they hand to the old program of
//!    the same hook by a tail call (`Runtime::predecessor`). So the old ones still judge, count and track, whichever
//!    links have been switched.
//! 2. *Flip*: the policy in force, compiled anew, comes into force in the new maps under the generation's number.
//!    New flows are tracked there from now on. A packet of a flow that is still in the old table only finds no
//!    entry in the new one, and the old program passes it. Nothing is tracked in the old table any more but what
//!    packets did that were on their way, which is over after a grace period.
//! 3. *Move*: every flow of the old table is restored in the new one, with state, age and account. Where its packets
//!    were allowed to open it anew there meanwhile, the two are merged. A second look at the old table finds what
//!    changed between the look at an entry and its restoration.
//! 4. *Release*: the old programs are asked no more. After another grace period the old maps stand still: a last
//!    look, and what was counted there is added. The old pins go.
//!
//! Tables for another allowance, or with accounts where there were none, are made the same way, out of the present
//! layout: its pins are set aside under another name.
//!
//! Which step is next stands in the state directory; a change that was cut short goes on with the next
//! `apply` or `run`. Until step 2 nothing is lost by beginning again.

mod change;
mod error;
mod form;
mod predecessor;
mod settle;

use std::{collections::BTreeMap, path::Path};

use aya::programs::{ProgramFd, loaded_programs};
use serde::{Deserialize, Serialize};
use sg_common::{
    abi::{ABI_VERSION, map},
    layout::{Counters, CtLocal, ct_op},
    verdict::OUTCOMES,
};

pub(crate) use self::settle::Before;
use self::{
    change::Change,
    form::Form,
    predecessor::{Figures, Predecessor},
};
pub use self::{error::UpgradeError, predecessor::PredecessorError};
use crate::{
    attach::{self, EGRESS},
    hits::Book,
    index,
    model::Conntrack,
    pin::{PinError, Pins},
    programs::ProgramsError,
    session::{Context, Session},
    shape::Object,
    state::{Lock, RuleSets, State, StateError},
};

/// What a change of layouts or sizes came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgraded {
    /// The layout before; the present one if the tables have another size now.
    pub from: u32,
    /// Flows that moved over.
    pub flows: u64,
    /// Flows that found no room.
    pub refused: u64,
}

/// What has to be known when a change goes on.
#[derive(Debug, Serialize, Deserialize)]
struct Journal {
    from: u32,
    /// What tables are to be made for, if that is why they are made.
    #[serde(default)]
    wanted: Option<(u32, bool)>,
    /// The state before.
    state: State,
    generation: u32,
    /// What was counted for rules before the banks.
    book: Option<Book>,
    /// What the banks count: of the generation in force, and of the one before.
    sets: [RuleSets; 2],
    step: Step,
    /// What interfaces had counted when the new maps were made, and began with.
    figures: Figures,
    done: Upgraded,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Step {
    /// Making the new maps.
    Make,
    /// Everything up to the release, as far as it is not done.
    Move,
    /// Removing the old pins.
    Remove,
}

/// Another layout than the present one that has links below `base`; `None` if there is none.
///
/// # Errors
/// [`UpgradeError::Pins`].
pub fn other(base: &Path) -> Result<Option<u32>, PinError> {
    if !Pins::before(base).links()?.is_empty() {
        return Ok(Some(ABI_VERSION));
    }
    for version in Pins::new(base).others()? {
        if !Pins::of_version(base, version).links()?.is_empty() {
            return Ok(Some(version));
        }
    }
    Ok(None)
}

/// Moves everything over from the layout before, if there is one, or goes on where that was cut short.
///
/// # Errors
/// See [`UpgradeError`]; enforcement goes on whatever it is.
pub fn take_over(context: &Context, lock: &Lock) -> Result<Option<Upgraded>, UpgradeError> {
    let own = Pins::new(&context.bpffs);
    let mut journal = match lock.read_upgrade::<Journal>()? {
        Some(journal) => journal,
        None => match other(&context.bpffs)? {
            Some(version) => {
                if !own.links()?.is_empty() {
                    let path = Pins::of_version(&context.bpffs, version).root().to_owned();
                    return Err(UpgradeError::Both { path, version });
                }
                let old = Pins::of_version(&context.bpffs, version);
                let form = known(&old, version)?;
                match begin(context, lock, &old, version, form, None)? {
                    Some(journal) => journal,
                    None => return Ok(None),
                }
            }
            None => return Ok(None),
        },
    };
    let old = if journal.wanted.is_none() {
        Pins::of_version(&context.bpffs, journal.from)
    } else {
        Pins::before(&context.bpffs)
    };
    old.check()?;
    if !old.root().exists() {
        if journal.wanted.is_none() || journal.step != Step::Make || !own.exist() {
            // The old pins went last; after a restart of the machine none are there.
            lock.remove_upgrade()?;
            return Ok(None);
        }
        own.set_aside()?;
    }
    if journal.step != Step::Remove {
        let form = match journal.wanted {
            Some(_) => form::present(),
            None => form::of(journal.from),
        };
        let form = form.ok_or_else(|| unknown(&old, journal.from))?;
        let predecessor = Predecessor::open(&old, form)?;
        let again = journal.step != Step::Make;
        if !again && let Err(error) = make(&own, &old, lock, &predecessor, &mut journal) {
            // Nothing runs what was made: there is no room for it, say, and the next change may want less.
            own.remove_all()?;
            if journal.wanted.is_some() {
                own.put_back()?;
            }
            lock.remove_upgrade()?;
            return Err(error);
        }
        let mut change = Change::open(context, lock, &own, &old, &predecessor, &mut journal)?;
        change.switch()?;
        change.flip()?;
        change.move_flows(again)?;
        change.settle()?;
    }
    old.remove_all()?;
    lock.remove_upgrade()?;
    Ok(Some(journal.done))
}

/// Moves everything to tables for another allowance, or with accounts or without. `None`: this build cannot, or
/// nothing is enforced any more.
///
/// # Errors
/// See [`UpgradeError`]; enforcement goes on whatever it is.
pub fn resize(
    context: &Context,
    lock: &Lock,
    wanted: Conntrack,
) -> Result<Option<Upgraded>, UpgradeError> {
    let Some(form) = form::present() else {
        return Ok(None);
    };
    let own = Pins::new(&context.bpffs);
    let wanted = Some((wanted.allowance, wanted.accounting));
    match begin(context, lock, &own, ABI_VERSION, form, wanted)? {
        Some(_) => take_over(context, lock),
        None => Ok(None),
    }
}

fn known(old: &Pins, version: u32) -> Result<&'static Form, UpgradeError> {
    form::of(version).ok_or_else(|| unknown(old, version))
}

fn unknown(old: &Pins, version: u32) -> UpgradeError {
    UpgradeError::Unknown {
        path: old.root().to_owned(),
        version,
    }
}

/// Writes down what there is; `None` if that is nothing any more.
fn begin(
    context: &Context,
    lock: &Lock,
    old: &Pins,
    version: u32,
    form: &'static Form,
    wanted: Option<(u32, bool)>,
) -> Result<Option<Journal>, UpgradeError> {
    old.check()?;
    let predecessor = Predecessor::open(old, form)?;
    let Some(state) = settle::settle(context, lock, old, &predecessor)? else {
        return Ok(None);
    };
    let book = lock.read_book()?;
    let book = book.filter(|book| book.belongs_to(predecessor.id));
    let generation = settle::generation(old)?;
    let counted = book.as_ref().map(Book::generations).unwrap_or_default();
    let sets = |generation: u32| {
        let sets = counted
            .contains(&generation)
            .then(|| lock.read_rule_sets(generation));
        Ok::<_, StateError>(sets.transpose()?.flatten().unwrap_or_default())
    };
    let journal = Journal {
        from: version,
        wanted,
        state,
        generation,
        sets: [sets(generation)?, sets(generation.wrapping_sub(1))?],
        book,
        step: Step::Make,
        figures: Figures::new(),
        done: Upgraded {
            from: version,
            ..Upgraded::default()
        },
    };
    lock.write_upgrade(&journal)?;
    Ok(Some(journal))
}

/// Makes maps and programs beside those in use. Nobody runs them yet.
fn make(
    own: &Pins,
    old: &Pins,
    lock: &Lock,
    predecessor: &Predecessor,
    journal: &mut Journal,
) -> Result<(), UpgradeError> {
    // Of an attempt that was cut short.
    own.remove_all()?;
    own.prepare()?;
    let (allowance, accounting) = match journal.wanted {
        // All that there are go with it.
        Some((allowance, accounting)) => (allowance.max(predecessor.tracked()?), accounting),
        None => (
            predecessor.allowance.max(serving(predecessor.slots)),
            predecessor.accounting,
        ),
    };
    let conntrack = Conntrack {
        allowance,
        accounting,
    };
    let mut session = Session::load(Object::embedded()?, own.clone(), conntrack)?;
    session.runtime.predecessor = 1;
    session.tables.runtime.set(&0, &session.runtime)?;
    // None of its bank is present: whatever the number, nothing is in force.
    let before = journal.generation.wrapping_sub(1);
    session.tables.generation.set(&0, &before)?;

    let state = &mut journal.state;
    state.runtime = session.tables.runtime.id();
    state.control.clone_from(&session.object.digest);
    for namespace in &mut state.namespaces {
        namespace.object.clone_from(&session.object.digest);
    }
    for one in &state.interfaces {
        let table = &session.tables.interface_index;
        index::insert(table, one.namespace, one.ifindex, one.id)?;
    }
    let mut programs = BTreeMap::new();
    for pin in old.links()? {
        let Some(one) = state.of_pin(&pin) else {
            continue;
        };
        let (place, namespace) = (state.place(one), one.namespace);
        let place = place.unwrap_or(attach::Place::here(one.ifindex));
        let Some(found) = attach::details(&pin, place)? else {
            continue;
        };
        let egress = pin.to_string_lossy().ends_with(EGRESS);
        if found.ifindex != 0 {
            programs.insert((namespace, found.xdp, egress), found.program_id);
        }
    }
    let fds = descriptors(programs.values().copied())?;
    for ((namespace, xdp, egress), program) in programs {
        let set = session.programs(namespace);
        let (array, index) = match (xdp, egress) {
            (true, _) => {
                set.xdp_ingress()?;
                (map::PREDECESSOR_XDP, 0)
            }
            (false, true) => {
                set.tc_egress()?;
                (map::PREDECESSOR_TC, 0)
            }
            (false, false) => {
                set.tc_ingress()?;
                (map::PREDECESSOR_TC, 1)
            }
        };
        set.set_predecessor(array, index, fds.get(&program))?;
    }

    journal.figures = predecessor.figures(ids(state))?;
    for (id, figures) in &journal.figures {
        let mut counters = Counters::ZERO;
        let mut events = CtLocal::ZERO;
        for (counter, what) in figures {
            put(&mut counters, &mut events, *counter, *what);
        }
        session
            .tables
            .counters
            .set_first_cpu(id, &counters, &Counters::ZERO)?;
        session
            .tables
            .ct_local
            .set_first_cpu(id, &events, &CtLocal::ZERO)?;
    }
    journal.step = Step::Move;
    Ok(lock.write_upgrade(journal)?)
}

/// Flows that a table with so many entries was made for, about.
fn serving(slots: u32) -> u32 {
    let (provided, flows) = sg_common::abi::CT_SLOTS_PER_FLOW;
    let slots = u64::from(slots.saturating_sub(STASH_SLOTS));
    u32::try_from(slots * u64::from(flows) / u64::from(provided)).unwrap_or(u32::MAX)
}

/// Entries of a table that are nobody's first choice.
const STASH_SLOTS: u32 = sg_common::abi::CT_STASH * sg_common::layout::WAYS as u32;

/// Interfaces that something may be counted for; 0 is nobody.
fn ids(state: &State) -> impl Iterator<Item = u32> + use<'_> {
    std::iter::once(0).chain(state.interfaces.iter().map(|one| one.id))
}

/// Programs by their kernel ids.
fn descriptors(ids: impl Iterator<Item = u32>) -> Result<BTreeMap<u32, ProgramFd>, ProgramsError> {
    let failed = |source| ProgramsError::Pin {
        operation: "open",
        name: "of the layout before",
        source: Box::new(source),
    };
    let wanted: Vec<u32> = ids.collect();
    let mut found = BTreeMap::new();
    // One that is unloaded meanwhile is nobody's.
    for info in loaded_programs().filter_map(Result::ok) {
        if wanted.contains(&info.id()) {
            found.insert(info.id(), info.fd().map_err(failed)?);
        }
    }
    Ok(found)
}

/// Sets a counter that [`ct_op::ADD`] would add to.
fn put(counters: &mut Counters, events: &mut CtLocal, counter: u32, what: (u64, u64)) {
    const WORD: usize = size_of::<u64>();
    if counter & ct_op::EVENT != 0 {
        let word = (counter & !ct_op::EVENT) as usize;
        for (place, field) in [
            (std::mem::offset_of!(CtLocal, peak), &mut events.peak),
            (std::mem::offset_of!(CtLocal, refused), &mut events.refused),
            (std::mem::offset_of!(CtLocal, created), &mut events.created),
            (std::mem::offset_of!(CtLocal, expired), &mut events.expired),
            (
                std::mem::offset_of!(CtLocal, replaced),
                &mut events.replaced,
            ),
            (std::mem::offset_of!(CtLocal, removed), &mut events.removed),
        ] {
            if place / WORD == word {
                *field = what.0;
            }
        }
        return;
    }
    let (direction, outcome) = ((counter >> 16) as usize, (counter & 0xffff) as usize);
    if direction < 2 && outcome < OUTCOMES {
        let count = &mut counters.counts[direction][outcome];
        (count.packets, count.bytes) = what;
    }
}
