//! IPv4 and IPv6 as one set of types, so that every step is written once.

use crate::{
    atomic,
    layout::{Account, AddressKey, Live, Slot4, Slot6},
    tables::Tables,
};

/// IPv4 (RFC 791).
#[derive(Clone, Copy, Debug)]
pub struct V4;
/// IPv6 (RFC 8200).
#[derive(Clone, Copy, Debug)]
pub struct V6;

/// What names a flow on an interface: written from the workload's side, never sorted, so that both
/// directions of a flow have one key and nothing else has (semantics 11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow<A> {
    /// `interface << 8 | protocol`.
    pub owner: u32,
    /// `local port << 16 | remote port`; of an echo `identifier << 16 | opener is local`; else 0.
    pub ports: u32,
    /// The workload's address.
    pub local: A,
    /// The peer's address.
    pub remote: A,
}

/// One IP version.
pub trait Family: Copy {
    /// An address: network-order bytes as native words.
    type Address: Copy + Eq;
    /// A conntrack entry.
    type Slot;
    /// A [`Flow`] as it stands in an entry, two words of 32 bits in each: half the registers on the packet path.
    type Words: Copy;

    /// Whether this is IPv6.
    const IPV6: bool;
    /// Words of 32 bits that an address has.
    const WORDS: u32;
    /// Protocol number of the family's ICMP.
    const ICMP: u8;
    /// ICMP type of an echo request.
    const ECHO_REQUEST: u8;
    /// ICMP type of an echo reply.
    const ECHO_REPLY: u8;

    /// Two words at a time.
    fn words(flow: &Flow<Self::Address>) -> Self::Words;
    /// The same words, of which the compiler forgets what it has made of them already: where they are needed
    /// seldom that keeps it from setting aside, always, what could be made again.
    fn afresh(words: &Self::Words) -> Self::Words;
    /// The flow that these are the words of.
    fn unpacked(words: &Self::Words) -> Flow<Self::Address>;
    /// Universal hash of a flow under a secret: NH (RFC 4418 §5.2) with 32-bit words, then [`mix`].
    fn hash_words(words: &Self::Words, seed: &[u32; 12]) -> u64;
    /// [`Self::hash_words`] of a flow.
    #[inline(always)]
    fn hash(flow: &Flow<Self::Address>, seed: &[u32; 12]) -> u64 {
        Self::hash_words(&Self::words(flow), seed)
    }
    /// The nth 32 bits of the address as a number; those of IPv4 are the first and only ones.
    fn word(address: &Self::Address, place: u32) -> u32;
    /// The address as it stands in shared keys.
    fn key_bytes(address: &Self::Address) -> [u8; 16];
    /// Whether a packet of `protocol` may come from here.
    fn source_possible(address: &Self::Address, protocol: u8) -> bool;
    /// Whether a packet may go there.
    fn destination_possible(address: &Self::Address) -> bool;
    /// Whether nobody need list the address as the workload's own: it is the link's, or everybody's.
    fn belongs_to_link(address: &Self::Address) -> bool;
    /// Whether the address is in a range that link-local services use (fact 5.2).
    fn may_be_service(address: &Self::Address) -> bool;

    /// An entry of the current table, or of the draining one.
    fn slot<T: Tables>(tables: &T, old: bool, index: u32) -> Option<*mut Self::Slot>;
    /// Longest-prefix match of an address.
    fn trie<T: Tables>(tables: &T, trie: u32, address: &Self::Address) -> Option<u32>;
    /// Identity of a member address.
    fn member<T: Tables>(tables: &T, bank: u32, address: &Self::Address) -> Option<u32>;

    /// The `meta` word of an entry.
    fn meta(slot: *mut Self::Slot) -> *mut u64;
    /// The dynamic part of an entry.
    fn live(slot: *mut Self::Slot) -> *mut Live;
    /// The account of an entry, where [`Tables::accounting`] says that there is one.
    fn account(slot: *mut Self::Slot) -> *mut Account;
    /// The flow of an entry; torn while the entry is rewritten.
    fn flow(slot: *mut Self::Slot) -> Flow<Self::Address>;
    /// `interface << 8 | protocol` of the flow of an entry.
    fn owner(slot: *mut Self::Slot) -> u32;
    /// Whether an entry is of this flow; torn while the entry is rewritten.
    fn holds(slot: *mut Self::Slot, words: &Self::Words) -> bool;
    /// Whether two entries are of the same flow; torn while one is rewritten.
    fn same_flow(slot: *mut Self::Slot, other: *mut Self::Slot) -> bool;
    /// Writes the flow of an entry that the caller has claimed.
    fn set_flow(slot: *mut Self::Slot, flow: &Flow<Self::Address>);
}

