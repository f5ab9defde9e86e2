//! A packet that would begin something, as it stands on the wire. Checksums are 0: nobody here looks at them.

use std::net::IpAddr;

use sg_oracle::Direction;

/// Local port or identifier.
const LOCAL_PORT: u16 = 40_001;

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
}

impl Packet {
    /// From the Ethernet header on.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let (source, destination) = match self.direction {
            Direction::In => (self.remote, self.local),
            Direction::Out => (self.local, self.remote),
        };
        let payload = self.payload();
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

    fn payload(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        match self.protocol {
            6 => {
                payload.extend(LOCAL_PORT.to_be_bytes());
                payload.extend(self.port.to_be_bytes());
                // Sequence 1, a header of five words, SYN.
                payload.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0, 64, 0, 0, 0, 0]);
            }
            17 => {
                payload.extend(LOCAL_PORT.to_be_bytes());
                payload.extend(self.port.to_be_bytes());
                payload.extend([0, 8, 0, 0]);
            }
            1 | 58 => {
                payload.extend(self.port.to_be_bytes());
                payload.extend([0, 0, 0, 1, 0, 1]);
            }
            _ => payload.extend([0; 8]),
        }
        payload
    }
}
