//! Datagrams with a number, from flows that live or from one that nobody has seen.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};

use crate::common::netns::Namespace;

/// What a datagram says: its channel and its number.
pub(crate) type Payload = [u8; 8];

pub(crate) fn payload(channel: usize, number: u32) -> Payload {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&(channel as u32).to_be_bytes());
    bytes[4..].copy_from_slice(&number.to_be_bytes());
    bytes
}

pub(crate) fn read(payload: &[u8]) -> Option<(usize, u32)> {
    let word = |at: usize| {
        Some(u32::from_be_bytes(
            payload.get(at..at + 4)?.try_into().ok()?,
        ))
    };
    (payload.len() == 8).then_some((word(0)? as usize, word(4)?))
}

/// Of all tests together.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Sends IPv4 datagrams whose source is made up.
pub(crate) struct Strangers {
    socket: OwnedFd,
    sources: Vec<Ipv4Addr>,
}

impl Strangers {
    pub(crate) fn new(namespace: &Namespace, sources: Vec<Ipv4Addr>) -> Self {
        let raw = || socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW));
        Self {
            socket: namespace.run(raw).unwrap(),
            sources,
        }
    }

    /// Sends a datagram from an address and a port that have not been seen yet: the same come again after half a
    /// million.
    pub(crate) fn send(&self, to: (Ipv4Addr, u16), payload: Payload) -> io::Result<()> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let count = self.sources.len() as u32;
        let source = self.sources[(number % count) as usize];
        let port = 1024 + (number / count % 64_000) as u16;
        let mut packet = Vec::with_capacity(36);
        // Version and header length, DSCP; total length and identification are the kernel's to fill in, as is
        // the checksum (raw(7)); flags, TTL, UDP.
        packet.extend([0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0]);
        packet.extend(source.octets());
        packet.extend(to.0.octets());
        packet.extend(port.to_be_bytes());
        packet.extend(to.1.to_be_bytes());
        // Length; no checksum (RFC 768).
        packet.extend([0, 16, 0, 0]);
        packet.extend(payload);
        let to = SocketAddr::new(to.0.into(), 0);
        sendto(&self.socket, &packet, SendFlags::DONTWAIT, &to)?;
        Ok(())
    }
}

/// A socket that neither blocks nor runs out of room with what is under way here.
pub(crate) fn datagrams(namespace: &Namespace, address: SocketAddr) -> UdpSocket {
    let socket = namespace.run(|| UdpSocket::bind(address)).unwrap();
    socket.set_nonblocking(true).unwrap();
    let bytes: libc::c_int = 1 << 20;
    // SAFETY: the value is an `int`, and the length says so.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const bytes).cast(),
            size_of_val(&bytes) as u32,
        )
    };
    assert_eq!(set, 0, "SO_RCVBUFFORCE");
    socket
}
