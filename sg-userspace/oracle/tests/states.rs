//! Section 14: states and lives.

mod common;

use common::*;
use sg_oracle::policy::{Policy, What};

const PEER: End<'static> = ("203.0.113.1", 4000);
const HERE: End<'static> = ("10.0.0.5", 443);

/// The peer may open TCP and UDP 443, GRE and echo; nothing may leave.
fn allowed() -> Policy {
    let rules = [
        What::Tcp(443, 443),
        What::Udp(443, 443),
        What::Number(47),
        What::Icmp(Some(8), None),
    ];
    policy(&rules.map(|what| rule(what, "0.0.0.0/0")), &[])
}

impl Bench {
    #[track_caller]
    fn peer(&mut self, segment: (u8, u32, u32, usize), state: &str) {
        self.enters(&tcp(PEER, HERE, segment), "established");
        assert_eq!(self.states(), [state]);
    }

    #[track_caller]
    fn here(&mut self, segment: (u8, u32, u32, usize), state: &str) {
        self.leaves(&tcp(HERE, PEER, segment), "established");
        assert_eq!(self.states(), [state]);
    }
}

/// The peer begins at `ours`, this side at `theirs`.
fn connected(peer: u32, here: u32) -> Bench {
    let mut bench = Bench::new(allowed());
    bench.enters(&tcp(PEER, HERE, (SYN, peer, 0, 0)), "new");
    bench.here((SYN | ACK, here, peer.wrapping_add(1), 0), "syn_received");
    assert!(!bench.assured());
    bench.peer(
        (ACK, peer.wrapping_add(1), here.wrapping_add(1), 0),
        "established",
    );
    assert!(bench.assured());
    bench
}

#[test]
fn a_connection_from_syn_to_syn() {
    // Sequence numbers wrap within the connection.
    let (peer, here) = (0xffff_fff0, 0xffff_fffa);
    let mut bench = connected(peer, here);
    let (peer, here) = (peer.wrapping_add(1), here.wrapping_add(1));
    bench.peer((ACK, peer, here, 100), "established");
    let peer = peer.wrapping_add(100);
    bench.here((ACK, here, peer, 0), "established");
    bench.peer((FIN | ACK, peer, here, 0), "established");
    bench.here((FIN | ACK, here, peer.wrapping_add(1), 10), "last_ack");
    // Not the whole of what the FIN ends.
    bench.peer(
        (ACK, peer.wrapping_add(1), here.wrapping_add(10), 0),
        "last_ack",
    );
    bench.peer(
        (ACK, peer.wrapping_add(1), here.wrapping_add(11), 0),
        "time_wait",
    );
    bench.peer(
        (ACK, peer.wrapping_add(1), here.wrapping_add(11), 0),
        "time_wait",
    );
    bench.leaves(&tcp(HERE, PEER, (SYN, 1, 0, 0)), "no_rule");
    assert_eq!(bench.states(), ["time_wait"]);
    bench.enters(&tcp(PEER, HERE, (SYN, 1, 0, 0)), "new");
    assert_eq!(bench.states(), ["syn_sent"]);
    assert_eq!(bench.oracle.flows(bench.now())[0].packets, [1, 0]);
}

#[test]
fn nothing_but_the_answer_moves_syn_sent() {
    let mut bench = Bench::new(allowed());
    bench.enters(&tcp(PEER, HERE, (SYN, 100, 0, 0)), "new");
    bench.second += 100;
    bench.here((ACK, 500, 101, 9), "syn_sent");
    bench.here((SYN | ACK, 500, 100, 0), "syn_sent");
    bench.here((SYN | ACK, 500, 101 + 65_536, 0), "syn_sent");
    bench.peer((ACK, 101, 501, 9), "syn_sent");
    // A SYN again is what must be acknowledged from now on, and refreshes nothing.
    bench.peer((SYN, 300, 0, 0), "syn_sent");
    bench.here((SYN | ACK, 500, 101, 0), "syn_sent");
    bench.second += 19;
    assert_eq!(bench.states(), ["syn_sent"]);
    bench.here((SYN | ACK, 500, 301, 0), "syn_received");
    bench.second += 59;
    // The opener's acknowledgement must fit; data of the other side is as good.
    bench.peer((ACK, 301, 500, 9), "syn_received");
    bench.here((ACK, 501, 301, 0), "syn_received");
    bench.here((ACK, 501, 301, 1), "established");
    assert!(bench.assured());
}

#[test]
fn syn_sent_expires() {
    let mut bench = Bench::new(allowed());
    bench.enters(&tcp(PEER, HERE, (SYN, 100, 0, 0)), "new");
    bench.second += 120;
    assert!(bench.states().is_empty());
    bench.leaves(&tcp(HERE, PEER, (SYN | ACK, 500, 101, 0)), "mid_stream");
}

#[test]
fn only_a_proven_rst_closes() {
    let mut bench = connected(100, 500);
    bench.here((ACK, 501, 101, 0), "established");
    bench.peer((RST, 102, 0, 0), "established");
    bench.second += 299;
    // A second one does not prolong the life.
    bench.peer((RST, 103, 0, 0), "established");
    bench.second += 1;
    assert!(bench.states().is_empty());

    let mut bench = connected(100, 500);
    bench.peer((RST, 0, 0, 0), "established");
    bench.second += 200;
    bench.peer((ACK, 101, 501, 1), "established");
    bench.second += 400_000;
    // What refreshed took the doubt away.
    bench.peer((RST, 101, 0, 0), "close");
    bench.second += 10;
    assert!(bench.states().is_empty());
}

