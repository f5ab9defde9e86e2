//! Sets of rules, each distinct set once.

use std::collections::HashMap;
use std::rc::Rc;

use super::error::Capacity;

/// Rules over all sets. Ranges that many rules overlap make large sets; this bounds the memory
/// (four bytes each) and the time that a hostile definition can take.
pub(super) const MAX_MEMBERSHIPS: usize = 16 << 20;

/// What looking at one rule, range or prefix after the other may take: some ten seconds. A definition
/// can be made so that every step on the way to a small result is long.
pub(super) const MAX_STEPS: u64 = 1 << 32;

/// The empty set.
pub(super) const EMPTY: u32 = 0;

/// All distinct sets.
pub(super) struct RuleSets {
    sets: Vec<Rc<[u32]>>,
    index: HashMap<Rc<[u32]>, u32>,
    unions: HashMap<(u32, u32), u32>,
    memberships: usize,
    steps: u64,
}

impl RuleSets {
    /// For so many rules, of which each probably is a set.
    pub(super) fn new(rules: usize) -> Self {
        let empty: Rc<[u32]> = Rc::from([]);
        let mut index = HashMap::with_capacity(rules);
        index.insert(Rc::clone(&empty), EMPTY);
        Self {
            sets: vec![empty],
            index,
            unions: HashMap::new(),
            memberships: 0,
            steps: 0,
        }
    }

    /// Counts steps that are about to be taken.
    pub(super) fn spend(&mut self, steps: usize) -> Result<(), Capacity> {
        self.steps = self.steps.saturating_add(steps as u64);
        if self.steps > MAX_STEPS {
            return Err(Capacity::Steps);
        }
        Ok(())
    }

    /// The set's members, ascending.
    pub(super) fn members(&self, set: u32) -> &[u32] {
        &self.sets[set as usize]
    }

    /// The number of a set given by its members, ascending and distinct.
    pub(super) fn intern(&mut self, members: &[u32]) -> Result<u32, Capacity> {
        self.spend(members.len())?;
        if let Some(set) = self.index.get(members) {
            return Ok(*set);
        }
        self.memberships += members.len();
        if self.memberships > MAX_MEMBERSHIPS {
            return Err(Capacity::RuleSets);
        }
        let set = self.sets.len() as u32;
        let members: Rc<[u32]> = Rc::from(members);
        self.sets.push(Rc::clone(&members));
        self.index.insert(members, set);
        Ok(set)
    }

    /// The set of what is in either.
    pub(super) fn union(&mut self, a: u32, b: u32) -> Result<u32, Capacity> {
        if a == b || b == EMPTY {
            return Ok(a);
        }
        if a == EMPTY {
            return Ok(b);
        }
        let key = (a.min(b), a.max(b));
        if let Some(set) = self.unions.get(&key) {
            return Ok(*set);
        }
        self.spend(self.members(a).len() + self.members(b).len())?;
        let merged = merge(self.members(a), self.members(b));
        let set = self.intern(&merged)?;
        self.unions.insert(key, set);
        Ok(set)
    }
}

fn merge(mut a: &[u32], mut b: &[u32]) -> Vec<u32> {
    let mut merged = Vec::with_capacity(a.len() + b.len());
    while let (Some((x, rest_a)), Some((y, rest_b))) = (a.split_first(), b.split_first()) {
        merged.push(*x.min(y));
        if x <= y {
            a = rest_a;
        }
        if y <= x {
            b = rest_b;
        }
    }
    merged.extend_from_slice(a);
    merged.extend_from_slice(b);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_have_one_number() {
        let mut sets = RuleSets::new(0);
        let a = sets.intern(&[1, 3]).unwrap();
        let b = sets.intern(&[2, 3]).unwrap();
        let both = sets.union(a, b).unwrap();
        assert_eq!(sets.members(both), [1, 2, 3]);
        assert_eq!(sets.union(b, a).unwrap(), both);
        assert_eq!(sets.intern(&[1, 2, 3]).unwrap(), both);
        assert_eq!(sets.union(both, a).unwrap(), both);
        assert_eq!(sets.union(EMPTY, a).unwrap(), a);
        assert_eq!(sets.union(a, EMPTY).unwrap(), a);
    }

    #[test]
    fn what_takes_too_long_is_given_up() {
        let mut sets = RuleSets::new(0);
        let a = sets.intern(&[1, 2]).unwrap();
        let b = sets.intern(&[2, 3]).unwrap();
        sets.steps = MAX_STEPS - 3;
        assert_eq!(sets.union(a, b), Err(Capacity::Steps));
        sets.steps = MAX_STEPS - 7;
        assert_eq!(
            sets.union(a, b).map(|both| sets.members(both)),
            Ok(&[1, 2, 3][..])
        );
        assert_eq!(sets.spend(1), Err(Capacity::Steps));
    }
}