/// The methods of [`Family`] that are the same for both kinds of slot.
macro_rules! slot_access {
    ($family:ty) => {
        #[inline(always)]
        fn meta(slot: *mut Self::Slot) -> *mut u64 {
            // SAFETY: `slot` is valid (contract of `Tables`).
            unsafe { &raw mut (*slot).meta }
        }

        #[inline(always)]
        fn live(slot: *mut Self::Slot) -> *mut Live {
            // SAFETY: as in `meta`.
            unsafe { &raw mut (*slot).live }
        }

        #[inline(always)]
        fn account(slot: *mut Self::Slot) -> *mut Account {
            // SAFETY: the caller has been told that an account follows.
            unsafe { slot.add(1).cast() }
        }

        #[inline(always)]
        fn flow(slot: *mut Self::Slot) -> Flow<Self::Address> {
            // SAFETY: as in `meta`; torn values are caught by the second look at the meta word.
            unsafe {
                Flow {
                    owner: (*slot).owner,
                    ports: (*slot).ports,
                    local: (*slot).local,
                    remote: (*slot).remote,
                }
            }
        }

        #[inline(always)]
        fn owner(slot: *mut Self::Slot) -> u32 {
            // SAFETY: as in `meta`.
            unsafe { (*slot).owner }
        }

        #[inline(always)]
        fn same_flow(slot: *mut Self::Slot, other: *mut Self::Slot) -> bool {
            // The flow stands between the word and the dynamic part, in whole words.
            const WORDS: usize =
                (size_of::<<$family as Family>::Slot>() - 8 - size_of::<Live>()) / 8;
            let mut difference = 0;
            for word in 1..=WORDS {
                // SAFETY: as in `meta`.
                difference |= unsafe {
                    atomic::load(slot.cast::<u64>().add(word))
                        ^ atomic::load(other.cast::<u64>().add(word))
                };
            }
            difference == 0
        }

        #[inline(always)]
        fn set_flow(slot: *mut Self::Slot, flow: &Flow<Self::Address>) {
            // SAFETY: as in `meta`; the caller owns the entry.
            unsafe {
                (*slot).owner = flow.owner;
                (*slot).ports = flow.ports;
                (*slot).local = flow.local;
                (*slot).remote = flow.remote;
            }
        }
    };
}

/// Two words of 32 bits as they stand in memory one behind the other.
#[inline(always)]
pub const fn pair(first: u32, second: u32) -> u64 {
    if cfg!(target_endian = "little") {
        first as u64 | (second as u64) << 32
    } else {
        (first as u64) << 32 | second as u64
    }
}

/// The words of a [`pair`].
#[inline(always)]
pub const fn unpair(pair: u64) -> (u32, u32) {
    if cfg!(target_endian = "little") {
        (pair as u32, (pair >> 32) as u32)
    } else {
        ((pair >> 32) as u32, pair as u32)
    }
}

/// How the words at an aligned address differ from others, as bits; 0: not at all.
///
/// # Safety
/// `held` must be valid and aligned to eight bytes.
#[inline(always)]
unsafe fn difference<const PAIRS: usize>(held: *const u32, words: &[u64; PAIRS]) -> u64 {
    let mut difference = 0;
    for (place, wanted) in words.iter().enumerate() {
        // SAFETY: the caller's promise.
        difference |= unsafe { atomic::load(held.cast::<u64>().add(place)) } ^ wanted;
    }
    difference
}

/// What an NH value, whose collisions nobody can foresee, makes of a place and a tag: multiplication by a secret
/// odd number (multiply-shift, universal too), of which the upper half is good. NH's lower bits, which are
/// products', are folded in first.
#[inline(always)]
fn mix(hash: u64, seed: &[u32; 12]) -> u64 {
    let secret = u64::from(seed[10]) << 32 | u64::from(seed[11]) | 1;
    (hash ^ hash >> 32).wrapping_mul(secret)
}

/// NH: a product for each pair of words.
#[inline(always)]
fn nh<const PAIRS: usize>(words: &[u64; PAIRS], seed: &[u32; 12]) -> u64 {
    let mut sum = 0_u64;
    for (place, words) in words.iter().enumerate() {
        let (a, b) = unpair(*words);
        let (a, b) = (
            a.wrapping_add(seed[2 * place]),
            b.wrapping_add(seed[2 * place + 1]),
        );
        sum = sum.wrapping_add(u64::from(a).wrapping_mul(u64::from(b)));
    }
    sum
}

