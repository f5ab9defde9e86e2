//! Sets of packets by protocol, port, ICMP type and code, each distinct set once; sums and differences.

use std::{collections::HashMap, rc::Rc};

use serde::{Serialize, Serializer};
use sg_common::layout::slice;

use crate::{compile::Compiled, model::protocol};

/// No packet.
pub(super) const NOTHING: u32 = 0;

/// Disjoint ranges in ascending order, both ends included; neighbours do not touch.
pub(super) type Ranges = [(u16, u16)];

/// Sets by number.
pub(super) struct TrafficSets {
    ranges: Vec<Rc<Ranges>>,
    ranges_index: HashMap<Rc<Ranges>, u32>,
    sets: Vec<[u32; 4]>,
    sets_index: HashMap<[u32; 4], u32>,
    sums: HashMap<(u32, u32), u32>,
    differences: HashMap<(u32, u32), u32>,
}

impl TrafficSets {
    /// With the empty set.
    pub(super) fn new() -> Self {
        let none: Rc<Ranges> = Rc::from([]);
        Self {
            ranges: vec![Rc::clone(&none)],
            ranges_index: [(none, 0)].into(),
            sets: vec![[0; 4]],
            sets_index: [([0; 4], NOTHING)].into(),
            sums: HashMap::new(),
            differences: HashMap::new(),
        }
    }

    /// What addresses of a compiled class may send, or be sent, in a family.
    pub(super) fn of_class(&mut self, compiled: &Compiled, class: u32, ipv6: bool) -> u32 {
        let mut set = [0; 4];
        let slices = compiled.classes[class as usize].slices;
        for (place, (set, run)) in set.iter_mut().zip(slices).enumerate() {
            let ranges = &compiled.ranges[run.start as usize..][..run.len as usize];
            let joined = join(ranges.iter().map(|range| (range.low, range.high)));
            *set = if place == slice::OTHER {
                let asked = without(&joined, &elsewhere(ipv6));
                self.intern_ranges(&asked)
            } else {
                self.intern_ranges(&joined)
            };
        }
        self.intern(set)
    }

    /// What is in either.
    pub(super) fn sum(&mut self, a: u32, b: u32) -> u32 {
        if a == b || b == NOTHING {
            return a;
        }
        if a == NOTHING {
            return b;
        }
        let key = (a.min(b), a.max(b));
        if let Some(set) = self.sums.get(&key) {
            return *set;
        }
        let set = self.by_slice(a, b, |a, b| {
            let mut both: Vec<_> = a.iter().chain(b).copied().collect();
            both.sort_unstable();
            join(both.into_iter())
        });
        self.sums.insert(key, set);
        set
    }

    /// What is in `a` and not in `b`.
    pub(super) fn difference(&mut self, a: u32, b: u32) -> u32 {
        if a == b || a == NOTHING {
            return NOTHING;
        }
        if b == NOTHING {
            return a;
        }
        if let Some(set) = self.differences.get(&(a, b)) {
            return *set;
        }
        let set = self.by_slice(a, b, without);
        self.differences.insert((a, b), set);
        set
    }

    /// The ranges of one slice of a set.
    pub(super) fn slice(&self, set: u32, slice: usize) -> &Ranges {
        &self.ranges[self.sets[set as usize][slice] as usize]
    }

    /// The set by itself.
    pub(super) fn packets(&self, set: u32, ipv6: bool) -> Packets {
        let slices = std::array::from_fn(|place| self.slice(set, place).to_vec());
        Packets { ipv6, slices }
    }

    fn by_slice(
        &mut self,
        a: u32,
        b: u32,
        combine: impl Fn(&Ranges, &Ranges) -> Vec<(u16, u16)>,
    ) -> u32 {
        let set = std::array::from_fn(|place| {
            let combined = combine(self.slice(a, place), self.slice(b, place));
            self.intern_ranges(&combined)
        });
        self.intern(set)
    }

    fn intern_ranges(&mut self, ranges: &Ranges) -> u32 {
        if let Some(number) = self.ranges_index.get(ranges) {
            return *number;
        }
        let number = self.ranges.len() as u32;
        let ranges: Rc<Ranges> = Rc::from(ranges);
        self.ranges.push(Rc::clone(&ranges));
        self.ranges_index.insert(ranges, number);
        number
    }

    fn intern(&mut self, set: [u32; 4]) -> u32 {
        let next = self.sets.len() as u32;
        let number = *self.sets_index.entry(set).or_insert(next);
        if number == next {
            self.sets.push(set);
        }
        number
    }
}

