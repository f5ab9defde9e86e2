//! The conntrack table under real concurrency: on every CPU a thread runs the loaded programs by
//! BPF_PROG_TEST_RUN, all on the same maps, and when they are done the maps are read and must be right to
//! the last word.

#[path = "concurrency/audit.rs"]
mod audit;
#[path = "concurrency/collisions.rs"]
mod collisions;
mod common;
#[path = "dataplane/context.rs"]
mod context;
#[path = "concurrency/credits.rs"]
mod credits;
#[path = "concurrency/flow.rs"]
mod flow;
#[path = "dataplane/frame.rs"]
#[allow(dead_code, reason = "the data path's tests need more of it")]
mod frame;
#[path = "concurrency/full.rs"]
mod full;
#[path = "concurrency/removal.rs"]
mod removal;
#[path = "concurrency/rig.rs"]
mod rig;
#[path = "concurrency/same_flow.rs"]
mod same_flow;
