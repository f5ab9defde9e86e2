//! Idle flows end by the kernel's own doing, with no process of ours alive.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    num::NonZeroU32,
    thread,
    time::Duration,
};

use rustix::net::{
    AddressFamily, Protocol, SendFlags, SocketType, sendto, socket,
    sockopt::{set_socket_keepalive, set_tcp_keepidle, set_tcp_keepintvl},
};
use sg_userspace::{pin::Pins, tables::Tables};

use crate::{
    common::{
        netns::{NEVER, SOON, SWEPT, answers, eventually_within},
        require::require,
    },
    echo::{Kind, Pinger},
    link::{Family, Link, Orientation, anyone},
};

/// The shortest life there is, in seconds.
const LIFE: Duration = Duration::from_secs(1);
/// RFC 3692 §2.1: for experiments.
const EXPERIMENT: NonZeroU32 = NonZeroU32::new(253).unwrap();

#[test]
fn k7_idle_flows_are_over_at_once_and_swept_without_any_process() {
    require!(Root, Object);
    let link = Link::new(Orientation::Own, "tc");
    let life = LIFE.as_secs();
    let limits = format!("timeouts = {{ icmp = {life}, other = {life}, tcp_syn_sent = {life} }}");
    let mut egress = anyone("tcp", "9");
    egress += "{ protocol = \"icmp\", type = 8, cidr = \"0.0.0.0/0\" }, ";
    egress += "{ protocol = \"icmpv6\", type = 128, cidr = \"::/0\" }, ";
    egress += &format!("{{ protocol = {EXPERIMENT}, cidr = \"0.0.0.0/0\" }}");
    link.enforce("", &egress, &limits);
    // The peer's answers are the test's to give.
    link.peer.sysctl("net/ipv4/icmp_echo_ignore_all", "1");
    link.peer.sysctl("net/ipv6/icmp/echo_ignore_all", "1");
    let tables = Tables::open(&Pins::new(&link.enforcer.context.bpffs)).unwrap();
    let tracked = || tables.host_occupancy().unwrap().tracked;

    let before = link.counters();
    let ends = Family::ALL.map(|family| {
        (
            Pinger::new(&link.workload, family.workload()),
            Pinger::new(&link.peer, family.peer()),
            family,
        )
    });
    let answer_passes = |(workload, peer, family): &(Pinger, Pinger, Family), within| {
        peer.send(Kind::Reply, family.workload(), 7);
        workload.hears(Kind::Reply, family.peer(), 7, within)
    };
    for end in &ends {
        end.0.send(Kind::Request, end.2.peer(), 7);
        assert!(end.1.hears(Kind::Request, end.2.workload(), 7, SOON));
        assert!(answer_passes(end, SOON), "{:?}", end.2);
    }
    unanswered_syn(&link);
    unanswered_experiment(&link);
    assert_eq!(link.counters().passed(&before, "egress", "new"), 4);
    assert!(tracked() > 0);

    thread::sleep(LIFE + LIFE / 2);
    let late = link.counters();
    for end in &ends {
        assert!(!answer_passes(end, LIFE / 2), "{:?}", end.2);
    }
    let after = link.counters();
    assert_eq!(after.dropped(&late, "ingress", "no_rule"), 2);

    eventually_within(SWEPT, "the sweep", || tracked() == 0);
    let end = link.counters();
    assert_eq!(end.get("conntrack_expired"), 4);
    assert_eq!(end.get("conntrack_tracked"), 0);
    assert_eq!(end.get("conntrack_unassured"), 0);
    assert_eq!(
        end.get("conntrack_allowance_available"),
        end.get("conntrack_allowance")
    );
}

/// What the timeout is set to, the least that AWS lets one set (fact 3.21), in seconds.
const ESTABLISHED: Duration = Duration::from_secs(60);

/// Keepalives keep a connection, and half of one; idle ones are gone after the time that was set.
#[test]
fn h12_h13_keepalives_keep_what_idles_otherwise() {
    require!(Root, Object);
    let link = Link::new(Orientation::Own, "tc");
    let _server = link.workload.serve(Ipv6Addr::UNSPECIFIED, 8080);
    let limits = format!(
        "timeouts = {{ tcp_established = {} }}",
        ESTABLISHED.as_secs()
    );
    link.enforce(&anyone("tcp", "\"8080-8081\""), "", &limits);
    let connect = |family: Family| link.peer.connect(family.workload(), 8080).unwrap();
    let keep_alive = |stream: &TcpStream| {
        set_tcp_keepidle(stream, ESTABLISHED / 3).unwrap();
        set_tcp_keepintvl(stream, ESTABLISHED / 3).unwrap();
        set_socket_keepalive(stream, true).unwrap();
    };
    let mut kept = Family::ALL.map(connect);
    let mut idle = Family::ALL.map(connect);
    for stream in kept.iter_mut().chain(&mut idle) {
        assert!(answers(stream));
    }
    kept.iter().for_each(keep_alive);
    // The peer has nothing more to say, and waits for what the workload says at last.
    let listener = link
        .workload
        .run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 8081)))
        .unwrap();
    let mut halves = Family::ALL.map(|family| {
        let stream = link.peer.connect(family.workload(), 8081).unwrap();
        let (other, _) = listener.accept().unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        keep_alive(&other);
        (stream, other)
    });

    thread::sleep(ESTABLISHED + ESTABLISHED / 10);
    for stream in &mut kept {
        assert!(answers(stream), "{stream:?}");
    }
    for (stream, other) in &mut halves {
        other.write_all(b"at last").unwrap();
        stream.read_exact(&mut [0; 7]).unwrap();
    }
    let before = link.counters();
    for stream in &mut idle {
        stream.set_read_timeout(Some(NEVER)).unwrap();
        assert!(!answers(stream), "{stream:?}");
    }
    let dropped = link.counters().dropped(&before, "ingress", "mid_stream");
    assert!(dropped >= 2, "{dropped}");
}

/// One SYN to where nobody is.
fn unanswered_syn(link: &Link) {
    link.workload
        .ip("neigh add 10.77.0.9 lladdr 02:00:00:00:00:09 dev eth0");
    let to = SocketAddr::new(Family::V4.address(9), 9);
    let shorter_than_a_retransmission = Duration::from_millis(200);
    link.workload
        .run(|| TcpStream::connect_timeout(&to, shorter_than_a_retransmission))
        .unwrap_err();
}

fn unanswered_experiment(link: &Link) {
    let kind = Some(Protocol::from_raw(EXPERIMENT));
    let socket = link
        .workload
        .run(|| socket(AddressFamily::INET, SocketType::RAW, kind))
        .unwrap();
    let to = SocketAddr::new(Family::V4.address(9), 0);
    sendto(&socket, &[0; 8], SendFlags::empty(), &to).unwrap();
}
