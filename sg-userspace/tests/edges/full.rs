//! A table that is full at the moment of a switch.

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use sg_userspace::stats::{self, Conntrack};

use crate::{
    bed::{Bed, Class, FAR_SOURCES, Side, TRACKED, ends, v4},
    common::require::require,
    scale::{self, patience},
    sender::{Strangers, datagrams, payload},
};

/// Flows that the first link may have.
const ROOM: usize = 200;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Flows that fill the table, half of which only A allows, all opened under A.
struct Crowd {
    flows: Vec<UdpSocket>,
    servers: [UdpSocket; 2],
}

impl Crowd {
    fn new(bed: &Bed) -> Self {
        let wire = &bed.wires[0];
        let [near, far] = ends(false);
        let ports = [Class::Both, Class::Only(Side::A)].map(|class| TRACKED + class.offset());
        let flow = |number: usize| {
            let socket = datagrams(&wire.far, SocketAddr::new(far, 0));
            let port = ports[number % 2];
            socket.connect(SocketAddr::new(near, port)).unwrap();
            socket
        };
        let crowd = Self {
            flows: (0..ROOM).map(flow).collect(),
            servers: ports.map(|port| datagrams(&wire.near, SocketAddr::new(near, port))),
        };
        // One after the other becomes a stream, which nothing replaces.
        for number in 0..ROOM {
            for turn in 0..4 {
                crowd.ask(number, turn);
            }
        }
        crowd
    }

    /// A question on each flow, one after the other, and its answer.
    fn exchange(&self, turn: u32) {
        for number in 0..ROOM {
            self.ask(number, turn);
        }
    }

    fn ask(&self, number: usize, turn: u32) {
        let question = payload(number, turn);
        let (flow, server) = (&self.flows[number], &self.servers[number % 2]);
        flow.send(&question).unwrap();
        let from = hear(server, question, number);
        server.send_to(&question, from).unwrap();
        hear(flow, question, number);
    }

    /// That nothing has come which is no question of a flow.
    fn hears_nothing(&self) {
        for server in &self.servers {
            let heard = server.recv_from(&mut [0; 64]);
            assert!(heard.is_err(), "{heard:?}");
        }
    }
}

/// Waits for a datagram, which must be the next.
#[track_caller]
fn hear(socket: &UdpSocket, expected: [u8; 8], flow: usize) -> SocketAddr {
    let start = Instant::now();
    let mut bytes = [0; 64];
    loop {
        match socket.recv_from(&mut bytes) {
            Ok((length, from)) => {
                assert_eq!(bytes[..length], expected, "flow {flow}");
                return from;
            }
            Err(_) => {
                assert!(start.elapsed() < patience(LIMIT), "flow {flow} is cut");
                thread::yield_now();
            }
        }
    }
}

fn figures(bed: &Bed) -> (Conntrack, Vec<(String, u64)>) {
    let stats = stats::read(&bed.enforcer.context, Some("own")).unwrap();
    let interface = &stats.interfaces[0];
    let dropped = interface
        .verdicts
        .iter()
        .filter(|one| !one.passed && one.packets > 0);
    let dropped = dropped.map(|one| (format!("{} {}", one.direction, one.outcome), one.packets));
    (interface.conntrack, dropped.collect())
}

#[test]
fn a_switch_while_the_table_is_full_lets_nothing_in_and_cuts_nothing() {
    require!(Root, Object);
    const LIMITED: &str = "allowance = 200";
    let bed = Bed::with(LIMITED);
    let crowd = Crowd::new(&bed);
    let (conntrack, dropped) = figures(&bed);
    assert_eq!(conntrack.tracked, ROOM as u64);
    assert!(dropped.is_empty(), "{dropped:?}");

    let wire = &bed.wires[0];
    let strangers = Strangers::new(&wire.far, FAR_SOURCES.map(v4).into());
    let models = Side::ALL.map(|side| bed.model(side));
    let target = v4(1);
    let switches = scale::switches().div_ceil(20);
    let (refused, denied) = thread::scope(|scope| {
        let (bed, models) = (&bed, &models);
        let switching = scope.spawn(move || {
            for number in 0..switches {
                let side = Side::ALL[(number + 1) % 2];
                bed.apply(&models[side as usize], side);
            }
        });
        let (mut turn, mut refused, mut denied) = (4, 0, 0);
        while !switching.is_finished() || turn < 20 {
            // Nobody is there whom it could replace: there is no room for one that both allow.
            for class in [Class::Both, Class::Neither] {
                let to = (target, TRACKED + class.offset());
                let bytes = payload(usize::MAX, turn);
                strangers.send(to, bytes).unwrap();
            }
            refused += 1;
            denied += 1;
            crowd.exchange(turn);
            turn += 1;
        }
        switching.join().unwrap();
        (refused, denied)
    });
    crowd.hears_nothing();
    let (conntrack, mut dropped) = figures(&bed);
    dropped.sort();
    println!("{switches} switches, {ROOM} flows, {refused} refused, {denied} denied: {dropped:?}");
    let expected = [
        ("ingress conntrack_allowance_exceeded".to_owned(), refused),
        ("ingress no_rule".to_owned(), denied),
    ];
    assert_eq!(dropped, expected);
    assert_eq!(conntrack.exceeded, refused);
    assert_eq!(conntrack.tracked, ROOM as u64);
    assert_eq!((conntrack.replaced, conntrack.removed), (0, 0));
}
