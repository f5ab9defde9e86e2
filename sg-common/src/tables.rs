//! How the pipeline reaches its maps and its clock.

use crate::{
    classify::{Question, Selector},
    layout::{
        Account, AddressKey, Bucket4, Bucket6, Class, CtHost, CtInterface, FragmentKey,
        IdentityKey, Interface, Range, Runtime,
    },
    pipeline::{Outcome, Room, Scratch},
    verdict::Direction,
};

/// The maps of [`crate::abi::map`] and the clock.
///
/// Pointers and references stay valid for the whole packet: a bank is written only while it is not
/// in force and a grace period after it was, and conntrack memory is never freed while attached.
pub trait Tables {
    /// A stripe lock.
    type Lock: Copy;

    /// `GENERATION`.
    fn generation(&self) -> u32;
    /// `RUNTIME`.
    fn runtime(&self) -> Option<&Runtime>;
    /// Jiffies.
    fn jiffies(&self) -> u64;
    /// Low 32 bits of jiffies.
    #[inline(always)]
    fn now(&self) -> u32 {
        self.jiffies() as u32
    }

    /// `INTERFACES`; `None` out of range.
    fn interface(&self, bank: u32, id: u32) -> Option<&Interface>;
    /// `CLASSES`.
    fn class(&self, bank: u32, class: u32) -> Option<&Class>;
    /// `RANGES`.
    fn range(&self, bank: u32, index: u32) -> Option<&Range>;
    /// `TRIES4`: longest match.
    fn trie4(&self, trie: u32, address: u32) -> Option<u32>;
    /// `TRIES6`: longest match.
    fn trie6(&self, trie: u32, address: &[u32; 4]) -> Option<u32>;
    /// `MEMBERS4`.
    fn member4(&self, bank: u32, address: u32) -> Option<u32>;
    /// `MEMBERS6`.
    fn member6(&self, bank: u32, address: &[u32; 4]) -> Option<u32>;
    /// `IDENTITIES`.
    fn identity(&self, bank: u32, key: &IdentityKey) -> Option<u32>;
    /// `ADDRESSES`: whether the key is there.
    fn address(&self, bank: u32, key: &AddressKey) -> bool;

    /// `CT4`, or `CT4_OLD`; out of range `None`.
    fn bucket4(&self, old: bool, index: u32) -> Option<*mut Bucket4>;
    /// `CT6`, or `CT6_OLD`.
    fn bucket6(&self, old: bool, index: u32) -> Option<*mut Bucket6>;
    /// The account of a way in `ACCOUNT4`/`6` or their draining predecessors.
    fn account(&self, ipv6: bool, old: bool, bucket: u32, way: usize) -> Option<*mut Account>;
    /// A lock of `CT_LOCK`; `stripe` is below [`crate::abi::CT_LOCKS`].
    fn stripe(&self, stripe: u32) -> Option<Self::Lock>;
    /// Takes a stripe. Until [`Tables::unlock`] no other method of this trait may be called.
    fn lock(&self, lock: Self::Lock);
    /// Gives a stripe back.
    fn unlock(&self, lock: Self::Lock);
    /// `CT_INTERFACES`.
    fn ct_interface(&self, id: u32) -> Option<*mut CtInterface>;
    /// `CT_HOST`.
    fn ct_host(&self) -> Option<*mut CtHost>;
    /// [`crate::pipeline::run`] or [`crate::pipeline::open`]. (The kernel calls this one and the next seven as functions that the
    /// verifier looks at once, whoever calls them.)
    fn run(&self, what: u32, scratch: &mut Scratch) -> Outcome;
    /// [`crate::table::reclaim`], likewise.
    fn reclaim(&self, ipv6: bool, old: bool, index: u32) -> u32;
    /// [`crate::classify::allows`], likewise; `remote` is the peer of the packet in the scratch.
    fn allows<F: Room>(&self, question: &Question, remote: &F::Address) -> bool;
    /// [`crate::classify::untracked`], likewise.
    fn untracked(&self, ipv6: bool, bank: u32, id: u32, protocol: u8, ports: u32) -> u32;
    /// [`crate::classify::rule_set`], likewise.
    fn rule_set(&self, bank: u32, class: u32, selector: Selector) -> u32;
    /// [`crate::table::replace_oldest`], likewise.
    fn replace_oldest(&self, ipv6: bool, index: u32, id: u32);
    /// [`crate::table::make_room`], likewise.
    fn make_room(&self, ipv6: bool, hash: u64, id: u32);
    /// [`crate::table::oldest_age`], likewise.
    fn oldest_age(&self, ipv6: bool, index: u32, id: u32) -> u32;
    /// The first of `count` buckets from `index` on, wrapping, for which [`Tables::oldest_age`] answers
    /// anything but 0; any number that is no bucket if there is none.
    fn find_unassured(&self, ipv6: bool, index: u32, count: u32, id: u32) -> u32;
    /// Next bucket that an insert at the limit should look at, advancing.
    fn sweep_cursor(&self, ipv6: bool) -> u32;

    /// `FRAGMENTS`: jiffies when the allowed first fragment passed.
    fn fragment(&self, key: &FragmentKey) -> Option<u32>;
    /// Remembers an allowed first fragment.
    fn remember_fragment(&self, key: &FragmentKey, now: u32);

    /// Adds to `COUNTERS`; `outcome` as [`crate::verdict::Verdict::outcome`].
    fn count(&self, id: u32, direction: Direction, outcome: usize, packets: u32, bytes: u32);
}
