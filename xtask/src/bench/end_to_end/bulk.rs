//! One TCP stream that carries as much as it can.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::bed::Bed;
use super::connections::Origins;
use super::firewall::PORT;
use super::namespace::{self, CLIENTS};
use super::task::{self, RECEIVER, SENDER, Work};

/// How long a sample lasts.
const DURATION: Duration = Duration::from_millis(500);
/// Bytes written and read at once.
const PIECE: usize = 256 << 10;
/// How long either side may wait for the other.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bits of payload to the server of a bed, as many as can be.
///
/// # Errors
/// If the connection fails.
pub(super) fn sample(bed: &Bed, origins: &Origins) -> Result<Work> {
    let address = SocketAddr::new(IpAddr::V4(bed.server()), PORT);
    let listener = bed.inside(|| TcpListener::bind(address))??;
    let before = bed.pollers()?;
    thread::scope(|scope| {
        let receiver = scope.spawn(|| task::timed(*RECEIVER, || receive(&listener)));
        let sender = namespace::inside(CLIENTS, || {
            task::timed(SENDER, || send(address, origins.next()))
        });
        let (bytes, receiving) = receiver.join().ok().context("the receiver panicked")??;
        let ((), sending) = sender??;
        Ok(Work {
            amount: 8 * bytes,
            busy: bed.pollers()?.since(before).and(sending, receiving),
        })
    })
}

/// Sends until the other side has had enough.
fn send(server: SocketAddr, origin: SocketAddr) -> Result<()> {
    let mut stream = connect(server, origin)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let piece = vec![0; PIECE];
    loop {
        match stream.write(&piece) {
            Ok(_) => {}
            Err(error)
                if [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&error.kind()) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error).context("send"),
        }
    }
}

fn connect(server: SocketAddr, origin: SocketAddr) -> Result<TcpStream> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    )?;
    rustix::net::bind(&socket, &origin)?;
    rustix::net::connect(&socket, &server).with_context(|| format!("connect to {server}"))?;
    Ok(socket.into())
}

fn receive(listener: &TcpListener) -> Result<u64> {
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let end = Instant::now() + DURATION;
    let mut piece = vec![0; PIECE];
    let mut bytes = 0;
    while Instant::now() < end {
        let read = stream.read(&mut piece).context("receive")?;
        ensure!(read > 0, "the stream ends early");
        bytes += read as u64;
    }
    // Closing with bytes unread resets the connection: the sender has an end, too.
    Ok(bytes)
}
