//! What a change from the layout before has to know when it goes on after it was cut short.

use serde::{Serialize, de::DeserializeOwned};

use super::{Lock, StateError, parsed};

const UPGRADE: &str = "upgrade.json";

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
