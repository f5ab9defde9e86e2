//! Every transition of a tracked flow, without tables.

use proptest::prelude::*;
use sg_common::{
    conntrack::{
        Meta, Segment, Side, State, Step, datagram_step, expired, flag, flags_possible, open, tcp,
        tcp_step, udp_step,
    },
    layout::{Live, TIMEOUT_DEFAULTS, TIMEOUTS, Timeout},
};

const ICMP: u8 = 1;

/// An entry outside any table.
/// Jiffies, shortly before they wrap.
const NOW: u32 = u32::MAX - 100;
/// Jiffies per second.
const HZ: u32 = 250;

#[derive(Clone, Copy)]
struct Flow {
    meta: Meta,
    live: Live,
    refreshed: bool,
}

impl Flow {
    fn open(protocol: u8, opener: Side, segment: Segment) -> Self {
        let opening = open(protocol, ICMP, opener, opener, segment, NOW);
        let live = Live {
            ack: opening.ack,
            fin: opening.fin,
            ..Live::ZERO
        };
        Self {
            meta: Meta::new(7, opening.state, opening.flags, 3),
            live,
            refreshed: true,
        }
    }

    fn take(&mut self, sender: Side, step: Step) {
        self.meta = self.meta.with(step.state, step.flags);
        self.live.ack[sender.index()] = step.ack;
        self.live.fin[sender.index()] = step.fin;
        self.refreshed = step.refresh;
    }

    fn tcp(&mut self, sender: Side, flags: u8, sequence: u32, ack: u32, payload: u32) -> State {
        let segment = segment(flags, sequence, ack, payload);
        self.take(sender, tcp_step(self.meta, &self.live, sender, segment));
        self.state()
    }

    fn state(&self) -> State {
        State::from_raw(self.meta.state()).expect("a state")
    }

    fn has(&self, bit: u8) -> bool {
        self.meta.flags() & bit != 0
    }
}

fn segment(flags: u8, sequence: u32, acknowledgement: u32, payload: u32) -> Segment {
    Segment {
        flags,
        sequence,
        acknowledgement,
        payload,
    }
}

const SYN_ACK: u8 = tcp::SYN | tcp::ACK;
const FIN_ACK: u8 = tcp::FIN | tcp::ACK;

/// A connection that `opener` opened at 1000 and the other side answered at 5000.
fn established(opener: Side) -> Flow {
    let other = opener.other();
    let mut flow = Flow::open(6, opener, segment(tcp::SYN, 1000, 0, 0));
    assert_eq!(flow.state(), State::TcpSynSent);
    assert_eq!(
        flow.tcp(other, SYN_ACK, 5000, 1001, 0),
        State::TcpSynReceived
    );
    assert!(flow.refreshed && !flow.has(flag::ASSURED));
    assert_eq!(
        flow.tcp(opener, tcp::ACK, 1001, 5001, 0),
        State::TcpEstablished
    );
    assert!(flow.refreshed && flow.has(flag::ASSURED));
    flow
}

#[test]
fn handshake_in_both_directions() {
    for opener in [Side::Local, Side::Remote] {
        let flow = established(opener);
        assert_eq!(flow.has(flag::OPENER_LOCAL), opener == Side::Local);
    }
}

#[test]
fn h7_opener_alone_establishes_nothing() {
    let mut flow = Flow::open(6, Side::Remote, segment(tcp::SYN, 1000, 0, 0));
    for _ in 0..10 {
        assert_eq!(
            flow.tcp(Side::Remote, tcp::ACK, 1001, 77, 100),
            State::TcpSynSent
        );
        assert_eq!(
            flow.tcp(Side::Remote, SYN_ACK, 1001, 77, 0),
            State::TcpSynSent
        );
        assert!(!flow.refreshed && !flow.has(flag::ASSURED));
    }
}

#[test]
fn answer_must_acknowledge_the_syn() {
    let mut flow = Flow::open(6, Side::Local, segment(tcp::SYN, 1000, 0, 0));
    // Before it, or further behind it than data on a SYN can reach.
    for wrong in [1000, 1001 + 0x1_0000] {
        assert_eq!(
            flow.tcp(Side::Remote, SYN_ACK, 5000, wrong, 0),
            State::TcpSynSent
        );
    }
    assert_eq!(
        flow.tcp(Side::Remote, SYN_ACK, 5000, 1001, 0),
        State::TcpSynReceived
    );
}

