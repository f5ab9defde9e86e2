//! Search trees of prefixes: the form of [`sg_common::tree`], whose lookup takes a fraction of an LPM
//! trie's time.

use ipnet::IpNet;
use sg_common::layout::{DEEPER, LEAF, Node};

use super::Trie;

/// Children of an inner node.
const CHILDREN: usize = 16;
/// Intervals of a leaf.
const INTERVALS: usize = 8;

/// Trees, as many as fit.
pub(super) struct Trees {
    pub(super) nodes: Vec<Node>,
    limit: usize,
}

/// From which word on a value holds; up to the next one.
struct Cut {
    low: u32,
    value: u32,
}

/// A prefix whose address stands in the upper bits.
struct Entry {
    bits: u128,
    len: u32,
    class: u32,
}

impl Trees {
    /// Room for `limit` nodes.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            nodes: Vec::new(),
            limit,
        }
    }

    /// The root of a tree that answers as the trie does, and `outside` where that has no answer; `None`
    /// if it does not fit.
    pub(super) fn add(&mut self, trie: &Trie, outside: u32) -> Option<u32> {
        let before = self.nodes.len();
        // No prefix makes less than half an interval, so what is far too large is not even tried.
        if before + trie.entries.len() / (2 * INTERVALS) > self.limit {
            return None;
        }
        let entries: Vec<Entry> = trie.entries.iter().map(Entry::of).collect();
        let root = self.words(&entries, 0, outside);
        if self.nodes.len() > self.limit {
            self.nodes.truncate(before);
            return None;
        }
        Some(root)
    }

    /// The tree of the entries' word at `place`; they agree in all words before, ascend by address and
    /// length, and are longer than those words.
    fn words(&mut self, entries: &[Entry], place: u32, outside: u32) -> u32 {
        let mut cuts = vec![Cut {
            low: 0,
            value: outside,
        }];
        // Prefixes that the sweep is inside of: the word behind each, and its value.
        let mut inside: Vec<(u64, u32)> = Vec::new();
        let mut rest = entries;
        while let Some((first, others)) = rest.split_first() {
            let word = first.word(place);
            leave(&mut inside, u64::from(word), outside, &mut cuts);
            let bits = first.len - 32 * place;
            if bits <= 32 {
                cut(&mut cuts, word, first.class);
                inside.push((u64::from(word) + (1 << (32 - bits)), first.class));
                rest = others;
            } else {
                // The shorter ones of this word stand before.
                let deeper = rest.partition_point(|entry| entry.word(place) == word);
                let around = inside.last().map_or(outside, |(_, class)| *class);
                let (below, behind) = rest.split_at(deeper);
                let value = DEEPER | self.words(below, place + 1, around);
                cut(&mut cuts, word, value);
                inside.push((u64::from(word) + 1, value));
                rest = behind;
            }
        }
        leave(&mut inside, 1 << 32, outside, &mut cuts);
        self.build(&cuts)
    }

    /// Leaves, and inner nodes above them until one holds all; answers that one.
    fn build(&mut self, cuts: &[Cut]) -> u32 {
        let mut first = self.nodes.len() as u32;
        let mut lows: Vec<u32> = Vec::with_capacity(cuts.len().div_ceil(INTERVALS));
        for cuts in cuts.chunks(INTERVALS) {
            let last = cuts[cuts.len() - 1].value;
            let mut words = [last; 16];
            words[0] = LEAF;
            separate(&mut words[1..8], cuts.iter().map(|cut| cut.low));
            for (value, cut) in words[8..].iter_mut().zip(cuts) {
                *value = cut.value;
            }
            self.nodes.push(Node { words });
            lows.push(cuts[0].low);
        }
        while lows.len() > 1 {
            let next = self.nodes.len() as u32;
            let mut above = Vec::with_capacity(lows.len().div_ceil(CHILDREN));
            for lows in lows.chunks(CHILDREN) {
                let mut words = [first; 16];
                separate(&mut words[1..], lows.iter().copied());
                self.nodes.push(Node { words });
                above.push(lows[0]);
                first += lows.len() as u32;
            }
            first = next;
            lows = above;
        }
        first
    }
}

impl Entry {
    fn of((net, class): &(IpNet, u32)) -> Self {
        let bits = match net {
            IpNet::V4(net) => u128::from(net.network().to_bits()) << 96,
            IpNet::V6(net) => net.network().to_bits(),
        };
        Self {
            bits,
            len: net.prefix_len().into(),
            class: *class,
        }
    }

    fn word(&self, place: u32) -> u32 {
        (self.bits >> (96 - 32 * place)) as u32
    }
}

/// Ends the prefixes that do not reach `word`.
fn leave(inside: &mut Vec<(u64, u32)>, word: u64, outside: u32, cuts: &mut Vec<Cut>) {
    while let Some((end, _)) = inside.pop_if(|(end, _)| *end <= word) {
        if let Ok(end) = u32::try_from(end) {
            let around = inside.last().map_or(outside, |(_, value)| *value);
            cut(cuts, end, around);
        }
    }
}

/// Lets `value` hold from `low` on, which is not before the last one.
fn cut(cuts: &mut Vec<Cut>, low: u32, value: u32) {
    cuts.pop_if(|last| last.low == low);
    if cuts.last().is_none_or(|last| last.value != value) {
        cuts.push(Cut { low, value });
    }
}

/// The highest word of each interval but the last, from where the intervals begin.
fn separate(highest: &mut [u32], lows: impl Iterator<Item = u32>) {
    highest.fill(u32::MAX);
    for (highest, low) in highest.iter_mut().zip(lows.skip(1)) {
        *highest = low - 1;
    }
}

#[cfg(test)]
mod tests;
