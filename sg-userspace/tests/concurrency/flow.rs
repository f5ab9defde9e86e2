//! Flows by number, and packets of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sg_common::{
    conntrack::tcp,
    family,
    verdict::Direction::{self, Egress, Ingress},
};
use sg_userspace::control;

use crate::{
    frame::{self, Ip},
    rig::Hook,
};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A flow of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Flow {
    /// Id of the interface.
    pub(crate) interface: u32,
    pub(crate) tuple: control::Flow,
}

/// A frame, and where it is met.
pub(crate) struct Packet {
    pub(crate) hook: Hook,
    pub(crate) interface: u32,
    pub(crate) frame: Vec<u8>,
}

/// Numbers that look random, always the same: splitmix64.
pub(crate) fn scattered(number: u64) -> u64 {
    let mut word = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

impl Flow {
    /// The `n`th UDP flow, of a peer and ports drawn at random.
    pub(crate) fn udp(interface: u32, ip: Ip, n: u32) -> Self {
        Self::new(interface, ip, UDP, n)
    }

    /// The `n`th TCP flow.
    pub(crate) fn tcp(interface: u32, ip: Ip, n: u32) -> Self {
        Self::new(interface, ip, TCP, n)
    }

    fn new(interface: u32, ip: Ip, protocol: u8, n: u32) -> Self {
        let random = scattered(u64::from(n));
        // The number itself is in the address: no two flows are the same.
        let remote: IpAddr = match ip {
            Ip::V4 => Ipv4Addr::from(0x1400_0000 + (n & 0xff_ffff)).into(),
            Ip::V6 => Ipv6Addr::from(0x2001_0db8_0002 << 80 | u128::from(n)).into(),
        };
        Self {
            interface,
            tuple: control::Flow {
                protocol,
                local: ip.workload(),
                remote,
                local_port: random as u16 | 1024,
                remote_port: (random >> 16) as u16 | 1024,
            },
        }
    }

    /// A packet as a hook of the workload's own interface meets it: a datagram, or a SYN.
    pub(crate) fn packet(&self, hook: Hook) -> Packet {
        let tuple = &self.tuple;
        let (local, remote) = (
            (tuple.local, tuple.local_port),
            (tuple.remote, tuple.remote_port),
        );
        let (from, to) = match hook.direction() {
            Ingress => (remote, local),
            Egress => (local, remote),
        };
        let ports = (from.1, to.1);
        let payload = if tuple.protocol == TCP {
            frame::segment(ports, tcp::SYN, 1, 0, 0)
        } else {
            frame::datagram(ports, 12)
        };
        Packet {
            hook,
            interface: self.interface,
            frame: frame::ip((from.0, to.0), tuple.protocol, &payload),
        }
    }

    /// As it stands in an IPv4 entry.
    ///
    /// # Panics
    /// If it is of IPv6.
    pub(crate) fn key4(&self) -> family::Flow<u32> {
        let word = |address| match address {
            IpAddr::V4(address) => u32::from_ne_bytes(address.octets()),
            IpAddr::V6(_) => panic!("IPv4"),
        };
        family::Flow {
            owner: self.interface << 8 | u32::from(self.tuple.protocol),
            ports: u32::from(self.tuple.local_port) << 16 | u32::from(self.tuple.remote_port),
            local: word(self.tuple.local),
            remote: word(self.tuple.remote),
        }
    }

    /// The flow of an IPv4 entry.
    pub(crate) fn of_key4(key: &family::Flow<u32>) -> Self {
        let address = |word: u32| Ipv4Addr::from(word.to_ne_bytes()).into();
        Self::of_key(key, address)
    }

    /// The flow of an IPv6 entry.
    pub(crate) fn of_key6(key: &family::Flow<[u32; 4]>) -> Self {
        Self::of_key(key, |words: [u32; 4]| {
            let mut octets = [0; 16];
            for (to, word) in octets.chunks_exact_mut(4).zip(words) {
                to.copy_from_slice(&word.to_ne_bytes());
            }
            Ipv6Addr::from(octets).into()
        })
    }

    fn of_key<A: Copy>(key: &family::Flow<A>, address: impl Fn(A) -> IpAddr) -> Self {
        Self {
            interface: key.owner >> 8,
            tuple: control::Flow {
                protocol: key.owner as u8,
                local: address(key.local),
                remote: address(key.remote),
                local_port: (key.ports >> 16) as u16,
                remote_port: key.ports as u16,
            },
        }
    }
}

impl Hook {
    /// Which way packets go that meet it on the workload's own interface.
    pub(crate) fn direction(self) -> Direction {
        match self {
            Hook::Xdp | Hook::TcIngress => Ingress,
            Hook::TcEgress => Egress,
        }
    }
}
