//! Two compiled policies, compared packet by packet: which may begin a flow under one and not the other.
//!
//! Nothing is enumerated. Addresses are walked in ranges in which both policies answer alike (prefixes and
//! members of both), and in each range sets of ports are subtracted.

use std::collections::{HashMap, HashSet};

use sg_common::layout::Policy;

use super::{
    lookup::{Lookup, NO_CLASS, Step},
    peers::{last, number},
    traffic::{NOTHING, TrafficSets},
};
use crate::{compile::Compiled, model::RuleId};

/// Addresses that gain or lose the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Piece {
    pub(super) low: u128,
    pub(super) high: u128,
    /// Numbers of [`TrafficSets`].
    pub(super) gained: u32,
    pub(super) lost: u32,
}

/// Rules that allowed something that is allowed no more, or that allow what was not.
#[derive(Debug, Default)]
pub(super) struct Deciding {
    /// Of the policy before.
    pub(super) before: HashSet<RuleId>,
    /// Of the policy after.
    pub(super) after: HashSet<RuleId>,
}

/// Addresses that follow each other and are members of the same groups, before and after.
struct Run {
    low: u128,
    high: u128,
    /// Place in [`Members::identities`].
    identities: usize,
}

/// Members of one family.
#[derive(Default)]
struct Members {
    runs: Vec<Run>,
    /// Before and after; 0: of no group.
    identities: Vec<[u32; 2]>,
}

/// The classes that decide about an address: of its prefix and as a member, before and after.
type Classes = [u32; 4];

/// Two policies, and what is known about them by now.
pub(super) struct Comparison<'a> {
    sides: [&'a Lookup; 2],
    pub(super) sets: TrafficSets,
    /// By family.
    members: [Members; 2],
    /// Sets of classes, by side and family.
    known: [[Vec<Option<u32>>; 2]; 2],
    compared: HashMap<(bool, Classes), (u32, u32)>,
    deciding: [Marks; 2],
}

impl<'a> Comparison<'a> {
    pub(super) fn new(before: &'a Lookup, after: &'a Lookup) -> Self {
        let known = |side: &Lookup| {
            let classes = side.compiled.classes.len();
            [vec![None; classes], vec![None; classes]]
        };
        Self {
            sides: [before, after],
            sets: TrafficSets::new(),
            members: [false, true]
                .map(|ipv6| Members::new(&before.compiled, &after.compiled, ipv6)),
            known: [known(before), known(after)],
            compared: HashMap::new(),
            deciding: [before, after].map(|side| Marks::new(&side.compiled)),
        }
    }

    /// Addresses that a policy and its successor treat differently, in ascending order.
    pub(super) fn pieces(&mut self, before: &Policy, after: &Policy, ipv6: bool) -> Vec<Piece> {
        let [old, new] = self.sides;
        let mut whole = [[Step { low: 0, class: 0 }]; 2];
        let [whole_old, whole_new] = &mut whole;
        let steps = [
            old.steps(before, ipv6, whole_old),
            new.steps(after, ipv6, whole_new),
        ];
        // Taken out, so that sets can be made meanwhile.
        let members = std::mem::take(&mut self.members[usize::from(ipv6)]);
        let as_members: Vec<[u32; 2]> = members
            .identities
            .iter()
            .map(|[one, other]| [old.class_of(before, *one), new.class_of(after, *other)])
            .collect();
        let calm = as_members
            .iter()
            .all(|[one, other]| self.set(0, *one, ipv6) == self.set(1, *other, ipv6));
        let mut pieces = Vec::new();
        let mut at = [0, 0];
        let mut low = 0;
        loop {
            let ends = [0, 1].map(|side| {
                let next: Option<&Step> = steps[side].get(at[side] + 1);
                next.map_or(last(ipv6), |step| step.low - 1)
            });
            let high = ends[0].min(ends[1]);
            let [one, other] = [0, 1].map(|side| steps[side][at[side]].class);
            let same = self.set(0, one, ipv6) == self.set(1, other, ipv6);
            if !(same && calm) {
                self.walk(
                    &members,
                    &as_members,
                    [one, other],
                    (low, high),
                    ipv6,
                    &mut pieces,
                );
            }
            if high == last(ipv6) {
                break;
            }
            for side in [0, 1] {
                at[side] += usize::from(ends[side] == high);
            }
            low = high + 1;
        }
        self.members[usize::from(ipv6)] = members;
        pieces
    }

    /// Which rules decided about what was found until now.
    pub(super) fn deciding(&self) -> Deciding {
        let [before, after] = &self.deciding;
        Deciding {
            before: before.rules(&self.sides[0].compiled),
            after: after.rules(&self.sides[1].compiled),
        }
    }

    /// The addresses from `low` to `high`, which prefixes put into classes `prefixes`.
    fn walk(
        &mut self,
        members: &Members,
        as_members: &[[u32; 2]],
        prefixes: [u32; 2],
        (low, high): (u128, u128),
        ipv6: bool,
        pieces: &mut Vec<Piece>,
    ) {
        let [before, after] = prefixes;
        let strangers = self.compare([before, NO_CLASS, after, NO_CLASS], ipv6);
        let start = members.runs.partition_point(|run| run.high < low);
        let mut next = low;
        // Those who follow each other are mostly members of the same groups.
        let mut last = None;
        for run in &members.runs[start..] {
            if run.low > high {
                break;
            }
            if run.low > next {
                push(pieces, next, run.low - 1, strangers);
            }
            let found = match last {
                Some((identities, found)) if identities == run.identities => found,
                _ => {
                    let [member_before, member_after] = as_members[run.identities];
                    let classes = [before, member_before, after, member_after];
                    self.compare(classes, ipv6)
                }
            };
            last = Some((run.identities, found));
            let end = run.high.min(high);
            push(pieces, run.low.max(low), end, found);
            if end == high {
                return;
            }
            next = end + 1;
        }
        push(pieces, next, high, strangers);
    }

