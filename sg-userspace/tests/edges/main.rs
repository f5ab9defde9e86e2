//! What happens at the edges: generations that change, processes that die, calls that fail, devices that come
//! and go, a table that is full; each while packets flow of which it is known, one by one, whether they may
//! arrive.
//!
//! Nothing is sampled. Every packet has a number; every number that arrives is noted, and every one that had to
//! arrive is waited for. Which definition was in force is read from the map that decides it, before a packet is
//! sent and after it must have been judged. At the end the enforcer's counters must show exactly as many dropped
//! packets as did not arrive: see [`traffic`].

#[path = "../common/mod.rs"]
mod common;

mod bed;
mod changes;
mod channel;
mod connects;
mod devices;
mod failures;
mod first;
mod full;
mod kills;
mod lane;
mod moved;
mod receiver;
mod remains;
mod restarts;
mod revoke;
mod scale;
mod sender;
mod streams;
mod supervisor;
mod traffic;

use std::time::{Duration, Instant};

use common::require::require;
use supervisor::{Calls, Fault};

#[test]
#[ignore = "goes on as long as it is told to: cargo xtask test --soak MINUTES"]
fn soak() {
    require!(Root, Object);
    let minutes = scale::setting("SG_EDGES_MINUTES", 1);
    let start = Instant::now();
    scale::all_calls();
    let kill = || failures::each(Calls::Bpf, Fault::Kill);
    let parts: [(&str, &dyn Fn()); 7] = [
        ("switches", &changes::switch),
        ("kills", &kills::kill_some),
        ("kills before calls of bpf(2)", &kill),
        ("failing calls of bpf(2)", &|| {
            failures::each(Calls::Bpf, Fault::Error(libc::ENOMEM))
        }),
        ("failing calls for files", &|| {
            failures::each(Calls::Files, Fault::Error(libc::EIO))
        }),
        ("restarts", &restarts::restart),
        ("devices", &devices::events),
    ];
    for (what, part) in parts.iter().cycle() {
        let passed = start.elapsed();
        if passed >= Duration::from_secs(60 * minutes) {
            break;
        }
        println!("after {} s: {what}", passed.as_secs());
        part();
    }
}
