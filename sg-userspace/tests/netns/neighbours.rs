//! Links that stay alive whatever the rules.

use std::net::Ipv6Addr;

use crate::{
    common::require::require,
    link::{Family, Link, Orientation, anyone},
    traffic::transfer,
};

#[test]
fn b1_a_connection_outlives_its_neighbour_entries_at_its_own_device() {
    require!(Root, Object);
    forget_neighbours(Orientation::Own);
}

#[test]
fn b1_a_connection_outlives_its_neighbour_entries_behind_the_hosts_end() {
    require!(Root, Object);
    forget_neighbours(Orientation::Host);
}

/// Nothing is allowed any more, and both ends forget who the other is while they talk.
fn forget_neighbours(orientation: Orientation) {
    let link = Link::new(orientation, "tc");
    let _server = link.workload.serve(Ipv6Addr::UNSPECIFIED, 8080);
    link.enforce(&anyone("tcp", "8080"), "", "");
    let streams = Family::ALL.map(|family| link.peer.connect(family.workload(), 8080).unwrap());
    for stream in &streams {
        transfer(stream);
    }
    link.deny_all();
    let before = link.counters();
    for forgetful in [
        &[&link.workload][..],
        &[&link.peer],
        &[&link.workload, &link.peer],
    ] {
        for namespace in forgetful {
            namespace.ip("neigh flush dev eth0");
            namespace.ip("-6 neigh flush dev eth0");
        }
        for stream in &streams {
            transfer(stream);
        }
    }
    let after = link.counters();
    let expected = [
        "passed_established",
        "passed_arp",
        "passed_neighbor_discovery",
    ];
    for direction in ["ingress", "egress"] {
        after.only(&before, direction, &expected);
    }
}
