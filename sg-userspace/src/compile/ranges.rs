//! Disjoint ascending ranges that know which rules allow them.

use std::collections::BTreeSet;

use super::error::Capacity;
use super::rule_sets::RuleSets;

/// One allowed range of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Segment {
    pub(super) low: u16,
    pub(super) high: u16,
    pub(super) set: u32,
}

/// What one rule allows in a slice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interval {
    pub(super) low: u16,
    pub(super) high: u16,
    pub(super) rule: u32,
}

/// Cuts overlapping intervals where the set of rules changes.
pub(super) fn cut(intervals: &[Interval], sets: &mut RuleSets) -> Result<Vec<Segment>, Capacity> {
    if let [one] = intervals {
        return Ok(vec![Segment {
            low: one.low,
            high: one.high,
            set: sets.intern(&[one.rule])?,
        }]);
    }
    // (value from which it holds, rule, begins)
    let mut edges: Vec<(u32, u32, bool)> = Vec::with_capacity(2 * intervals.len());
    for interval in intervals {
        edges.push((interval.low.into(), interval.rule, true));
        edges.push((u32::from(interval.high) + 1, interval.rule, false));
    }
    edges.sort_unstable();

    let mut segments = Vec::new();
    let mut active = BTreeSet::new();
    let mut members = Vec::new();
    let mut edges = edges.into_iter().peekable();
    while let Some((start, rule, begins)) = edges.next() {
        if begins {
            active.insert(rule);
        } else {
            active.remove(&rule);
        }
        let Some((end, ..)) = edges.peek() else {
            break;
        };
        if *end == start || active.is_empty() {
            continue;
        }
        members.clear();
        members.extend(&active);
        let segment = Segment {
            // A start that something follows is at most 65535, and an end at most 65536.
            low: start as u16,
            high: (end - 1) as u16,
            set: sets.intern(&members)?,
        };
        push(&mut segments, segment);
    }
    Ok(segments)
}

/// The ranges of either, with the rules of both where they overlap.
pub(super) fn union(
    a: &[Segment],
    b: &[Segment],
    sets: &mut RuleSets,
) -> Result<Vec<Segment>, Capacity> {
    let mut merged = Vec::with_capacity(a.len() + b.len());
    let (mut a, mut b) = (a.iter().copied(), b.iter().copied());
    let (mut next_a, mut next_b) = (a.next(), b.next());
    while let (Some(x), Some(y)) = (next_a, next_b) {
        if x.high < y.low {
            push(&mut merged, x);
            next_a = a.next();
        } else if y.high < x.low {
            push(&mut merged, y);
            next_b = b.next();
        } else if x.low < y.low {
            push(
                &mut merged,
                Segment {
                    high: y.low - 1,
                    ..x
                },
            );
            next_a = Some(Segment { low: y.low, ..x });
        } else if y.low < x.low {
            push(
                &mut merged,
                Segment {
                    high: x.low - 1,
                    ..y
                },
            );
            next_b = Some(Segment { low: x.low, ..y });
        } else {
            let high = x.high.min(y.high);
            push(
                &mut merged,
                Segment {
                    low: x.low,
                    high,
                    set: sets.union(x.set, y.set)?,
                },
            );
            next_a = rest(x, high).or_else(|| a.next());
            next_b = rest(y, high).or_else(|| b.next());
        }
    }
    for segment in next_a.into_iter().chain(a).chain(next_b).chain(b) {
        push(&mut merged, segment);
    }
    Ok(merged)
}

/// Whether the ranges leave no gap from 0 to 65535.
pub(super) fn covers_everything(segments: &[Segment]) -> bool {
    let mut next = 0;
    for segment in segments {
        if u32::from(segment.low) != next {
            return false;
        }
        next = u32::from(segment.high) + 1;
    }
    next == 1 << 16
}

/// What is left of a segment above `high`.
fn rest(segment: Segment, high: u16) -> Option<Segment> {
    (segment.high > high).then(|| Segment {
        low: high + 1,
        ..segment
    })
}

/// Appends, joining neighbours that the same rules allow.
fn push(segments: &mut Vec<Segment>, segment: Segment) {
    match segments.last_mut() {
        Some(last)
            if last.set == segment.set && u32::from(last.high) + 1 == u32::from(segment.low) =>
        {
            last.high = segment.high;
        }
        _ => segments.push(segment),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut_named(intervals: &[(u16, u16, u32)]) -> Vec<(u16, u16, Vec<u32>)> {
        let mut sets = RuleSets::new(0);
        let intervals: Vec<_> = intervals
            .iter()
            .map(|&(low, high, rule)| Interval { low, high, rule })
            .collect();
        let segments = cut(&intervals, &mut sets).unwrap();
        name(&segments, &sets)
    }

    fn name(segments: &[Segment], sets: &RuleSets) -> Vec<(u16, u16, Vec<u32>)> {
        segments
            .iter()
            .map(|segment| {
                (
                    segment.low,
                    segment.high,
                    sets.members(segment.set).to_vec(),
                )
            })
            .collect()
    }

    #[test]
    fn ranges_split_where_the_rules_change() {
        assert_eq!(
            cut_named(&[(80, 90, 1), (85, 85, 2), (91, 91, 1)]),
            [(80, 84, vec![1]), (85, 85, vec![1, 2]), (86, 91, vec![1])],
        );
        assert_eq!(
            cut_named(&[(0, 65535, 1), (65535, 65535, 2), (0, 0, 3)]),
            [
                (0, 0, vec![1, 3]),
                (1, 65534, vec![1]),
                (65535, 65535, vec![1, 2])
            ],
        );
        assert_eq!(cut_named(&[]), []);
    }

    #[test]
    fn unions_split_likewise() {
        let mut sets = RuleSets::new(0);
        let all = cut(
            &[Interval {
                low: 0,
                high: 65535,
                rule: 1,
            }],
            &mut sets,
        )
        .unwrap();
        let some = cut(
            &[
                Interval {
                    low: 0,
                    high: 0,
                    rule: 2,
                },
                Interval {
                    low: 10,
                    high: 20,
                    rule: 2,
                },
                Interval {
                    low: 65535,
                    high: 65535,
                    rule: 3,
                },
            ],
            &mut sets,
        )
        .unwrap();
        let expected = [
            (0, 0, vec![1, 2]),
            (1, 9, vec![1]),
            (10, 20, vec![1, 2]),
            (21, 65534, vec![1]),
            (65535, 65535, vec![1, 3]),
        ];
        let forth = union(&all, &some, &mut sets).unwrap();
        assert_eq!(name(&forth, &sets), expected);
        let back = union(&some, &all, &mut sets).unwrap();
        assert_eq!(name(&back, &sets), expected);
        assert!(covers_everything(&forth));
        assert!(!covers_everything(&some));
        assert!(!covers_everything(&[]));
    }
}