/// First bytes of an IPv4 word as they stand on the wire.
#[inline(always)]
const fn host4(address: u32) -> u32 {
    u32::from_be(address)
}

#[expect(
    clippy::not_unsafe_ptr_arg_deref,
    reason = "slot pointers come from `Tables`, whose contract is that they are valid"
)]
impl Family for V4 {
    type Address = u32;
    type Slot = Slot4;
    type Words = [u64; 2];

    const IPV6: bool = false;
    const WORDS: u32 = 1;
    const ICMP: u8 = 1;
    const ECHO_REQUEST: u8 = 8;
    const ECHO_REPLY: u8 = 0;

    #[inline(always)]
    fn words(flow: &Flow<u32>) -> [u64; 2] {
        [pair(flow.owner, flow.ports), pair(flow.local, flow.remote)]
    }

    #[inline(always)]
    fn afresh(words: &[u64; 2]) -> [u64; 2] {
        words.map(atomic::opaque)
    }

    #[inline(always)]
    fn unpacked(words: &[u64; 2]) -> Flow<u32> {
        let ((owner, ports), (local, remote)) = (unpair(words[0]), unpair(words[1]));
        Flow {
            owner,
            ports,
            local,
            remote,
        }
    }

    #[inline(always)]
    fn hash_words(words: &[u64; 2], seed: &[u32; 12]) -> u64 {
        mix(nh(words, seed), seed)
    }

    #[inline(always)]
    fn word(address: &u32, _place: u32) -> u32 {
        host4(*address)
    }

    #[inline(always)]
    fn key_bytes(address: &u32) -> [u8; 16] {
        let [a, b, c, d] = address.to_ne_bytes();
        [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    }

    /// Not 0/8, 127/8, multicast (224/4) or broadcast (RFC 1122 §3.2.1.3); IGMP also comes from
    /// 0.0.0.0 (fact 5.7; RFC 3376 §4.2.13).
    #[inline(always)]
    fn source_possible(address: &u32, protocol: u8) -> bool {
        let first = host4(*address) >> 24;
        (first != 0 || (*address == 0 && protocol == 2))
            && first != 127
            && first >> 4 != 0xe
            && *address != u32::MAX
    }

    /// Not 0/8 or 127/8.
    #[inline(always)]
    fn destination_possible(address: &u32) -> bool {
        let first = host4(*address) >> 24;
        first != 0 && first != 127
    }

    /// Multicast, broadcast, and 0.0.0.0, which only IGMP may come from.
    #[inline(always)]
    fn belongs_to_link(address: &u32) -> bool {
        host4(*address) >> 28 == 0xe || *address == u32::MAX || *address == 0
    }

    #[inline(always)]
    fn may_be_service(address: &u32) -> bool {
        host4(*address) >> 16 == 0xa9fe
    }

    #[inline(always)]
    fn slot<T: Tables>(tables: &T, old: bool, index: u32) -> Option<*mut Slot4> {
        tables.slot4(old, index)
    }

    #[inline(always)]
    fn trie<T: Tables>(tables: &T, trie: u32, address: &u32) -> Option<u32> {
        tables.trie4(trie, *address)
    }

    #[inline(always)]
    fn member<T: Tables>(tables: &T, bank: u32, address: &u32) -> Option<u32> {
        tables.member4(bank, *address)
    }

    slot_access!(V4);

    #[inline(always)]
    fn holds(slot: *mut Slot4, words: &[u64; 2]) -> bool {
        // SAFETY: `slot` is valid (contract of `Tables`), and its flow begins at `owner`.
        unsafe { difference((&raw const (*slot).owner).cast(), words) == 0 }
    }
}

impl V6 {
    /// `::ffff:0:0/96` (RFC 4291 §2.5.5.2): never legitimate on the wire.
    #[inline(always)]
    fn mapped(address: &[u32; 4]) -> bool {
        address[0] == 0 && address[1] == 0 && address[2] == 0xffff_u32.to_be()
    }

