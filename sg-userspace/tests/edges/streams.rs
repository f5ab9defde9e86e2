//! TCP connections that live long; every byte is answered and compared.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, TcpStream},
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use crate::{
    bed::{Class, STREAMS, Side, Wire, ends},
    common::netns::Server,
    scale::patience,
    traffic::Signals,
};

/// How long an answer may take: a few retransmissions, where a device was down.
const LIMIT: Duration = Duration::from_secs(20);
/// How long one look for an answer takes.
const MOMENT: Duration = Duration::from_millis(200);

/// The connections of one link.
pub(crate) struct Streams {
    wire: &'static str,
    streams: Vec<(String, TcpStream)>,
    _servers: Vec<Server>,
}

/// What became of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Transferred {
    pub(crate) bytes: u64,
    pub(crate) longest: Duration,
}

impl Streams {
    /// Opens them; A must be in force.
    pub(crate) fn new(wire: &Wire) -> Self {
        let mut servers = Vec::new();
        let mut streams = Vec::new();
        for forward in [true, false] {
            let (server, client, place) = if forward {
                (&wire.near, &wire.far, 0)
            } else {
                (&wire.far, &wire.near, 1)
            };
            for class in [Class::Both, Class::Only(Side::A)] {
                let port = STREAMS + class.offset();
                for address in [ends(false)[place], ends(true)[place]] {
                    servers.push(server.serve(address, port));
                    let stream = client.connect(address, port).unwrap();
                    stream.set_read_timeout(Some(MOMENT)).unwrap();
                    stream.set_write_timeout(Some(patience(LIMIT))).unwrap();
                    let family = if matches!(address, IpAddr::V4(_)) {
                        4
                    } else {
                        6
                    };
                    let way = if forward { "forward" } else { "back" };
                    let name = format!("IPv{family} stream {way} of class {class:?}");
                    streams.push((name, stream));
                }
            }
        }
        Self {
            wire: wire.name,
            streams,
            _servers: servers,
        }
    }

    /// Talks on all of them until it is told to stop.
    pub(crate) fn run(&mut self, signals: &Signals) -> Result<Transferred, String> {
        let mut done = Transferred::default();
        let mut turn = 0_usize;
        while !signals.stop.load(Ordering::Relaxed) {
            for (name, stream) in &mut self.streams {
                turn += 1;
                let length = [16, 900, 5000][turn % 3];
                let start = Instant::now();
                if let Err(error) = exchange(stream, turn, length, (self.wire, signals)) {
                    if signals.is_forgiven(self.wire) {
                        return Ok(done);
                    }
                    return Err(format!("{} {name}: {error}", self.wire));
                }
                done.bytes += 2 * length as u64;
                done.longest = done.longest.max(start.elapsed());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(done)
    }
}

fn exchange(
    stream: &mut TcpStream,
    turn: usize,
    length: usize,
    (wire, signals): (&str, &Signals),
) -> Result<(), String> {
    let bytes: Vec<u8> = (0..length)
        .map(|at| {
            (at as u32)
                .wrapping_mul(0x9e37_79b1)
                .wrapping_add(turn as u32) as u8
        })
        .collect();
    stream
        .write_all(&bytes)
        .map_err(|error| format!("cannot send: {error}"))?;
    let (mut back, mut read) = (vec![0; length], 0);
    let start = Instant::now();
    while read < length {
        match stream.read(&mut back[read..]) {
            Ok(0) => return Err("it was closed".to_owned()),
            Ok(more) => read += more,
            Err(error) if error.kind() != ErrorKind::WouldBlock => {
                return Err(format!("no answer: {error}"));
            }
            Err(_) if start.elapsed() > patience(LIMIT) || signals.is_forgiven(wire) => {
                return Err(format!("no answer for {:?}", start.elapsed()));
            }
            Err(_) => {}
        }
    }
    if back == bytes {
        Ok(())
    } else {
        Err("the bytes came back changed".to_owned())
    }
}
