//! The table: worlds of cases by what they are about.

mod always;
mod changes;
mod classes;
mod encapsulation;
mod ethernet;
mod expiry;
mod extensions;
mod fragments;
mod handover;
mod icmp;
mod limits;
mod malformed;
mod protocols;
mod resets;
mod revocation;
mod spoofing;
mod tcp;
mod tuples;
mod untracked;

use crate::table::World;

/// All of it.
pub(crate) fn worlds() -> Vec<World> {
    vec![
        tcp::world(),
        resets::world(),
        protocols::world(),
        icmp::world(),
        fragments::world(),
        ethernet::world(),
        malformed::world(),
        extensions::world(),
        encapsulation::world(),
        tuples::world(),
        always::world(),
        classes::world(),
        untracked::world(),
        changes::world(),
        revocation::world(),
        handover::world(),
        spoofing::world(),
        expiry::world(),
        limits::crowded(),
        limits::capped(),
    ]
}
