//! Classes of addresses, each distinct one once.

use std::collections::HashMap;
use std::rc::Rc;

use sg_common::layout::{Class, Range, Slice};

use super::error::{Capacity, Full};
use super::ranges::{self, Interval, Segment};
use super::rule_sets::{self, RuleSets};
use crate::model::RuleId;
use crate::resolve::ResolvedRule;

/// The class of addresses that nothing covers.
pub(super) const NOTHING: u32 = 0;

/// A class under construction: its slices by [`sg_common::layout::slice`].
type Slices = [u32; 4];

/// All distinct classes, and the map content of those that are published.
///
/// Most of what arises on the way to a superset never reaches a map, so numbers given by
/// [`Self::of_rules`] and [`Self::union`] are provisional; [`Self::publish`] gives final ones.
pub(super) struct Classes<'a> {
    rules: Vec<&'a ResolvedRule>,
    sets: RuleSets,
    segments: Vec<Rc<[Segment]>>,
    segments_index: HashMap<Rc<[Segment]>, u32>,
    segments_unions: HashMap<(u32, u32), u32>,
    classes: Vec<Slices>,
    classes_index: HashMap<Slices, u32>,
    classes_unions: HashMap<(u32, u32), u32>,
    by_rules: HashMap<(bool, Box<[u32]>), u32>,
    /// The same for one rule, by family: most prefixes have but one.
    by_rule: [ByNumber<u32>; 2],
    published: Published,
}

/// Map content, and where what is under construction stands in it.
#[derive(Default)]
struct Published {
    classes: Vec<Class>,
    ranges: Vec<Range>,
    rule_sets: Vec<Vec<u32>>,
    class_numbers: ByNumber<u32>,
    slices: ByNumber<Slice>,
    set_numbers: ByNumber<u32>,
}

/// What belongs to numbers that are given out one after the other.
struct ByNumber<T>(Vec<Option<T>>);

impl<T> Default for ByNumber<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Copy> ByNumber<T> {
    /// With what number 0 has.
    fn new(first: T) -> Self {
        Self(vec![Some(first)])
    }

    fn get(&self, number: u32) -> Option<T> {
        self.0.get(number as usize).copied().flatten()
    }

    fn insert(&mut self, number: u32, value: T) {
        let place = number as usize;
        if self.0.len() <= place {
            self.0.resize(place + 1, None);
        }
        self.0[place] = Some(value);
    }
}

/// The map content of all published classes.
pub(super) struct Content {
    pub(super) classes: Vec<Class>,
    pub(super) ranges: Vec<Range>,
    pub(super) rules: Vec<RuleId>,
    pub(super) rule_sets: Vec<Vec<u32>>,
}

impl<'a> Classes<'a> {
    /// Rules are numbered by their position in `rules`.
    pub(super) fn new(rules: Vec<&'a ResolvedRule>) -> Self {
        let no_segments: Rc<[Segment]> = Rc::from([]);
        let mut segments_index = HashMap::with_capacity(rules.len());
        segments_index.insert(Rc::clone(&no_segments), 0);
        let mut classes_index = HashMap::with_capacity(rules.len());
        classes_index.insert([0; 4], NOTHING);
        Self {
            sets: RuleSets::new(rules.len()),
            rules,
            segments: vec![no_segments],
            segments_index,
            segments_unions: HashMap::new(),
            classes: vec![[0; 4]],
            classes_index,
            classes_unions: HashMap::new(),
            by_rules: HashMap::new(),
            by_rule: Default::default(),
            published: Published {
                classes: vec![Class::ZERO],
                rule_sets: vec![Vec::new()],
                class_numbers: ByNumber::new(NOTHING),
                slices: ByNumber::new(Slice::ZERO),
                set_numbers: ByNumber::new(rule_sets::EMPTY),
                ..Published::default()
            },
        }
    }

