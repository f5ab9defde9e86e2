//! Rules that go for good: where a group says `on_revoke = "reevaluate"`, a switch cuts the flows that the new
//! generation does not allow, at their next packet, and no other.

use std::{
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use sg_common::abi::map;
use sg_userspace::{pin::Pins, table::Table};

use crate::{
    common::{
        netns::{Enforcer, answers},
        pair::{FAR, NEAR, Pair},
        require::require,
    },
    scale::{self, patience},
    sender::datagrams,
};

/// Allowed by both definitions, by the first alone, by the second alone, by none.
const PORTS: [u16; 4] = [5000, 5001, 5002, 5003];
/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How long one is waited for that must not come.
const MOMENT: Duration = Duration::from_millis(300);

/// The first definition, or the second.
fn definition(pair: &Pair, second: bool) -> String {
    let [both, first, other, _] = PORTS;
    let one = if second { other } else { first };
    let rule = |protocol| {
        format!("{{ protocol = \"{protocol}\", ports = [{both}, {one}], cidr = \"0.0.0.0/0\" }}")
    };
    let (tcp, udp) = (rule("tcp"), rule("udp"));
    format!("[groups.g]\non_revoke = \"reevaluate\"\ningress = [{tcp}, {udp}]\negress = []\n")
        + &pair.interface("a", "[\"g\"]", "")
}

/// What the second generation, the fourth and so on hold.
fn is_second(generation: u32) -> bool {
    generation.is_multiple_of(2)
}

struct Traffic<'a> {
    pair: &'a Pair,
    generation: Table<u32, u32>,
    stop: &'a AtomicBool,
}

impl Traffic<'_> {
    fn now(&self) -> u32 {
        self.generation.get(&0).unwrap().unwrap()
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn sockets(&self, port: u16) -> [UdpSocket; 2] {
        let client = datagrams(&self.pair.far, SocketAddr::new(FAR.into(), 0));
        client.connect((NEAR, port)).unwrap();
        [
            client,
            datagrams(&self.pair.near, SocketAddr::new(NEAR.into(), port)),
        ]
    }

    /// One flow whose every datagram is answered; how many.
    fn lives(&self) -> u64 {
        let [client, server] = self.sockets(PORTS[0]);
        let mut sent: u64 = 0;
        while self.goes_on() {
            let question = sent.to_ne_bytes();
            client.send(&question).unwrap();
            let from = heard(&server, question);
            server.send_to(&question, from).unwrap();
            heard(&client, question);
            sent += 1;
            thread::sleep(Duration::from_millis(1));
        }
        sent
    }

    /// One connection, every byte of which comes back.
    fn flows(&self) -> u64 {
        let mut stream = self.pair.far.connect(NEAR, PORTS[0]).unwrap();
        stream.set_read_timeout(Some(patience(LIMIT))).unwrap();
        let mut asked = 0;
        while self.goes_on() {
            assert!(answers(&mut stream), "after {asked} answers");
            asked += 1;
            thread::sleep(Duration::from_millis(1));
        }
        asked
    }

    /// One flow that only one of the definitions allows: of its datagrams those arrive that are judged by it, and no
    /// other. Answers how many were sent and how many arrived.
    fn comes_and_goes(&self, port: u16, allowed: impl Fn(u32) -> bool) -> [u64; 2] {
        let [client, server] = self.sockets(port);
        // In force before each was sent.
        let mut sent: Vec<u32> = Vec::new();
        let mut arrived = 0;
        let mut receive = |sent: &[u32]| {
            let mut bytes = [0; 8];
            let mut last = None;
            while let Ok(length) = server.recv(&mut bytes) {
                assert_eq!(length, 8);
                let number = u64::from_ne_bytes(bytes) as usize;
                let (first, now) = (sent[number], self.now());
                let may = (first..=now).any(&allowed);
                assert!(may, "{port}: {number} passed in {first}..={now}");
                arrived += 1;
                last = Some(number);
            }
            last
        };
        while self.goes_on() {
            let number = sent.len();
            let generation = self.now();
            sent.push(generation);
            client.send(&(number as u64).to_ne_bytes()).unwrap();
            let start = Instant::now();
            let due = allowed(generation);
            while receive(&sent) != Some(number) && due && self.now() == generation {
                assert!(
                    start.elapsed() < patience(LIMIT),
                    "{port}: {number} is lost"
                );
                thread::yield_now();
            }
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(50));
        receive(&sent);
        [sent.len() as u64, arrived]
    }
}