#[test]
fn handshake_is_completed_by_whoever_has_seen_the_answer() {
    let answered = || {
        let mut flow = Flow::open(6, Side::Remote, segment(tcp::SYN, 1000, 0, 0));
        flow.tcp(Side::Local, SYN_ACK, 5000, 1001, 0);
        flow
    };
    let mut flow = answered();
    for wrong in [5000, 5001 + 0x1_0000, 0x9000_0000] {
        assert_eq!(
            flow.tcp(Side::Remote, tcp::ACK, 1001, wrong, 100),
            State::TcpSynReceived
        );
        // What a half-open listener answers to that.
        assert_eq!(
            flow.tcp(Side::Local, tcp::ACK, 5001, 1001, 0),
            State::TcpSynReceived
        );
        assert!(!flow.refreshed && !flow.has(flag::ASSURED));
    }
    assert_eq!(
        flow.tcp(Side::Remote, tcp::ACK, 1001, 5001, 0),
        State::TcpEstablished
    );
    // Two SYN cookies: the opener took the first, and the listener knows both.
    let mut flow = answered();
    flow.tcp(Side::Local, SYN_ACK, 0x9000_0000, 1001, 0);
    assert_eq!(
        flow.tcp(Side::Remote, tcp::ACK, 1001, 5001, 100),
        State::TcpSynReceived
    );
    assert_eq!(
        flow.tcp(Side::Local, tcp::ACK, 5001, 1101, 0),
        State::TcpEstablished
    );
    assert_eq!(flow.live.ack, [1101, 0]);
}

#[test]
fn h6_half_open_flow_is_not_kept_alive() {
    let mut flow = Flow::open(6, Side::Remote, segment(tcp::SYN, 1000, 0, 0));
    flow.tcp(Side::Local, SYN_ACK, 5000, 1001, 0);
    assert_eq!(
        flow.tcp(Side::Local, SYN_ACK, 5000, 1001, 0),
        State::TcpSynReceived
    );
    assert!(!flow.refreshed, "a repeated SYN+ACK");
}

#[test]
fn h5_exact_reset_closes_and_any_other_only_casts_doubt() {
    let mut flow = established(Side::Local);
    for (nth, wrong) in [5000, 5002, 0, u32::MAX].into_iter().enumerate() {
        assert_eq!(
            flow.tcp(Side::Remote, tcp::RST, wrong, 0, 0),
            State::TcpEstablished
        );
        assert!(flow.has(flag::DOUBTED));
        assert_eq!(flow.refreshed, nth == 0, "the shortened life begins once");
    }
    assert_eq!(
        flow.tcp(Side::Remote, tcp::ACK, 5001, 1001, 10),
        State::TcpEstablished
    );
    assert!(
        !flow.has(flag::DOUBTED) && flow.refreshed,
        "the next legal segment restores it"
    );
    // The local side has acknowledged up to 5001.
    assert_eq!(
        flow.tcp(Side::Remote, tcp::RST, 5001, 0, 0),
        State::TcpClose
    );
}

#[test]
fn h5_doubt_shortens_the_idle_life() {
    let timeouts: [u32; TIMEOUTS] = TIMEOUT_DEFAULTS.map(|(_, seconds)| seconds);
    let mut flow = established(Side::Local);
    assert_eq!(flow.meta.life(&timeouts), 432_000);
    flow.tcp(Side::Remote, tcp::RST, 1, 0, 0);
    assert_eq!(flow.meta.life(&timeouts), 300);
}

#[test]
fn h5_reset_that_answers_the_syn() {
    let refused = |ack| {
        let mut flow = Flow::open(6, Side::Local, segment(tcp::SYN, 1000, 0, 0));
        flow.tcp(Side::Remote, tcp::RST | tcp::ACK, 0, ack, 0)
    };
    assert_eq!(refused(1001), State::TcpClose);
    assert_eq!(refused(1000), State::TcpSynSent);
}

