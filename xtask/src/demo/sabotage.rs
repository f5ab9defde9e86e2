//! `--break RULE`: what a rule compiled to is taken out of the maps in force, behind the enforcer's
//! back. A demo that still ends well after that would prove nothing.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use sg_common::abi::MAX_RANGES;
use sg_common::layout::Range;
use sg_userspace::model::RuleId;
use sg_userspace::pin::Pins;
use sg_userspace::resolve::Resolved;
use sg_userspace::session;
use sg_userspace::state::{RuleSets, State};
use sg_userspace::tables::Tables;

/// The rules called `name`: by id, or by description.
///
/// # Errors
/// If there is none; says which there are.
pub(crate) fn find(resolved: &Resolved, name: &str) -> Result<Vec<RuleId>> {
    let groups = resolved.groups.iter();
    let rules = groups.flat_map(|(group, all)| {
        let both = all.ingress.iter().chain(&all.egress);
        both.map(move |rule| (group, rule))
    });
    let mut known = String::new();
    let mut found = Vec::new();
    for (group, rule) in rules {
        let description = rule.description.as_deref().unwrap_or_default();
        if rule.id.to_string() == name || (description == name && !name.is_empty()) {
            found.push(rule.id);
        }
        known += &format!("\n  {}  {group}, {}  {description}", rule.id, rule.traffic);
    }
    if found.is_empty() {
        bail!("no rule has the id or the description `{name}`; there are:{known}");
    }
    Ok(found)
}

/// Takes rules out of the generation in force, and says how many port ranges that were.
///
/// # Errors
/// If the maps cannot be read or written, or hold nothing of the rules.
pub(crate) fn remove(context: &session::Context, rules: &[RuleId]) -> Result<usize> {
    let state = State::read(&context.state_dir)?.context("nothing is enforced")?;
    let rule_sets = RuleSets::read(&context.state_dir, state.generation)?;
    let rule_sets = rule_sets.context("nobody knows what stands in the maps")?;
    let numbers: BTreeSet<u32> = (0..)
        .zip(&rule_sets.rules)
        .filter(|(_, id)| rules.contains(id))
        .map(|(number, _)| number)
        .collect();
    let sets: BTreeSet<u32> = (0..)
        .zip(&rule_sets.sets)
        .filter(|(_, members)| members.iter().any(|member| numbers.contains(member)))
        .map(|(set, _)| set)
        .collect();

    let tables = Tables::open(&Pins::new(&context.bpffs))?;
    let bank = tables.generation()? & 1;
    let in_force = bank * MAX_RANGES..(bank + 1) * MAX_RANGES;
    let mut ranges = Vec::new();
    tables.ranges.for_each(|index, range| {
        if in_force.contains(&index) && sets.contains(&range.rule_set) {
            ranges.push((index, *range));
        }
    })?;
    if ranges.is_empty() {
        bail!("the maps in force hold nothing of the rule");
    }
    for (index, range) in &ranges {
        // Set 0 is the empty one: the range stays in order and allows nothing.
        let emptied = Range {
            rule_set: 0,
            ..*range
        };
        tables.ranges.set(index, &emptied)?;
    }
    Ok(ranges.len())
}
