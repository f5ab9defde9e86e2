//! One writer's view of what is pinned: opened and checked, or made for the first time.

use std::path::PathBuf;

use aya::util::nr_cpus;
use sg_common::{
    abi::{self, CT_UNASSURED_PERCENT, MAX_INTERFACES},
    layout::{Runtime, interface_flags},
};

use crate::{
    attach::{self, AttachError},
    bank::{self, BankError},
    compile::Compiled,
    control::{Control, ControlError},
    model::Conntrack,
    netns::NetnsIdentity,
    pin::{PinError, Pins},
    programs::{ProgramSet, ProgramsError},
    resolve::Resolved,
    shape::{Object, ShapeError, Sizes},
    state::{Lock, Namespace, Policy, State, StateError},
    status::chain,
    table::TableError,
    tables::Tables,
    upgrade,
};

/// Where an enforcer keeps its things, and which namespace nameless interfaces are in.
#[derive(Clone, Debug)]
pub struct Context {
    /// Directory of the pins, on a BPF file system.
    pub bpffs: PathBuf,
    /// Directory of state and lock.
    pub state_dir: PathBuf,
    /// Network namespace, by name or path, of interfaces that name none; `None`: sgctl's own.
    pub netns: Option<String>,
}

impl Default for Context {
    fn default() -> Self {
        Self {
            bpffs: crate::pin::DEFAULT.into(),
            state_dir: crate::state::DEFAULT.into(),
            netns: None,
        }
    }
}

/// Opened maps and what is remembered about them.
#[derive(Debug)]
pub struct Session {
    /// The embedded object.
    pub object: Object,
    /// Where everything is pinned.
    pub pins: Pins,
    /// The maps.
    pub tables: Tables,
    /// What is remembered.
    pub state: State,
    /// What is fixed while attached.
    pub runtime: Runtime,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The pin directories cannot be used.
    #[error(transparent)]
    Pins(#[from] PinError),
    /// The object or the pinned maps cannot be used.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The state cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// Programs cannot be loaded.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    /// A map failed.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A conntrack command failed.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The generation in force cannot be waited for.
    #[error(transparent)]
    Bank(#[from] BankError),
    /// A link failed.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// Enforcement is pinned, and what is remembered belongs to something else.
    #[error(
        "{} holds an enforcer that the state in {} does not describe; name the right --state-dir, or start anew with `sgctl detach --all`",
        pins.display(),
        state.display()
    )]
    Strange {
        /// Where the pins are.
        pins: PathBuf,
        /// Where the state is.
        state: PathBuf,
    },
    /// Another version is at work.
    #[error(
        "what is enforced here has the layout of another version ({version}, this sgctl has {}): `sgctl apply` or `sgctl run` of this one takes it over",
        abi::ABI_VERSION
    )]
    Earlier {
        /// Its version.
        version: u32,
    },
    /// Everything is being moved to other maps.
    #[error(
        "what is enforced here was being moved to other maps, and that was cut short: `sgctl apply` or `sgctl run` goes on with it"
    )]
    Moving,
    /// Tables are made once and cannot grow.
    #[error(
        "allowance {wanted} does not fit the tables in use, which were made for {made}, and this build cannot make others: needs `sgctl detach --all` first"
    )]
    Allowance {
        /// The allowance asked for.
        wanted: u32,
        /// The largest that fits.
        made: u32,
    },
    /// Accounts are made once, or not at all.
    #[error(
        "accounting = {wanted} differs from the tables in use, which were made with accounting = {made}, and this build cannot make others: needs `sgctl detach --all` first"
    )]
    Accounting {
        /// What is asked for.
        wanted: bool,
        /// What is there.
        made: bool,
    },
}