#[test]
fn orderly_close() {
    let mut flow = established(Side::Local);
    assert_eq!(
        flow.tcp(Side::Local, FIN_ACK, 1001, 5001, 0),
        State::TcpEstablished
    );
    assert_eq!(
        flow.tcp(Side::Remote, tcp::ACK, 5001, 1002, 0),
        State::TcpEstablished
    );
    // Half-closed: the other direction goes on as long as it likes.
    assert_eq!(
        flow.tcp(Side::Remote, tcp::ACK, 5001, 1002, 500),
        State::TcpEstablished
    );
    assert!(flow.refreshed);
    assert_eq!(
        flow.tcp(Side::Local, tcp::ACK, 1002, 5501, 0),
        State::TcpEstablished
    );
    assert_eq!(
        flow.tcp(Side::Remote, FIN_ACK, 5501, 1002, 0),
        State::TcpLastAck
    );
    assert_eq!(
        flow.tcp(Side::Local, tcp::ACK, 1002, 5502, 0),
        State::TcpTimeWait
    );
    assert!(flow.refreshed, "the transition starts time-wait");
    flow.tcp(Side::Remote, FIN_ACK, 5501, 1002, 0);
    assert_eq!(flow.state(), State::TcpTimeWait);
    assert!(!flow.refreshed, "repetitions do not prolong it");
}

#[test]
fn h5_h12_forged_fin_does_not_end_a_half_closed_flow() {
    let mut flow = established(Side::Local);
    flow.tcp(Side::Local, FIN_ACK, 1001, 5001, 0);
    flow.tcp(Side::Remote, tcp::ACK, 5001, 1002, 0);
    // Far from anything acknowledged: not believed.
    assert_eq!(
        flow.tcp(Side::Remote, FIN_ACK, 0x9000_0000, 1002, 0),
        State::TcpEstablished
    );
    // In the window by luck: believed until the peer sends past it.
    assert_eq!(
        flow.tcp(Side::Remote, FIN_ACK, 6000, 1002, 0),
        State::TcpLastAck
    );
    assert_eq!(
        flow.tcp(Side::Remote, tcp::ACK, 5001, 1002, 1400),
        State::TcpEstablished
    );
}

#[test]
fn fin_behind_a_full_window_counts() {
    let mut flow = established(Side::Local);
    let end = 1001 + (24 << 20);
    flow.tcp(Side::Local, FIN_ACK, end, 5001, 0);
    assert!(flow.has(flag::FIN_LOCAL));
}

/// The opener rebooted and opens again from the same port, with numbers behind the old ones.
#[test]
fn h11_answer_on_a_live_flow_starts_numbering_anew() {
    let mut flow = established(Side::Local);
    flow.tcp(Side::Remote, FIN_ACK, 5001, 1001, 0);
    // What `syn_again` does when policy lets the new SYN pass.
    flow.live.ack[0] = 0;
    flow.live.fin[0] = 11;
    assert_eq!(
        flow.tcp(Side::Remote, SYN_ACK, 90, 11, 0),
        State::TcpEstablished
    );
    assert!(!flow.has(flag::FIN_REMOTE), "the old FIN does not stand");
    flow.tcp(Side::Local, tcp::ACK, 11, 91, 0);
    assert_eq!(flow.live.ack, [91, 11]);
    assert_eq!(flow.tcp(Side::Remote, tcp::RST, 91, 0, 0), State::TcpClose);
}

/// The same while the last acknowledgement of the old connection is missing.
#[test]
fn answer_in_last_ack_starts_anew() {
    let mut flow = established(Side::Local);
    flow.tcp(Side::Local, FIN_ACK, 1001, 5001, 0);
    flow.tcp(Side::Remote, FIN_ACK, 0x6000_0000, 1002, 0);
    flow.tcp(Side::Remote, FIN_ACK, 5001, 1002, 0);
    assert_eq!(flow.state(), State::TcpLastAck);
    flow.live.ack[0] = 0;
    flow.live.fin[0] = 11;
    assert_eq!(
        flow.tcp(Side::Remote, SYN_ACK, 90, 11, 0),
        State::TcpEstablished
    );
    assert!(!flow.has(flag::FIN_LOCAL) && !flow.has(flag::FIN_REMOTE));
}

