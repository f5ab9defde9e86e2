//! A packet that would begin something, as it stands on the wire. Checksums are 0: nobody here looks at them.

#![allow(dead_code, reason = "a test program uses what it needs of it")]

use std::net::IpAddr;

use sg_oracle::Direction;

/// A packet by what rules are asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet {
    pub(crate) direction: Direction,
    pub(crate) local: IpAddr,
    /// Of the same family.
    pub(crate) remote: IpAddr,
    pub(crate) protocol: u8,
    /// Destination port; `type << 8 | code` of the family's ICMP.
    pub(crate) port: u16,
    /// The sender's port, or the identifier of an echo.
    pub(crate) opener_port: u16,
}

/// Flags of TCP.
const SYN: u8 = 2;
const ACK: u8 = 16;

impl Packet {
    /// From the Ethernet header on.
    pub(crate) fn frame(&self) -> Vec<u8> {
        self.framed(SYN)
    }

    /// What the same sender sends next in the same flow.
    pub(crate) fn next_frame(&self) -> Vec<u8> {
        self.framed(ACK)
    }

    fn framed(&self, flags: u8) -> Vec<u8> {
        let (source, destination) = match self.direction {
            Direction::In => (self.remote, self.local),
            Direction::Out => (self.local, self.remote),
        };
        let payload = self.payload(flags);
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend([0x08, 0x00, 0x45, 0]);
                frame.extend((20 + payload.len() as u16).to_be_bytes());
                frame.extend([0, 0, 0, 0, 64, self.protocol, 0, 0]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend((payload.len() as u16).to_be_bytes());
                frame.extend([self.protocol, 64]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
            }
            _ => panic!("one family"),
        }
        frame.extend(payload);
        frame
    }

    fn payload(&self, flags: u8) -> Vec<u8> {
        let mut payload = Vec::new();
        match self.protocol {
            6 => {
                payload.extend(self.opener_port.to_be_bytes());
                payload.extend(self.port.to_be_bytes());
                // Sequence 1, acknowledgement 0, a header of five words.
                payload.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0, 64, 0, 0, 0, 0]);
            }
            17 => {
                payload.extend(self.opener_port.to_be_bytes());
                payload.extend(self.port.to_be_bytes());
                payload.extend([0, 8, 0, 0]);
            }
            1 | 58 => {
                payload.extend(self.port.to_be_bytes());
                payload.extend([0, 0]);
                payload.extend(self.opener_port.to_be_bytes());
                payload.extend([0, 1]);
            }
            _ => payload.extend([0; 8]),
        }
        payload
    }
}
