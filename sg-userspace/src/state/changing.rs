//! A change that is under way, written down before it is made.
//!
//! The kernel decides when a generation comes into force, and whether it is taken back. Beside what is to be true
//! after the change, the state therefore keeps what was true before it, and whoever takes the lock next asks the
//! kernel which of the two holds: [`crate::confirm::settle`]. So a change may end anywhere, with no room on the
//! disk for another word.

use serde::{Deserialize, Serialize};
use sg_common::layout::{Limits, Runtime};

use super::{Attached, State};

/// A change under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changing {
    /// The generation it makes.
    pub generation: u32,
    /// What is remembered if that is not in force.
    pub before: State,
    /// The limits before: allowance, shared, unassured, credit.
    limits: [u32; 4],
}

impl Changing {
    /// The change from what is in force to `generation`.
    pub fn new(generation: u32, before: State, runtime: &Runtime) -> Self {
        Self {
            generation,
            before: State {
                changing: None,
                ..before
            },
            limits: [
                runtime.allowance,
                runtime.shared,
                runtime.unassured,
                runtime.credit,
            ],
        }
    }

    /// The limits before.
    pub fn limits(&self) -> Limits {
        let [allowance, shared, unassured, credit] = self.limits;
        Limits {
            allowance,
            shared,
            unassured,
            credit,
        }
    }
}

impl State {
    /// What is true while `generation` is in force, whether or not anybody has written it down. Interfaces that were
    /// not attached before a change that was taken back still are.
    pub(crate) fn in_force(mut self, generation: u32) -> Self {
        let Some(changing) = self.changing.take() else {
            return self;
        };
        if changing.generation == generation {
            self.changing = Some(changing);
            return self;
        }
        let mut state = changing.before.clone();
        state.generation = generation;
        let known = |one: &Attached| state.interfaces.iter().any(|known| known.id == one.id);
        let fresh = self.interfaces.iter().filter(|one| !known(one));
        let fresh: Vec<Attached> = fresh.cloned().collect();
        let mut resolved = std::mem::take(&mut self.resolved);
        state.keep(self);
        for one in fresh {
            if let Some(interface) = resolved.remove(&one.name) {
                state.resolved.insert(one.name.clone(), interface);
            }
            state.interfaces.push(one);
        }
        state.changing = Some(changing);
        state
    }

    /// Takes over from a later state what is so whatever policy is in force: which interfaces are still attached,
    /// at which hooks, and which programs are loaded.
    pub(crate) fn keep(&mut self, now: State) {
        self.interfaces.retain_mut(|one| {
            match now.interfaces.iter().find(|now| now.id == one.id) {
                Some(now) => {
                    (one.hook, one.why) = (now.hook, now.why.clone());
                    true
                }
                None => false,
            }
        });
        let (interfaces, resolved) = (&self.interfaces, &mut self.resolved);
        resolved.retain(|name, _| interfaces.iter().any(|one| one.name == *name));
        self.control = now.control;
        self.namespaces = now.namespaces;
        self.next_id = self.next_id.max(now.next_id);
    }
}
