//! Generations that wait to be confirmed, and what became of a change whose end nobody has seen.
//!
//! A change is written down before it is made (`state/changing.rs`). Whether it came into force, and whether it was
//! taken back since, the kernel knows: a timer of its own takes a generation back that nobody confirms in time,
//! whoever is alive by then. [`settle`] brings what is remembered in line, and every command that changes
//! things begins with it.
//!
//! While a generation waits, the bank to go back to must stay as it is, and so must everything that is not a bank:
//! every other change is refused.

use std::{fmt, thread, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use sg_common::layout::{self, Limits, phase};

use crate::{
    control::{Control, ControlError},
    detach::{self, DetachError},
    history, hits,
    pin::{PinError, Pins},
    rcu::Expedited,
    session::{self, Context, Session, SessionError},
    state::{Changing, Lock, StateError},
    table::TableError,
    tables::Tables,
    upgrade::{Before, UpgradeError},
};

/// Shortest and longest time that a generation may wait.
pub const TIMES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(86_400)];

/// What the kernel says of the last generation that had to be confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmation(layout::Confirmation);

/// A generation that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Its number.
    pub generation: u32,
    /// Seconds until it is taken back.
    pub seconds_left: u64,
}

/// What became of a confirmation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmed {
    /// The generation is in force for good.
    Done(u32),
    /// It was taken back so many seconds ago.
    TooLate {
        /// Its number.
        generation: u32,
        /// How long ago; `None`: not known any more.
        seconds: Option<u64>,
    },
    /// No generation waits.
    Nothing,
}

/// Why what is remembered cannot be brought in line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettleError {
    /// A generation waits.
    #[error("{0}")]
    Pending(Pending),
    /// What is pinned cannot be opened.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The state cannot be written.
    #[error(transparent)]
    State(#[from] StateError),
    /// A map failed.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The kernel cannot be asked.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Pins cannot be examined or removed.
    #[error(transparent)]
    Pins(#[from] PinError),
    /// An interface that is to be attached no more cannot be detached.
    #[error(transparent)]
    Detach(Box<DetachError>),
    /// The layout before cannot be asked.
    #[error(transparent)]
    Upgrade(Box<UpgradeError>),
    /// There is nothing to take back.
    #[error("no generation waits to be confirmed")]
    Nothing,
}

impl From<DetachError> for SettleError {
    fn from(error: DetachError) -> Self {
        Self::Detach(Box::new(error))
    }
}

impl From<UpgradeError> for SettleError {
    fn from(error: UpgradeError) -> Self {
        Self::Upgrade(Box::new(error))
    }
}

impl fmt::Display for Pending {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            generation,
            seconds_left,
        } = self;
        write!(
            formatter,
            "generation {generation} waits to be confirmed, or is taken back in {seconds_left} s, and nothing else can be changed until then: `sgctl confirm` keeps it, `sgctl rollback` takes it back at once"
        )
    }
}

impl From<layout::Confirmation> for Confirmation {
    fn from(found: layout::Confirmation) -> Self {
        Self(found)
    }
}

impl Confirmation {
    /// The generation it is about.
    pub fn generation(&self) -> u32 {
        (self.0.word >> 32) as u32
    }

    fn phase(&self) -> u32 {
        self.0.word as u32
    }

    /// The generation that waits.
    pub fn pending(&self) -> Option<Pending> {
        let waits = matches!(self.phase(), phase::PENDING | phase::LEAVING);
        waits.then(|| Pending {
            generation: self.generation(),
            seconds_left: self.0.deadline.saturating_sub(now()).div_ceil(NANOSECONDS),
        })
    }

    /// The generation that stands for the one two before it, because the one between was taken back.
    pub fn again(&self) -> Option<u32> {
        let back = matches!(self.phase(), phase::TAKEN_BACK | phase::FAILED);
        back.then(|| self.generation().wrapping_add(1))
    }

    /// Whether `generation` was taken back because nobody confirmed it, or because somebody asked for it.
    pub fn took_back(&self, generation: u32) -> bool {
        self.phase() == phase::TAKEN_BACK && self.generation() == generation
    }

    /// How many generations were taken back since the maps were made.
    pub fn taken_back(&self) -> u64 {
        self.0.taken_back
    }

    /// Seconds since the last one was.
    pub fn seconds_since(&self) -> u64 {
        now().saturating_sub(self.0.taken_back_at) / NANOSECONDS
    }
}