    /// The rule of a number.
    pub(super) fn rule(&self, number: u32) -> &'a ResolvedRule {
        self.rules[number as usize]
    }

    /// The class of addresses that these rules cover, in one family.
    pub(super) fn of_rules(&mut self, numbers: &[u32], ipv6: bool) -> Result<u32, Full> {
        if let [rule] = numbers {
            if let Some(class) = self.by_rule[usize::from(ipv6)].get(*rule) {
                return Ok(class);
            }
            let class = self.construct(numbers, ipv6)?;
            self.by_rule[usize::from(ipv6)].insert(*rule, class);
            return Ok(class);
        }
        // The copy is the price of one lookup for hit and miss.
        let key = (ipv6, Box::from(numbers));
        if let Some(class) = self.by_rules.get(&key) {
            return Ok(*class);
        }
        let class = self.construct(numbers, ipv6)?;
        self.by_rules.insert(key, class);
        Ok(class)
    }

    fn construct(&mut self, numbers: &[u32], ipv6: bool) -> Result<u32, Full> {
        let mut intervals: [Vec<Interval>; 4] = Default::default();
        for rule in numbers {
            for (slice, low, high) in self.rule(*rule).traffic.slices(ipv6) {
                intervals[slice].push(Interval {
                    low,
                    high,
                    rule: *rule,
                });
            }
        }
        let mut slices = [0; 4];
        for (slice, intervals) in slices.iter_mut().zip(&intervals) {
            let segments = ranges::cut(intervals, &mut self.sets).map_err(|capacity| Full {
                capacity,
                rule: numbers.last().map(|rule| self.rule(*rule).id),
            })?;
            *slice = self.intern_segments(segments);
        }
        Ok(self.intern(slices))
    }

    /// The class of addresses that both cover.
    pub(super) fn union(&mut self, a: u32, b: u32) -> Result<u32, Capacity> {
        if a == b || b == NOTHING {
            return Ok(a);
        }
        if a == NOTHING {
            return Ok(b);
        }
        let key = (a.min(b), a.max(b));
        if let Some(class) = self.classes_unions.get(&key) {
            return Ok(*class);
        }
        let mut slices = self.classes[a as usize];
        for (slice, other) in slices.iter_mut().zip(self.classes[b as usize]) {
            *slice = self.union_segments(*slice, other)?;
        }
        let class = self.intern(slices);
        self.classes_unions.insert(key, class);
        Ok(class)
    }

    /// Counts steps that are about to be taken.
    pub(super) fn spend(&mut self, steps: usize) -> Result<(), Capacity> {
        self.sets.spend(steps)
    }

    /// Whether addresses of the class may reach every value of a slice.
    pub(super) fn covers_everything(&self, class: u32, slice: usize) -> bool {
        let segments = self.classes[class as usize][slice];
        ranges::covers_everything(&self.segments[segments as usize])
    }

    /// The final number of a class, which becomes map content.
    pub(super) fn publish(&mut self, class: u32) -> Result<u32, Capacity> {
        if let Some(number) = self.published.class_numbers.get(class) {
            return Ok(number);
        }
        // Class 0 stands there already.
        if self.published.classes.len() > Capacity::Classes.limit() {
            return Err(Capacity::Classes);
        }
        let mut content = Class::ZERO;
        let slices = self.classes[class as usize];
        for (slice, segments) in content.slices.iter_mut().zip(slices) {
            *slice = self.publish_segments(segments)?;
        }
        let number = self.published.classes.len() as u32;
        self.published.classes.push(content);
        self.published.class_numbers.insert(class, number);
        Ok(number)
    }

    /// What was published.
    pub(super) fn finish(self) -> Content {
        Content {
            classes: self.published.classes,
            ranges: self.published.ranges,
            rules: self.rules.iter().map(|rule| rule.id).collect(),
            rule_sets: self.published.rule_sets,
        }
    }

    fn publish_segments(&mut self, segments: u32) -> Result<Slice, Capacity> {
        let published = &mut self.published;
        if let Some(slice) = published.slices.get(segments) {
            return Ok(slice);
        }
        let content = &self.segments[segments as usize];
        if published.ranges.len() + content.len() > Capacity::Ranges.limit() {
            return Err(Capacity::Ranges);
        }
        let slice = Slice {
            start: published.ranges.len() as u32,
            len: content.len() as u32,
        };
        for segment in content.iter() {
            let known = published.set_numbers.get(segment.set);
            let rule_set = known.unwrap_or_else(|| {
                let next = published.rule_sets.len() as u32;
                published.set_numbers.insert(segment.set, next);
                let members = self.sets.members(segment.set).to_vec();
                published.rule_sets.push(members);
                next
            });
            published.ranges.push(Range {
                low: segment.low,
                high: segment.high,
                rule_set,
            });
        }
        published.slices.insert(segments, slice);
        Ok(slice)
    }

    fn union_segments(&mut self, a: u32, b: u32) -> Result<u32, Capacity> {
        if a == b || b == 0 {
            return Ok(a);
        }
        if a == 0 {
            return Ok(b);
        }
        let key = (a.min(b), a.max(b));
        if let Some(segments) = self.segments_unions.get(&key) {
            return Ok(*segments);
        }
        let (first, second) = (&self.segments[a as usize], &self.segments[b as usize]);
        self.sets.spend(first.len() + second.len())?;
        let merged = ranges::union(first, second, &mut self.sets)?;
        let segments = self.intern_segments(merged);
        self.segments_unions.insert(key, segments);
        Ok(segments)
    }

    fn intern_segments(&mut self, segments: Vec<Segment>) -> u32 {
        let segments: Rc<[Segment]> = segments.into();
        let next = self.segments.len() as u32;
        let number = *self
            .segments_index
            .entry(Rc::clone(&segments))
            .or_insert(next);
        if number == next {
            self.segments.push(segments);
        }
        number
    }

    fn intern(&mut self, slices: Slices) -> u32 {
        let next = self.classes.len() as u32;
        let number = *self.classes_index.entry(slices).or_insert(next);
        if number == next {
            self.classes.push(slices);
        }
        number
    }
}
