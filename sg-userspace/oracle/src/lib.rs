//! A naive second opinion on every verdict.
//!
//! Written from `docs/semantics.md` and the facts it rests on, never from the enforcer's code: rules are
//! searched one by one, flows stand in a list, frames are read byte by byte. It is slow, and easy to
//! check by eye. "Section" in this crate means a section of that page.

mod addresses;
mod always;
mod definition;
mod entry;
mod errors;
mod flows;
mod fragments;
mod frame;
mod ip;
mod judge;
pub mod policy;
pub mod random;
mod rules;
mod tcp;
mod tracking;
mod transport;

use std::{collections::BTreeSet, net::IpAddr};

pub use definition::definition;

use flows::Table;
use fragments::Firsts;
use policy::Policy;

/// A frame as a hook gets it.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// It came in by the device.
    pub ingress: bool,
    /// From the Ethernet header on.
    pub frame: &'a [u8],
    /// A VLAN tag stands in metadata.
    pub tagged: bool,
    /// The kernel merged segments: length fields may be 0.
    pub merged: bool,
    /// Packets it stands for.
    pub packets: u64,
}

/// Towards the workload or from it, whatever the hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// Towards the workload.
    In,
    /// From the workload.
    Out,
}

impl Direction {
    pub(crate) fn reverse(self) -> Self {
        match self {
            Self::In => Self::Out,
            Self::Out => Self::In,
        }
    }
}

/// What becomes of a packet, by the names of `docs/semantics.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It passes.
    Pass(&'static str),
    /// It is dropped.
    Drop(&'static str),
}

/// The answer to one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Under which it is counted.
    pub direction: Direction,
    /// What becomes of it.
    pub verdict: Verdict,
    /// It asked for an entry while unassured ones hold all that they may, so one of these that it could
    /// stand beside goes first, if there is any. Which one is not prescribed: who knows makes a copy
    /// [`Oracle::forget`] it that has not judged the frame, and asks that one.
    pub replaces: Option<Rivals>,
}

/// Unassured flows of which one makes room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rivals {
    /// Those of the same interface.
    Own,
    /// Those of the host.
    Any,
}

/// A tracked flow.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// Name of its interface.
    pub interface: String,
    /// IP protocol.
    pub protocol: u8,
    /// Address of the workload.
    pub local: IpAddr,
    /// Address of the peer.
    pub remote: IpAddr,
    /// Port of the workload; identifier of an echo; else 0.
    pub local_port: u16,
    /// Port of the peer; else 0.
    pub remote_port: u16,
    /// The workload's packet made the entry.
    pub opened_by_local: bool,
    /// `syn_sent`, `syn_received`, `established`, `last_ack`, `time_wait`, `close`, `single`, `stream`,
    /// `echo` or `other`.
    pub state: &'static str,
    /// Both sides have answered.
    pub assured: bool,
    /// Packets in and out.
    pub packets: [u64; 2],
    /// Bytes of frames in and out, from the Ethernet header on.
    pub bytes: [u64; 2],
}

/// All that judging needs to remember.
#[derive(Clone, Debug)]
pub struct Oracle {
    hz: u64,
    current: Option<Generation>,
    previous: Option<Policy>,
    /// For every generation so far the interfaces that have a group with `on_revoke = "reevaluate"`.
    reevaluating: Vec<BTreeSet<String>>,
    table: Table,
    firsts: Firsts,
}

/// A policy in force.
#[derive(Clone, Debug)]
struct Generation {
    policy: Policy,
    /// Since when, in ticks.
    since: u64,
}

impl Oracle {
    /// Nothing is enforced; the clock has `hz` ticks in a second.
    pub fn new(hz: u32) -> Self {
        Self {
            hz: u64::from(hz),
            current: None,
            previous: None,
            reevaluating: Vec::new(),
            table: Table::default(),
            firsts: Firsts::default(),
        }
    }

    /// Puts the next generation in force at `now` ticks. Flows and remembered fragments stay, but for
    /// those of interfaces that are gone.
    pub fn apply(&mut self, policy: Policy, now: u64) {
        // What expired under the old timeouts does not come back under longer ones.
        if let Some(old) = &self.current {
            self.table.expire(&old.policy, now, self.hz);
        }
        let kept = |name: &str| policy.interfaces.contains_key(name);
        self.table.retain_interfaces(kept);
        self.firsts.retain_interfaces(kept);
        self.reevaluating.push(rules::reevaluating(&policy));
        let old = self.current.replace(Generation { policy, since: now });
        self.previous = old.map(|generation| generation.policy);
    }

    /// Judges a frame at `now` ticks and remembers what follows from it.
    pub fn judge(&mut self, now: u64, interface: &str, arrival: &Arrival<'_>) -> Judgement {
        judge::judge(self, now, interface, arrival)
    }

    /// The live flows, sorted.
    pub fn flows(&self, now: u64) -> Vec<Flow> {
        match &self.current {
            Some(generation) => self.table.live(&generation.policy, now, self.hz),
            None => Vec::new(),
        }
    }

    /// Removes that flow if it is there and unassured, because room was made for another.
    pub fn forget(&mut self, flow: &Flow) -> bool {
        self.table.forget(flow)
    }

    /// Ends all flows of an interface.
    pub fn end(&mut self, interface: &str) {
        self.table.retain_interfaces(|name| name != interface);
    }
}
