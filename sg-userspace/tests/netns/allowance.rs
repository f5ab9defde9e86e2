//! A full allowance refuses what is new and harms nothing that lives.

use std::net::Ipv6Addr;

use crate::{
    common::{
        netns::{Enforcer, Namespace, SWEPT, answers, eventually_within, veth},
        require::require,
    },
    counters::Counters,
    echo::Pinger,
    link::{Family, Link, Orientation, anyone},
    traffic::transfer,
};

/// Connections that the interface may have.
const CAP: usize = 8;

#[test]
fn k1_a_full_interface_refuses_new_flows_and_keeps_live_ones() {
    require!(Root, Object);
    let link = Link::new(Orientation::Own, "tc");
    let _server = link.workload.serve(Ipv6Addr::UNSPECIFIED, 8080);
    let limits = format!("allowance = {CAP}\ntimeouts = {{ tcp_time_wait = 1, tcp_last_ack = 1 }}");
    link.enforce(&anyone("tcp", "8080"), "", &limits);
    let mut streams: Vec<_> = (0..CAP)
        .map(|number| {
            let family = Family::ALL[number % 2];
            let mut stream = link.peer.connect(family.workload(), 8080).unwrap();
            assert!(answers(&mut stream));
            stream
        })
        .collect();
    let full = link.counters();
    assert_eq!(full.get("conntrack_allowance"), CAP as u64);
    assert_eq!(full.get("conntrack_allowance_available"), 0);
    assert_eq!(full.get("conntrack_allowance_exceeded"), 0);

    for family in Family::ALL {
        assert!(link.peer.connect_is_dropped(family.workload(), 8080));
    }
    let after = link.counters();
    let refused = after.dropped(&full, "ingress", "conntrack_allowance_exceeded");
    assert!(refused >= 2, "{refused}");
    assert_eq!(after.get("conntrack_allowance_exceeded"), refused);
    assert_eq!(after.get("conntrack_tracked"), CAP as u64);
    assert_eq!(after.get("conntrack_replaced"), 0);
    for stream in &streams {
        transfer(stream);
    }

    // One ends, and its place is free again when its time-wait is over and the sweep has come by.
    streams.pop();
    let mut fresh = None;
    eventually_within(SWEPT, "room for another connection", || {
        fresh = link.peer.connect(Family::V4.workload(), 8080).ok();
        fresh.is_some()
    });
    assert!(answers(&mut fresh.unwrap()));
    for stream in &mut streams {
        assert!(answers(stream));
    }
}

/// The least that a host's allowance may be.
const HOST: u16 = 1024;
/// What one of its interfaces has for itself.
const RESERVE: u16 = 16;

#[test]
fn a_reserve_cannot_be_starved_by_another_interface() {
    require!(Root, Object);
    let (workload, peer, enforcer) = (
        Namespace::new("workload"),
        Namespace::new("peer"),
        Enforcer::new(),
    );
    let mut definition = format!("[conntrack]\nallowance = {HOST}\n[groups.g]\ningress = [");
    definition += "{ protocol = \"icmp\", type = 8, cidr = \"0.0.0.0/0\" }]\negress = []\n";
    // Nothing ends while it is counted.
    let timeouts = "timeouts = { icmp = 600 }";
    for (number, device, reserve) in [(1, "greedy", 0), (2, "modest", RESERVE)] {
        veth(&workload, &peer, device, 10 + number);
        workload.ip(&format!("addr add 10.78.{number}.1/24 dev {device}"));
        peer.ip(&format!("addr add 10.78.{number}.2/24 dev {device}"));
        definition += &format!(
            "[interfaces.{device}]\nnetns = \"{}\"\norientation = \"own\"\ngroups = [\"g\"]\nreserve = {reserve}\n{timeouts}\n",
            workload.name
        );
    }
    enforcer.apply(&definition, &[]).ok();

    let [greedy, modest] = [1, 2].map(|number| {
        let from = [10, 78, number, 2].into();
        (Pinger::new(&peer, from), [10, 78, number, 1].into())
    });
    let shared = HOST - RESERVE;
    for identifier in 0..shared {
        assert!(greedy.0.pings(greedy.1, identifier), "{identifier}");
    }
    assert!(greedy.0.ping_is_dropped(greedy.1, shared));
    let one = Counters::read(&enforcer, "greedy");
    assert_eq!(one.get("conntrack_tracked"), u64::from(shared));
    assert_eq!(one.get("conntrack_allowance_available"), 0);
    assert_eq!(one.get("conntrack_allowance_exceeded"), 1);

    for identifier in 0..RESERVE {
        assert!(modest.0.pings(modest.1, identifier), "{identifier}");
    }
    assert!(modest.0.ping_is_dropped(modest.1, RESERVE));
    let other = Counters::read(&enforcer, "modest");
    assert_eq!(other.get("conntrack_tracked"), u64::from(RESERVE));
    assert_eq!(other.get("conntrack_allowance_exceeded"), 1);
    assert_eq!(other.get("conntrack_replaced"), 0);
    // What lives is answered on, on both.
    for identifier in 0..RESERVE {
        assert!(greedy.0.pings(greedy.1, identifier));
        assert!(modest.0.pings(modest.1, identifier));
    }
}
