//! TCP connections: how many can be opened, used and closed a second.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::bed::Bed;
use super::firewall::{PORT, Rules};
use super::namespace::{self, CLIENTS};
use super::task::{self, RECEIVER, SENDER, Work};

/// Connections at once.
const IN_FLIGHT: usize = 64;
/// How long a sample lasts.
const DURATION: Duration = Duration::from_millis(300);
/// How long the last connections may take on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the next connection comes from: no port of an address is used twice within minutes.
pub(super) struct Origins {
    next: AtomicU32,
    prefixes: u32,
}

impl Origins {
    /// Addresses within the prefixes of `rules`.
    pub(super) fn within(rules: Rules) -> Self {
        Self {
            next: AtomicU32::new(0),
            prefixes: rules.count,
        }
    }

    /// The next one.
    pub(super) fn next(&self) -> SocketAddr {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let prefix = number % self.prefixes;
        let (host, port) = (1 + (number >> 15) % 254, 0x8000 | number & 0x7fff);
        let address = Ipv4Addr::from(10 << 24 | prefix << 9 | host);
        SocketAddr::new(address.into(), port as u16)
    }
}

/// Connections to the server of a bed, as many as can be.
///
/// # Errors
/// If one fails.
pub(super) fn sample(bed: &Bed, origins: &Origins) -> Result<Work> {
    let stop = AtomicBool::new(false);
    let address = SocketAddr::new(IpAddr::V4(bed.server()), PORT);
    let listener = bed.inside(|| TcpListener::bind(address))??;
    let before = bed.pollers()?;
    thread::scope(|scope| {
        let server = scope.spawn(|| task::timed(*RECEIVER, || serve(&listener, &stop)));
        let client = namespace::inside(CLIENTS, || {
            task::timed(SENDER, || connect_often(address, origins))
        });
        stop.store(true, Ordering::Relaxed);
        let (accepted, receiving) = server.join().ok().context("the server panicked")??;
        let (opened, sending) = client??;
        if accepted != opened {
            bail!("{opened} connections were opened, but {accepted} accepted");
        }
        Ok(Work {
            amount: opened,
            busy: bed.pollers()?.since(before).and(sending, receiving),
        })
    })
}

/// How long a side waits for the next event before it looks whether it is over.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};
/// Number of the socket that listens: that of no connection.
const LISTENER: usize = usize::MAX;
/// Events taken at once.
const EVENTS: usize = 128;
/// Both ways, once per change.
const CHANGES: EventFlags = EventFlags::IN
    .union(EventFlags::OUT)
    .union(EventFlags::RDHUP)
    .union(EventFlags::ET);

/// Sockets that are waited for, by number.
struct Waiting {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Waiting {
    fn new() -> Result<Self> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS),
        })
    }

    fn add(&self, socket: impl std::os::fd::AsFd, number: usize, flags: EventFlags) -> Result<()> {
        Ok(epoll::add(
            &self.epoll,
            socket,
            EventData::new_u64(number as u64),
            flags,
        )?)
    }

    /// Numbers of sockets where something happened; none after [`LOOK`].
    fn next(&mut self) -> Result<impl Iterator<Item = usize>> {
        self.events.clear();
        let room = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, room, Some(&LOOK)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.events.iter().map(|event| event.data.u64() as usize))
    }
}

