//! Ways back from a change: prepared before it, and taken when it fails.

use std::time::Duration;

use sg_common::layout::Limits;

use crate::{
    confirm, history,
    session::Session,
    state::{Changing, Lock},
};

use super::{ApplyError, Options, interface};

/// A generation that is taken back unless it is confirmed.
pub(super) struct Waiting {
    generation: u32,
    time: Duration,
    limits: Limits,
}

impl Waiting {
    /// Before the generation is in force: from then on it can be left alone.
    pub(super) fn begin(
        session: &Session,
        generation: u32,
        limits: Limits,
        options: Options,
    ) -> Result<Option<Self>, ApplyError> {
        let Some(time) = options.confirm_within else {
            return Ok(None);
        };
        let waiting = Self {
            generation,
            time,
            limits,
        };
        waiting.again(session)?;
        Ok(Some(waiting))
    }

    /// The time begins anew with every interface, so that it is whole when everything is done.
    pub(super) fn again(&self, session: &Session) -> Result<(), ApplyError> {
        let control = session.control()?;
        if control.await_confirmation(self.generation, self.time, self.limits)? {
            Ok(())
        } else {
            Err(ApplyError::TooSlow {
                generation: self.generation,
            })
        }
    }
}

/// Takes back what a failed change has done: the previous generation returns by one word, for its bank has not
/// been written, then new interfaces go, and ingress returns to the hook where it was. Needs no room on the disk:
/// what cannot be written down is put right at the next change.
pub(super) fn undo(
    mut session: Session,
    lock: &Lock,
    changing: &Changing,
) -> Result<(), ApplyError> {
    let limits = changing.limits();
    let control = session.control()?;
    control.take_back(changing.generation, limits, true)?;
    // They may have gone at their own time meanwhile.
    let kernel = confirm::read(&session.tables)?;
    if kernel.took_back(changing.generation) {
        let runtime = session.tables.runtime.id();
        history::settled(lock, runtime, changing.generation, false)?;
    }
    let mut failed = None;
    for before in &changing.before.interfaces {
        let now = session.state.interfaces.iter_mut();
        let mut moved = now.filter(|now| now.id == before.id && now.hook != before.hook);
        let Some(now) = moved.next() else {
            continue;
        };
        let hook = std::mem::replace(&mut now.hook, before.hook);
        let why = std::mem::replace(&mut now.why, before.why.clone());
        if let Err(source) = interface::move_back(&session, before, hook) {
            // What is remembered is what is in force.
            let mut now = session.state.interfaces.iter_mut();
            if let Some(now) = now.find(|now| now.id == before.id) {
                (now.hook, now.why) = (hook, why);
            }
            failed.get_or_insert(ApplyError::Interface {
                interface: before.name.clone(),
                source: Box::new(source),
            });
        }
    }
    confirm::restore(session, lock, changing)?;
    failed.map_or(Ok(()), Err)
}
