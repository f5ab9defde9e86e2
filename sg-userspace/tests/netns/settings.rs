//! Keys of a definition that change what passes, as sockets meet them.

use std::net::IpAddr;

use crate::{
    common::{
        netns::{NEVER, answers},
        require::require,
    },
    link::{Family, Link, Orientation, anyone},
    silence,
    traffic::{datagrams, question_and_answer, question_is_dropped},
};

#[test]
fn l11_a_revoked_flow_is_kept_or_cut_as_its_group_says() {
    require!(Root, Object);
    let link = Link::new(Orientation::Own, "tc");
    let with = |on_revoke: &str, ingress: &str| {
        let group = format!(
            "[groups.g]\non_revoke = \"{on_revoke}\"\ningress = [{ingress}]\negress = []\n"
        );
        let definition = group + &link.interface("[\"g\"]", "");
        link.enforcer.apply(&definition, &[]).ok();
    };
    let _servers = Family::ALL.map(|family| link.workload.serve(family.workload(), 8080));
    with("keep", &anyone("tcp", "8080"));
    let mut streams = Family::ALL.map(|family| link.peer.connect(family.workload(), 8080).unwrap());
    with("keep", "");
    for stream in &mut streams {
        assert!(answers(stream), "it outlives its rule");
    }
    with("reevaluate", "");
    let before = link.counters();
    for stream in &mut streams {
        stream.set_read_timeout(Some(NEVER)).unwrap();
        assert!(!answers(stream), "it ends with its rule");
    }
    let after = link.counters();
    assert!(after.dropped(&before, "ingress", "revoked") >= 2);
    assert_eq!(after.get("conntrack_tracked"), 0);
}

#[test]
fn addresses_that_are_not_the_workloads_pass_only_unchecked() {
    require!(Root, Object);
    let link = Link::new(Orientation::Host, "tc");
    // Addresses behind the workload, as of a router; who asks for its neighbours is itself.
    let behind: [IpAddr; 2] = ["10.88.0.9", "fd88::9"].map(|text| text.parse().unwrap());
    link.workload.sysctl("net/ipv4/conf/all/arp_announce", "2");
    for (family, address) in Family::ALL.iter().zip(behind) {
        link.workload.ip(&format!("addr add {address} dev lo"));
        link.peer
            .ip(&format!("route add {address} via {}", family.workload()));
    }
    let rules = anyone("udp", "5353");
    link.enforce(&rules, &rules, "source_dest_check = false");
    for (family, address) in Family::ALL.into_iter().zip(behind) {
        let there = datagrams(&link.peer, family.peer(), 5353);
        let other = datagrams(&link.workload, address, 5353);
        question_and_answer(&other, &there, 100);
    }
    // Not even the flows that were open before the check live on.
    for check in ["", "source_dest_check = true"] {
        link.enforce(&rules, &rules, check);
        for (family, address) in Family::ALL.into_iter().zip(behind) {
            let there = datagrams(&link.peer, family.peer(), 5353);
            let here = datagrams(&link.workload, family.workload(), 5353);
            question_and_answer(&here, &there, 100);
            let other = datagrams(&link.workload, address, 5353);
            let before = link.counters();
            silence::all(&[
                ("from it", &|| question_is_dropped(&other, &there, 100)),
                ("to it", &|| question_is_dropped(&there, &other, 100)),
            ]);
            let after = link.counters();
            after.only(&before, "egress", &["dropped_address_spoofed"]);
            after.only(&before, "ingress", &["dropped_destination_foreign"]);
        }
    }
}
