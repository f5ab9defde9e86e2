//! Frames with a VLAN tag on the wire. Before TC sees an arriving one, the kernel has moved the tag
//! out of the frame (`skb_vlan_untag`), so that its bytes are those of an ordinary packet; XDP finds
//! it where it was.

use std::net::IpAddr;

use crate::{
    common::{
        netns::{Namespace, eventually},
        require::require,
    },
    frame,
    injector::{Injector, Way},
    link::{Family, Link, Orientation},
    traffic::datagrams,
};

/// A datagram between the link's ends, in a tag of VLAN 5 or in none.
fn datagram(ends: (IpAddr, IpAddr), tagged: bool) -> Vec<u8> {
    let mut frame = frame::ip(ends, 17, &frame::datagram((40_000, 5353), 4));
    if tagged {
        frame.splice(12..12, [0x81, 0x00, 0, 5]);
    }
    frame
}

fn judge(orientation: Orientation, hook: &'static str) {
    let link = Link::new(orientation, hook);
    // Everything is allowed, so that nothing but the tag can be wrong.
    let all = "{ protocol = \"all\", cidr = [\"0.0.0.0/0\", \"::/0\"] }";
    link.enforce(all, all, "");
    let (workload, peer) = (Family::V4.workload(), Family::V4.peer());
    let ways: [(&str, &Namespace, &Namespace, _); 2] = [
        ("ingress", &link.peer, &link.workload, (peer, workload)),
        ("egress", &link.workload, &link.peer, (workload, peer)),
    ];
    for (direction, from, to, ends) in ways {
        Injector::ends((from, "eth0"), (to, "eth0"));
        let socket = datagrams(to, ends.1, 5353);
        let injector = Injector::new(from, "eth0", Way::Ordinary);
        let before = link.counters();
        injector.send(&datagram(ends, true));
        eventually("the drop", || {
            link.counters().dropped(&before, direction, "vlan_tag") == 1
        });
        let after = link.counters();
        after.only(&before, direction, &["dropped_vlan_tag"]);
        injector.send(&datagram(ends, false));
        socket.recv_from(&mut [0; 4]).unwrap();
        link.counters()
            .only(&after, direction, &["passed_untracked"]);
    }
}

#[test]
fn a3_a_tag_beside_the_frame_by_tc() {
    require!(Root, Object);
    judge(Orientation::Own, "tc");
}

#[test]
fn a3_a_tag_beside_the_frame_by_tc_at_the_hosts_end() {
    require!(Root, Object);
    judge(Orientation::Host, "tc");
}

#[test]
fn a2_a_tag_in_the_frame_by_native_xdp() {
    require!(Root, Object);
    judge(Orientation::Own, "xdp");
}

#[test]
fn a2_a_tag_in_the_frame_by_generic_xdp() {
    require!(Root, Object);
    judge(Orientation::Own, "xdp-generic");
}
