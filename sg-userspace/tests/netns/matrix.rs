//! What a policy means, told by sockets on both sides of every hook.

use std::{
    fmt::Write as _,
    io::ErrorKind,
    net::{IpAddr, Ipv6Addr, SocketAddrV6, TcpStream, UdpSocket},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use rustix::net::netdevice;
use sg_userspace::{
    attach::{self, EGRESS},
    pin::Pins,
};

use crate::{
    common::{
        netns::{NEVER, Namespace, answers},
        require::require,
    },
    echo::Pinger,
    fragments,
    link::{Family, Link, Orientation, anyone, echo_from},
    silence,
    traffic::{datagrams, half_close, question_and_answer, question_is_dropped, transfer},
};

#[test]
fn own_by_tc() {
    require!(Root, Object);
    judge(Orientation::Own, "tc");
}

#[test]
fn own_by_native_xdp() {
    require!(Root, Object);
    judge(Orientation::Own, "xdp");
}

#[test]
fn own_by_generic_xdp() {
    require!(Root, Object);
    judge(Orientation::Own, "xdp-generic");
}

#[test]
fn host_by_tc() {
    require!(Root, Object);
    judge(Orientation::Host, "tc");
}

#[test]
fn host_by_native_xdp() {
    require!(Root, Object);
    judge(Orientation::Host, "xdp");
}

#[test]
fn host_by_generic_xdp() {
    require!(Root, Object);
    judge(Orientation::Host, "xdp-generic");
}

fn judge(orientation: Orientation, hook: &'static str) {
    let link = Link::new(orientation, hook);
    let everywhere = Ipv6Addr::UNSPECIFIED;
    let _servers = [22, 8080, 9090].map(|port| link.workload.serve(everywhere, port));
    let _peers = [3306, 9090].map(|port| link.peer.serve(everywhere, port));
    let before: Vec<TcpStream> = match orientation {
        Orientation::Own => Family::ALL
            .map(|family| link.peer.connect(family.workload(), 22).unwrap())
            .into(),
        // What a workload has open cannot be seen from the other end of its link.
        Orientation::Host => Vec::new(),
    };
    enforce(&link, &[]);
    for family in Family::ALL {
        allowed(&link, family);
        link.settle(before.len());
        denied(&link, family);
        fragments::follow_their_first(&link, family);
        fragments::are_nothing_without_it(&link, family);
    }
    rules_change_under_traffic(&link);
    for mut stream in before {
        assert!(answers(&mut stream), "it was open before the policy was");
    }
    removal_by_others_fails(&link, hook);
    neighbours_are_found_when_nothing_else_passes(&link);
}

/// Lets in some of what is tried, these TCP ports as well, and out one port of each protocol.
#[track_caller]
fn enforce(link: &Link, more: &[u16]) {
    let mut ingress = anyone("tcp", "\"8080-8082\"") + &anyone("udp", "5353");
    ingress += &echo_from(Family::ALL.map(Family::peer));
    for port in more {
        write!(ingress, "{}", anyone("tcp", &port.to_string())).unwrap();
    }
    link.enforce(
        &ingress,
        &(anyone("tcp", "3306") + &anyone("udp", "53")),
        "",
    );
}

/// What a rule allows works, replies included, for which there is no rule.
fn allowed(link: &Link, family: Family) {
    let (workload, peer) = (family.workload(), family.peer());
    let before = link.counters();
    transfer(&link.peer.connect(workload, 8080).unwrap());
    transfer(&link.workload.connect(peer, 3306).unwrap());
    half_close(&link.workload, &link.peer, workload, 8081);
    // Nobody listens on 8082, and the workload's own RST says so.
    let refused = link.peer.connect(workload, 8082);
    assert_eq!(refused.err(), Some(ErrorKind::ConnectionRefused));

    let server = datagrams(&link.workload, workload, 5353);
    let client = datagrams(&link.peer, peer, 0);
    question_and_answer(&client, &server, 100);
    let server = datagrams(&link.peer, peer, 53);
    let client = datagrams(&link.workload, workload, 0);
    question_and_answer(&client, &server, 100);

    assert!(Pinger::new(&link.peer, peer).pings(workload, 0x5347));
    let after = link.counters();
    let expected = ["passed_new", "passed_established"];
    after.only(&before, "ingress", &expected);
    after.only(&before, "egress", &expected);
    assert_eq!(after.passed(&before, "ingress", "new"), 5);
    assert_eq!(after.passed(&before, "egress", "new"), 2);
}

/// What no rule allows is met by silence, and counted for that reason.
fn denied(link: &Link, family: Family) {
    let (workload, peer) = (family.workload(), family.peer());
    let (inside, outside) = (
        datagrams(&link.workload, workload, 5354),
        datagrams(&link.peer, peer, 5354),
    );
    let pinger = Pinger::new(&link.workload, workload);
    let stranger = Pinger::new(&link.peer, family.stranger());
    let before = link.counters();
    silence::all(&[
        ("TCP in", &|| link.peer.connect_is_dropped(workload, 9090)),
        ("TCP out", &|| link.workload.connect_is_dropped(peer, 9090)),
        ("UDP in", &|| question_is_dropped(&outside, &inside, 100)),
        ("UDP out", &|| question_is_dropped(&inside, &outside, 100)),
        ("a stranger's ping", &|| {
            stranger.ping_is_dropped(workload, 1)
        }),
        ("a ping out", &|| pinger.ping_is_dropped(peer, 1)),
    ]);
    let after = link.counters();
    for direction in ["ingress", "egress"] {
        after.only(&before, direction, &["dropped_no_rule"]);
        // A datagram, a ping, and a SYN with at least one retransmission.
        let dropped = after.dropped(&before, direction, "no_rule");
        assert!(dropped >= 4, "{direction}: {dropped}");
    }
}

/// A rule goes while packets flow: what is open lives on without a packet lost, new attempts fail.
fn rules_change_under_traffic(link: &Link) {
    enforce(link, &[9090]);
    let before = link.counters();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for family in Family::ALL {
            let stream = link.peer.connect(family.workload(), 9090).unwrap();
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    transfer(&stream);
                }
                transfer(&stream);
            });
        }
        for _ in 0..2 {
            enforce(link, &[]);
            enforce(link, &[9090]);
        }
        enforce(link, &[]);
        stop.store(true, Ordering::Relaxed);
    });
    let after = link.counters_at_rest();
    let expected = ["passed_new", "passed_established"];
    after.only(&before, "ingress", &expected);
    after.only(&before, "egress", &["passed_established"]);
    silence::all(&[
        ("IPv4", &|| {
            link.peer.connect_is_dropped(Family::V4.workload(), 9090)
        }),
        ("IPv6", &|| {
            link.peer.connect_is_dropped(Family::V6.workload(), 9090)
        }),
    ]);
    link.counters()
        .only(&after, "ingress", &["dropped_no_rule"]);
}

