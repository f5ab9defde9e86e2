//! ICMP echo by a raw socket, so that the identifier is the test's.

use std::{
    net::{Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, recvfrom, sendto, socket,
    sockopt::{Timeout, set_socket_timeout},
};

use crate::common::netns::Namespace;

/// Who asks.
pub(crate) struct Pinger(OwnedFd);

impl Pinger {
    pub(crate) fn new(namespace: &Namespace) -> Self {
        let raw = || socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP));
        Self(namespace.run(raw).unwrap())
    }

    /// Whether a request with this identifier is answered in time.
    pub(crate) fn pings(&self, to: Ipv4Addr, identifier: u16, within: Duration) -> bool {
        // Type 8, code 0, checksum, identifier, sequence number (RFC 792); the checksum is the complement of the sum.
        let sum = 0x0800 + u32::from(identifier);
        let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
        let mut request = [8, 0, 0, 0, 0, 0, 0, 0];
        request[2..4].copy_from_slice(&checksum.to_be_bytes());
        request[4..6].copy_from_slice(&identifier.to_be_bytes());
        let address = SocketAddr::new(to.into(), 0);
        // One that is dropped at its sender's own device may be told of.
        let _ = sendto(&self.0, &request, SendFlags::empty(), &address);
        let end = Instant::now() + within;
        let mut bytes = [0; 256];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            set_socket_timeout(&self.0, Timeout::Recv, Some(left)).unwrap();
            let Ok((read, ..)) = recvfrom(&self.0, &mut bytes, RecvFlags::empty()) else {
                continue;
            };
            // Behind the IP header.
            let reply = bytes[..read].get(20..26);
            if reply.is_some_and(|reply| reply[0] == 0 && reply[4..6] == identifier.to_be_bytes()) {
                return true;
            }
        }
    }
}
