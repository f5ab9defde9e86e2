//! Frames: bounded reads and the headers that verdicts depend on.
//!
//! # Contract
//! A [`Window`] answers within its length and nowhere else. On the host an access past it panics; in
//! the kernel the verifier refuses a program that could make one.

pub mod ip;
pub mod transport;

use crate::{family::pair, verdict::DropReason};

/// A frame from the Ethernet header on.
pub trait Frame {
    /// A checked run of bytes.
    type Window: Window;

    /// Bytes of the whole frame, those outside the linear part included.
    fn len(&self) -> u32;
    /// Whether there is nothing at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Whether the kernel merged several segments into this one, so that length fields may be 0.
    fn merged(&self) -> bool;
    /// Whether a VLAN tag stands in metadata instead of the bytes.
    fn tagged(&self) -> bool;
    /// `LEN` bytes from `offset` on, if they can be read.
    fn window<const LEN: usize>(&self, offset: usize) -> Option<Self::Window>;
}

/// A checked run of bytes.
pub trait Window: Copy {
    /// The byte at `at`.
    fn u8(self, at: usize) -> u8;
    /// Two bytes at `at` as a native number.
    fn half(self, at: usize) -> u16;
    /// Four bytes at `at` as a native word.
    fn word(self, at: usize) -> u32;
    /// Eight bytes at `at` as two words. (Not as one: if they have just been written by halves, as a test does, the CPU
    /// would wait until they have reached its cache.)
    #[inline(always)]
    fn pair(self, at: usize) -> u64 {
        pair(self.word(at), self.word(at + 4))
    }
    /// The big-endian number at `at`.
    #[inline(always)]
    fn u16(self, at: usize) -> u16 {
        u16::from_be(self.half(at))
    }
    /// The big-endian number at `at`.
    #[inline(always)]
    fn u32(self, at: usize) -> u32 {
        u32::from_be(self.word(at))
    }
    /// Sixteen bytes at `at` as native words.
    #[inline(always)]
    fn words(self, at: usize) -> [u32; 4] {
        [
            self.word(at),
            self.word(at + 4),
            self.word(at + 8),
            self.word(at + 12),
        ]
    }
}

impl<P: Frame> Frame for &P {
    type Window = P::Window;

    #[inline(always)]
    fn len(&self) -> u32 {
        P::len(self)
    }

    #[inline(always)]
    fn merged(&self) -> bool {
        P::merged(self)
    }

    #[inline(always)]
    fn tagged(&self) -> bool {
        P::tagged(self)
    }

    #[inline(always)]
    fn window<const LEN: usize>(&self, offset: usize) -> Option<P::Window> {
        P::window::<LEN>(self, offset)
    }
}

/// Bytes in memory: the host's frame.
impl Frame for &[u8] {
    type Window = Self;

    fn len(&self) -> u32 {
        <[u8]>::len(self) as u32
    }

    fn merged(&self) -> bool {
        false
    }

    fn tagged(&self) -> bool {
        false
    }

    fn window<const LEN: usize>(&self, offset: usize) -> Option<Self> {
        self.get(offset..offset.checked_add(LEN)?)
    }
}

impl Window for &[u8] {
    fn u8(self, at: usize) -> u8 {
        self[at]
    }

    fn half(self, at: usize) -> u16 {
        u16::from_ne_bytes([self[at], self[at + 1]])
    }

    fn word(self, at: usize) -> u32 {
        u32::from_ne_bytes([self[at], self[at + 1], self[at + 2], self[at + 3]])
    }
}

/// Bytes of an Ethernet II header.
pub const ETHERNET: usize = 14;

/// Ethertypes (IEEE 802).
pub(crate) mod ethertype {
    pub(crate) const IPV4: u16 = 0x0800;
    pub(crate) const ARP: u16 = 0x0806;
    pub(crate) const IPV6: u16 = 0x86dd;
    pub(super) const VLAN: u16 = 0x8100;
    pub(super) const SERVICE_VLAN: u16 = 0x88a8;
    pub(super) const OLD_QINQ: [u16; 2] = [0x9100, 0x9200];
}

/// What a frame carries. Everything not listed here is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// IPv4 from byte 14 on.
    Ipv4,
    /// IPv6 from byte 14 on.
    Ipv6,
    /// ARP from byte 14 on.
    Arp,
}

/// Reads the Ethernet header.
#[inline(always)]
pub fn ethernet<P: Frame>(frame: &P) -> Result<Payload, DropReason> {
    let Some(header) = frame.window::<ETHERNET>(0) else {
        return Err(DropReason::Truncated);
    };
    if frame.tagged() {
        return Err(DropReason::VlanTag);
    }
    match header.u16(12) {
        ethertype::IPV4 => Ok(Payload::Ipv4),
        ethertype::IPV6 => Ok(Payload::Ipv6),
        ethertype::ARP => Ok(Payload::Arp),
        ethertype::VLAN | ethertype::SERVICE_VLAN => Err(DropReason::VlanTag),
        old if old == ethertype::OLD_QINQ[0] || old == ethertype::OLD_QINQ[1] => {
            Err(DropReason::VlanTag)
        }
        _ => Err(DropReason::Ethertype),
    }
}

/// The sender's IPv4 address of an ARP request or reply for IPv4 over Ethernet (RFC 826).
#[inline(always)]
pub fn arp_sender<P: Frame>(frame: &P) -> Result<u32, DropReason> {
    let Some(arp) = frame.window::<28>(ETHERNET) else {
        return Err(DropReason::Truncated);
    };
    // Hardware type 1, protocol 0x0800, lengths 6 and 4.
    let operation = arp.u16(6);
    if arp.u32(0) != 0x0001_0800 || arp.u16(4) != 0x0604 || !(1..=2).contains(&operation) {
        return Err(DropReason::ArpInvalid);
    }
    Ok(arp.word(14))
}
