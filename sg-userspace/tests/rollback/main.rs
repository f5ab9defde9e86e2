//! Generations that are taken back: by the kernel's timer, by hand, by failure, and by going back to what was kept.

#[path = "../common/mod.rs"]
mod common;

mod agent;
mod attempt;
mod failure;
mod kept;
mod own_session;
mod review;
mod timer;
