//! Shared by the test programs.

pub(crate) mod require;