impl Session {
    /// Opens what is pinned, if anything is in force there.
    ///
    /// # Errors
    /// See [`SessionError`]; nothing is changed.
    pub fn open(context: &Context, lock: &Lock) -> Result<Option<Self>, SessionError> {
        let pins = Pins::new(&context.bpffs);
        pins.check()?;
        if !pins.exist() {
            return match upgrade::other(&context.bpffs)? {
                Some(version) => Err(SessionError::Earlier { version }),
                None => Ok(None),
            };
        }
        let strange = || SessionError::Strange {
            pins: pins.root().to_owned(),
            state: context.state_dir.clone(),
        };
        let Some(runtime) = fixed(&pins)? else {
            // A first load that was cut short: nothing can be attached yet.
            return if pins.links()?.is_empty() {
                Ok(None)
            } else {
                Err(strange())
            };
        };
        // Checks the maps before the state, which may speak of other ones.
        let object = Object::embedded()?;
        object.check_pinned(&pins, sizes_of(&runtime))?;
        let state = lock.read()?.ok_or_else(strange)?;
        match Self::of_checked(object, &pins, runtime, state)? {
            Some(session) => Ok(Some(session)),
            None if State::is_moving(&context.state_dir)? => Err(SessionError::Moving),
            None => Err(strange()),
        }
    }

