use sg_common::layout::TIMEOUT_DEFAULTS;

use crate::nf_conntrack::Ends;

use super::*;

const TIMEOUTS_DEFAULT: [u32; TIMEOUTS] = {
    let mut seconds = [0; TIMEOUTS];
    let mut place = 0;
    while place < TIMEOUTS {
        seconds[place] = TIMEOUT_DEFAULTS[place].1;
        place += 1;
    }
    seconds
};

fn flow(number: u8) -> Flow {
    Flow {
        protocol: number,
        local: "10.0.0.1".parse().unwrap(),
        remote: "10.0.0.2".parse().unwrap(),
        local_port: 1000,
        remote_port: 2000,
    }
}

fn tracked(number: u8, tcp: Tcp, (replied, assured): (bool, bool), expires: u32) -> Tracked {
    let flow = flow(number);
    let ends = |source, destination, source_port, destination_port| Ends {
        source,
        destination,
        source_port,
        destination_port,
    };
    Tracked {
        protocol: number,
        original: ends(flow.local, flow.remote, 1000, 2000),
        reply: ends(flow.remote, flow.local, 2000, 1000),
        replied,
        assured,
        expires,
        tcp,
    }
}

const NOW: u32 = 50;
const HZ: u32 = 100;

fn entry(tracked: &Tracked, opener: Side) -> Option<Restored> {
    let found = Candidate::of_netfilter(tracked, flow(tracked.protocol), opener)?;
    assert!(!found.is_plain(), "its life is known");
    Some(found.restored(7, opener, 3, (NOW, HZ), &TIMEOUTS_DEFAULT))
}

/// Seconds that an entry has left.
fn left(entry: &Restored) -> u32 {
    let life = TIMEOUTS_DEFAULT[usize::from(entry.record.state) - 2];
    life - NOW.wrapping_sub(entry.record.seen) / HZ
}

#[test]
fn what_netfilter_tracks_becomes_an_entry_of_that_state() {
    const ADOPTED: u8 = flag::ADOPTED | flag::OPENER_LOCAL;
    let assured = ADOPTED | flag::ASSURED;
    let both = (true, true);
    for (tracked, state, flags, seconds) in [
        (
            tracked(6, Tcp::Established, both, 431_000),
            State::TcpEstablished,
            assured,
            431_000,
        ),
        (
            tracked(6, Tcp::Established, both, 900_000),
            State::TcpEstablished,
            assured,
            432_000,
        ),
        (
            tracked(6, Tcp::Established, (true, false), 300),
            State::TcpEstablished,
            ADOPTED,
            300,
        ),
        (
            tracked(6, Tcp::Answered, (true, false), 55),
            State::TcpEstablished,
            ADOPTED,
            55,
        ),
        (
            tracked(6, Tcp::Closing(Some(Opener::Yes)), both, 110),
            State::TcpEstablished,
            assured | flag::FIN_LOCAL,
            110,
        ),
        (
            tracked(6, Tcp::Closing(Some(Opener::No)), both, 110),
            State::TcpEstablished,
            assured | flag::FIN_REMOTE,
            110,
        ),
        (
            tracked(6, Tcp::LastAck, both, 29),
            State::TcpLastAck,
            assured | flag::FIN_LOCAL | flag::FIN_REMOTE,
            29,
        ),
        (
            tracked(17, Tcp::Opening, both, 100),
            State::UdpStream,
            assured,
            100,
        ),
        (
            tracked(17, Tcp::Opening, (true, false), 28),
            State::UdpSingle,
            ADOPTED,
            28,
        ),
        (
            tracked(17, Tcp::Opening, (false, false), 29),
            State::UdpSingle,
            ADOPTED,
            29,
        ),
        (
            tracked(1, Tcp::Opening, (true, false), 30),
            State::Icmp,
            assured,
            30,
        ),
        (
            tracked(47, Tcp::Opening, (false, false), 700),
            State::Other,
            ADOPTED,
            600,
        ),
    ] {
        let found = entry(&tracked, Side::Local).unwrap();
        let record = &found.record;
        assert_eq!(
            (record.state, record.flags),
            (state as u8, flags),
            "{tracked:?}"
        );
        assert_eq!(left(&found), seconds, "{tracked:?}");
        assert_eq!(
            (found.owner, record.generation),
            (7 << 8 | u32::from(tracked.protocol), 3)
        );
    }
    for over in [Tcp::Opening, Tcp::Closed] {
        assert!(entry(&tracked(6, over, both, 100), Side::Local).is_none());
    }
}