/// Protocol numbers that have a slice of their own, and are never looked for among the others.
fn elsewhere(ipv6: bool) -> [(u16, u16); 3] {
    let one = |number: u8| (u16::from(number), u16::from(number));
    if ipv6 {
        [
            one(protocol::TCP),
            one(protocol::UDP),
            one(protocol::ICMPV6),
        ]
    } else {
        [one(protocol::ICMP), one(protocol::TCP), one(protocol::UDP)]
    }
}

/// Ascending ranges with those made one that overlap or touch.
fn join(ranges: impl Iterator<Item = (u16, u16)>) -> Vec<(u16, u16)> {
    let mut joined: Vec<(u16, u16)> = Vec::new();
    for (low, high) in ranges {
        match joined.last_mut() {
            Some(last) if u32::from(low) <= u32::from(last.1) + 1 => last.1 = last.1.max(high),
            _ => joined.push((low, high)),
        }
    }
    joined
}

/// What of `a` is not in `b`.
fn without(a: &Ranges, b: &Ranges) -> Vec<(u16, u16)> {
    let mut left = Vec::with_capacity(a.len());
    let mut gone = b.iter().peekable();
    for &(low, high) in a {
        let mut next = u32::from(low);
        while gone.next_if(|gone| u32::from(gone.1) < next).is_some() {}
        let mut overlapping = gone.clone();
        while let Some(&(from, to)) = overlapping.next_if(|gone| gone.0 <= high) {
            if u32::from(from) > next {
                left.push((next as u16, from - 1));
            }
            next = u32::from(to) + 1;
        }
        if next <= u32::from(high) {
            left.push((next as u16, high));
        }
    }
    left
}

/// Packets of one family that may begin a flow, by what rules are asked: destination port of TCP and UDP,
/// `type << 8 | code` of the family's ICMP, other protocols' numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packets {
    ipv6: bool,
    slices: [Vec<(u16, u16)>; 4],
}

impl Packets {
    /// Whether a packet is among them; arguments as for [`crate::resolve::Resolved::evaluate`].
    pub fn contains(&self, number: u8, port: u16) -> bool {
        let (slice, value) = slice_of(self.ipv6, number, port);
        let ranges = &self.slices[slice];
        let at = ranges.partition_point(|(_, high)| *high < value);
        ranges.get(at).is_some_and(|(low, _)| *low <= value)
    }

    /// One of them: IP protocol number, and port as for [`Self::contains`]. Ports other than 0 are preferred.
    pub fn example(&self) -> Option<(u8, u16)> {
        let icmp = icmp(self.ipv6);
        let numbers = [protocol::TCP, protocol::UDP, icmp];
        for (ranges, number) in self.slices.iter().zip(numbers) {
            if let Some((low, high)) = ranges.first() {
                let port = if number != icmp && *low == 0 {
                    1.min(*high)
                } else {
                    *low
                };
                return Some((number, port));
            }
        }
        let (number, _) = self.slices[slice::OTHER].first()?;
        // Other protocols are numbers of one byte.
        Some((*number as u8, 0))
    }

    /// In words, as rules are: `all`, `tcp` (every port), `tcp 80`, `udp 53-54`, `icmp`, `icmp 8` (every code),
    /// `icmpv6 128/0`, `icmp 3/1-3/4`, `icmp 13-18`, `protocol 47`, `protocol 2-5`, `other protocols` (all but those above).
    pub fn terms(&self) -> Vec<String> {
        const EVERYTHING: [(u16, u16); 1] = [(0, u16::MAX)];
        let others = without(&[(0, 255)], &elsewhere(self.ipv6));
        let whole = [&EVERYTHING[..], &EVERYTHING, &EVERYTHING, &others];
        let full: [bool; 4] = std::array::from_fn(|place| self.slices[place] == *whole[place]);
        if full == [true; 4] {
            return vec!["all".into()];
        }
        let icmp = if self.ipv6 { "icmpv6" } else { "icmp" };
        let mut terms = Vec::new();
        for (place, name) in ["tcp", "udp", icmp, "other protocols"]
            .into_iter()
            .enumerate()
        {
            if full[place] {
                terms.push(name.to_owned());
                continue;
            }
            for range in &self.slices[place] {
                match place {
                    slice::ICMP => {
                        let parts = messages(*range).into_iter();
                        terms.extend(parts.map(|part| format!("{icmp} {part}")));
                    }
                    slice::OTHER => terms.push(format!("protocol {}", span(*range))),
                    _ => terms.push(format!("{name} {}", span(*range))),
                }
            }
        }
        terms
    }
}

