//! Two CPUs that open the same flow at once.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::atomic::{AtomicU16, Ordering},
    thread,
};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::{
    common::require::require,
    link::{Family, Link, Orientation, rule},
};

/// Flows of each family, by their remote ports.
const FLOWS: u16 = 10_000;

/// As with the A and AAAA questions of one socket, both datagrams pass and make one flow.
#[test]
fn i7_two_sends_at_once_make_one_flow() {
    require!(Root, Object);
    let set = sched_getaffinity(None).unwrap();
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|cpu| set.is_set(*cpu))
        .collect();
    assert!(cpus.len() >= 2, "one CPU cannot do it");
    let link = Link::new(Orientation::Own, "tc");
    let egress = Family::ALL.map(|family| {
        let length = if family == Family::V4 { 32 } else { 128 };
        let cidr = format!("{}/{length}", family.address(9));
        rule("udp", "\"0-65535\"", &cidr)
    });
    link.enforce("", &egress.concat(), "");
    // Nobody is there, so that nobody answers.
    for family in Family::ALL {
        let neighbour = family.address(9);
        link.workload.ip(&format!(
            "neigh add {neighbour} lladdr 02:00:00:00:00:09 dev eth0"
        ));
    }
    for (number, family) in (1..).zip(Family::ALL) {
        let socket = link
            .workload
            .run(|| UdpSocket::bind((family.workload(), 40_000)))
            .unwrap();
        let before = link.counters();
        // Each sends when the other is ready to.
        let arrived = [AtomicU16::new(0), AtomicU16::new(0)];
        thread::scope(|scope| {
            for (me, cpu) in [0, 1].into_iter().zip(&cpus) {
                let (socket, arrived) = (&socket, &arrived);
                scope.spawn(move || {
                    let mut own = CpuSet::new();
                    own.set(*cpu);
                    sched_setaffinity(None, &own).unwrap();
                    for port in 1..=FLOWS {
                        arrived[me].store(port, Ordering::Release);
                        while arrived[1 - me].load(Ordering::Acquire) < port {
                            std::hint::spin_loop();
                        }
                        let to = SocketAddr::new(family.address(9), port);
                        socket.send_to(b"?", to).unwrap();
                    }
                });
            }
        });
        let after = link.counters();
        let flows = u64::from(FLOWS);
        assert_eq!(after.passed(&before, "egress", "new"), flows);
        assert_eq!(after.passed(&before, "egress", "established"), flows);
        assert_eq!(after.get("conntrack_tracked"), number * flows);
        after.only(&before, "egress", &["passed_new", "passed_established"]);
    }
}