    /// Opens what is pinned and belongs to `state`.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub(crate) fn of_state(pins: &Pins, state: State) -> Result<Option<Self>, SessionError> {
        let Some(runtime) = fixed(pins)? else {
            return Ok(None);
        };
        let object = Object::embedded()?;
        object.check_pinned(pins, sizes_of(&runtime))?;
        Self::of_checked(object, pins, runtime, state)
    }

    fn of_checked(
        object: Object,
        pins: &Pins,
        runtime: Runtime,
        state: State,
    ) -> Result<Option<Self>, SessionError> {
        let tables = Tables::open(pins)?;
        if state.runtime != tables.runtime.id() {
            return Ok(None);
        }
        Ok(Some(Self {
            object,
            pins: pins.clone(),
            tables,
            state,
            runtime,
        }))
    }

    /// Makes maps and the conntrack commands, from nothing.
    ///
    /// # Errors
    /// See [`SessionError`]; what was made is removed again.
    pub fn create(
        context: &Context,
        lock: &Lock,
        conntrack: Conntrack,
    ) -> Result<Self, SessionError> {
        Self::create_from(Object::embedded()?, context, lock, conntrack)
    }

    /// The same with another object than the embedded one.
    ///
    /// # Errors
    /// As [`Session::create`].
    pub fn create_from(
        object: Object,
        context: &Context,
        lock: &Lock,
        conntrack: Conntrack,
    ) -> Result<Self, SessionError> {
        let pins = Pins::new(&context.bpffs);
        pins.check()?;
        pins.reach()?;
        let _alone = pins.alone()?;
        if fixed(&pins)?.is_some() {
            // Somebody with another state directory was faster.
            return Err(SessionError::Strange {
                pins: pins.root().to_owned(),
                state: context.state_dir.clone(),
            });
        }
        pins.remove_all()?;
        let prepared = pins.prepare().map_err(SessionError::from);
        let made = prepared.and_then(|()| Self::load(object, pins.clone(), conntrack));
        let stored = made.and_then(|made| {
            lock.write(&made.state)?;
            Ok(made)
        });
        if stored.is_err() {
            pins.remove_all()?;
        }
        stored
    }

    /// Makes maps and the conntrack commands below `pins`, which are prepared.
    pub(crate) fn load(
        object: Object,
        pins: Pins,
        conntrack: Conntrack,
    ) -> Result<Self, SessionError> {
        let sizes = Sizes::new(conntrack.allowance, conntrack.accounting);
        ProgramSet::new(&pins, &object, sizes, 0).ct_control()?;
        let tables = Tables::open(&pins)?;
        let control = Control::open(&pins.control())?;
        let runtime = Runtime {
            hz: control.measure_hz()?,
            accounting: u32::from(conntrack.accounting),
            buckets: [sizes.buckets; 2],
            allowance: conntrack.allowance,
            shared: conntrack.allowance,
            unassured: unassured(conntrack.allowance),
            credit: credit(conntrack.allowance),
            seed: seed(),
            ..Runtime::ZERO
        };
        tables.runtime.set(&0, &runtime)?;
        control.arm()?;
        let state = State::new(tables.runtime.id(), &object.digest);
        Ok(Self {
            object,
            pins,
            tables,
            state,
            runtime,
        })
    }

    /// Whether other conntrack settings can come into force on these tables.
    ///
    /// # Errors
    /// [`SessionError::Allowance`], [`SessionError::Accounting`].
    pub fn check_conntrack(&self, wanted: Conntrack) -> Result<(), SessionError> {
        let sizes = sizes_of(&self.runtime);
        if wanted.accounting != sizes.accounting {
            return Err(SessionError::Accounting {
                wanted: wanted.accounting,
                made: sizes.accounting,
            });
        }
        if wanted.allowance > sizes.capacity() {
            return Err(SessionError::Allowance {
                wanted: wanted.allowance,
                made: sizes.capacity(),
            });
        }
        Ok(())
    }

    /// Takes the limits of a policy, which [`crate::bank::flip`] puts in force: allowance, and what of it nobody
    /// has reserved.
    pub fn set_limits(&mut self, compiled: &Compiled) {
        let reserved = compiled
            .interfaces
            .iter()
            .fold(0_u32, |sum, one| sum.saturating_add(one.reserve));
        self.runtime.allowance = compiled.allowance;
        self.runtime.shared = compiled.allowance.saturating_sub(reserved);
        self.runtime.unassured = unassured(compiled.allowance);
        self.runtime.credit = credit(compiled.allowance);
    }

    /// Writes down what is in force after the change that is under way, before it is; answers its groups and lists, without interfaces.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn remember(
        &mut self,
        lock: &Lock,
        generation: u32,
        resolved: Resolved,
    ) -> Result<Resolved, StateError> {
        let mut policy = Policy { resolved };
        // A generation's number is its policy's, and 0 is none's.
        let number = generation.max(1);
        self.state.resolved = lock.write_policy(number, &mut policy)?;
        self.state.policy = number;
        self.state.learnt.clear();
        self.state.generation = generation;
        lock.write(&self.state)?;
        Ok(policy.resolved)
    }

    /// Ends tracked flows that the generation in force does not track, and says so: their packets need not be
    /// looked up from then on ([`Runtime::reviewed`]). Until then the first packet of each ends it.
    ///
    /// # Errors
    /// See [`SessionError`]; nothing is lost by one.
    pub fn review(&mut self) -> Result<(), SessionError> {
        let generation = self.tables.generation()?;
        // Who judged under the generation before may just be making an entry.
        bank::wait_for_readers(&self.tables, generation & 1)?;
        self.control()?.review(self.runtime.buckets)?;
        self.runtime.reviewed = generation;
        self.tables.runtime.set(&0, &self.runtime)?;
        Ok(())
    }

    /// The same where some flow may go untracked and it has not been done: a generation that waits is reviewed late.
    pub(crate) fn review_if_due(&mut self) {
        let mut review = || -> Result<(), SessionError> {
            self.runtime = self.tables.runtime()?;
            let generation = self.tables.generation()?;
            if self.runtime.reviewed == generation {
                return Ok(());
            }
            let bank = (generation & 1) * MAX_INTERFACES;
            for one in &self.state.interfaces {
                let record = self.tables.interfaces.get(&(bank + one.id))?;
                if record.is_some_and(|record| record.flags & interface_flags::BYPASS != 0) {
                    return self.review();
                }
            }
            Ok(())
        };
        if let Err(error) = review() {
            // Slower for packets, and nothing else.
            let why = chain(&error);
            log::warn!("flows that need no tracking are looked up: {why}");
        }
    }

    /// The conntrack commands.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn control(&self) -> Result<Control, ControlError> {
        Control::open(&self.pins.control())
    }

    /// Replaces every program that was loaded from another object than the embedded one, behind the
    /// links in use: no packet goes unjudged.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub fn renew_programs(&mut self, lock: &Lock) -> Result<(), SessionError> {
        if self.state.control != self.object.digest {
            self.programs(0).renewed()?.publish()?;
            self.control()?.arm()?;
            self.state.control.clone_from(&self.object.digest);
            lock.write(&self.state)?;
        }
        for place in 0..self.state.namespaces.len() {
            let namespace = &self.state.namespaces[place];
            if namespace.object == self.object.digest {
                continue;
            }
            let number = namespace.number;
            let renewed = self.programs(number).renewed()?;
            for one in &self.state.interfaces {
                if one.namespace == number {
                    let place = attach::Place::within(&namespace.identity, one.ifindex);
                    attach::update(&self.pins, &renewed, one.id, one.hook, place)?;
                }
            }
            renewed.publish()?;
            self.state.namespaces[place]
                .object
                .clone_from(&self.object.digest);
            lock.write(&self.state)?;
        }
        Ok(())
    }

    /// The number of a namespace, given now if it has none.
    pub fn namespace(&mut self, which: &NetnsIdentity) -> u32 {
        let known = self
            .state
            .namespaces
            .iter_mut()
            .find(|one| one.identity.is(which));
        if let Some(known) = known {
            known.identity = which.clone();
            return known.number;
        }
        self.add_namespace(which.clone())
    }

    /// The number of a namespace of which nothing is known but that a device has moved there: it needs
    /// programs of its own, since its devices' indexes are those of others elsewhere.
    pub(crate) fn unknown_namespace(&mut self) -> u32 {
        self.add_namespace(NetnsIdentity::unknown())
    }

    fn add_namespace(&mut self, identity: NetnsIdentity) -> u32 {
        let number = self.state.give_namespace();
        self.state.namespaces.push(Namespace {
            number,
            identity,
            object: self.object.digest.clone(),
        });
        number
    }

    /// The programs of a namespace; 0 stands for what serves all.
    pub fn programs(&self, number: u32) -> ProgramSet<'_> {
        ProgramSet::new(&self.pins, &self.object, sizes_of(&self.runtime), number)
    }
}