impl Serialize for Packets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.terms().serialize(serializer)
    }
}

fn icmp(ipv6: bool) -> u8 {
    if ipv6 {
        protocol::ICMPV6
    } else {
        protocol::ICMP
    }
}

/// The slice that a packet is looked for in, and by what value.
pub(super) fn slice_of(ipv6: bool, number: u8, port: u16) -> (usize, u16) {
    match number {
        protocol::TCP => (slice::TCP, port),
        protocol::UDP => (slice::UDP, port),
        number if number == icmp(ipv6) => (slice::ICMP, port),
        number => (slice::OTHER, number.into()),
    }
}

fn span((low, high): (u16, u16)) -> String {
    if low == high {
        low.to_string()
    } else {
        format!("{low}-{high}")
    }
}

/// ICMP types and codes from one `type << 8 | code` to another: what is left of the first type, whole types,
/// and what is taken of the last.
fn messages((low, high): (u16, u16)) -> Vec<String> {
    let mut parts = Vec::new();
    let (mut next, end) = (u32::from(low), u32::from(high));
    while next <= end {
        // A type has 256 codes.
        let (kind, code) = (next >> 8, next & 0xff);
        let whole = (end + 1) >> 8;
        let (part, last) = if code == 0 && whole > kind {
            (span((kind as u16, (whole - 1) as u16)), (whole << 8) - 1)
        } else {
            let last = end.min(kind << 8 | 0xff);
            let part = if next == last {
                format!("{kind}/{code}")
            } else {
                format!("{kind}/{code}-{kind}/{}", last & 0xff)
            };
            (part, last)
        };
        parts.push(part);
        next = last + 1;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_exact_at_every_edge() {
        assert_eq!(
            without(&[(0, 65535)], &[(0, 0), (80, 90), (65535, 65535)]),
            [(1, 79), (91, 65534)]
        );
        assert_eq!(
            without(&[(5, 9), (20, 30)], &[(0, 6), (8, 25)]),
            [(7, 7), (26, 30)]
        );
        assert_eq!(without(&[(1, 2), (4, 5), (7, 8)], &[(0, 9)]), []);
        assert_eq!(without(&[(1, 2)], &[]), [(1, 2)]);
        assert_eq!(
            join([(0, 4), (5, 6), (6, 9), (11, 11)].into_iter()),
            [(0, 9), (11, 11)]
        );
    }

    fn packets(ipv6: bool, slices: [&Ranges; 4]) -> Packets {
        let slices = slices.map(<[_]>::to_vec);
        Packets { ipv6, slices }
    }

    #[test]
    fn words_are_those_of_rules() {
        let all = [(0, u16::MAX)];
        let others = without(&[(0, 255)], &elsewhere(false));
        assert_eq!(packets(false, [&all, &all, &all, &others]).terms(), ["all"]);
        assert_eq!(
            packets(
                false,
                [
                    &[(80, 80), (443, 500)],
                    &all,
                    &[(0x0300, 0x04ff), (0x0800, 0x0800)],
                    &[(47, 47)]
                ]
            )
            .terms(),
            [
                "tcp 80",
                "tcp 443-500",
                "udp",
                "icmp 3-4",
                "icmp 8/0",
                "protocol 47"
            ]
        );
        for (range, expected) in [
            ((0x8001, 0x8103), &["128/1-128/255", "129/0-129/3"][..]),
            ((0x7fff, 0x8200), &["127/255", "128-129", "130/0"]),
            ((0x0000, 0x00fe), &["0/0-0/254"]),
            ((0xff00, 0xffff), &["255"]),
        ] {
            assert_eq!(messages(range), expected);
        }
    }

    #[test]
    fn an_example_is_one_of_them() {
        let all = [(0, u16::MAX)];
        for (slices, expected) in [
            ([&all[..], &[], &[], &[]], (6, 1)),
            ([&[], &[(0, 0)], &[], &[]], (17, 0)),
            ([&[], &[], &all, &[]], (58, 0)),
            ([&[], &[], &[], &[(2, 9)]], (2, 0)),
        ] {
            let packets = packets(true, slices);
            let (number, port) = packets.example().unwrap();
            assert_eq!((number, port), expected);
            assert!(packets.contains(number, port));
        }
        assert_eq!(packets(true, [&[]; 4]).example(), None);
    }
}