#[test]
fn h14_sequence_numbers_wrap() {
    let mut flow = Flow::open(6, Side::Local, segment(tcp::SYN, u32::MAX, 0, 0));
    assert_eq!(
        flow.tcp(Side::Remote, SYN_ACK, u32::MAX, 0, 0),
        State::TcpSynReceived
    );
    assert_eq!(
        flow.tcp(Side::Local, tcp::ACK, 0, 0, 0),
        State::TcpEstablished
    );
    assert_eq!(
        flow.tcp(Side::Local, FIN_ACK, 0, 0, 0),
        State::TcpEstablished
    );
    assert_eq!(flow.tcp(Side::Remote, FIN_ACK, 0, 1, 0), State::TcpLastAck);
    assert_eq!(flow.tcp(Side::Local, tcp::ACK, 1, 1, 0), State::TcpTimeWait);
}

#[test]
fn adopted_flow_is_assured_by_a_reply() {
    let mut flow = Flow::open(6, Side::Local, segment(tcp::ACK, 900, 400, 10));
    assert_eq!(flow.state(), State::TcpEstablished);
    assert!(flow.has(flag::ADOPTED) && !flow.has(flag::ASSURED));
    flow.tcp(Side::Local, tcp::ACK, 910, 400, 10);
    assert!(!flow.has(flag::ASSURED));
    flow.tcp(Side::Remote, tcp::ACK, 400, 920, 0);
    assert!(flow.has(flag::ASSURED));
}

#[test]
fn i3_udp_becomes_a_stream_when_both_sides_go_on() {
    let mut flow = Flow::open(17, Side::Local, Segment::default());
    let mut packet = |sender| {
        let step = udp_step(flow.meta, &flow.live, sender, NOW, HZ);
        flow.take(sender, step);
        flow.state()
    };
    for _ in 0..5 {
        assert_eq!(packet(Side::Local), State::UdpSingle, "one way");
    }
    assert_eq!(packet(Side::Remote), State::UdpSingle, "a single response");
    assert_eq!(packet(Side::Remote), State::UdpStream);
}

#[test]
fn f2_other_protocols_are_assured_by_a_reply() {
    for protocol in [ICMP, 47] {
        let mut flow = Flow::open(protocol, Side::Remote, Segment::default());
        flow.take(
            Side::Remote,
            datagram_step(flow.meta, &flow.live, Side::Remote, NOW, HZ),
        );
        assert!(!flow.has(flag::ASSURED));
        flow.take(
            Side::Local,
            datagram_step(flow.meta, &flow.live, Side::Local, NOW, HZ),
        );
        assert!(flow.has(flag::ASSURED));
    }
}

#[test]
fn k6_expiry_wraps_with_the_clock() {
    assert!(!expired(100, 100, 1));
    assert!(expired(101, 100, 1));
    assert!(!expired(4, u32::MAX - 5, 11));
    assert!(expired(5, u32::MAX - 5, 11));
    assert!(
        !expired(100, 101, 0),
        "a stamp of another CPU, a tick ahead"
    );
}

#[test]
fn h3_flag_sets_are_those_of_netfilter() {
    // `tcp_valid_flags` of net/netfilter/nf_conntrack_proto_tcp.c, v6.12: PSH, ECE, CWR left out.
    const VALID: [u8; 10] = [
        tcp::SYN,
        tcp::SYN | tcp::URG,
        SYN_ACK,
        tcp::RST,
        tcp::RST | tcp::ACK,
        FIN_ACK,
        FIN_ACK | tcp::URG,
        tcp::ACK,
        tcp::ACK | tcp::URG,
        0xff,
    ];
    for flags in 0..=u8::MAX {
        let relevant = flags & !(tcp::PSH | 0xc0);
        assert_eq!(
            flags_possible(flags),
            VALID[..9].contains(&relevant),
            "{flags:#04x}"
        );
    }
}

