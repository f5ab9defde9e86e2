//! Packets of one kind: a frame, where it meets a program, and what the wrapper changes in it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Hook;
use super::frame::{self, ACK, LOCAL_PORT, Offsets, PEER4, PEER6, REMOTE_PORT, SYN};
use super::pattern::Pattern;
use super::policy::CLOSED;

/// Bits of a peer's number that go into its port; the rest goes into its address.
const PORT_BITS: u32 = 15;
/// Where the generator of random numbers begins.
const STATE: u64 = 0x2545_f491_4f6c_dd1d;

/// Packets of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    /// Where they meet a program.
    pub(crate) hook: Hook,
    /// The frame as it is before the first change.
    pub(crate) frame: Vec<u8>,
    /// What is changed.
    pub(crate) pattern: Pattern,
}

impl Traffic {
    /// A frame that is always the same, at XDP.
    pub(crate) fn same(frame: Vec<u8>) -> Self {
        Self {
            hook: Hook::Xdp,
            frame,
            pattern: nothing(),
        }
    }

    /// Segments of `count` flows at random.
    pub(crate) fn segments(hook: Hook, ipv6: bool, count: u32) -> Self {
        Self {
            hook,
            frame: frame::tcp(ipv6, hook.is_ingress(), ACK, LOCAL_PORT),
            pattern: peers(frame::offsets(ipv6, hook.is_ingress()), count),
        }
    }

    /// SYNs of ever new peers to the workload's port.
    pub(crate) fn connections(hook: Hook, ipv6: bool) -> Self {
        Self {
            hook,
            frame: frame::tcp(ipv6, hook.is_ingress(), SYN, LOCAL_PORT),
            pattern: Pattern {
                sequential: 1,
                ..peers(frame::offsets(ipv6, hook.is_ingress()), 1)
            },
        }
    }

    /// SYNs in sequence, each of a new flow that one of the rules allows.
    pub(crate) fn allowed(hook: Hook, ipv6: bool, rules: u32, prefixes: u32) -> Self {
        let at = frame::offsets(ipv6, hook.is_ingress());
        // The port that rules speak of is the destination's; the other one tells flows apart.
        let (own, other) = if hook.is_ingress() {
            (at.remote_port, at.local_port)
        } else {
            (at.local_port, at.remote_port)
        };
        let mut frame = frame::tcp(ipv6, hook.is_ingress(), SYN, LOCAL_PORT);
        let port = other as usize;
        frame[port..port + 2].copy_from_slice(&CLOSED.to_be_bytes());
        Self {
            hook,
            frame,
            pattern: Pattern {
                state: STATE,
                sequential: 1,
                count: 1 << PORT_BITS,
                address_at: at.remote,
                port_at: own,
                port: REMOTE_PORT.into(),
                port_bits: PORT_BITS,
                prefixes,
                rules,
                ipv6: ipv6.into(),
                rule_port_at: other,
                ..Pattern::default()
            },
        }
    }

    /// SYNs at random of peers that rules speak of, to a port that none allows.
    pub(crate) fn denied(hook: Hook, ipv6: bool, rules: u32, prefixes: u32) -> Self {
        let mut traffic = Self::allowed(hook, ipv6, rules, prefixes);
        traffic.pattern.sequential = 0;
        traffic.pattern.rule_port_at = 0;
        traffic
    }

    /// SYNs at random to a port that no rule allows, of so many members. However few there are, the
    /// flows are too many for a cache.
    pub(crate) fn members(ipv6: bool, count: u32) -> Self {
        let mut traffic = Self::denied(Hook::Xdp, ipv6, 1, 1);
        traffic.pattern = Pattern {
            addresses: count,
            ..peers(frame::offsets(ipv6, true), 1 << PORT_BITS)
        };
        traffic
    }

    /// Packets at random of so many peers, each with one address and port.
    pub(crate) fn addresses(ipv6: bool, count: u32) -> Self {
        let mut traffic = Self::segments(Hook::Xdp, ipv6, count);
        traffic.pattern.port_bits = 0;
        traffic
    }

    /// Fragments of `count` datagrams: the first ones in sequence, later ones at random.
    pub(crate) fn fragments(ipv6: bool, first: bool, bits: u32) -> Self {
        Self {
            hook: Hook::Xdp,
            frame: frame::fragment(ipv6, first),
            pattern: Pattern {
                sequential: first.into(),
                count: 1 << bits,
                port_at: frame::fragment_id(ipv6),
                port: 1,
                port_bits: bits,
                ..nothing()
            },
        }
    }

    /// ICMP errors about `count` flows at random.
    pub(crate) fn icmp_errors(ipv6: bool, count: u32) -> Self {
        Self {
            hook: Hook::Xdp,
            frame: frame::icmp_error(ipv6),
            pattern: peers(frame::quoted_offsets(ipv6), count),
        }
    }

    /// The same packets, one after the other.
    pub(crate) fn in_sequence(&self) -> Self {
        Self {
            pattern: Pattern {
                sequential: 1,
                ..self.pattern
            },
            ..self.clone()
        }
    }
}

fn nothing() -> Pattern {
    Pattern {
        state: STATE,
        count: 1,
        ..Pattern::default()
    }
}

fn peers(at: Offsets, count: u32) -> Pattern {
    Pattern {
        state: STATE,
        count,
        address_at: at.remote_low,
        address: u32::from_be_bytes(PEER4),
        port_at: at.remote_port,
        port: REMOTE_PORT.into(),
        port_bits: PORT_BITS,
        ..Pattern::default()
    }
}

/// The peer of a number in [`Traffic::segments`], as the wrapper writes it.
pub(crate) fn peer(ipv6: bool, number: u32) -> (IpAddr, u16) {
    let low = u32::from_be_bytes(PEER4) + (number >> PORT_BITS);
    let port = REMOTE_PORT + (number & ((1 << PORT_BITS) - 1)) as u16;
    let address = if ipv6 {
        let mut bytes = PEER6;
        bytes[12..].copy_from_slice(&low.to_be_bytes());
        Ipv6Addr::from(bytes).into()
    } else {
        Ipv4Addr::from(low).into()
    };
    (address, port)
}
