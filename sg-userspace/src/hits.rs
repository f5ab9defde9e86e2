//! Packets by rule, over all generations.
//!
//! The programs count by *set of rules*, because one range may be allowed by many: a packet that opens a
//! flow, and every packet that passes without one, adds to the set of rules with prefixes that allow it and to
//! the set of rules with groups that do. Sets are numbered anew by every generation. Before a bank is
//! written again, what was counted in it is added to totals by rule id; until then it is added when somebody
//! asks.
//!
//! Nothing is counted twice and nothing is lost, wherever a process ends: the file with the totals is replaced
//! at once, and says which generation the bank is meant for from then on. Only what is counted in a bank whose
//! generation was in force is ever added, so a bank that was not cleared any more adds nothing.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde::{Deserialize, Serialize};
use sg_common::{abi::MAX_COUNTED, verdict::Direction};

use crate::{
    bank::{self, Vacant},
    compile::Compiled,
    confirm,
    model::RuleId,
    session::Context,
    state::{Lock, Policy, RuleSets, State, StateError},
    table::TableError,
    tables::Tables,
    view::{View, ViewError},
};

/// What is remembered of rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Book {
    /// Kernel id of the map `RUNTIME` it belongs to.
    runtime: u32,
    /// What is counted in the banks.
    banks: [Option<Chapter>; 2],
    /// Packets of generations whose bank was written again, by rule id. Of rules that neither bank knows
    /// nothing is kept.
    totals: BTreeMap<RuleId, u64>,
    /// Packets that were counted under the layout before, by rule id.
    #[serde(default)]
    inherited: BTreeMap<RuleId, u64>,
}

/// The sets of one generation; [`RuleSets`] of its number says what they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Chapter {
    generation: u32,
    /// How many there are.
    sets: usize,
}

/// Packets of one rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleHits {
    /// Its id.
    pub rule: String,
    /// The group it is a rule of.
    pub group: String,
    /// `ingress` or `egress`.
    pub direction: String,
    /// Packets that opened a flow, or passed without one, and that it allows.
    pub packets: u64,
    /// Whether all of them were counted: a policy can have more sets of rules than there are counters.
    pub complete: bool,
}

