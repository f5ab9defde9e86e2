//! What a workload with `CAP_NET_RAW` can do, and where it is stopped.

use std::net::{IpAddr, UdpSocket};

use crate::{
    common::{
        netns::{NEVER, SOON},
        require::require,
    },
    frame,
    injector::{Injector, Way},
    link::{Family, Link, Orientation},
    traffic::datagrams,
};

/// A datagram of the workload's to the peer; its checksum is zero, which IPv4 allows.
fn datagram() -> Vec<u8> {
    let ends: (IpAddr, IpAddr) = (Family::V4.workload(), Family::V4.peer());
    frame::ip(ends, 17, &frame::datagram((40_000, 5353), 4))
}

fn hears(socket: &UdpSocket) -> bool {
    socket.recv_from(&mut [0; 16]).is_ok()
}

#[test]
fn j9_a_packet_socket_that_bypasses_the_queue_is_stopped_at_the_hosts_end() {
    require!(Root, Object);
    let link = Link::new(Orientation::Host, "tc");
    Injector::ends((&link.workload, "eth0"), (&link.peer, "eth0"));
    let socket = datagrams(&link.peer, Family::V4.peer(), 5353);
    let bypass = Injector::new(&link.workload, "eth0", Way::Bypass);
    bypass.send(&datagram());
    assert!(hears(&socket), "it gets there as long as nobody judges");
    link.deny_all();
    let before = link.counters();
    socket.set_read_timeout(Some(NEVER)).unwrap();
    for way in [Way::Ordinary, Way::Bypass] {
        Injector::new(&link.workload, "eth0", way).send(&datagram());
    }
    assert!(!hears(&socket));
    let dropped = link.counters().dropped(&before, "egress", "no_rule");
    assert_eq!(dropped, 2);
}

/// The limit of `own` (README, "Which side of the wire"): a program at the workload's own device does not see
/// such frames. Should this fail, the limit is gone, and the documents that name it are wrong.
#[test]
fn j9_a_packet_socket_that_bypasses_the_queue_is_not_stopped_at_the_workloads_device() {
    require!(Root, Object);
    let link = Link::new(Orientation::Own, "tc");
    Injector::ends((&link.workload, "eth0"), (&link.peer, "eth0"));
    let socket = datagrams(&link.peer, Family::V4.peer(), 5353);
    link.deny_all();
    let before = link.counters();
    socket.set_read_timeout(Some(NEVER)).unwrap();
    Injector::new(&link.workload, "eth0", Way::Ordinary).send(&datagram());
    assert!(!hears(&socket));
    let after = link.counters();
    assert_eq!(after.dropped(&before, "egress", "no_rule"), 1);

    socket.set_read_timeout(Some(SOON)).unwrap();
    Injector::new(&link.workload, "eth0", Way::Bypass).send(&datagram());
    assert!(hears(&socket), "TC egress is passed by");
    link.counters().only(&after, "egress", &[]);
}