proptest! {
    #[test]
    fn steps_stay_in_bounds(
        state in prop::sample::select(&State::TRACKED[..6]),
        flags: u8,
        live: ([u32; 2], [u32; 2]),
        sender in prop::sample::select(&[Side::Local, Side::Remote][..]),
        packet: (u8, u32, u32, u16),
    ) {
        let meta = Meta::new(1, state as u8, flags, 1);
        let live = Live { ack: live.0, fin: live.1, ..Live::ZERO };
        let step = tcp_step(meta, &live, sender, segment(packet.0, packet.1, packet.2, packet.3.into()));
        let kept = flag::OPENER_LOCAL | flag::SHARED | flag::ADOPTED;
        prop_assert_eq!(step.flags & kept, flags & kept, "who opened and who pays never changes");
        prop_assert!(step.flags & flag::ASSURED >= flags & flag::ASSURED, "never unassured again");
        prop_assert!((State::TcpSynSent as u8..=State::TcpClose as u8).contains(&step.state));
        if packet.0 & tcp::RST != 0 && step.state != state as u8 {
            prop_assert_eq!(step.state, State::TcpClose as u8);
        }
    }

    /// Whatever one side sends, without the other nothing is established (attacks H7).
    #[test]
    fn h7_one_side_alone_is_never_assured(
        opener in prop::sample::select(&[Side::Local, Side::Remote][..]),
        packets in prop::collection::vec((any::<u8>(), any::<u32>(), any::<u32>()), 1..40),
    ) {
        let mut flow = Flow::open(6, opener, segment(tcp::SYN, 1000, 0, 0));
        for (flags, sequence, ack) in packets {
            flow.tcp(opener, flags, sequence, ack, 0);
            prop_assert!(!flow.has(flag::ASSURED));
            prop_assert!(flow.state() != State::TcpEstablished);
        }
    }

    #[test]
    fn meta_round_trip(tag: u32, state: u8, flags: u8, version: u16) {
        let meta = Meta::new(tag, state, flags, version);
        prop_assert_eq!(
            (meta.generation(), meta.state(), meta.flags(), meta.version()),
            (tag, state, flags, version)
        );
    }
}

#[test]
fn states_are_their_timeouts() {
    let index = |state: State| state as usize - 2;
    assert_eq!(index(State::TcpSynSent), Timeout::TcpSynSent as usize);
    assert_eq!(
        index(State::TcpSynReceived),
        Timeout::TcpSynReceived as usize
    );
    assert_eq!(
        index(State::TcpEstablished),
        Timeout::TcpEstablished as usize
    );
    assert_eq!(index(State::TcpLastAck), Timeout::TcpLastAck as usize);
    assert_eq!(index(State::TcpTimeWait), Timeout::TcpTimeWait as usize);
    assert_eq!(index(State::TcpClose), Timeout::TcpClose as usize);
    assert_eq!(index(State::UdpSingle), Timeout::Udp as usize);
    assert_eq!(index(State::UdpStream), Timeout::UdpStream as usize);
    assert_eq!(index(State::Icmp), Timeout::Icmp as usize);
    assert_eq!(index(State::Other), Timeout::Other as usize);
}

#[test]
fn i4_replies_alone_keep_no_flow_for_longer_than_an_hour() {
    for protocol in [17, ICMP, 47] {
        let mut flow = Flow::open(protocol, Side::Local, Segment::default());
        let step = |flow: &Flow, sender: Side, seconds: u32| {
            let now = NOW.wrapping_add(seconds * HZ);
            if protocol == 17 {
                udp_step(flow.meta, &flow.live, sender, now, HZ)
            } else {
                datagram_step(flow.meta, &flow.live, sender, now, HZ)
            }
        };
        for seconds in [0, 1800, 3599] {
            flow.take(Side::Remote, step(&flow, Side::Remote, seconds));
            assert!(flow.refreshed, "{protocol} after {seconds} s");
        }
        flow.take(Side::Remote, step(&flow, Side::Remote, 3600));
        assert!(!flow.refreshed, "{protocol}");
        // The opener is heard again.
        flow.take(Side::Local, step(&flow, Side::Local, 3601));
        assert!(flow.refreshed, "{protocol}");
        flow.take(Side::Remote, step(&flow, Side::Remote, 7200));
        assert!(flow.refreshed, "{protocol}");
    }
}

#[test]
fn a_flow_taken_over_by_its_last_segment_can_close() {
    let fin = segment(tcp::FIN | tcp::ACK, 900, 400, 10);
    let opening = open(6, ICMP, Side::Local, Side::Remote, fin, NOW);
    assert_eq!(opening.state, State::TcpEstablished as u8);
    assert_eq!(
        opening.flags,
        flag::OPENER_LOCAL | flag::ADOPTED | flag::FIN_REMOTE
    );
    assert_eq!((opening.ack, opening.fin), ([0, 400], [0, 911]));
}
