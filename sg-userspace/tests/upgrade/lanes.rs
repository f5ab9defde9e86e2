//! Traffic that notices every packet that is lost, and every one that passes and must not.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::common::{
    netns::{Namespace, SOON, Server},
    pair::Pair,
    scale::patient,
};

/// Let in.
pub(crate) const TCP: u16 = 8080;
/// Let in.
pub(crate) const UDP_IN: u16 = 5000;
/// Let out.
pub(crate) const UDP_OUT: u16 = 5300;
/// Not let in.
const DENIED: u16 = 9999;

/// What was sent, and answered.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// TCP connections that were opened.
    pub(crate) connections: u64,
    /// Datagrams that must not pass.
    pub(crate) denied: u64,
    /// Client port and datagrams of UDP flows from outside.
    pub(crate) inbound: Vec<(u16, u64)>,
    /// The same from the workload.
    pub(crate) outbound: Vec<(u16, u64)>,
}

/// Traffic between the namespaces of a pair.
pub(crate) struct Lanes<'a> {
    pair: &'a Pair,
    stop: Arc<AtomicBool>,
    beats: Vec<Arc<AtomicU64>>,
    streams: Vec<JoinHandle<u64>>,
    inbound: Vec<JoinHandle<(u16, u64)>>,
    outbound: Vec<JoinHandle<(u16, u64)>>,
    denied: Vec<JoinHandle<u64>>,
    echoes: Vec<JoinHandle<()>>,
    must_not: UdpSocket,
    before: [u64; 4],
    _servers: Vec<Server>,
}

