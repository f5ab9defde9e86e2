//! Connections that open one after the other, all the time.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::net::sockopt::set_socket_linger;

use crate::common::{
    netns::{Namespace, SOON},
    scale::patient,
};

/// How many are kept open: the last ones.
const KEPT: usize = 120;
/// How long each is waited for.
const ATTEMPT: Duration = Duration::from_millis(200);

/// A connection that was opened.
struct Opened {
    stream: TcpStream,
    /// When its SYN was about to be sent, and when it was open.
    time: [Instant; 2],
}

/// One storm.
pub(crate) struct Storm {
    stop: Arc<AtomicBool>,
    clients: JoinHandle<(VecDeque<Opened>, u64)>,
    servers: JoinHandle<VecDeque<TcpStream>>,
}

/// What became of its connections.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Those that were open in time.
    pub(crate) before: usize,
    /// Of these, those that are dead.
    pub(crate) cut: Vec<SocketAddr>,
    /// Those that were begun too late and are open nevertheless.
    pub(crate) late: usize,
    /// Attempts that failed.
    pub(crate) failed: u64,
}

impl Storm {
    pub(crate) fn start(from: &Namespace, to: &Namespace, address: impl Into<IpAddr>) -> Self {
        let address = SocketAddr::new(address.into(), 0);
        let listener = to.run(|| TcpListener::bind(address));
        let listener = listener.unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = [0; 2].map(|_| Arc::clone(&stop));
        let [one, other] = stopped;
        let servers = thread::spawn(move || {
            let mut accepted = VecDeque::new();
            while !one.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => keep(&mut accepted, 2 * KEPT, stream, |stream| stream),
                    Err(_) => thread::sleep(Duration::from_millis(1)),
                }
            }
            accepted.extend(listener.incoming().map_while(Result::ok));
            accepted
        });
        let name = from.name.clone();
        let clients = thread::spawn(move || {
            let netns = sg_userspace::netns::Netns::open(Some(&name)).unwrap();
            netns.run(|| Self::open(address, &other)).unwrap()
        });
        Self {
            stop,
            clients,
            servers,
        }
    }

    fn open(address: SocketAddr, stop: &AtomicBool) -> (VecDeque<Opened>, u64) {
        let (mut opened, mut failed) = (VecDeque::new(), 0);
        while !stop.load(Ordering::Relaxed) {
            let begun = Instant::now();
            match TcpStream::connect_timeout(&address, ATTEMPT) {
                Ok(stream) => {
                    let time = [begun, Instant::now()];
                    keep(&mut opened, KEPT, Opened { stream, time }, |one| {
                        &one.stream
                    });
                }
                Err(_) => failed += 1,
            }
            thread::sleep(Duration::from_micros(500));
        }
        (opened, failed)
    }

    /// Ends it, and looks which connections live of those that were open at `moment`.
    pub(crate) fn finish(self, moment: Instant) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let (opened, failed) = self.clients.join().unwrap();
        let mut accepted = self.servers.join().unwrap();
        let mut outcome = Outcome {
            failed,
            ..Outcome::default()
        };
        for one in opened {
            if one.time[0] > moment {
                outcome.late += 1;
                continue;
            }
            if one.time[1] > moment {
                continue;
            }
            outcome.before += 1;
            let local = one.stream.local_addr().unwrap();
            let other = accepted
                .iter_mut()
                .find(|other| other.peer_addr().is_ok_and(|peer| peer == local));
            let lives =
                other.is_some_and(|other| says(&one.stream, other) && says(other, &one.stream));
            if !lives {
                outcome.cut.push(local);
            }
        }
        outcome
    }
}

/// Keeps a connection, and resets the oldest if there are too many: no port is kept in TIME-WAIT.
fn keep<T>(kept: &mut VecDeque<T>, most: usize, new: T, stream: impl Fn(&T) -> &TcpStream) {
    set_socket_linger(stream(&new), Some(Duration::ZERO)).unwrap();
    kept.push_back(new);
    if kept.len() > most {
        kept.pop_front();
    }
}

/// Whether one end hears what the other says.
fn says(mut from: &TcpStream, mut to: &TcpStream) -> bool {
    for stream in [from, to] {
        stream.set_nonblocking(false).unwrap();
    }
    to.set_read_timeout(Some(patient(2 * SOON))).unwrap();
    let mut back = [0; 4];
    let heard = from
        .write_all(b"ping")
        .and_then(|()| to.read_exact(&mut back));
    match heard {
        Ok(()) => back == *b"ping",
        Err(error) => {
            assert_ne!(error.kind(), ErrorKind::InvalidInput);
            false
        }
    }
}
