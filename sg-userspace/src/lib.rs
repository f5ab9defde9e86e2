//! Control plane of the security-group enforcer.

pub mod attach;
pub mod bank;
pub mod bpf;
pub mod compile;
pub mod control;
pub mod directory;
pub mod index;
pub mod link;
pub mod model;
pub mod netlink;
pub mod netns;
pub mod object;
pub mod pin;
pub mod programs;
pub mod resolve;
pub mod shape;
pub mod state;
pub mod table;
pub mod tables;