impl<'a> Lanes<'a> {
    pub(crate) fn start(pair: &'a Pair, addresses: &[(IpAddr, IpAddr)]) -> Self {
        let bind = |namespace: &Namespace, address: IpAddr, port: u16| {
            let socket = namespace.run(|| UdpSocket::bind((address, port))).unwrap();
            socket.set_read_timeout(Some(patient(SOON))).unwrap();
            socket
        };
        let (near4, far4) = addresses[0];
        let must_not = bind(&pair.near, near4, DENIED);
        must_not.set_nonblocking(true).unwrap();
        let mut lanes = Self {
            pair,
            stop: Arc::new(AtomicBool::new(false)),
            beats: Vec::new(),
            streams: Vec::new(),
            inbound: Vec::new(),
            outbound: Vec::new(),
            denied: Vec::new(),
            echoes: Vec::new(),
            must_not,
            before: both(pair),
            _servers: Vec::new(),
        };
        for (near, far) in addresses.iter().copied() {
            lanes._servers.push(pair.near.serve(near, TCP));
            let long = pair.far.connect(near, TCP).unwrap();
            lanes.stream(move |_| Some(long.try_clone().unwrap()), true);
            let address = SocketAddr::new(near, TCP);
            let name = pair.far.name.clone();
            let storm = move |_| {
                let netns = sg_userspace::netns::Netns::open(Some(&name)).unwrap();
                let stream = netns.run(|| TcpStream::connect_timeout(&address, patient(SOON)));
                Some(stream.unwrap().expect("a connection that is allowed"))
            };
            lanes.stream(storm, false);
            for (client, server, port, from_outside) in [
                (
                    bind(&pair.far, far, 0),
                    bind(&pair.near, near, UDP_IN),
                    UDP_IN,
                    true,
                ),
                (
                    bind(&pair.near, near, 0),
                    bind(&pair.far, far, UDP_OUT),
                    UDP_OUT,
                    false,
                ),
            ] {
                client
                    .connect((if from_outside { near } else { far }, port))
                    .unwrap();
                lanes.datagrams(client, server, from_outside);
            }
        }
        let intruder = bind(&pair.far, far4, 0);
        let stop = Arc::clone(&lanes.stop);
        lanes.denied.push(thread::spawn(move || {
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                intruder.send_to(b"no", (near4, DENIED)).unwrap();
                sent += 1;
                thread::sleep(Duration::from_millis(2));
            }
            sent
        }));
        lanes
    }

    fn beat(&mut self) -> (Arc<AtomicBool>, Arc<AtomicU64>) {
        let beat = Arc::new(AtomicU64::new(0));
        self.beats.push(Arc::clone(&beat));
        (Arc::clone(&self.stop), beat)
    }

    /// Asks and is answered, always on one connection or each time on a new one. Answers how many were opened.
    fn stream(&mut self, open: impl Fn(u64) -> Option<TcpStream> + Send + 'static, one: bool) {
        let (stop, beat) = self.beat();
        self.streams.push(thread::spawn(move || {
            let mut opened = u64::from(one);
            while !stop.load(Ordering::Relaxed) {
                let mut stream = open(opened).unwrap();
                opened += u64::from(!one);
                stream.set_read_timeout(Some(patient(SOON))).unwrap();
                let mut back = [0; 4];
                stream.write_all(b"ping").unwrap();
                stream.read_exact(&mut back).expect("an answer");
                beat.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(1));
            }
            opened
        }));
    }

    /// One datagram after the other, each answered before the next: one that is lost is noticed.
    fn datagrams(&mut self, client: UdpSocket, server: UdpSocket, from_outside: bool) {
        let (stop, beat) = self.beat();
        let port = client.local_addr().unwrap().port();
        let stopped = Arc::clone(&stop);
        self.echoes.push(thread::spawn(move || {
            server
                .set_read_timeout(Some(Duration::from_millis(200)))
                .unwrap();
            let mut bytes = [0; 8];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((length, from)) = server.recv_from(&mut bytes) {
                    server.send_to(&bytes[..length], from).unwrap();
                }
            }
        }));
        let asking = thread::spawn(move || {
            let mut sent: u64 = 0;
            while !stop.load(Ordering::Relaxed) {
                client.send(&sent.to_ne_bytes()).unwrap();
                let mut back = [0; 8];
                let length = client.recv(&mut back);
                assert_eq!(
                    length.unwrap_or(0),
                    8,
                    "datagram {sent} or its answer is lost"
                );
                assert_eq!(u64::from_ne_bytes(back), sent);
                sent += 1;
                beat.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(1));
            }
            (port, sent)
        });
        if from_outside {
            self.inbound.push(asking);
        } else {
            self.outbound.push(asking);
        }
    }

    /// Waits until every lane has gone on.
    #[track_caller]
    pub(crate) fn alive(&self) {
        let before: Vec<u64> = self
            .beats
            .iter()
            .map(|beat| beat.load(Ordering::Relaxed))
            .collect();
        crate::common::netns::eventually_within(2 * SOON, "an answer on every lane", || {
            let beats = self.beats.iter().zip(&before);
            beats
                .into_iter()
                .all(|(beat, before)| beat.load(Ordering::Relaxed) > *before)
        });
    }

    /// Ends all traffic; fails if any packet was lost, or passed that must not.
    pub(crate) fn stop(self) -> Done {
        self.alive();
        self.stop.store(true, Ordering::Relaxed);
        let mut done = Done::default();
        for lane in self.streams {
            done.connections += lane.join().expect("a stream that is allowed");
        }
        for lane in self.inbound {
            done.inbound
                .push(lane.join().expect("datagrams that are allowed"));
        }
        for lane in self.outbound {
            done.outbound
                .push(lane.join().expect("datagrams that are allowed"));
        }
        for lane in self.denied {
            done.denied += lane.join().unwrap();
        }
        for echo in self.echoes {
            echo.join().unwrap();
        }
        // Every packet that one side sent is one that the other received, but for those denied.
        let start = Instant::now();
        let counts = loop {
            let now = both(self.pair);
            let counts: [u64; 4] = std::array::from_fn(|place| now[place] - self.before[place]);
            if counts[3] == counts[0] + done.denied && counts[1] == counts[2] {
                break counts;
            }
            assert!(
                start.elapsed() < patient(SOON),
                "{counts:?} packets in and out, near and far, and {} denied",
                done.denied
            );
            thread::sleep(Duration::from_millis(10));
        };
        assert!(counts[0] > 0, "there was traffic");
        assert!(
            self.must_not.recv(&mut [0; 8]).is_err(),
            "nothing denied came in"
        );
        done
    }
}

/// IPv4 packets of a namespace: received, and sent (RFC 4293, `ipSystemStatsInReceives` and
/// `ipSystemStatsOutRequests`).
fn packets(namespace: &Namespace) -> [u64; 2] {
    let read = || std::fs::read_to_string("/proc/thread-self/net/snmp");
    let text = namespace.run(read).unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("Ip:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    ["InReceives", "OutRequests"].map(|wanted| {
        let place = names.split(' ').position(|name| name == wanted).unwrap();
        values.split(' ').nth(place).unwrap().parse().unwrap()
    })
}

/// Of both sides.
fn both(pair: &Pair) -> [u64; 4] {
    let ([near_in, near_out], [far_in, far_out]) = (packets(&pair.near), packets(&pair.far));
    [near_in, near_out, far_in, far_out]
}