    /// What addresses of these classes gain and lose.
    fn compare(&mut self, classes: Classes, ipv6: bool) -> (u32, u32) {
        if let Some(known) = self.compared.get(&(ipv6, classes)) {
            return *known;
        }
        let [by_prefix, as_member, by_prefix_after, as_member_after] = classes;
        let [before, after] = [
            (0, by_prefix, as_member),
            (1, by_prefix_after, as_member_after),
        ]
        .map(|(side, one, other)| {
            let (one, other) = (self.set(side, one, ipv6), self.set(side, other, ipv6));
            self.sets.sum(one, other)
        });
        let gained = self.sets.difference(after, before);
        let lost = self.sets.difference(before, after);
        for (side, set, classes) in [
            (0, lost, [by_prefix, as_member]),
            (1, gained, [by_prefix_after, as_member_after]),
        ] {
            for class in classes {
                self.deciding[side].mark(&self.sides[side].compiled, class, set, &self.sets);
            }
        }
        self.compared.insert((ipv6, classes), (gained, lost));
        (gained, lost)
    }

    /// What addresses of a class may do.
    fn set(&mut self, side: usize, class: u32, ipv6: bool) -> u32 {
        let known = &mut self.known[side][usize::from(ipv6)][class as usize];
        if let Some(set) = known {
            return *set;
        }
        let set = self.sets.of_class(&self.sides[side].compiled, class, ipv6);
        *known = Some(set);
        set
    }
}

fn push(pieces: &mut Vec<Piece>, low: u128, high: u128, (gained, lost): (u32, u32)) {
    if (gained, lost) == (NOTHING, NOTHING) {
        return;
    }
    match pieces.last_mut() {
        Some(last) if last.high + 1 == low && (last.gained, last.lost) == (gained, lost) => {
            last.high = high;
        }
        _ => pieces.push(Piece {
            low,
            high,
            gained,
            lost,
        }),
    }
}

impl Members {
    fn new(before: &Compiled, after: &Compiled, ipv6: bool) -> Self {
        let [before, after] = [before, after].map(|side| -> Vec<(u128, u32)> {
            if ipv6 {
                let members = side.members6.iter();
                members
                    .map(|(one, identity)| (number((*one).into()), *identity))
                    .collect()
            } else {
                let members = side.members4.iter();
                members
                    .map(|(one, identity)| (number((*one).into()), *identity))
                    .collect()
            }
        });
        let mut members = Self::default();
        let mut places: HashMap<[u32; 2], usize> = HashMap::new();
        let (mut before, mut after) = (before.into_iter().peekable(), after.into_iter().peekable());
        loop {
            let next = [before.peek(), after.peek()].map(|one| one.map(|(address, _)| *address));
            let Some(address) = next.into_iter().flatten().min() else {
                return members;
            };
            let identity = |one: Option<(u128, u32)>| one.map_or(0, |(_, identity)| identity);
            let identities = [
                identity(before.next_if(|(one, _)| *one == address)),
                identity(after.next_if(|(one, _)| *one == address)),
            ];
            let place = *places.entry(identities).or_insert_with(|| {
                members.identities.push(identities);
                members.identities.len() - 1
            });
            match members.runs.last_mut() {
                Some(last) if last.high + 1 == address && last.identities == place => {
                    last.high = address;
                }
                _ => members.runs.push(Run {
                    low: address,
                    high: address,
                    identities: place,
                }),
            }
        }
    }
}

/// Sets of rules of which each has decided about something.
struct Marks(Vec<bool>);

impl Marks {
    fn new(compiled: &Compiled) -> Self {
        Self(vec![false; compiled.rule_sets.len()])
    }

    /// Marks the rules by which addresses of a class have something of `set`.
    fn mark(&mut self, compiled: &Compiled, class: u32, set: u32, sets: &TrafficSets) {
        if set == NOTHING || class == NO_CLASS {
            return;
        }
        for (slice, run) in compiled.classes[class as usize].slices.iter().enumerate() {
            let wanted = sets.slice(set, slice);
            let Some((first, _)) = wanted.first() else {
                continue;
            };
            let ranges = &compiled.ranges[run.start as usize..][..run.len as usize];
            let mut wanted = wanted.iter().peekable();
            let start = ranges.partition_point(|range| range.high < *first);
            for range in &ranges[start..] {
                while wanted.next_if(|(_, high)| *high < range.low).is_some() {}
                match wanted.peek() {
                    None => break,
                    Some((low, _)) if *low <= range.high => {
                        self.0[range.rule_set as usize] = true;
                    }
                    Some(_) => {}
                }
            }
        }
    }

    fn rules(&self, compiled: &Compiled) -> HashSet<RuleId> {
        let marked = self
            .0
            .iter()
            .zip(&compiled.rule_sets)
            .filter(|(marked, _)| **marked);
        marked
            .flat_map(|(_, rules)| rules)
            .map(|rule| compiled.rules[*rule as usize])
            .collect()
    }
}
