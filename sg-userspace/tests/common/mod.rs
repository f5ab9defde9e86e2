//! Shared by the test programs.

pub(crate) mod agent;
pub(crate) mod ethtool;
pub(crate) mod netns;
pub(crate) mod pair;
pub(crate) mod require;
pub(crate) mod scale;
