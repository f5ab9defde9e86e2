//! Files of the definitions that are kept: one with what is known of all, one for each with its text.

use std::path::Path;

use super::{Lock, State, StateError, io_error, numbered, parsed};
use crate::{
    directory,
    history::{History, Text},
};

const FILE: &str = "history.json";
const DEFINITION: &str = "definition-";

impl State {
    /// Reads what is known of the definitions that are kept, without the lock; `None` if none are.
    pub(crate) fn read_history(directory: &Path) -> Result<Option<History>, StateError> {
        if std::fs::symlink_metadata(directory).is_err() {
            return Ok(None);
        }
        let opened = directory::private(directory)?;
        parsed(directory, &opened, FILE)
    }

    /// Reads the text of a definition, without the lock.
    pub(crate) fn read_definition(directory: &Path, number: u32) -> Result<Vec<Text>, StateError> {
        let opened = directory::private(directory)?;
        let name = numbered(DEFINITION, number);
        let missing = || io_error("open", &directory.join(&name), rustix::io::Errno::NOENT);
        parsed(directory, &opened, &name)?.ok_or_else(missing)
    }
}

impl Lock {
    /// Reads what is known of the definitions that are kept; `None` if none are.
    pub(crate) fn read_history(&self) -> Result<Option<History>, StateError> {
        parsed(&self.path, &self.directory, FILE)
    }

    /// Replaces it.
    pub(crate) fn write_history(&self, history: &History) -> Result<(), StateError> {
        self.replace(FILE, history)
    }

    /// Writes the text of a definition.
    pub(crate) fn write_definition(&self, number: u32, texts: &[Text]) -> Result<(), StateError> {
        self.replace(&numbered(DEFINITION, number), &texts)
    }

    /// Removes the texts of all definitions but those of these numbers.
    pub(crate) fn remove_definitions(&self, but: &[u32]) -> Result<(), StateError> {
        self.remove_but(DEFINITION, but)
    }
}
