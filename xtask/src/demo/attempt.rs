//! One attempt of a node to reach another, with real sockets.

use std::fmt;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use sg_userspace::model::protocol;

use super::topology::{Topology, inside};

/// What is said to a service, which says it back.
const WORDS: [u8; 5] = *b"hello";

/// Who tries to reach whom, and by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// Name of a node.
    pub(crate) from: &'static str,
    /// Name of a node.
    pub(crate) to: &'static str,
    /// By what.
    pub(crate) what: What,
}

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A TCP connection to this port.
    Tcp(u16),
    /// A UDP datagram to this port.
    Udp(u16),
    /// An echo request.
    Ping,
}

/// How the other side reacted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reaction {
    /// It said back what was said.
    Answered,
    /// Its system said that nobody listens.
    Refused,
    /// Nothing came back.
    Silent,
    /// Something else happened.
    Failed(String),
}

impl Attempt {
    /// Makes the attempt over one family; `patience` is how long silence is listened to.
    ///
    /// # Errors
    /// If it cannot even be made.
    pub(crate) fn carry_out(
        &self,
        topology: &Topology,
        ipv6: bool,
        patience: Duration,
    ) -> Result<Reaction> {
        let address = topology.node(self.to)?.address(ipv6);
        let namespace = &topology.node(self.from)?.namespace;
        match self.what {
            What::Tcp(port) => {
                let opened = open(namespace, SocketAddr::new(address, port), patience)?;
                Ok(opened.map_or_else(|reaction| reaction, |stream| exchange(&stream)))
            }
            What::Udp(port) => inside(namespace, || {
                datagram(SocketAddr::new(address, port), patience)
            }),
            What::Ping => inside(namespace, || ping(address, patience))?,
        }
    }
}

impl What {
    /// IP protocol number, and destination port or `type << 8 | code`, as policy is evaluated by.
    pub(crate) fn selector(self, ipv6: bool) -> (u8, u16) {
        /// Echo request (RFC 792, RFC 4443 §4.1), code 0.
        const ECHO: u16 = 8 << 8;
        const ECHO6: u16 = 128 << 8;
        match self {
            What::Tcp(port) => (protocol::TCP, port),
            What::Udp(port) => (protocol::UDP, port),
            What::Ping if ipv6 => (protocol::ICMPV6, ECHO6),
            What::Ping => (protocol::ICMP, ECHO),
        }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:8} -> {:6}  {}", self.from, self.to, self.what)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Tcp(port) => write!(f, "tcp {port}"),
            What::Udp(port) => write!(f, "udp {port}"),
            What::Ping => f.write_str("ping"),
        }
    }
}

/// Opens a TCP connection from a namespace.
///
/// # Errors
/// If the namespace cannot be entered; what the network makes of it is the inner result.
pub(crate) fn open(
    namespace: &str,
    to: SocketAddr,
    patience: Duration,
) -> Result<Result<TcpStream, Reaction>> {
    let opened = inside(namespace, || TcpStream::connect_timeout(&to, patience))?;
    Ok(opened
        .and_then(|stream| {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(patience))?;
            Ok(stream)
        })
        .map_err(|error| reaction(&error)))
}

/// Says something on an open connection and hears it back.
pub(crate) fn exchange(mut stream: &TcpStream) -> Reaction {
    let mut answer = [0; WORDS.len()];
    match stream
        .write_all(&WORDS)
        .and_then(|()| stream.read_exact(&mut answer))
    {
        Ok(()) if answer == WORDS => Reaction::Answered,
        Ok(()) => Reaction::Failed("the answer is not what was said".to_owned()),
        Err(error) => Reaction::Failed(format!("connected, then {error}")),
    }
}

fn datagram(to: SocketAddr, patience: Duration) -> Reaction {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let mut answer = [0; WORDS.len()];
    let heard = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect(to)?;
        socket.set_read_timeout(Some(patience))?;
        socket.send(&WORDS)?;
        socket.recv(&mut answer)
    });
    match heard {
        Ok(length) if answer[..length] == WORDS => Reaction::Answered,
        Ok(_) => Reaction::Failed("the answer is not what was said".to_owned()),
        Err(error) => reaction(&error),
    }
}

fn ping(address: IpAddr, patience: Duration) -> Result<Reaction> {
    let seconds = format!("{:.1}", patience.as_secs_f64());
    let output = Command::new("ping")
        .args(["-n", "-c", "1", "-W", &seconds])
        .arg(address.to_string())
        .stdin(Stdio::null())
        .output()
        .context("start `ping`")?;
    Ok(match output.status.code() {
        Some(0) => Reaction::Answered,
        // ping(8): 1 if it received no reply at all.
        Some(1) => Reaction::Silent,
        _ => Reaction::Failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    })
}

fn reaction(error: &std::io::Error) -> Reaction {
    match error.kind() {
        ErrorKind::ConnectionRefused => Reaction::Refused,
        // A read that timed out would block.
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Reaction::Silent,
        _ => Reaction::Failed(error.to_string()),
    }
}