/// The tools that would take away somebody's program do not take away ours.
fn removal_by_others_fails(link: &Link, hook: &str) {
    let try_it = |program: &str, arguments: &str| {
        let mut command = Command::new(program);
        command.args(arguments.split(' '));
        link.enforced().run(|| command.output()).unwrap()
    };
    // Filters of the older kind go with their queueing discipline, programs of tcx do not.
    let egress = Pins::new(&link.enforcer.context.bpffs).link(1, EGRESS);
    if !attach::is_filter(&egress).unwrap() {
        for arguments in ["qdisc add dev eth0 clsact", "qdisc del dev eth0 clsact"] {
            let done = try_it("tc", arguments);
            assert!(done.status.success(), "{arguments}: {done:?}");
        }
    }
    for mode in ["xdp", "xdpdrv", "xdpgeneric"] {
        let done = try_it("ip", &format!("link set dev eth0 {mode} off"));
        let in_force = matches!(
            (hook, mode),
            ("xdp", "xdp" | "xdpdrv") | ("xdp-generic", "xdpgeneric")
        );
        assert_eq!(done.status.success(), !in_force, "{mode}: {done:?}");
    }
    let before = link.counters();
    silence::all(&[
        ("in", &|| {
            link.peer.connect_is_dropped(Family::V4.workload(), 9090)
        }),
        ("out", &|| {
            link.workload.connect_is_dropped(Family::V4.peer(), 9090)
        }),
    ]);
    let after = link.counters();
    for direction in ["ingress", "egress"] {
        assert!(
            after.dropped(&before, direction, "no_rule") >= 1,
            "{hook}: {direction}"
        );
    }
}

/// Without a single rule ARP and neighbour discovery work, and nothing else does.
fn neighbours_are_found_when_nothing_else_passes(link: &Link) {
    link.settle(0);
    link.deny_all();
    let before = link.counters();
    for namespace in [&link.workload, &link.peer] {
        namespace.ip("neigh flush dev eth0");
        assert_eq!(neighbours(namespace), "");
    }
    let link_local = |host| Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x77, host);
    let link_local_connect_is_dropped = |namespace: &Namespace, host| {
        let failed = namespace.run(|| {
            let any = UdpSocket::bind("[::]:0").unwrap();
            let scope = netdevice::name_to_index(any, "eth0").unwrap();
            let to = SocketAddrV6::new(link_local(host), 8080, 0, scope);
            TcpStream::connect_timeout(&to.into(), NEVER)
        });
        failed.is_err_and(|error| error.kind() == ErrorKind::TimedOut)
    };
    let (workload, peer) = (&link.workload, &link.peer);
    silence::all(&[
        ("IPv4 in", &|| {
            peer.connect_is_dropped(Family::V4.workload(), 8080)
        }),
        ("IPv6 in", &|| {
            peer.connect_is_dropped(Family::V6.workload(), 8080)
        }),
        ("link-local in", &|| link_local_connect_is_dropped(peer, 1)),
        ("IPv4 out", &|| {
            workload.connect_is_dropped(Family::V4.peer(), 3306)
        }),
        ("IPv6 out", &|| {
            workload.connect_is_dropped(Family::V6.peer(), 3306)
        }),
        ("link-local out", &|| {
            link_local_connect_is_dropped(workload, 2)
        }),
        ("ping in", &|| {
            Pinger::new(peer, Family::V4.peer()).ping_is_dropped(Family::V4.workload(), 2)
        }),
    ]);
    let known = [
        (workload, Family::V4.peer(), Family::V6.peer(), 2),
        (peer, Family::V4.workload(), Family::V6.workload(), 1),
    ];
    for (namespace, v4, v6, host) in known {
        let found = neighbours(namespace);
        for address in [v4, v6, IpAddr::from(link_local(host))] {
            let is_it =
                |line: &str| line.starts_with(&format!("{address} ")) && line.contains(" lladdr ");
            assert!(found.lines().any(is_it), "no {address} in {found}");
        }
    }
    let after = link.counters();
    for direction in ["ingress", "egress"] {
        let expected = ["dropped_no_rule", "passed_arp", "passed_neighbor_discovery"];
        after.only(&before, direction, &expected);
    }
}

/// What a namespace knows about the link's other end.
fn neighbours(namespace: &Namespace) -> String {
    let mut command = Command::new("ip");
    command.args(["neigh", "show", "dev", "eth0"]);
    let shown = namespace.run(|| command.output()).unwrap();
    String::from_utf8(shown.stdout).unwrap()
}
