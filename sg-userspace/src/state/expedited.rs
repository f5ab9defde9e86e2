//! That grace periods are expedited until a change is made ([`crate::rcu`]).

use super::{Lock, StateError, parsed};

const EXPEDITED: &str = "expedited.json";

impl Lock {
    /// Since which boot they are; `None` if they are not.
    pub(crate) fn read_expedited(&self) -> Result<Option<String>, StateError> {
        parsed(&self.path, &self.directory, EXPEDITED)
    }

    pub(crate) fn write_expedited(&self, boot: &str) -> Result<(), StateError> {
        self.replace(EXPEDITED, &boot)
    }

    pub(crate) fn remove_expedited(&self) -> Result<(), StateError> {
        self.remove(EXPEDITED)
    }
}
