//! How the pipeline reaches its maps and its clock.

use crate::{
    classify::{Allowing, Question},
    layout::{
        AddressKey, CarriedKey, Class, CtHost, CtInterface, CtLocal, FragmentKey, IdentityKey,
        Interface, Node, Range, Runtime, Slot4, Slot6, Spills, Tags,
    },
    pipeline::{Outcome, Room, Scratch},
    table::FreeEntry,
    verdict::Direction,
};

/// The maps of [`crate::abi::map`] and the clock.
///
/// Pointers and references stay valid for the whole packet: a bank is written only while it is not
/// in force and a grace period after it was, and conntrack memory is never freed while attached.
pub trait Tables {
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
    /// `TREES`.
    fn node(&self, bank: u32, index: u32) -> Option<&Node>;
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

    /// Whether entries have accounts; the same for as long as there are any.
    fn accounting(&self) -> bool;
    /// The tags of a bucket of the current table or of the draining one; out of range `None`.
    fn tags(&self, ipv6: bool, old: bool, bucket: u32) -> Option<*mut Tags>;
    /// An IPv4 entry of the current table or of the draining one, its account behind it if it has one; out of
    /// range `None`.
    fn slot4(&self, old: bool, index: u32) -> Option<*mut Slot4>;
    /// An IPv6 entry, likewise.
    fn slot6(&self, old: bool, index: u32) -> Option<*mut Slot6>;
    /// Adds one to `CT_CARRIED`: to packets (0) or bytes (2) of direction 0 or 1.
    fn carry(&self, key: CarriedKey, what: u32);
    /// `CT_INTERFACES`.
    fn ct_interface(&self, id: u32) -> Option<*mut CtInterface>;
    /// `CT_HOST`.
    fn ct_host(&self) -> Option<*mut CtHost>;
    /// `CT_SPILLS`.
    fn spills(&self, ipv6: bool) -> Option<*mut Spills>;
    /// `CT_LOCAL` of this CPU; nobody else writes it while the packet is judged.
    fn ct_local(&self, id: u32) -> Option<*mut CtLocal>;
    /// [`crate::pipeline::run`], [`crate::pipeline::missed`] or [`crate::pipeline::open`]. (The kernel calls this
    /// one and those that say "likewise" as functions that the verifier looks at once, whoever calls them.)
    fn run(&self, what: u32, scratch: &mut Scratch) -> Outcome;
    /// [`crate::table::settle`], likewise.
    fn settle(&self, ipv6: bool, hash: u64, index: u32) -> bool;
    /// [`crate::table::free`], likewise.
    fn free(&self, ipv6: bool, entry: FreeEntry) -> bool;
    /// [`crate::table::clear`], likewise.
    fn clear(&self, ipv6: bool, old: bool, index: u32, id: u32) -> u32;
    /// [`crate::table::review_entry`], likewise.
    fn review_entry(&self, ipv6: bool, old: bool, index: u32) -> u32;
    /// [`crate::table::reclaim_beside`], likewise.
    fn reclaim_beside(&self, ipv6: bool, hash: u64);
    /// [`crate::table::reclaim`], likewise.
    fn reclaim(&self, ipv6: bool, old: bool, index: u32) -> u32;
    /// [`crate::classify::allows`], likewise; `remote` is the peer of the packet in the scratch.
    fn allows<F: Room>(&self, question: &Question, remote: &F::Address) -> Allowing;
    /// [`crate::classify::untracked`], likewise.
    fn untracked(&self, ipv6: bool, bank: u32, id: u32, protocol: u8, ports: u32) -> u32;
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
    /// Adds packets to `RULE_HITS`, where the set has a place.
    fn hit(&self, bank: u32, rule_set: u32, packets: u32);
}
