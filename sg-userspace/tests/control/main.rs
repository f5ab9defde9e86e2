//! The control plane on real devices: apply, attach, adopt, read back, detach, refuse.

#[path = "../common/mod.rs"]
mod common;

mod devices;
mod hooks;
mod hostile;
mod life;
mod links;
mod plan;
mod refusals;
mod scale;
mod settings;
mod tags;