#[test]
fn an_rst_that_answers_a_syn() {
    let mut bench = Bench::new(allowed());
    bench.enters(&tcp(PEER, HERE, (SYN, 100, 0, 0)), "new");
    bench.here((RST | ACK, 0, 102, 0), "syn_sent");
    bench.here((RST, 0, 101, 0), "syn_sent");
    bench.peer((RST, 101, 0, 0), "syn_sent");
    bench.here((RST | ACK, 0, 101, 0), "close");
    bench.enters(&tcp(PEER, HERE, (SYN, 100, 0, 0)), "new");
}

#[test]
fn an_rst_is_never_proven_by_an_acknowledgement_that_was_not_sent() {
    let mut bench = Bench::new(allowed());
    bench.enters(&tcp(PEER, HERE, (SYN, 100, 0, 0)), "new");
    bench.here((SYN | ACK, 500, 101, 0), "syn_received");
    // The opener has acknowledged nothing.
    bench.here((RST, 0, 0, 0), "syn_received");
    bench.peer((RST, 101, 0, 0), "close");
}

#[test]
fn a_syn_on_a_live_entry_forgets_what_its_opener_acknowledged() {
    let mut bench = connected(100, 500);
    bench.second += 400_000;
    bench.peer((SYN, 900, 0, 0), "established");
    bench.here((RST, 501, 0, 0), "established");
    // What the opener acknowledges from now on counts, however far behind.
    bench.peer((ACK, 901, 400, 0), "established");
    bench.here((RST, 400, 0, 0), "close");

    let mut bench = connected(100, 500);
    bench.second += 400_000;
    bench.peer((SYN, 900, 0, 0), "established");
    bench.second += 32_000;
    assert!(bench.states().is_empty(), "a SYN does not refresh");
}

#[test]
fn fins_far_away_do_not_count_and_data_takes_them_back() {
    let mut bench = connected(100, 500);
    bench.here((FIN | ACK, 501, 101, 0), "established");
    bench.peer((FIN | ACK, 101 + (1 << 26), 501, 0), "established");
    bench.peer((FIN | ACK, 100, 501, 0), "established");
    bench.peer((FIN | ACK, 101, 501, 0), "last_ack");
    bench.here((ACK, 502, 101, 5), "established");
    bench.here((FIN | ACK, 507, 101, 0), "last_ack");
    bench.here((SYN | ACK, 500, 101, 0), "established");
}

#[test]
fn loose_segments() {
    let mut policy = allowed();
    only(&mut policy).tcp_loose = true;
    let mut bench = Bench::new(policy);
    bench.leaves(&tcp(HERE, PEER, (ACK, 501, 101, 0)), "no_rule");
    for flags in [RST | ACK, FIN | ACK, SYN | ACK] {
        bench.enters(&tcp(PEER, HERE, (flags, 101, 501, 0)), "mid_stream");
    }
    bench.enters(&tcp(PEER, HERE, (ACK, 101, 501, 0)), "new");
    bench.peer((ACK, 101, 501, 0), "established");
    assert!(!bench.assured());
    // The acknowledgement of the first segment proves this.
    bench.here((RST, 501, 0, 0), "close");
    assert!(!bench.assured());
}

#[test]
fn a_stream_of_datagrams() {
    let (query, answer) = (udp(PEER, HERE), udp(HERE, PEER));
    let mut bench = Bench::new(allowed());
    bench.enters(&query, "new");
    bench.leaves(&answer, "established");
    bench.leaves(&answer, "established");
    assert_eq!((bench.states(), bench.assured()), (vec!["single"], false));
    bench.second += 29;
    bench.enters(&query, "established");
    assert_eq!((bench.states(), bench.assured()), (vec!["stream"], true));
    bench.second += 179;
    bench.enters(&query, "established");
    bench.second += 180;
    assert!(bench.states().is_empty());
    bench.leaves(&answer, "no_rule");
}

#[test]
fn the_other_side_alone_keeps_an_entry_for_one_hour() {
    let answer = ip(HERE.0, PEER.0, 47, &[0; 8]);
    let mut bench = Bench::new(allowed());
    bench.enters(&ip(PEER.0, HERE.0, 47, &[0; 8]), "new");
    for _ in 0..6 {
        bench.second += 599;
        bench.leaves(&answer, "established");
    }
    assert!(bench.assured());
    bench.second += 6; // 3,600 s after the opener
    bench.leaves(&answer, "established");
    for _ in 0..2 {
        bench.second += 299;
        bench.leaves(&answer, "established");
    }
    bench.second += 1;
    bench.leaves(&answer, "established");
    bench.second += 1; // 600 s after the last that refreshed
    bench.leaves(&answer, "no_rule");
}

#[test]
fn timeouts_are_those_of_the_definition() {
    let mut policy = allowed();
    only(&mut policy).timeouts.insert("icmp", 5);
    let mut bench = Bench::new(policy);
    bench.enters(&icmp(PEER.0, HERE.0, 8, 0, &[]), "new");
    bench.second += 4;
    bench.leaves(&icmp(HERE.0, PEER.0, 0, 0, &[]), "established");
    assert!(bench.assured());
    bench.second += 5;
    bench.leaves(&icmp(HERE.0, PEER.0, 0, 0, &[]), "no_rule");
}
