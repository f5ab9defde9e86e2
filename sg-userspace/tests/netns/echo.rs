//! ICMP echo by raw sockets, so that a test chooses the identifier and either side of it.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketType, bind, ipproto, recvfrom, sendto, socket,
        sockopt::{Timeout, set_socket_timeout},
    },
};

use crate::{
    common::netns::{NEVER, Namespace, SOON},
    link::Family,
};

/// Half of an echo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Reply,
}

/// An address that sends and hears echo messages.
pub(crate) struct Pinger {
    socket: OwnedFd,
    family: Family,
}

impl Pinger {
    pub(crate) fn new(namespace: &Namespace, address: IpAddr) -> Self {
        let (family, domain, protocol) = match address {
            IpAddr::V4(_) => (Family::V4, AddressFamily::INET, ipproto::ICMP),
            IpAddr::V6(_) => (Family::V6, AddressFamily::INET6, ipproto::ICMPV6),
        };
        let socket = namespace
            .run(|| socket(domain, SocketType::RAW, Some(protocol)))
            .unwrap();
        bind(&socket, &SocketAddr::new(address, 0)).unwrap();
        Self { socket, family }
    }

    /// Whether a request with this identifier is answered with the same.
    pub(crate) fn pings(&self, to: IpAddr, identifier: u16) -> bool {
        self.send(Kind::Request, to, identifier);
        self.hears(Kind::Reply, to, identifier, SOON)
    }

    /// Whether a request is met by silence.
    pub(crate) fn ping_is_dropped(&self, to: IpAddr, identifier: u16) -> bool {
        self.send(Kind::Request, to, identifier);
        !self.hears(Kind::Reply, to, identifier, NEVER)
    }

    pub(crate) fn send(&self, kind: Kind, to: IpAddr, identifier: u16) {
        let mut message = [0; 16];
        message[0] = self.number(kind);
        message[4..6].copy_from_slice(&identifier.to_be_bytes());
        // The kernel does it for ICMPv6.
        if self.family == Family::V4 {
            let checksum = checksum(&message);
            message[2..4].copy_from_slice(&checksum.to_be_bytes());
        }
        let to = SocketAddr::new(to, 0);
        match sendto(&self.socket, &message, SendFlags::empty(), &to) {
            // A packet dropped at its sender's own device.
            Ok(_) | Err(Errno::NOBUFS) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// Whether such a message comes within the time.
    pub(crate) fn hears(
        &self,
        kind: Kind,
        from: IpAddr,
        identifier: u16,
        within: Duration,
    ) -> bool {
        let end = Instant::now() + within;
        // A raw IPv4 socket hands over the IP header as well.
        let header = if self.family == Family::V4 { 20 } else { 0 };
        let wanted = (self.number(kind), identifier);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            set_socket_timeout(&self.socket, Timeout::Recv, Some(left)).unwrap();
            let mut bytes = [0; 256];
            let Ok((read, _, source)) = recvfrom(&self.socket, &mut bytes, RecvFlags::empty())
            else {
                continue;
            };
            let source = source.and_then(|source| SocketAddr::try_from(source).ok());
            let Some(message) = bytes[..read].get(header..header + 8) else {
                continue;
            };
            let found = (message[0], u16::from_be_bytes([message[4], message[5]]));
            if found == wanted && source.is_some_and(|source| source.ip() == from) {
                return true;
            }
        }
    }

    /// Type (RFC 792, RFC 4443 §4).
    fn number(&self, kind: Kind) -> u8 {
        match (self.family, kind) {
            (Family::V4, Kind::Request) => 8,
            (Family::V4, Kind::Reply) => 0,
            (Family::V6, Kind::Request) => 128,
            (Family::V6, Kind::Reply) => 129,
        }
    }
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    !((sum & 0xffff) + (sum >> 16)) as u16
}