/// Waits for a datagram, which must be the next.
#[track_caller]
fn heard(socket: &UdpSocket, expected: [u8; 8]) -> SocketAddr {
    let start = Instant::now();
    let mut bytes = [0; 64];
    loop {
        match socket.recv_from(&mut bytes) {
            Ok((length, from)) => {
                assert_eq!(bytes[..length], expected);
                return from;
            }
            Err(_) => {
                assert!(
                    start.elapsed() < patience(LIMIT),
                    "a flow that lives is cut"
                );
                thread::yield_now();
            }
        }
    }
}

fn connect(pair: &Pair, port: u16) -> TcpStream {
    let mut stream = pair.far.connect(NEAR, port).unwrap();
    assert!(answers(&mut stream));
    stream.set_read_timeout(Some(MOMENT)).unwrap();
    stream
}

#[test]
fn l11_a_switch_cuts_what_it_revokes_and_nothing_else() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _servers = PORTS.map(|port| pair.near.serve(NEAR, port));
    let apply = |second| enforcer.apply(&definition(&pair, second), &[]).ok();
    apply(false);
    let pin = Pins::new(&enforcer.context.bpffs).map(map::GENERATION);
    let stop = AtomicBool::new(false);
    let traffic = || Traffic {
        pair: &pair,
        generation: Table::open(&pin).unwrap(),
        stop: &stop,
    };
    let mut silent = connect(&pair, PORTS[1]);
    let cycles = scale::rounds();
    let sums = thread::scope(|scope| {
        let lives = scope.spawn(|| traffic().lives());
        let flows = scope.spawn(|| traffic().flows());
        let first = scope.spawn(|| traffic().comes_and_goes(PORTS[1], |one| !is_second(one)));
        let second = scope.spawn(|| traffic().comes_and_goes(PORTS[2], is_second));
        let none = scope.spawn(|| traffic().comes_and_goes(PORTS[3], |_| false));
        {
            let _stop = Stop(&stop);
            for _ in 0..cycles {
                let mut cut = connect(&pair, PORTS[1]);
                apply(true);
                assert!(!answers(&mut cut), "the second does not allow it");
                let mut other = connect(&pair, PORTS[2]);
                assert!(pair.far.connect_is_dropped(NEAR, PORTS[1]));
                apply(false);
                assert!(!answers(&mut other), "the first does not allow it");
                assert!(!answers(&mut cut), "what is cut stays cut");
                assert!(answers(&mut silent), "allowed whenever it says something");
            }
        }
        let lives = [lives.join(), flows.join()].map(Result::unwrap);
        let others = [first.join(), second.join(), none.join()].map(Result::unwrap);
        (lives, others)
    });
    println!("{sums:?}");
    let (lives, [first, second, none]) = sums;
    assert!(lives.iter().all(|count| *count > 10), "{lives:?}");
    for [sent, arrived] in [first, second] {
        assert!(0 < arrived && arrived < sent, "{arrived} of {sent}");
    }
    assert!(none[0] > 10 && none[1] == 0, "{none:?}");
    // Of each of the two flows of datagrams the first packet after a switch, and of connections more.
    let revoked = enforcer.figure("a", "ingress_dropped_revoked_packets");
    assert!(revoked >= 2 * cycles as u64, "{revoked}");
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
