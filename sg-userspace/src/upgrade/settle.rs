//! What the layout before says of the last change made there: that it waits to be confirmed, or was taken back.
//!
//! While a generation waits, the kernel may go back to the one before it at any moment, in the maps that are to be
//! left: then nothing is taken over. Afterwards what is remembered is brought in line first, as it is before any
//! other change (`confirm.rs`).

use std::path::Path;

use sg_common::{
    abi::{ABI_VERSION, map},
    layout,
};

use super::{
    UpgradeError,
    form::{self, Commands, Form},
    other,
    predecessor::{Predecessor, PredecessorError, Raw, u32_at, u64_at},
};
use crate::{
    attach::{self, EGRESS, INGRESS, ON_ITS_WAY},
    confirm::Confirmation,
    control::Control,
    history, hits,
    pin::Pins,
    session::Context,
    state::{Lock, State},
};

/// An enforcer of another layout, or of this one on its way to tables of another size.
#[derive(Debug)]
pub(crate) struct Before {
    pins: Pins,
    version: u32,
    form: &'static Form,
}

impl Before {
    /// The one below `base`, if it has links and its layout is written down.
    ///
    /// # Errors
    /// [`UpgradeError::Pins`].
    pub(crate) fn find(base: &Path) -> Result<Option<Self>, UpgradeError> {
        let Some(version) = other(base)? else {
            return Ok(None);
        };
        let (pins, form) = if version == ABI_VERSION {
            (Pins::before(base), form::present())
        } else {
            (Pins::of_version(base, version), form::of(version))
        };
        pins.check()?;
        Ok(form.map(|form| Self {
            pins,
            version,
            form,
        }))
    }

    /// What the kernel says of the last generation that had to be confirmed; `None`: that layout knows no such.
    ///
    /// # Errors
    /// [`UpgradeError::Predecessor`].
    pub(crate) fn confirmation(&self) -> Result<Option<Confirmation>, UpgradeError> {
        Ok(confirmation(&self.pins, self.form)?)
    }

    /// The generation in force.
    ///
    /// # Errors
    /// [`UpgradeError::Predecessor`].
    pub(crate) fn generation(&self) -> Result<u32, UpgradeError> {
        Ok(generation(&self.pins)?)
    }

    /// Its conntrack program, to confirm a generation or to take it back, and for nothing else.
    ///
    /// # Errors
    /// [`UpgradeError::Commands`], [`UpgradeError::Control`].
    pub(crate) fn control(&self) -> Result<Control, UpgradeError> {
        let commands = self.form.confirmation.as_ref().map(|found| found.commands);
        if commands != Some(Commands::PRESENT) {
            return Err(UpgradeError::Commands {
                version: self.version,
            });
        }
        Ok(Control::open(&self.pins.control())?)
    }

    /// Brings what is remembered in line with what is in force; answers the generation, `None` if nothing is any
    /// more.
    ///
    /// # Errors
    /// As [`settle`].
    pub(crate) fn settle(
        &self,
        context: &Context,
        lock: &Lock,
    ) -> Result<Option<u32>, UpgradeError> {
        let predecessor = Predecessor::open(&self.pins, self.form)?;
        let state = settle(context, lock, &self.pins, &predecessor)?;
        Ok(state.map(|state| state.generation))
    }
}

/// What is remembered of the layout before, in line with what is in force there; `None` if that is nothing any more,
/// and the pins are gone.
///
/// # Errors
/// [`UpgradeError::Pending`] while a generation waits; otherwise see [`UpgradeError`].
pub(super) fn settle(
    context: &Context,
    lock: &Lock,
    old: &Pins,
    predecessor: &Predecessor,
) -> Result<Option<State>, UpgradeError> {
    let strange = || UpgradeError::Strange {
        pins: old.root().to_owned(),
        state: context.state_dir.clone(),
    };
    let mut state = lock.read()?.ok_or_else(strange)?;
    if state.runtime != predecessor.id {
        return Err(strange());
    }
    let kernel = confirmation(old, predecessor.form)?;
    if let Some(pending) = kernel.and_then(|kernel| kernel.pending()) {
        return Err(UpgradeError::Pending(pending));
    }
    let Some(changing) = state.changing.take() else {
        return Ok(Some(state));
    };
    // Not from what was opened before: it may have been taken back since.
    let generation = generation(old)?;
    if generation == changing.generation {
        history::settled(lock, state.runtime, generation, true)?;
        lock.write(&state)?;
        lock.remove_policies(&[state.policy])?;
        return Ok(Some(state));
    }
    if kernel.is_some_and(|kernel| kernel.took_back(changing.generation)) {
        history::settled(lock, state.runtime, changing.generation, false)?;
    }
    let known = |id: u32| changing.before.interfaces.iter().any(|one| one.id == id);
    for one in state.interfaces.iter().filter(|one| !known(one.id)) {
        for hook in [EGRESS, INGRESS, ON_ITS_WAY] {
            let pin = old.link(one.id, hook);
            match state.place(one) {
                Some(place) => attach::detach(&pin, place)?,
                None => attach::detach_anywhere(&pin)?,
            }
        }
    }
    state.interfaces.retain(|one| known(one.id));
    if state.interfaces.is_empty() {
        for link in old.links()? {
            attach::abandon(&link, None)?;
        }
        old.remove_all()?;
        lock.clear()?;
        return Ok(None);
    }
    if generation == changing.generation.wrapping_add(1) {
        hits::renumber(lock, state.runtime, generation)?;
    }
    let now = std::mem::replace(&mut state, changing.before);
    state.keep(now);
    state.generation = generation;
    let used = |number: u32| state.interfaces.iter().any(|one| one.namespace == number);
    let mut namespaces = std::mem::take(&mut state.namespaces);
    namespaces.retain(|namespace| used(namespace.number));
    state.namespaces = namespaces;
    lock.write(&state)?;
    lock.remove_policies(&[state.policy])?;
    Ok(Some(state))
}

/// What became of the last generation that had to be confirmed.
fn confirmation(pins: &Pins, form: &Form) -> Result<Option<Confirmation>, PredecessorError> {
    let Some(form) = &form.confirmation else {
        return Ok(None);
    };
    let value = Raw::open(pins, map::CONFIRMATION, form.size)?.get(0)?;
    let found = layout::Confirmation {
        word: u64_at(&value, form.word),
        deadline: u64_at(&value, form.deadline),
        taken_back: u64_at(&value, form.taken_back),
        taken_back_at: u64_at(&value, form.taken_back_at),
        ..layout::Confirmation::ZERO
    };
    Ok(Some(found.into()))
}

/// The generation in force.
pub(super) fn generation(pins: &Pins) -> Result<u32, PredecessorError> {
    Ok(u32_at(&Raw::open(pins, map::GENERATION, 4)?.get(0)?, 0))
}
