//! Tags: eight bits for each entry of a bucket, together a quarter of a cache line, so that a lookup in a large
//! table misses the cache once, for the entry itself.
//!
//! The nth tag, `8 · word + lane`, is that of the nth way. A *mask* has a bit for each: bit `8 · lane + word`. What
//! multiplying such a bit by [`WINDOWS`] leaves in the highest four bits says which it is, which is cheaper than
//! counting zeros (the technique of de Bruijn sequences; BPF has no instruction for either).

use crate::{
    atomic,
    layout::{Tags, WAYS},
};

/// One bit in each lane of 8.
const ONES: u64 = 0x0101_0101_0101_0101;
/// The highest bit of each lane.
const HIGH: u64 = ONES << 7;

/// The mask of all tags.
pub(super) const ALL: u64 = ONES * 0x3;

/// Its windows of four bits at the sixteen positions of a mask are the numbers 0 to 15.
const WINDOWS: u64 = 0x0820_9850_68b8_c0f0;
/// By window, four bits each: the way.
const BY_WINDOW: u64 = 0x7fc6_5b2e_d439_a180;

/// The tag of a flow: bits of its hash that do not choose its bucket; never 0, which stands for "free".
#[inline(always)]
pub(super) fn tag(hash: u64) -> u64 {
    let tag = hash & 0xff;
    // Without a branch: 0 becomes 1.
    tag | (tag.wrapping_sub(1) >> 63)
}

/// The mask of the tags that equal `tag`.
#[inline(always)]
pub(super) fn equal(tags: *const Tags, tag: u64) -> u64 {
    let pattern = tag.wrapping_mul(ONES);
    let mut different = 0;
    for word in 0..WAYS / 8 {
        // SAFETY: `tags` is valid (contract of `Tables`), and there are two words.
        let tags = unsafe { atomic::load((&raw const (*tags).words).cast::<u64>().add(word)) };
        let rest = tags ^ pattern;
        // The highest bit of a lane: whether anything in the lane is set.
        let set = ((rest & !HIGH).wrapping_add(!HIGH) | rest) & HIGH;
        different |= set >> (7 - word);
    }
    different ^ ALL
}

/// The lowest bit of a mask that is not 0.
#[inline(always)]
pub(super) fn lowest(mask: u64) -> u64 {
    mask & mask.wrapping_neg()
}

/// The way that a single bit of a mask stands for.
#[inline(always)]
pub(super) fn way(bit: u64) -> u32 {
    let window = atomic::opaque(bit.wrapping_mul(WINDOWS)) >> 60;
    (BY_WINDOW >> (window * 4)) as u32 & 15
}

/// The bit of a mask that stands for a way.
#[inline(always)]
pub(super) fn bit(way: u32) -> u64 {
    1 << ((way & 7) << 3 | (way & 15) >> 3)
}

/// Which of a bucket's tags, as bytes in memory, is that of a way.
#[inline(always)]
pub const fn lane(way: u32) -> usize {
    let place = way as usize & 15;
    if cfg!(target_endian = "little") {
        place
    } else {
        place ^ 7
    }
}

/// The tag of a way.
#[inline(always)]
pub(super) fn get(tags: *const Tags, way: u32) -> u64 {
    let place = atomic::opaque(lane(way) as u64) as usize & (WAYS - 1);
    // SAFETY: `tags` is valid (contract of `Tables`), and there are sixteen.
    u64::from(unsafe { atomic::load(tags.cast::<u8>().add(place)) })
}

/// Writes the tag of a way.
#[inline(always)]
pub(super) fn set(tags: *mut Tags, way: u32, tag: u64) {
    let place = atomic::opaque(lane(way) as u64) as usize & (WAYS - 1);
    // SAFETY: `tags` is valid (contract of `Tables`), and there are sixteen.
    unsafe { atomic::store(tags.cast::<u8>().add(place), tag as u8) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_has_one_bit_and_one_tag() {
        let mut ways = std::vec::Vec::new();
        for position in (0..64).filter(|position| position % 8 < 2) {
            let mut tags = Tags::ZERO;
            let way = way(1 << position);
            set(&raw mut tags, way, 0x81);
            assert_eq!(get(&raw const tags, way), 0x81);
            assert_eq!(equal(&raw const tags, 0x81), 1 << position);
            assert_eq!(bit(way), 1 << position);
            assert_eq!(equal(&raw const tags, 0).count_ones(), 15);
            ways.push(way);
        }
        ways.sort_unstable();
        assert!(ways.into_iter().eq(0..WAYS as u32));
    }

    #[test]
    fn neighbours_do_not_look_equal() {
        // Borrows and carries between lanes are what such arithmetic gets wrong.
        let all = [0_u64, 1, 2, 0x7f, 0x80, 0x81, 0xfe, 0xff];
        for first in all {
            for second in all {
                let pair = first | second << 8;
                let word = pair | pair << 16 | pair << 32 | pair << 48;
                let tags = Tags { words: [word; 2] };
                for asked in all {
                    let expected = (0..WAYS)
                        .filter(|place| if place % 2 == 0 { first } else { second } == asked)
                        .count();
                    let found = equal(&raw const tags, asked);
                    assert_eq!(
                        found.count_ones() as usize,
                        expected,
                        "{first} {second} {asked}"
                    );
                }
            }
        }
    }

    #[test]
    fn no_tag_is_zero() {
        assert_eq!(tag(0xabcd_0000), 1);
        assert_eq!(tag(0xabcd_0001), 1);
        assert_eq!(tag(0xabcd_00ff), 0xff);
    }
}
