//! The table: worlds of cases by what they are about.

mod always;
mod changes;
mod classes;
mod expiry;
mod fragments;
mod icmp;
mod limits;
mod malformed;
mod protocols;
mod resets;
mod tcp;
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
        malformed::world(),
        always::world(),
        classes::world(),
        untracked::world(),
        changes::world(),
        expiry::world(),
        limits::crowded(),
        limits::capped(),
    ]
}
