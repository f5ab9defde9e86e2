//! Flows that live long, with numbers travelling both ways all the time. Both ends are here: what one sends the other
//! must get, every number, in order.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::common::{
    netns::{Namespace, SOON, eventually_within},
    scale::patient,
};

/// One flow.
pub(crate) struct Line {
    name: String,
    /// The opener's end and the other one.
    ends: [End; 2],
    counts: Arc<Counts>,
    /// That of the server, which tells who opened it.
    listener: Option<TcpListener>,
}

/// Numbers that may be under way in one direction.
const UNDER_WAY: u64 = 8;

/// By end.
#[derive(Debug, Default)]
struct Counts {
    sent: [AtomicU64; 2],
    got: [AtomicU64; 2],
}

enum End {
    Tcp(TcpStream, Vec<u8>),
    Udp(UdpSocket),
}

impl End {
    /// Whether the number was taken.
    fn send(&mut self, number: u64) -> Result<bool, String> {
        let bytes = number.to_be_bytes();
        let sent = match self {
            End::Tcp(stream, _) => stream.write(&bytes),
            End::Udp(socket) => socket.send(&bytes),
        };
        match sent {
            Ok(8) => Ok(true),
            Ok(part) => Err(format!("{part} bytes of 8 were taken")),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(format!("cannot send: {error}")),
        }
    }

    /// Numbers that have come.
    fn hear(&mut self, numbers: &mut Vec<u64>) -> Result<(), String> {
        let mut bytes = [0; 4096];
        loop {
            let heard = match self {
                End::Tcp(stream, _) => stream.read(&mut bytes),
                End::Udp(socket) => socket.recv(&mut bytes),
            };
            match (heard, &mut *self) {
                (Ok(0), End::Tcp(..)) => return Err("it was closed".to_owned()),
                (Ok(read), End::Tcp(_, rest)) => {
                    rest.extend(&bytes[..read]);
                    let whole = rest.len() / 8 * 8;
                    numbers.extend(rest.drain(..whole).as_slice().chunks(8).map(number));
                }
                (Ok(read), End::Udp(_)) => numbers.push(number(&bytes[..read])),
                (Err(error), _) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                (Err(error), _) => return Err(format!("cannot receive: {error}")),
            }
        }
    }
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().expect("eight bytes were sent"))
}

impl Line {
    /// A TCP connection from one namespace to another.
    pub(crate) fn tcp(from: &Namespace, to: (&Namespace, impl Into<IpAddr>), port: u16) -> Self {
        let address = SocketAddr::new(to.1.into(), port);
        let listener = to.0.run(|| TcpListener::bind(address)).unwrap();
        let client = from.connect(address.ip(), port).unwrap();
        let (server, _) = listener.accept().unwrap();
        let mut line = Self::between(format!("TCP {address}"), client, server);
        line.listener = Some(listener);
        line
    }

    /// The same where the other end is reached under another address and port.
    pub(crate) fn between(name: String, client: TcpStream, server: TcpStream) -> Self {
        let ends = [client, server].map(|stream| {
            stream.set_nonblocking(true).unwrap();
            stream.set_nodelay(true).unwrap();
            End::Tcp(stream, Vec::new())
        });
        Self::of(name, ends)
    }

    /// Datagrams between two sockets, both of which know the other.
    pub(crate) fn udp(from: &Namespace, to: &Namespace, ends: [IpAddr; 2], port: u16) -> Self {
        let sockets = [(from, ends[0], 0), (to, ends[1], port)]
            .map(|(end, address, port)| end.run(|| UdpSocket::bind((address, port))).unwrap());
        let addresses = [0, 1].map(|end: usize| sockets[end].local_addr().unwrap());
        sockets[0].connect(addresses[1]).unwrap();
        sockets[1].connect(addresses[0]).unwrap();
        Self::of(format!("UDP {}", addresses[1]), sockets.map(End::datagrams))
    }

    pub(crate) fn of_datagrams(name: String, sockets: [UdpSocket; 2]) -> Self {
        Self::of(name, sockets.map(End::datagrams))
    }

    fn of(name: String, ends: [End; 2]) -> Self {
        Self {
            name,
            ends,
            counts: Arc::default(),
            listener: None,
        }
    }

