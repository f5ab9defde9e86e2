//! What each fuzz target does with an input; a property that does not hold is a panic.
//!
//! `tests/corpora.rs` of `sg-userspace` takes these modules in by path and runs them on the
//! committed inputs, so nothing here may need more than stable Rust.

pub mod definition;
pub mod frame;
pub mod packets;
pub mod pipeline;
pub mod sources;
pub mod state;

/// Runs a target on one input.
pub type Run = fn(&[u8]);

/// Every target by name.
pub const TARGETS: [(&str, Run); 6] = [
    ("definition", definition::run),
    ("frame", frame::run),
    ("packets", packets::run),
    ("pipeline", pipeline::run),
    ("sources", sources::run),
    ("state", state::run),
];