/// Answers every connection's byte until told to stop; says how many there were.
fn serve(listener: &TcpListener, stop: &AtomicBool) -> Result<u64> {
    listener.set_nonblocking(true)?;
    let mut waiting = Waiting::new()?;
    waiting.add(listener, LISTENER, EventFlags::IN)?;
    // By number, which is that of the socket: small, and used again.
    let mut streams: Vec<Option<TcpStream>> = Vec::new();
    let mut accepted = 0;
    while !stop.load(Ordering::Relaxed) {
        let numbers: Vec<usize> = waiting.next()?.collect();
        for number in numbers {
            if number != LISTENER {
                // Twice the same connection: its end has been seen to.
                let over = streams[number].as_ref().is_some_and(answer);
                if over {
                    streams[number] = None;
                }
                continue;
            }
            while let Some((stream, _)) = ready(listener.accept())? {
                stream.set_nonblocking(true)?;
                accepted += 1;
                let number = usize::try_from(stream.as_raw_fd())?;
                waiting.add(&stream, number, CHANGES)?;
                if streams.len() <= number {
                    streams.resize_with(number + 1, || None);
                }
                streams[number] = Some(stream);
            }
        }
    }
    Ok(accepted)
}

/// Says back what came; whether the other side has said its last.
fn answer(mut stream: &TcpStream) -> bool {
    loop {
        // A client that fails says so itself.
        match ready(stream.read(&mut [0; 8])) {
            Ok(None) => return false,
            Ok(Some(1..)) if stream.write(b"y").is_ok() => {}
            _ => return true,
        }
    }
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connecting,
    Asked,
    Ending,
}

/// Makes connections for a while; says how many.
fn connect_often(server: SocketAddr, origins: &Origins) -> Result<u64> {
    let mut waiting = Waiting::new()?;
    let start = Instant::now();
    let mut open = Vec::new();
    for number in 0..IN_FLIGHT {
        open.push(Some(connect(&waiting, number, server, origins.next())?));
    }
    let mut opened = IN_FLIGHT as u64;
    while open.iter().any(Option::is_some) {
        if start.elapsed() > DURATION + PATIENCE {
            let stages: Vec<Stage> = open.iter().flatten().map(|(_, stage)| *stage).collect();
            bail!("of {opened} connections some hang: {stages:?}");
        }
        let numbers: Vec<usize> = waiting.next()?.collect();
        for number in numbers {
            let Some((stream, stage)) = &mut open[number] else {
                continue;
            };
            if !go_on(stream, stage).context("a connection fails")? {
                continue;
            }
            open[number] = None;
            if start.elapsed() < DURATION {
                opened += 1;
                open[number] = Some(connect(&waiting, number, server, origins.next())?);
            }
        }
    }
    Ok(opened)
}

fn connect(
    waiting: &Waiting,
    number: usize,
    server: SocketAddr,
    origin: SocketAddr,
) -> Result<(TcpStream, Stage)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &origin).with_context(|| format!("bind to {origin}"))?;
    match rustix::net::connect(&socket, &server) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(error) => return Err(error).with_context(|| format!("connect from {origin}")),
    }
    let stream = TcpStream::from(socket);
    waiting.add(&stream, number, CHANGES)?;
    Ok((stream, Stage::Connecting))
}

/// Does what can be done: a byte each way, then the end of each side; whether it is over.
fn go_on(mut stream: &TcpStream, stage: &mut Stage) -> io::Result<bool> {
    loop {
        match stage {
            Stage::Connecting => {
                // Not yet connected: as good as not writable.
                let written = match stream.write(b"x") {
                    Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(false),
                    written => ready(written)?,
                };
                if written.is_none() {
                    return Ok(false);
                }
                *stage = Stage::Asked;
            }
            Stage::Asked => match ready(stream.read(&mut [0; 8]))? {
                None => return Ok(false),
                Some(1) => {
                    stream.shutdown(Shutdown::Write)?;
                    *stage = Stage::Ending;
                }
                Some(_) => return Err(ErrorKind::UnexpectedEof.into()),
            },
            Stage::Ending => {
                return match ready(stream.read(&mut [0; 8]))? {
                    None => Ok(false),
                    Some(0) => Ok(true),
                    Some(_) => Err(ErrorKind::InvalidData.into()),
                };
            }
        }
    }
}

/// `None` where it would have to be waited for.
fn ready<T>(done: io::Result<T>) -> io::Result<Option<T>> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
