//! Why a layout cannot be left.

use std::path::PathBuf;

use sg_common::abi::ABI_VERSION;

use super::PredecessorError;
use crate::{
    attach::AttachError, bank::BankError, compile::CompileError, confirm::Pending,
    control::ControlError, index::IndexError, pin::PinError, programs::ProgramsError,
    session::SessionError, shape::ShapeError, state::StateError, table::TableError,
};

/// Why a layout cannot be left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// Nobody wrote down how its maps are to be read.
    #[error(
        "{} holds an enforcer of layout {version}, which this sgctl (layout {ABI_VERSION}) cannot take over: go on with the sgctl that made it, or with one between the two; or end enforcement with `sgctl detach --all` and apply anew", path.display()
    )]
    Unknown {
        /// Where it is pinned.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// Two enforcers, and nothing says that one was to follow the other.
    #[error(
        "{} holds an enforcer of layout {version} beside this one; `sgctl detach --all` ends both", path.display()
    )]
    Both {
        /// Where the other is pinned.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The state is of something else.
    #[error(
        "{} holds an enforcer that the state in {} does not describe; name the right --state-dir, or start anew with `sgctl detach --all`", pins.display(), state.display()
    )]
    Strange {
        /// Where the pins are.
        pins: PathBuf,
        /// Where the state is.
        state: PathBuf,
    },
    /// A generation waits.
    #[error("{0}")]
    Pending(Pending),
    /// This build cannot say it to that one.
    #[error(
        "what is enforced here has layout {version}, whose generations only the sgctl that made them can confirm or take back; or wait until the time is over"
    )]
    Commands {
        /// Its version.
        version: u32,
    },
    /// The earlier layout's maps cannot be read.
    #[error(transparent)]
    Predecessor(#[from] PredecessorError),
    /// The pins cannot be used.
    #[error(transparent)]
    Pins(#[from] PinError),
    /// The state cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// New maps or programs cannot be made.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The object cannot be used.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A program cannot be loaded.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    /// A link cannot be switched.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The policy in force does not fit any more.
    #[error("the policy in force cannot be compiled by this version")]
    Compile(#[from] CompileError),
    /// It cannot be written.
    #[error(transparent)]
    Bank(#[from] BankError),
    /// A map failed.
    #[error(transparent)]
    Table(#[from] TableError),
    /// An interface cannot be indexed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A command failed.
    #[error(transparent)]
    Control(#[from] ControlError),
}
