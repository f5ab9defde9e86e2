//! Section 5: the transport header.

use crate::ip::{Packet, Part, TCP, UDP};

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;
const URG: u8 = 0x20;

/// What a transport header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    Tcp(Segment),
    Udp {
        source: u16,
        destination: u16,
    },
    /// ICMP of the packet's family.
    Icmp(Icmp),
    Other,
}

/// A TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) source: u16,
    pub(crate) destination: u16,
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    pub(crate) flags: u8,
    /// Bytes.
    pub(crate) payload: u32,
}

impl Segment {
    pub(crate) fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// It opens a connection.
    pub(crate) fn is_syn(&self) -> bool {
        self.has(SYN) && !self.has(ACK | RST | FIN)
    }

    /// The sequence number behind it.
    pub(crate) fn end(&self) -> u32 {
        self.sequence
            .wrapping_add(self.payload)
            .wrapping_add(u32::from(self.has(SYN)))
            .wrapping_add(u32::from(self.has(FIN)))
    }
}

/// The first bytes of an ICMP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Icmp {
    pub(crate) kind: u8,
    pub(crate) code: u8,
    /// Of an echo.
    pub(crate) identifier: u16,
    pub(crate) ipv6: bool,
}

impl Icmp {
    pub(crate) fn is_request(&self) -> bool {
        self.kind == if self.ipv6 { 128 } else { 8 }
    }

    pub(crate) fn is_reply(&self) -> bool {
        self.kind == if self.ipv6 { 129 } else { 0 }
    }

    pub(crate) fn is_echo(&self) -> bool {
        self.is_request() || self.is_reply()
    }

    pub(crate) fn is_error(&self) -> bool {
        if self.ipv6 {
            (1..=4).contains(&self.kind)
        } else {
            matches!(self.kind, 3 | 11 | 12)
        }
    }
}

/// Reads the header behind the IP headers; the error is the reason of the drop. Not for later fragments.
pub(crate) fn read(packet: &Packet<'_>) -> Result<Header, &'static str> {
    let short = if packet.part == Part::First {
        "fragment_tiny"
    } else {
        "truncated"
    };
    match packet.protocol {
        TCP => {
            if packet.body.len() < 20 {
                return Err(short);
            }
            let offset = usize::from(packet.body[12] >> 4) * 4;
            if offset < 20 {
                return Err("tcp_header");
            }
            if offset > packet.body.len() {
                return Err(if packet.part == Part::First {
                    "fragment_tiny"
                } else {
                    "tcp_header"
                });
            }
            let segment = segment(packet.body, packet.body.len() - offset);
            if flags_possible(segment.flags) {
                Ok(Header::Tcp(segment))
            } else {
                Err("tcp_flags")
            }
        }
        _ if packet.protocol != UDP && !packet.is_icmp() => Ok(Header::Other),
        _ => beginning(packet).ok_or(short),
    }
}

/// Reads what the first 8 bytes behind the IP headers tell; `None` if they are not there.
pub(crate) fn beginning(packet: &Packet<'_>) -> Option<Header> {
    let body = packet.body.get(..8)?;
    Some(match packet.protocol {
        TCP => Header::Tcp(segment(body, 0)),
        UDP => Header::Udp {
            source: word(body, 0),
            destination: word(body, 2),
        },
        _ if packet.is_icmp() => Header::Icmp(Icmp {
            kind: body[0],
            code: body[1],
            identifier: word(body, 4),
            ipv6: packet.is_ipv6(),
        }),
        _ => Header::Other,
    })
}

fn segment(body: &[u8], payload: usize) -> Segment {
    Segment {
        source: word(body, 0),
        destination: word(body, 2),
        sequence: double_word(body, 4),
        acknowledgement: double_word(body, 8),
        flags: body.get(13).copied().unwrap_or(0),
        payload: payload as u32,
    }
}

/// PSH, ECE and CWR aside.
fn flags_possible(flags: u8) -> bool {
    const POSSIBLE: [u8; 9] = [
        SYN,
        SYN | ACK,
        RST,
        RST | ACK,
        FIN | ACK,
        ACK,
        SYN | URG,
        FIN | ACK | URG,
        ACK | URG,
    ];
    POSSIBLE.contains(&(flags & (FIN | SYN | RST | ACK | URG)))
}

/// The 16 bits at `at`, 0 if they are not there.
fn word(body: &[u8], at: usize) -> u16 {
    body.get(at..at + 2)
        .map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
}

fn double_word(body: &[u8], at: usize) -> u32 {
    u32::from(word(body, at)) << 16 | u32::from(word(body, at + 2))
}
