//! What adoption came to.

use serde::{Deserialize, Serialize};

use super::Source;

/// What adoption came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// Flows that are tracked now.
    pub flows: u64,
    /// Flows that found no room.
    pub refused: u64,
    /// Of those that are tracked: seen by sockets of the interface's namespace.
    #[serde(default)]
    pub sockets: u64,
    /// The same by sockets of the workload's, at the other end of the device.
    #[serde(default)]
    pub workload_sockets: u64,
    /// The same in netfilter's table only.
    #[serde(default)]
    pub nf_conntrack: u64,
    /// Flows that no rule lets begin, where only others were to be adopted.
    #[serde(default)]
    pub not_allowed: u64,
    /// Flows that need no entry.
    #[serde(default)]
    pub untracked: u64,
    /// The sockets of the workload behind a `host` interface could not be looked at.
    #[serde(default)]
    pub workload_hidden: bool,
    /// What could not be looked at, and why.
    #[serde(default)]
    pub unseen: Vec<String>,
}

impl Adopted {
    /// Counts a flow that is tracked now.
    pub(super) fn add(&mut self, source: Source) {
        self.flows += 1;
        let count = match source {
            Source::Sockets => &mut self.sockets,
            Source::WorkloadSockets => &mut self.workload_sockets,
            Source::NfConntrack => &mut self.nf_conntrack,
        };
        *count += 1;
    }

    /// Notes that the workload's sockets could not be looked at.
    pub(super) fn hide_workload(&mut self, why: &str) {
        self.workload_hidden = true;
        self.miss(format!("the workload's sockets: {why}"));
    }

    /// Notes what could not be looked at.
    pub(super) fn miss(&mut self, what: String) {
        if !self.unseen.contains(&what) {
            self.unseen.push(what);
        }
    }

    /// How many flows are tracked now, in words.
    pub fn connections(&self) -> String {
        match self.flows {
            1 => "1 open connection".to_owned(),
            flows => format!("{flows} open connections"),
        }
    }

    /// Where they were seen, in words; nothing if there are none.
    pub fn sources(&self) -> String {
        let sources = [
            (self.sockets, "by its sockets"),
            (self.workload_sockets, "by the workload's sockets"),
            (self.nf_conntrack, "by nf_conntrack"),
        ];
        let sources: Vec<String> = sources
            .iter()
            .filter(|(flows, _)| *flows > 0)
            .map(|(flows, how)| format!("{flows} {how}"))
            .collect();
        if sources.is_empty() {
            return String::new();
        }
        format!(" ({})", sources.join(", "))
    }
}
