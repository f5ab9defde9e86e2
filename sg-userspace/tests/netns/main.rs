//! Enforcement as real sockets meet it: every hook, both orientations, both address families.
//!
//! Each test has namespaces and an enforcer of its own. What must not get through is watched for
//! [`common::netns::NEVER`], and the counter of the right reason must have risen meanwhile.

#[path = "../common/mod.rs"]
mod common;

mod allowance;
mod bridge;
mod counters;
mod dhcp;
mod echo;
mod expiry;
mod fragments;
#[allow(dead_code, reason = "the table needs all of it, these tests a part")]
#[path = "../dataplane/frame.rs"]
mod frame;
mod injector;
mod jumbo;
mod link;
mod matrix;
mod merged;
mod neighbours;
mod path_mtu;
mod pins;
mod race;
mod raw_sender;
mod rules;
mod settings;
mod silence;
mod traffic;
mod tutorial;
mod vlan;
