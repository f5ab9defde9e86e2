//! Random definitions and what happens under them: everything follows from a [`Source`].
//!
//! Addresses and ports are few, so that packets meet rules, flows and each other; sequences remember what
//! was sent, so that replies, near misses, errors and fragments are about something. Nothing here
//! knows a verdict.

mod change;
mod frame;
mod link;
mod memory;
mod places;
mod policy;
mod source;
mod talk;

pub use change::changed;
pub use policy::policy;
pub use source::Source;

use crate::policy::Policy;
use memory::Memory;

/// A hook that a frame meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// What came in by the device, before the kernel has a packet of it.
    Xdp,
    /// What came in by the device.
    TcIngress,
    /// What goes out by it.
    TcEgress,
}

impl Hook {
    /// Whether the frame comes in by the device.
    pub fn is_ingress(self) -> bool {
        self != Hook::TcEgress
    }
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A frame at an interface.
    Packet {
        /// Name of the interface.
        interface: String,
        /// Where it is seen.
        hook: Hook,
        /// From the Ethernet header on.
        frame: Vec<u8>,
        /// Packets on the wire that it stands for: more than one if the kernel merged them.
        packets: u32,
    },
    /// So many seconds go by, a multiple of ten.
    Pass(u32),
    /// Another definition is put in force.
    Change(Box<Policy>),
}

/// A definition and what happens under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// What is in force at first.
    pub policy: Policy,
    /// What happens.
    pub steps: Vec<Step>,
}

impl Case {
    /// A case of at most `length` steps; fewer if the source ends before.
    pub fn new(source: &mut Source<'_>, length: usize) -> Self {
        let first = policy(source);
        let mut steps = Vec::new();
        let mut memory = Memory::new(&first);
        let mut earlier = vec![first.clone()];
        while steps.len() < length && !source.is_empty() {
            if source.one_in(40) {
                steps.push(Step::Pass(seconds(source)));
            } else if source.one_in(200) {
                let next = changed(source, &earlier);
                memory.policy = next.clone();
                earlier.push(next.clone());
                steps.push(Step::Change(Box::new(next)));
            } else if let Some(packet) = memory.packet(source) {
                steps.push(packet);
            }
        }
        Self {
            policy: first,
            steps,
        }
    }

    /// Whether its tables are meant to be full.
    pub fn is_tight(&self) -> bool {
        self.policy.allowance <= policy::TIGHT
    }
}

/// Around the lives that [`policy`] gives, the 15 s of fragments and the hour of one-sided flows.
fn seconds(source: &mut Source<'_>) -> u32 {
    source.of(&[10, 10, 10, 20, 20, 30, 40, 60, 130, 600, 1900, 1900, 3700])
}
