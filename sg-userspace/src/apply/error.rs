//! Why a definition did not come into force.

use crate::{
    adopt::AdoptError, attach::AttachError, bank::BankError, compile::CompileError,
    confirm::SettleError, control::ControlError, detach::DetachError, hits::HitsError,
    index::IndexError, netns::NetnsError, pin::PinError, programs::ProgramsError,
    session::SessionError, state::StateError, table::TableError, target::TargetError,
    upgrade::UpgradeError,
};

/// Why a definition did not come into force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The definition enforces nothing.
    #[error("the definition names no interface, so there is nothing to enforce")]
    NoInterface,
    /// A generation waits to be confirmed, or what a change has left cannot be put right.
    #[error(transparent)]
    Settle(#[from] SettleError),
    /// The change cannot be taken back by a timer.
    #[error("{0}")]
    Irrevocable(String),
    /// The time to confirm was over before everything was done.
    #[error(
        "generation {generation} was taken back before everything was attached: give --confirm-within more time"
    )]
    TooSlow {
        /// The generation.
        generation: u32,
    },
    /// A device cannot be enforced.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The policy does not fit.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// What is pinned cannot be opened or made.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// What an earlier version enforces cannot be taken over; it stays in force.
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    /// State or lock.
    #[error(transparent)]
    State(#[from] StateError),
    /// Writing the policy failed; the one before stays in force.
    #[error("cannot write the new policy; the one before stays in force")]
    Bank(#[from] BankError),
    /// What rules have let pass cannot be kept; the policy before stays in force.
    #[error("cannot keep what was counted for rules; the policy before stays in force")]
    Hits(#[from] HitsError),
    /// The clock cannot be read.
    #[error(transparent)]
    Control(#[from] ControlError),
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
    /// The change failed, and so did taking it back.
    #[error(
        "the change failed, and what it had done could not be taken back ({undo}): look at `sgctl status` and apply again"
    )]
    Undo {
        /// Why the change failed.
        source: Box<ApplyError>,
        /// Why it could not be taken back.
        undo: String,
    },
    /// An interface cannot be attached; everything is as it was.
    #[error("interface {interface} cannot be enforced so; nothing was changed")]
    Interface {
        /// The interface.
        interface: String,
        /// Why.
        source: Box<InterfaceError>,
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
