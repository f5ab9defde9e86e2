//! Static search trees: what value the interval of a key has.
//!
//! A key is one 32-bit word (an IPv4 address) or several (an IPv6 address), and each word is looked up in
//! a tree of its own. A node is one cache line of 16 or, where the values stand beside them, eight
//! intervals; which one holds a word is counted, not branched for: comparisons of addresses go either
//! way at random, and one that is mispredicted costs more than all of a node. A tree of 100 prefixes is three
//! lines deep, one of 10,000 four.

use crate::{
    atomic::opaque,
    layout::{DEEPER, LEAF, Node},
    tables::Tables,
};

/// Lines that a word may take: 16⁵ leaves are more than a bank has nodes.
const DEPTH: u64 = 6;

/// 1 if `highest` is below `word`. Both are 32 bits wide.
#[inline(always)]
fn below(highest: u32, word: u64) -> usize {
    (u64::from(highest).wrapping_sub(word) >> 63) as usize
}

/// Which child of an inner node holds `word`, in two steps of three comparisons.
#[inline(always)]
fn child(words: &[u32; 16], word: u64) -> usize {
    let four = below(words[4], word) + below(words[8], word) + below(words[12], word);
    let four = (four & 3) * 4;
    four + below(words[four + 1], word)
        + below(words[four + 2], word)
        + below(words[four + 3], word)
}

/// Which interval of a leaf holds `word`.
#[inline(always)]
fn interval(words: &[u32; 16], word: u64) -> usize {
    let two = below(words[2], word) + below(words[4], word) + below(words[6], word);
    let two = (two & 3) * 2;
    two + below(words[two + 1], word)
}

/// The value of a word in the tree at `root`; 0 if there is no such tree.
#[inline(always)]
fn value<T: Tables>(tables: &T, bank: u32, root: u32, word: u32) -> u32 {
    let word = opaque(word.into());
    let mut index = root;
    for _ in 0..opaque(DEPTH) {
        let Some(Node { words }) = tables.node(bank, index) else {
            return 0;
        };
        if words[0] & LEAF != 0 {
            return words[8 + (interval(words, word) & 7)];
        }
        index = words[0] + child(words, word) as u32;
    }
    0
}

/// The value of the key whose `count` words `word` tells, in the tree at `root`; 0 if there is no such
/// tree.
#[inline(always)]
pub fn find<T: Tables>(
    tables: &T,
    bank: u32,
    root: u32,
    count: u32,
    word: impl Fn(u32) -> u32,
) -> u32 {
    let mut found = DEEPER | root;
    for place in 0..opaque(count.into()) as u32 {
        found = value(tables, bank, found & !DEEPER, word(place));
        if found & DEEPER == 0 {
            return found;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every place in nodes that are full and in such as are filled up.
    #[test]
    fn what_is_counted_is_how_many_are_below() {
        for used in 0..16 {
            let mut words = [u32::MAX; 16];
            for (number, highest) in (0..used).zip(&mut words[1..]) {
                *highest = number * 0x1100_0000 + 5;
            }
            let around = |number: u32| [4, 5, 6].map(|low| number * 0x1100_0000 + low);
            for word in (0..16).flat_map(around).chain([0, u32::MAX]) {
                let counted = |upto: usize| {
                    let below = words[1..upto].iter().filter(|highest| **highest < word);
                    below.count()
                };
                assert_eq!(child(&words, word.into()), counted(16), "{word} of {used}");
                assert_eq!(
                    interval(&words, word.into()),
                    counted(8),
                    "{word} of {used}"
                );
            }
        }
    }
}
