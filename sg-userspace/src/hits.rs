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

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sg_common::{abi::MAX_COUNTED, verdict::Direction};

use crate::{
    bank::{self, Vacant},
    compile::Compiled,
    session::Context,
    state::{Lock, RuleSets, State, StateError},
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
    /// What the numbers of sets mean, by bank.
    banks: [Option<Chapter>; 2],
    /// Packets of generations whose bank was written again, by rule id. Of rules that neither bank knows
    /// nothing is kept.
    totals: BTreeMap<String, u64>,
}

/// The sets of one generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Chapter {
    generation: u32,
    sets: RuleSets,
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
        }
    }

    /// What is counted in a bank if it holds `generation`, by rule id.
    fn counted(&self, tables: &Tables, generation: u32) -> Result<BTreeMap<&str, u64>, TableError> {
        let mut counted = BTreeMap::new();
        let bank = generation & 1;
        let chapter = self.banks[bank as usize].as_ref();
        let Some(Chapter { sets, .. }) = chapter.filter(|one| one.generation == generation) else {
            return Ok(counted);
        };
        let places = bank::counted(sets.sets.len());
        let sums = tables.rule_hits.sums(bank * MAX_COUNTED, places)?;
        for (rules, packets) in sets.sets.iter().zip(sums) {
            if packets == 0 {
                continue;
            }
            for rule in rules {
                if let Some(rule) = sets.rules.get(*rule as usize) {
                    let sum = counted.entry(rule.as_str()).or_default();
                    *sum = packets.wrapping_add(*sum);
                }
            }
        }
        Ok(counted)
    }

    /// Ids of the rules that either bank knows.
    fn known(&self) -> BTreeSet<&str> {
        let chapters = self.banks.iter().flatten();
        let rules = chapters.flat_map(|chapter| &chapter.sets.rules);
        rules.map(String::as_str).collect()
    }

    /// Ids of rules of which some set has no counter.
    fn incomplete(&self) -> BTreeSet<&str> {
        let mut incomplete = BTreeSet::new();
        for Chapter { sets, .. } in self.banks.iter().flatten() {
            for rules in sets.sets.iter().skip(MAX_COUNTED as usize) {
                let rules = rules
                    .iter()
                    .filter_map(|rule| sets.rules.get(*rule as usize));
                incomplete.extend(rules.map(String::as_str));
            }
        }
        incomplete
    }
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
    let counted = book.counted(tables, generation.wrapping_sub(2))?;
    let counted: Vec<(String, u64)> = counted
        .into_iter()
        .map(|(rule, packets)| (rule.to_owned(), packets))
        .collect();
    for (rule, packets) in counted {
        let total = book.totals.entry(rule).or_default();
        *total = total.wrapping_add(packets);
    }
    book.banks[(generation & 1) as usize] = Some(Chapter {
        generation,
        sets: RuleSets::of(compiled),
    });
    let known: BTreeSet<String> = book.known().into_iter().map(str::to_owned).collect();
    book.totals.retain(|rule, _| known.contains(rule));
    Ok(lock.write_book(&book)?)
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
    let mut book = read_book()?;
    // A change in between could count a generation twice or not at all.
    let counted = loop {
        let generation = view.tables.generation()?;
        let mut counted = book.totals.clone();
        for generation in [generation.wrapping_sub(1), generation] {
            for (rule, packets) in book.counted(&view.tables, generation)? {
                let total = counted.entry(rule.to_owned()).or_default();
                *total = total.wrapping_add(packets);
            }
        }
        let again = read_book()?;
        if again == book && view.tables.generation()? == generation {
            break counted;
        }
        book = again;
    };
    let incomplete = book.incomplete();
    let resolved = &view.state.resolved;
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
                let id = rule.id.to_string();
                hits.push(RuleHits {
                    group: name.to_string(),
                    direction: direction.name().to_owned(),
                    packets: counted.get(&id).copied().unwrap_or_default(),
                    complete: !incomplete.contains(id.as_str()),
                    rule: id,
                });
            }
        }
    }
    Ok(hits)
}