const NANOSECONDS: u64 = 1_000_000_000;

/// Nanoseconds since boot, suspended time included, as the kernel's timer counts them.
fn now() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.cast_unsigned() * NANOSECONDS + now.tv_nsec.cast_unsigned()
}

/// Asks the kernel.
///
/// # Errors
/// See [`TableError`].
pub fn read(tables: &Tables) -> Result<Confirmation, TableError> {
    let found = tables.confirmation.get(&0)?;
    Ok(Confirmation(found.unwrap_or(layout::Confirmation::ZERO)))
}

/// Maps in which a generation may wait.
enum Place {
    /// Of this layout.
    Present(Pins, Box<Tables>),
    /// Of another, which has not been taken over.
    Before(Before),
}

impl Place {
    /// `None` if nothing is pinned.
    fn open(context: &Context) -> Result<Option<Self>, SettleError> {
        let pins = Pins::new(&context.bpffs);
        pins.check()?;
        if session::fixed(&pins)?.is_none() {
            return Ok(Before::find(&context.bpffs)?.map(Self::Before));
        }
        let tables = Tables::open(&pins)?;
        Ok(Some(Self::Present(pins, Box::new(tables))))
    }

    fn read(&self) -> Result<Confirmation, SettleError> {
        match self {
            Self::Present(_, tables) => Ok(read(tables)?),
            Self::Before(before) => {
                let none = Confirmation(layout::Confirmation::ZERO);
                Ok(before.confirmation()?.unwrap_or(none))
            }
        }
    }

    fn generation(&self) -> Result<u32, SettleError> {
        match self {
            Self::Present(_, tables) => Ok(tables.generation()?),
            Self::Before(before) => Ok(before.generation()?),
        }
    }

    fn control(&self) -> Result<Control, SettleError> {
        match self {
            Self::Present(pins, _) => Ok(Control::open(&pins.control())?),
            Self::Before(before) => Ok(before.control()?),
        }
    }
}

/// The same without a lock or a state, also in a layout that has not been taken over yet; `None` if nothing is
/// pinned.
///
/// # Errors
/// See [`SettleError`].
pub fn peek(context: &Context) -> Result<Option<Confirmation>, SettleError> {
    let place = Place::open(context)?;
    place.map(|place| place.read()).transpose()
}

/// Opens what is pinned, if anything is in force there, and brings what is remembered in line with it.
///
/// # Errors
/// [`SettleError::Pending`] while a generation waits; otherwise see [`SettleError`].
pub fn open(context: &Context, lock: &Lock) -> Result<Option<Session>, SettleError> {
    match Session::open(context, lock)? {
        Some(session) => settle(session, lock),
        None => Ok(None),
    }
}

/// Makes what is remembered what is in force; `None` if that is nothing any more.
///
/// # Errors
/// As [`open`].
pub fn settle(mut session: Session, lock: &Lock) -> Result<Option<Session>, SettleError> {
    let kernel = read(&session.tables)?;
    if let Some(pending) = kernel.pending() {
        return Err(SettleError::Pending(pending));
    }
    let Some(changing) = session.state.changing.clone() else {
        return Ok(Some(session));
    };
    let runtime = session.tables.runtime.id();
    let generation = session.tables.generation()?;
    if generation == changing.generation {
        history::settled(lock, runtime, generation, true)?;
        session.state.changing = None;
        lock.write(&session.state)?;
        lock.remove_policies(&[session.state.policy])?;
        session.review_if_due();
        return Ok(Some(session));
    }
    if kernel.took_back(changing.generation) {
        history::settled(lock, runtime, changing.generation, false)?;
    }
    restore(session, lock, &changing)
}

