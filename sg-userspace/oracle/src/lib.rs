//! A naive second opinion on every verdict.
//!
//! Written from `docs/semantics.md` and the facts it rests on, never from the enforcer's code: rules are
//! searched one by one, flows stand in a list, frames are read byte by byte. It is slow, and easy to
//! check by eye.

pub mod policy;
