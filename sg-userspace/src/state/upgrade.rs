//! What a change from the layout before has to know when it goes on after it was cut short.

use std::path::Path;

use serde::{Serialize, de::DeserializeOwned};

use super::{Lock, State, StateError, contents, parsed};
use crate::directory;

const UPGRADE: &str = "upgrade.json";

impl State {
    /// Whether such a change is under way, or was cut short.
    ///
    /// # Errors
    /// See [`StateError`].
    pub(crate) fn is_moving(path: &Path) -> Result<bool, StateError> {
        let directory = directory::private(path)?;
        Ok(contents(path, &directory, UPGRADE)?.is_some())
    }
}

impl Lock {
    /// Reads what is remembered of a change of layouts; `None` if none is under way.
    ///
    /// # Errors
    /// See [`StateError`].
    pub(crate) fn read_upgrade<T: DeserializeOwned>(&self) -> Result<Option<T>, StateError> {
        parsed(&self.path, &self.directory, UPGRADE)
    }

    /// Replaces it.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub(crate) fn write_upgrade<T: Serialize>(&self, upgrade: &T) -> Result<(), StateError> {
        self.replace(UPGRADE, upgrade)
    }

    /// Forgets it.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub(crate) fn remove_upgrade(&self) -> Result<(), StateError> {
        self.remove(UPGRADE)
    }
}