/// What the state is if the change has not come into force, or not for good. Interfaces that were not attached
/// before are detached. Hooks of others stay where they are, and what is remembered says so.
pub(crate) fn restore(
    mut session: Session,
    lock: &Lock,
    changing: &Changing,
) -> Result<Option<Session>, SettleError> {
    let before = &changing.before;
    let mut fresh = session.state.interfaces.clone();
    fresh.retain(|one| before.interfaces.iter().all(|known| known.id != one.id));
    let expedited = Expedited::begin(lock, fresh.len());
    for one in &fresh {
        detach::end(&mut session, one)?;
    }
    drop(expedited);
    detach::drop_idle_namespaces(&mut session)?;
    if session.state.interfaces.is_empty() {
        session.pins.remove_all()?;
        lock.clear()?;
        return Ok(None);
    }
    let limits = changing.limits();
    let runtime = session.tables.runtime()?;
    if limits_of(&runtime) != limits {
        let runtime = layout::Runtime {
            allowance: limits.allowance,
            shared: limits.shared,
            unassured: limits.unassured,
            credit: limits.credit,
            ..runtime
        };
        session.tables.runtime.set(&0, &runtime)?;
    }
    session.runtime = session.tables.runtime()?;

    let now = std::mem::replace(&mut session.state, before.clone());
    let state = &mut session.state;
    state.keep(now);
    let generation = session.tables.generation()?;
    state.generation = generation;
    if generation == changing.generation.wrapping_add(1) {
        hits::renumber(lock, session.tables.runtime.id(), generation)?;
    }
    lock.write(state)?;
    lock.remove_policies(&[state.policy])?;
    session.review_if_due();
    Ok(Some(session))
}

pub(crate) fn limits_of(runtime: &layout::Runtime) -> Limits {
    Limits {
        allowance: runtime.allowance,
        shared: runtime.shared,
        unassured: runtime.unassured,
        credit: runtime.credit,
    }
}

/// How long a writer that is about to end is waited for.
const PATIENCE: Duration = Duration::from_millis(500);

/// Confirms the generation that waits. Works beside any other command and whatever has become of the one that
/// put the generation in force; what is remembered follows now, or at the next change, and so does the review of
/// flows that need no tracking any more.
///
/// # Errors
/// See [`SettleError`].
pub fn confirm(context: &Context) -> Result<Confirmed, SettleError> {
    let Some(place) = Place::open(context)? else {
        // A first attachment that was taken back, and what was pinned removed since.
        return Ok(match history::last(&context.state_dir)? {
            Some(entry) if entry.rolled_back() => Confirmed::TooLate {
                generation: entry.generation,
                seconds: None,
            },
            _ => Confirmed::Nothing,
        });
    };
    let kernel = place.read()?;
    let generation = kernel.generation();
    let too_late = |kernel: Confirmation| Confirmed::TooLate {
        generation,
        seconds: Some(kernel.seconds_since()),
    };
    let Some(_) = kernel.pending() else {
        let late =
            kernel.took_back(generation) && place.generation()? == generation.wrapping_add(1);
        return Ok(if late {
            too_late(kernel)
        } else {
            Confirmed::Nothing
        });
    };
    match place.control()?.confirm(generation)? {
        Some(true) => {}
        Some(false) => return Ok(too_late(place.read()?)),
        None => return Ok(Confirmed::Nothing),
    }
    if let Place::Before(_) = place {
        // What is remembered follows when that is taken over.
        return Ok(Confirmed::Done(generation));
    }
    // If somebody is at work, what is remembered follows later.
    let mut waited = Duration::ZERO;
    while waited < PATIENCE {
        match Lock::take(&context.state_dir) {
            Ok(lock) => {
                open(context, &lock)?;
                break;
            }
            Err(StateError::Locked { .. }) => {
                const PAUSE: Duration = Duration::from_millis(20);
                thread::sleep(PAUSE);
                waited += PAUSE;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Confirmed::Done(generation))
}

/// Takes the generation back that waits, now. Answers its number, and the one in force after it, if anything is.
///
/// # Errors
/// [`SettleError::Nothing`] if none waits; otherwise see [`SettleError`].
pub fn take_back(context: &Context) -> Result<(u32, Option<u32>), SettleError> {
    let lock = Lock::take(&context.state_dir)?;
    let place = Place::open(context)?.ok_or(SettleError::Nothing)?;
    let session = match &place {
        Place::Present(..) => Session::open(context, &lock)?,
        Place::Before(_) => None,
    };
    let pending = place.read()?.pending();
    let generation = pending.ok_or(SettleError::Nothing)?.generation;
    place
        .control()?
        .take_back(generation, Limits::ZERO, false)?;
    let now = match (place, session) {
        (Place::Before(before), _) => before.settle(context, &lock)?,
        (_, Some(session)) => settle(session, &lock)?.map(|session| session.state.generation),
        (_, None) => None,
    };
    Ok((generation, now))
}
