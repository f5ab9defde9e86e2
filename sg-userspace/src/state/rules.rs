//! What numbers of rules in the maps mean, in a file of its own for each generation, and what was counted for
//! rules, in one for all.

use std::{os::fd::OwnedFd, path::Path};

use serde::{Deserialize, Serialize};

use super::{Lock, State, StateError, numbered, parsed};
use crate::{compile::Compiled, directory, hits::Book, model::RuleId};

const SETS: &str = "sets-";
const BOOK: &str = "rules.json";

/// How a range's rule set is read back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleSets {
    /// Rule ids by number.
    pub rules: Vec<RuleId>,
    /// Rule numbers by set.
    pub sets: Vec<Vec<u32>>,
}

/// The same, of a compiled policy.
#[derive(Serialize)]
struct Compiling<'a> {
    rules: &'a [RuleId],
    sets: &'a [Vec<u32>],
}

impl RuleSets {
    /// Reads those of a generation without the lock; `None` if they are not kept.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn read(directory: &Path, generation: u32) -> Result<Option<Self>, StateError> {
        let opened = directory::private(directory)?;
        parsed(directory, &opened, &numbered(SETS, generation))
    }
}

impl State {
    /// Reads what is remembered of rules without locking it; `None` if nothing is.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn read_book(directory: &Path) -> Result<Option<Book>, StateError> {
        let opened = directory::private(directory)?;
        read_book(directory, &opened)
    }
}

impl Lock {
    /// Reads the rule sets of a generation; `None` if they are not kept.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn read_rule_sets(&self, generation: u32) -> Result<Option<RuleSets>, StateError> {
        parsed(&self.path, &self.directory, &numbered(SETS, generation))
    }

    /// Writes the rule sets of a generation.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn write_rule_sets(&self, generation: u32, compiled: &Compiled) -> Result<(), StateError> {
        let sets = Compiling {
            rules: &compiled.rules,
            sets: &compiled.rule_sets,
        };
        self.replace(&numbered(SETS, generation), &sets)
    }

    /// Has the rule sets of one generation stand for another, too.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn link_rule_sets(&self, from: u32, to: u32) -> Result<(), StateError> {
        self.link(&numbered(SETS, from), &numbered(SETS, to))
    }

    /// Reads what was counted for rules; `None` if nothing is remembered.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn read_book(&self) -> Result<Option<Book>, StateError> {
        read_book(&self.path, &self.directory)
    }

    /// Replaces what is remembered of rules, and removes rule sets of generations that it does not speak of.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn write_book(&self, book: &Book) -> Result<(), StateError> {
        self.replace(BOOK, book)?;
        self.remove_but(SETS, &book.generations())
    }

    pub(super) fn remove_rules(&self) -> Result<(), StateError> {
        self.remove(BOOK)?;
        self.remove_but(SETS, &[])
    }
}

fn read_book(path: &Path, directory: &OwnedFd) -> Result<Option<Book>, StateError> {
    parsed(path, directory, BOOK)
}
