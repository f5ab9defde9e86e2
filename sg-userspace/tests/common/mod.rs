//! Shared by the test programs.

pub(crate) mod netns;
pub(crate) mod require;