/// Why hits cannot be read or kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HitsError {
    /// What is in force cannot be opened.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The file with the totals.
    #[error(transparent)]
    State(#[from] StateError),
    /// The counters.
    #[error(transparent)]
    Table(#[from] TableError),
}

impl Book {
    /// Nothing was counted yet.
    pub fn new(runtime: u32) -> Self {
        Self {
            runtime,
            banks: [None, None],
            totals: BTreeMap::new(),
            inherited: BTreeMap::new(),
        }
    }

    /// Of generations before those in the banks, and of the layout before.
    fn past(&self) -> BTreeMap<RuleId, u64> {
        let mut past = self.totals.clone();
        for (rule, packets) in &self.inherited {
            let sum = past.entry(*rule).or_default();
            *sum = sum.wrapping_add(*packets);
        }
        past
    }

    /// All that was counted, where `counted` are the packets by set of rules of the generation in force and of
    /// the one before.
    pub(crate) fn sum(&self, chapters: [(&RuleSets, &[u64]); 2]) -> BTreeMap<RuleId, u64> {
        let mut sum = self.past();
        for (sets, counted) in chapters {
            for (rule, packets) in by_rule(sets, counted.iter().copied()) {
                let total = sum.entry(rule).or_default();
                *total = total.wrapping_add(packets);
            }
        }
        sum
    }

    /// Whether it is of the map `RUNTIME` with this kernel id.
    pub(crate) fn belongs_to(&self, runtime: u32) -> bool {
        self.runtime == runtime
    }

    /// A book that begins with `generation`, and what was counted under the layout before.
    pub(crate) fn inheriting(
        runtime: u32,
        generation: u32,
        sets: usize,
        inherited: BTreeMap<RuleId, u64>,
    ) -> Self {
        let mut book = Self::new(runtime);
        book.banks[(generation & 1) as usize] = Some(Chapter { generation, sets });
        book.inherited = inherited;
        book
    }

    /// Generations that it speaks of.
    pub fn generations(&self) -> Vec<u32> {
        let chapters = self.banks.iter().flatten();
        chapters.map(|chapter| chapter.generation).collect()
    }

    /// What is counted in a bank if it holds `generation`, by rule id; `None` if `sets` does not know what was
    /// counted. A generation that is the one before it `again` counts where that did.
    fn counted(
        &self,
        tables: &Tables,
        generation: u32,
        again: Option<u32>,
        sets: impl FnOnce(u32) -> Result<Option<RuleSets>, StateError>,
    ) -> Result<Option<BTreeMap<RuleId, u64>>, HitsError> {
        let mut counted = BTreeMap::new();
        let bank = generation & 1;
        let before = (again == Some(generation)).then(|| generation.wrapping_sub(2));
        let chapter = self.banks[bank as usize]
            .filter(|one| one.generation == generation || Some(one.generation) == before);
        let Some(chapter) = chapter else {
            return Ok(Some(counted));
        };
        let places = bank::counted(chapter.sets);
        let sums = tables.rule_hits.sums(bank * MAX_COUNTED, places)?;
        // Many rules are many bytes, and where nothing was counted nobody needs them.
        if sums.iter().all(|packets| *packets == 0) {
            return Ok(Some(counted));
        }
        let Some(sets) = sets(chapter.generation)? else {
            return Ok(None);
        };
        counted.extend(by_rule(&sets, sums.into_iter()));
        Ok(Some(counted))
    }
}

/// Packets by rule, of packets by set of rules.
fn by_rule(sets: &RuleSets, counted: impl Iterator<Item = u64>) -> BTreeMap<RuleId, u64> {
    let mut sums = BTreeMap::new();
    for (rules, packets) in sets.sets.iter().zip(counted) {
        if packets == 0 {
            continue;
        }
        for rule in rules {
            if let Some(rule) = sets.rules.get(*rule as usize) {
                let sum: &mut u64 = sums.entry(*rule).or_default();
                *sum = packets.wrapping_add(*sum);
            }
        }
    }
    sums
}

/// Ids of rules of which some set has no counter.
fn incomplete(sets: &RuleSets) -> impl Iterator<Item = RuleId> {
    let uncounted = sets.sets.iter().skip(MAX_COUNTED as usize).flatten();
    uncounted.filter_map(|rule| sets.rules.get(*rule as usize).copied())
}

/// Adds what was counted in a bank to the totals, and writes down what its numbers mean from now on.
///
/// # Errors
/// See [`HitsError`]; then the bank must not be written.
pub fn turn_over(
    tables: &Tables,
    lock: &Lock,
    vacant: &Vacant,
    compiled: &Compiled,
) -> Result<(), HitsError> {
    let runtime = tables.runtime.id();
    let book = lock.read_book()?.filter(|book| book.runtime == runtime);
    let mut book = book.unwrap_or_else(|| Book::new(runtime));
    let generation = vacant.generation;
    let before = generation.wrapping_sub(2);
    let sets = |generation| lock.read_rule_sets(generation);
    let counted = book.counted(tables, before, None, sets)?;
    for (rule, packets) in counted.into_iter().flatten() {
        let total = book.totals.entry(rule).or_default();
        *total = total.wrapping_add(packets);
    }
    lock.write_rule_sets(generation, compiled)?;
    book.banks[(generation & 1) as usize] = Some(Chapter {
        generation,
        sets: compiled.rule_sets.len(),
    });
    if !(book.totals.is_empty() && book.inherited.is_empty()) {
        let mut known: HashSet<RuleId> = compiled.rules.iter().copied().collect();
        let current = lock.read_rule_sets(generation.wrapping_sub(1))?;
        known.extend(current.unwrap_or_default().rules);
        book.totals.retain(|rule, _| known.contains(rule));
        book.inherited.retain(|rule, _| known.contains(rule));
    }
    Ok(lock.write_book(&book)?)
}

/// Writes down that `generation` is the one two before it again: what that counted in its bank goes on there.
///
/// # Errors
/// See [`StateError`].
pub(crate) fn renumber(lock: &Lock, runtime: u32, generation: u32) -> Result<(), StateError> {
    let Some(mut book) = lock.read_book()?.filter(|book| book.runtime == runtime) else {
        return Ok(());
    };
    let before = generation.wrapping_sub(2);
    let chapter = &mut book.banks[(generation & 1) as usize];
    if let Some(chapter) = chapter.as_mut().filter(|one| one.generation == before) {
        lock.link_rule_sets(before, generation)?;
        chapter.generation = generation;
        lock.write_book(&book)?;
    }
    Ok(())
}

/// Reads the packets of every rule that an attached interface has, by group and direction.
///
/// # Errors
/// See [`HitsError`].
pub fn read(context: &Context) -> Result<Vec<RuleHits>, HitsError> {
    let view = View::open(context)?;
    let runtime = view.tables.runtime.id();
    let read_book = || {
        let book = State::read_book(&context.state_dir)?;
        let book = book.filter(|book| book.runtime == runtime);
        Ok::<_, StateError>(book.unwrap_or_else(|| Book::new(runtime)))
    };
    let sets = |generation| RuleSets::read(&context.state_dir, generation);
    let mut book = read_book()?;
    // A change in between could count a generation twice or not at all.
    let counted = loop {
        let again = confirm::read(&view.tables)?.again();
        let generation = view.tables.generation()?;
        let mut counted = Some(book.past());
        for generation in [generation.wrapping_sub(1), generation] {
            let more = book.counted(&view.tables, generation, again, sets)?;
            counted = counted.zip(more).map(|(mut counted, more)| {
                for (rule, packets) in more {
                    let total: &mut u64 = counted.entry(rule).or_default();
                    *total = total.wrapping_add(packets);
                }
                counted
            });
        }
        let now = read_book()?;
        if let Some(counted) = counted
            && now == book
            && view.tables.generation()? == generation
        {
            break counted;
        }
        book = now;
    };
    let mut without_counter = BTreeSet::new();
    for chapter in book.banks.iter().flatten() {
        if chapter.sets > MAX_COUNTED as usize {
            let sets = sets(chapter.generation)?.unwrap_or_default();
            without_counter.extend(incomplete(&sets));
        }
    }
    let resolved = Policy::read(&context.state_dir, &view.state)?.resolved;
    let carried: BTreeSet<_> = resolved
        .interfaces
        .values()
        .flat_map(|interface| &interface.groups)
        .collect();
    let mut hits = Vec::new();
    for name in carried {
        let Some(group) = resolved.groups.get(name) else {
            continue;
        };
        for direction in Direction::ALL {
            for rule in group.rules(direction) {
                hits.push(RuleHits {
                    group: name.to_string(),
                    direction: direction.name().to_owned(),
                    packets: counted.get(&rule.id).copied().unwrap_or_default(),
                    complete: !without_counter.contains(&rule.id),
                    rule: rule.id.to_string(),
                });
            }
        }
    }
    Ok(hits)
}
