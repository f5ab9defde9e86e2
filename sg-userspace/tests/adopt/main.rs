//! What exists when an interface is attached lives on, and what does not exist does not begin: flows of sockets here,
//! of sockets behind the other end of a link, and of netfilter's table, while packets of them flow.

#[path = "../common/mod.rs"]
mod common;

mod forwarder;
mod lines;
mod netfilter;
mod ping;
mod race;
mod storm;
mod which;
