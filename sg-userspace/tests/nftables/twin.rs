//! Equal bridges between somebody and a workload, with another judge on each.
//!
//! Neither end has an address or a stack that answers: every frame is put on the wire by the test,
//! and what stands between the ends changes nothing in it. So a frame has passed if it is found at
//! the other end.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};
use sg_common::verdict::Direction::{self, Egress, Ingress};

use crate::{
    common::netns::{Namespace, ip},
    packet,
    probe::Probe,
    wire::Wire,
};

/// How long frames may take that are on their way.
const PATIENCE: Duration = Duration::from_secs(10);

/// Frames sent before what has come is read.
const BURST: usize = 128;

/// The namespaces of the ends, and a bridge for each judge.
pub(crate) struct Stand {
    clients: Namespace,
    workloads: Namespace,
}

impl Stand {
    /// Keeps the thread on one processor from now on: frames of one device then keep their order.
    pub(crate) fn new() -> Self {
        let mut one = CpuSet::new();
        one.set(sched_getcpu());
        sched_setaffinity(None, &one).unwrap();
        Self {
            clients: end("clients"),
            workloads: end("workloads"),
        }
    }

    /// Another bridge.
    pub(crate) fn twin(&self, name: &'static str) -> Twin {
        let middle = Namespace::new(name);
        // A bridge of this namespace asks netfilter only where the test says so.
        for family in ["iptables", "ip6tables", "arptables"] {
            middle.sysctl(&format!("net/bridge/bridge-nf-call-{family}"), "0");
        }
        middle.sysctl("net/ipv6/conf/default/disable_ipv6", "1");
        middle.ip("link add br0 type bridge mcast_snooping 0");
        middle.ip("link set br0 up");
        for (port, end) in [(CLIENT, &self.clients), (WORKLOAD, &self.workloads)] {
            ip(&format!(
                "link add {port} netns {} type veth peer name {name} netns {}",
                middle.name, end.name
            ));
            end.ip(&format!("link set {name} arp off up"));
            middle.ip(&format!("link set {port} master br0 up"));
        }
        Twin {
            name,
            client: Wire::open(&self.clients, name),
            workload: Wire::open(&self.workloads, name),
            middle,
            marks: 0,
        }
    }
}

fn end(what: &str) -> Namespace {
    let end = Namespace::new(what);
    end.sysctl("net/ipv6/conf/default/disable_ipv6", "1");
    end
}

/// The port of a bridge towards somebody.
pub(crate) const CLIENT: &str = "client";
/// The port of a bridge towards the workload.
pub(crate) const WORKLOAD: &str = "workload";

/// One bridge.
pub(crate) struct Twin {
    pub(crate) name: &'static str,
    pub(crate) middle: Namespace,
    client: Wire,
    workload: Wire,
    marks: u32,
}

/// Which steps of which probes arrived.
pub(crate) type Arrivals = Vec<Vec<bool>>;

impl Twin {
    fn from(&self, direction: Direction) -> &Wire {
        match direction {
            Ingress => &self.client,
            Egress => &self.workload,
        }
    }

    /// Sends the first steps of all probes, then the second ones, and so on.
    pub(crate) fn run(&mut self, probes: &[Probe]) -> Arrivals {
        let mut search = Search::new(probes);
        let steps = probes.iter().map(|probe| probe.steps.len()).max();
        for step in 0..steps.unwrap_or(0) {
            let frames = probes.iter().filter_map(|probe| probe.steps.get(step));
            for (sent, step) in frames.enumerate() {
                self.from(step.direction).send(&step.frame);
                if sent % BURST == BURST - 1 {
                    self.settle(&mut search);
                }
            }
            self.settle(&mut search);
        }
        assert_eq!(
            self.client.lost() + self.workload.lost(),
            0,
            "{}: frames were lost at the ends",
            self.name
        );
        search.arrivals
    }

    /// Reads until everything sent has come or never will: an ARP probe, which every judge lets
    /// pass, closes each direction.
    fn settle(&mut self, search: &mut Search) {
        self.marks += 1;
        let mark = packet::arp_probe(self.marks);
        for direction in Direction::ALL {
            self.from(direction).send(&mark);
        }
        for direction in Direction::ALL {
            let wire = self.from(direction.reverse());
            let start = Instant::now();
            loop {
                match wire.receive() {
                    Some(frame) if frame == mark => break,
                    Some(frame) => search.found(self.name, direction, &frame),
                    None => assert!(start.elapsed() < PATIENCE, "{}: no mark comes", self.name),
                }
            }
        }
    }
}

/// Frames that are expected, by what is the same of them at both ends.
struct Search {
    wanted: HashMap<(Direction, Vec<u8>), (usize, usize)>,
    arrivals: Arrivals,
}

impl Search {
    fn new(probes: &[Probe]) -> Self {
        let mut wanted = HashMap::new();
        for (number, probe) in probes.iter().enumerate() {
            for (step, sent) in probe.steps.iter().enumerate() {
                let key = (sent.direction, packet::essence(&sent.frame));
                let other = wanted.insert(key, (number, step));
                assert_eq!(other, None, "two frames are the same: {}", probe.what);
            }
        }
        let arrivals = probes.iter().map(|probe| vec![false; probe.steps.len()]);
        Self {
            wanted,
            arrivals: arrivals.collect(),
        }
    }

    fn found(&mut self, twin: &str, direction: Direction, frame: &[u8]) {
        let key = (direction, packet::essence(frame));
        let Some(&(probe, step)) = self.wanted.get(&key) else {
            panic!("{twin}: nobody sent {direction:?} {frame:02x?}");
        };
        let arrived = std::mem::replace(&mut self.arrivals[probe][step], true);
        assert!(!arrived, "{twin}: came twice {direction:?} {frame:02x?}");
    }
}