    /// `::` or `::1`.
    #[inline(always)]
    fn unspecified_or_loopback(address: &[u32; 4]) -> bool {
        address[0] == 0 && address[1] == 0 && address[2] == 0 && u32::from_be(address[3]) <= 1
    }
}

#[expect(
    clippy::not_unsafe_ptr_arg_deref,
    reason = "slot pointers come from `Tables`, whose contract is that they are valid"
)]
impl Family for V6 {
    type Address = [u32; 4];
    type Slot = Slot6;
    type Words = [u64; 5];

    const IPV6: bool = true;
    const WORDS: u32 = 4;
    const ICMP: u8 = 58;
    const ECHO_REQUEST: u8 = 128;
    const ECHO_REPLY: u8 = 129;

    #[inline(always)]
    fn words(flow: &Flow<[u32; 4]>) -> [u64; 5] {
        let (local, remote) = (&flow.local, &flow.remote);
        [
            pair(flow.owner, flow.ports),
            pair(local[0], local[1]),
            pair(local[2], local[3]),
            pair(remote[0], remote[1]),
            pair(remote[2], remote[3]),
        ]
    }

    #[inline(always)]
    fn afresh(words: &[u64; 5]) -> [u64; 5] {
        words.map(atomic::opaque)
    }

    #[inline(always)]
    fn unpacked(words: &[u64; 5]) -> Flow<[u32; 4]> {
        let (owner, ports) = unpair(words[0]);
        let address = |place: usize| {
            let ((a, b), (c, d)) = (unpair(words[place]), unpair(words[place + 1]));
            [a, b, c, d]
        };
        Flow {
            owner,
            ports,
            local: address(1),
            remote: address(3),
        }
    }

    #[inline(always)]
    fn hash_words(words: &[u64; 5], seed: &[u32; 12]) -> u64 {
        mix(nh(words, seed), seed)
    }

    #[inline(always)]
    fn word(address: &[u32; 4], place: u32) -> u32 {
        u32::from_be(address[atomic::opaque(place.into()) as usize & 3])
    }

    #[inline(always)]
    fn key_bytes(address: &[u32; 4]) -> [u8; 16] {
        // SAFETY: same size, plain integers.
        unsafe { core::mem::transmute(*address) }
    }

    /// Not `::`, `::1`, multicast or IPv4-mapped (RFC 4291 §2.5.2, §2.5.3, §2.7).
    #[inline(always)]
    fn source_possible(address: &[u32; 4], _protocol: u8) -> bool {
        u32::from_be(address[0]) >> 24 != 0xff
            && !Self::mapped(address)
            && !Self::unspecified_or_loopback(address)
    }

    /// Not `::`, `::1` or IPv4-mapped.
    #[inline(always)]
    fn destination_possible(address: &[u32; 4]) -> bool {
        !Self::mapped(address) && !Self::unspecified_or_loopback(address)
    }

    /// Multicast, and link-local: such addresses follow from the MAC, and nobody lists them.
    #[inline(always)]
    fn belongs_to_link(address: &[u32; 4]) -> bool {
        let first = u32::from_be(address[0]);
        first >> 24 == 0xff || first >> 22 == 0xfe80 >> 6
    }

    /// fe80::/10 or fd00:ec2::/32.
    #[inline(always)]
    fn may_be_service(address: &[u32; 4]) -> bool {
        let first = u32::from_be(address[0]);
        first >> 22 == 0xfe80 >> 6 || first == 0xfd00_0ec2
    }

    #[inline(always)]
    fn slot<T: Tables>(tables: &T, old: bool, index: u32) -> Option<*mut Slot6> {
        tables.slot6(old, index)
    }

    #[inline(always)]
    fn trie<T: Tables>(tables: &T, trie: u32, address: &[u32; 4]) -> Option<u32> {
        tables.trie6(trie, address)
    }

    #[inline(always)]
    fn member<T: Tables>(tables: &T, bank: u32, address: &[u32; 4]) -> Option<u32> {
        tables.member6(bank, address)
    }

    slot_access!(V6);

    #[inline(always)]
    fn holds(slot: *mut Slot6, words: &[u64; 5]) -> bool {
        // SAFETY: `slot` is valid (contract of `Tables`), and its flow begins at `owner`.
        unsafe { difference((&raw const (*slot).owner).cast(), words) == 0 }
    }
}

/// The `ADDRESSES` key of an interface's own address; interface 0 asks for a service.
#[inline(always)]
pub fn address_key<F: Family>(interface: u32, address: &F::Address) -> AddressKey {
    AddressKey {
        interface,
        family: if F::IPV6 { 6 } else { 4 },
        address: F::key_bytes(address),
    }
}