#[test]
fn packets_and_openers_stand_where_the_programs_look() {
    let stream = entry(&tracked(17, Tcp::Opening, (true, true), 100), Side::Remote).unwrap();
    assert_eq!((stream.record.ack, stream.record.fin), ([2, 2], [0, NOW]));
    assert_eq!(stream.record.flags & flag::OPENER_LOCAL, 0);
    let single = entry(&tracked(17, Tcp::Opening, (false, false), 30), Side::Remote).unwrap();
    assert_eq!(single.record.ack, [0, 1]);
    for (opener, second) in [(Side::Local, 1), (Side::Remote, 0)] {
        let echo = entry(&tracked(1, Tcp::Opening, (true, false), 30), opener).unwrap();
        assert_eq!(echo.ports, 1000 << 16 | second);
    }
}

#[test]
fn a_flood_of_openings_does_not_live_for_days() {
    let own = |stage| OwnFlow {
        flow: flow(6),
        opened_by_local: false,
        stage,
    };
    let of = |stage| Candidate::of_socket(&own(stage), Source::Sockets, &TIMEOUTS_DEFAULT);
    assert!(of(Stage::Open).is_plain());
    let opening = of(Stage::Opening);
    assert!(!opening.assured);
    let found = opening.restored(7, Side::Remote, 3, (NOW, HZ), &TIMEOUTS_DEFAULT);
    assert_eq!(left(&found), 60);
    // Of what is adopted it comes last.
    assert!(of(Stage::Open).rank() < opening.rank());
}

#[test]
fn what_a_socket_alone_says_of_its_other_end_is_not_believed() {
    let of = |number, stage, opened_by_local, source| {
        let own = OwnFlow {
            flow: flow(number),
            opened_by_local,
            stage,
        };
        let found = Candidate::of_socket(&own, source, &TIMEOUTS_DEFAULT);
        (found.answered, found.word)
    };
    let (own, behind) = (Source::Sockets, Source::WorkloadSockets);
    assert_eq!(of(6, Stage::Open, true, behind), (true, false));
    assert_eq!(of(6, Stage::Opening, false, own), (true, false));
    assert_eq!(of(6, Stage::Opening, true, own), (false, false));
    assert_eq!(of(17, Stage::Open, true, own), (false, false));
    assert_eq!(of(17, Stage::Open, true, behind), (false, true));
}

#[test]
fn nothing_is_adopted_that_no_packet_can_be_of() {
    let of = |local: &str, remote: &str, number| {
        let flow = Flow {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            ..flow(number)
        };
        let tracked = tracked(number, Tcp::Established, (true, true), 100);
        Candidate::of_netfilter(&tracked, flow, Side::Local)
            .unwrap()
            .is_possible()
    };
    assert!(of("10.0.0.1", "10.0.0.2", 6));
    assert!(of("10.0.0.1", "224.0.0.1", 17));
    assert!(of("fd00::1", "fd00::2", 6));
    for (local, remote, number) in [
        ("10.0.0.1", "10.0.0.1", 6),
        ("127.0.0.1", "10.0.0.2", 6),
        ("10.0.0.1", "127.0.0.1", 17),
        ("10.0.0.1", "224.0.0.1", 6),
        ("fd00::1", "::1", 6),
        ("fd00::1", "::ffff:10.0.0.2", 17),
        ("10.0.0.1", "fd00::2", 6),
    ] {
        assert!(!of(local, remote, number), "{local} {remote}");
    }
}