/// The record of what is fixed, once a first load has been completed.
///
/// # Errors
/// See [`TableError`].
pub fn fixed(pins: &Pins) -> Result<Option<Runtime>, TableError> {
    let pin = pins.map(sg_common::abi::map::RUNTIME);
    if !pin.exists() {
        return Ok(None);
    }
    let table = crate::table::Table::<u32, Runtime>::open(&pin)?;
    Ok(table.get(&0)?.filter(|runtime| runtime.hz != 0))
}

fn sizes_of(runtime: &Runtime) -> Sizes {
    Sizes {
        buckets: runtime.buckets[0],
        accounting: runtime.accounting != 0,
    }
}

/// [`abi::credit`] on this machine.
pub(crate) fn credit(allowance: u32) -> u32 {
    // Where the number of CPUs cannot be read, every flow is said at once.
    nr_cpus().map_or(0, |cpus| abi::credit(allowance, cpus as u32))
}

fn unassured(allowance: u32) -> u32 {
    let share = u64::from(allowance) * u64::from(CT_UNASSURED_PERCENT) / 100;
    u32::try_from(share).unwrap_or(u32::MAX).max(1)
}

/// Words nobody can guess, so that nobody can make flows that share a bucket.
fn seed() -> [u32; 12] {
    let mut bytes = [0_u8; 48];
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(read) => filled += read,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("getrandom(2) fails only for wrong arguments: {error}"),
        }
    }
    let mut words = bytes.chunks_exact(4);
    std::array::from_fn(|_| {
        let word = words.next().expect("48 bytes are twelve words");
        u32::from_ne_bytes(word.try_into().expect("chunks of four"))
    })
}
