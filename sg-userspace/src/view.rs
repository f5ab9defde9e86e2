//! What is pinned, opened for reading only: no lock, no object needed.

use std::path::PathBuf;

use sg_common::{
    abi::{ABI_VERSION, MAX_INTERFACES},
    layout::{Interface, Runtime},
};

use crate::{
    confirm::{self, Pending},
    control::{Control, ControlError},
    netns::{Netns, NetnsError, NetnsIdentity},
    pin::{PinError, Pins},
    session::{self, Context},
    state::{Attached, State, StateError},
    table::TableError,
    tables::Tables,
    upgrade,
};

/// An enforcer at work.
#[derive(Debug)]
pub struct View {
    /// Where it is pinned.
    pub pins: Pins,
    /// Its maps.
    pub tables: Tables,
    /// What is remembered about it.
    pub state: State,
    /// What is fixed while attached.
    pub runtime: Runtime,
}

/// Why it cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// The pins are not to be trusted.
    #[error(transparent)]
    Pins(#[from] PinError),
    /// The state cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// A map cannot be read.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The conntrack program cannot be run.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The namespace cannot be opened.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// Enforcement is pinned that the state does not describe.
    #[error(
        "{} holds an enforcer that the state in {} does not describe; name the right --state-dir",
        pins.display(),
        state.display()
    )]
    Strange {
        /// Where the pins are.
        pins: PathBuf,
        /// Where the state is.
        state: PathBuf,
    },
    /// Nothing is enforced.
    #[error("nothing is enforced here; `sgctl apply FILE` starts it")]
    Nothing,
    /// Another version is at work.
    #[error(
        "what is enforced here has the layout of another version ({version}, this sgctl has {ABI_VERSION}): `sgctl apply` or `sgctl run` of this one takes it over{}",
        pending.map_or_else(String::new, |pending| format!("; but {pending}"))
    )]
    Earlier {
        /// Its version.
        version: u32,
        /// What waits there.
        pending: Option<Pending>,
    },
    /// Everything is being moved to other maps.
    #[error(
        "what is enforced here is being moved to other maps, or that was cut short: then the next `sgctl apply` or `sgctl run` goes on with it"
    )]
    Moving,
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
}

impl View {
    /// Opens what is in force.
    ///
    /// # Errors
    /// [`ViewError::Nothing`] if nothing is; otherwise see [`ViewError`].
    pub fn open(context: &Context) -> Result<Self, ViewError> {
        let pins = Pins::new(&context.bpffs);
        pins.check()?;
        let Some(runtime) = session::fixed(&pins)? else {
            return Err(match upgrade::other(&context.bpffs)? {
                Some(version) => ViewError::Earlier {
                    version,
                    pending: pending(context),
                },
                None => ViewError::Nothing,
            });
        };
        let tables = Tables::open(&pins)?;
        let state = State::read(&context.state_dir)?;
        match state.filter(|state| state.runtime == tables.runtime.id()) {
            Some(state) => Ok(Self {
                state: state.in_force(tables.generation()?),
                pins,
                tables,
                runtime,
            }),
            None if State::is_moving(&context.state_dir)? => Err(ViewError::Moving),
            None => Err(ViewError::Strange {
                pins: pins.root().to_owned(),
                state: context.state_dir.clone(),
            }),
        }
    }

    /// Attached interfaces, or the one called `name` in the definition or by its device, in the
    /// context's namespace if it names one.
    ///
    /// # Errors
    /// [`ViewError::Unknown`], [`ViewError::Netns`].
    pub fn interfaces(
        &self,
        context: &Context,
        name: Option<&str>,
    ) -> Result<Vec<&Attached>, ViewError> {
        let Some(name) = name else {
            return Ok(self.state.interfaces.iter().collect());
        };
        let within = within(context)?;
        match self.state.find(name, within.as_ref()) {
            Some(one) => Ok(vec![one]),
            None => Err(ViewError::Unknown {
                name: name.to_owned(),
                attached: names(&self.state.interfaces),
            }),
        }
    }

    /// The record of an interface in the generation in force.
    ///
    /// # Errors
    /// See [`TableError`].
    pub fn record(&self, id: u32) -> Result<Interface, TableError> {
        let bank = self.tables.generation()? & 1;
        let found = self.tables.interfaces.get(&(bank * MAX_INTERFACES + id))?;
        Ok(found.unwrap_or(Interface::ZERO))
    }

    /// Low 31 bits of jiffies.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn now(&self) -> Result<u32, ControlError> {
        Control::open(&self.pins.control())?.clock()
    }
}

/// The generation that waits, for a message: what cannot be read is not told.
fn pending(context: &Context) -> Option<Pending> {
    let found = confirm::peek(context).ok().flatten();
    found.and_then(|found| found.pending())
}

/// The namespace a context names, if it names one.
pub(crate) fn within(context: &Context) -> Result<Option<NetnsIdentity>, NetnsError> {
    let Some(name) = context.netns.as_deref() else {
        return Ok(None);
    };
    Ok(Some(Netns::open(Some(name))?.identity().clone()))
}

/// Names of attached interfaces, for people.
pub(crate) fn names(attached: &[Attached]) -> String {
    let names: Vec<&str> = attached.iter().map(|one| one.name.as_str()).collect();
    match names.as_slice() {
        [] => "none".to_owned(),
        names => names.join(", "),
    }
}

/// Jiffies from `then` to `now`, of which only the low 31 bits are known; a moment that lies a
/// little ahead counts as now.
pub(crate) fn age(now: u32, then: u32) -> u32 {
    let age = now.wrapping_sub(then) & 0x7fff_ffff;
    if age < 1 << 30 { age } else { 0 }
}
