//! Tests on slow machines, such as emulated ones: less of everything, and more time for it.
//!
//! `SG_COUNTS_DIVISOR`: by what counts are divided. `SG_PATIENCE`: by what limits of time are multiplied.

#![allow(dead_code, reason = "a test program uses what it needs of it")]

use std::{env, time::Duration};

/// A part of `full`, at least one.
pub(crate) fn count(full: u32) -> u32 {
    (full / divisor()).max(1)
}

/// By what counts are divided; 1: a test does all it can do.
pub(crate) fn divisor() -> u32 {
    setting("SG_COUNTS_DIVISOR")
}

/// How long something is waited for that is to take no longer than `limit` on an idle machine.
pub(crate) fn patient(limit: Duration) -> Duration {
    limit * setting("SG_PATIENCE")
}

fn setting(name: &str) -> u32 {
    env::var(name).map_or(1, |value| match value.parse() {
        Ok(value @ 1..) => value,
        _ => panic!("{name} is a number from 1"),
    })
}