    /// Sends from both ends, and takes what has come.
    fn turn(&mut self, sending: bool) -> Result<(), String> {
        let mut numbers = Vec::new();
        for (place, end) in self.ends.iter_mut().enumerate() {
            let sent = &self.counts.sent[place];
            let got = &self.counts.got[1 - place];
            // No more than a busy machine can hold: what it loses would be held against the enforcer.
            let under_way = sent.load(Ordering::Relaxed) - got.load(Ordering::Relaxed);
            if sending && under_way < UNDER_WAY && end.send(sent.load(Ordering::Relaxed))? {
                sent.fetch_add(1, Ordering::Relaxed);
            }
            end.hear(&mut numbers)?;
            for number in numbers.drain(..) {
                let expected = self.counts.got[place].fetch_add(1, Ordering::Relaxed);
                if number != expected {
                    return Err(format!("{number} came in the place of {expected}"));
                }
            }
        }
        Ok(())
    }
}

impl End {
    fn datagrams(socket: UdpSocket) -> Self {
        socket.set_nonblocking(true).unwrap();
        End::Udp(socket)
    }
}

impl Counts {
    fn got(&self) -> [u64; 2] {
        [0, 1].map(|end: usize| self.got[end].load(Ordering::Relaxed))
    }

    fn is_complete(&self) -> bool {
        let sent = [1, 0].map(|end: usize| self.sent[end].load(Ordering::Relaxed));
        self.got() == sent
    }
}

/// Flows at work.
pub(crate) struct Lines {
    counts: Vec<(String, Arc<Counts>)>,
    stop: Arc<AtomicBool>,
    cut: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Lines {
    /// Sends on all of them until told to stop.
    pub(crate) fn start(mut lines: Vec<Line>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let named = |line: &Line| (line.name.clone(), Arc::clone(&line.counts));
        let counts = lines.iter().map(named).collect();
        let cut = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&cut);
        let thread = thread::spawn(move || {
            let mut last = None;
            loop {
                if stopped.load(Ordering::Relaxed) {
                    last.get_or_insert_with(Instant::now);
                }
                lines.retain_mut(|line| match line.turn(last.is_none()) {
                    Ok(()) => true,
                    Err(why) => {
                        let why = format!("{}: {why}", line.name);
                        noted.lock().unwrap().push(why);
                        false
                    }
                });
                let complete = lines.iter().all(|line| line.counts.is_complete());
                // A few retransmissions.
                let late = |since: Instant| complete || since.elapsed() > patient(4 * SOON);
                if last.is_some_and(late) {
                    let missing = lines.iter().filter(|line| !line.counts.is_complete());
                    let missing = missing.map(|line| format!("{}: {:?}", line.name, line.counts));
                    noted.lock().unwrap().extend(missing);
                    return;
                }
                thread::sleep(Duration::from_millis(2));
            }
        });
        Self {
            counts,
            stop,
            cut,
            thread: Some(thread),
        }
    }

    /// Waits until numbers have come at both ends of each.
    #[track_caller]
    pub(crate) fn go_on(&self) {
        let before: Vec<[u64; 2]> = self.counts.iter().map(|(_, counts)| counts.got()).collect();
        for ((name, counts), before) in self.counts.iter().zip(before) {
            eventually_within(4 * SOON, &format!("more on {name}"), || {
                assert_eq!(*self.cut.lock().unwrap(), Vec::<String>::new());
                let got = counts.got();
                got.iter()
                    .zip(before)
                    .all(|(got, before)| *got >= before + 3)
            });
        }
    }

    /// Which have numbers that are not there yet, after a while without more of them.
    pub(crate) fn silent(&self) -> Vec<&str> {
        let before: Vec<[u64; 2]> = self.counts.iter().map(|(_, counts)| counts.got()).collect();
        thread::sleep(patient(SOON / 5));
        let silent = self
            .counts
            .iter()
            .zip(before)
            .filter(|((_, counts), before)| {
                let got = counts.got();
                got.iter().zip(before).any(|(got, before)| got == before)
            });
        silent.map(|((name, _), _)| name.as_str()).collect()
    }

    /// Ends them; every number that was sent must have come by then. Answers how many there were.
    #[track_caller]
    pub(crate) fn finish(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        assert_eq!(*self.cut.lock().unwrap(), Vec::<String>::new());
        let got = self.counts.iter().flat_map(|(_, counts)| counts.got());
        got.sum()
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
