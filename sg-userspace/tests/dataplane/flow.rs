//! Packets of one flow, written from the workload's side.

use std::net::IpAddr;

use sg_common::verdict::Direction::{self, Egress, Ingress};

use crate::frame::{self, Ip};

/// Two ends that talk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) ip: Ip,
    pub(crate) local: (IpAddr, u16),
    pub(crate) remote: (IpAddr, u16),
}

impl Flow {
    /// Between the workload and the peer.
    pub(crate) fn new(ip: Ip, local_port: u16, remote_port: u16) -> Self {
        Self {
            ip,
            local: (ip.workload(), local_port),
            remote: (ip.peer(), remote_port),
        }
    }

    /// The same with another.
    pub(crate) fn with(self, remote: IpAddr) -> Self {
        Self {
            remote: (remote, self.remote.1),
            ..self
        }
    }

    /// Source and destination address.
    pub(crate) fn ends(&self, direction: Direction) -> (IpAddr, IpAddr) {
        match direction {
            Ingress => (self.remote.0, self.local.0),
            Egress => (self.local.0, self.remote.0),
        }
    }

    /// Source and destination port.
    pub(crate) fn ports(&self, direction: Direction) -> (u16, u16) {
        match direction {
            Ingress => (self.remote.1, self.local.1),
            Egress => (self.local.1, self.remote.1),
        }
    }

    /// A TCP segment with `len` bytes of payload.
    pub(crate) fn tcp(
        &self,
        direction: Direction,
        flags: u8,
        sequence: u32,
        ack: u32,
        len: usize,
    ) -> Vec<u8> {
        let segment = frame::segment(self.ports(direction), flags, sequence, ack, len);
        frame::ip(self.ends(direction), 6, &segment)
    }

    /// A UDP datagram.
    pub(crate) fn udp(&self, direction: Direction) -> Vec<u8> {
        let datagram = frame::datagram(self.ports(direction), 12);
        frame::ip(self.ends(direction), 17, &datagram)
    }

    /// An echo request; its identifier is the local port.
    pub(crate) fn ask(&self, direction: Direction) -> Vec<u8> {
        self.echo(direction, self.ip.pick(8, 128))
    }

    /// An echo reply.
    pub(crate) fn answer(&self, direction: Direction) -> Vec<u8> {
        self.echo(direction, self.ip.pick(0, 129))
    }

    fn echo(&self, direction: Direction, kind: u8) -> Vec<u8> {
        let [high, low] = self.local.1.to_be_bytes();
        frame::icmp(
            self.ends(direction),
            kind,
            0,
            &[high, low, 0, 1, b'!', b'!'],
        )
    }

    /// A packet of another protocol.
    pub(crate) fn other(&self, direction: Direction, protocol: u8) -> Vec<u8> {
        frame::ip(self.ends(direction), protocol, &[0; 16])
    }
}
