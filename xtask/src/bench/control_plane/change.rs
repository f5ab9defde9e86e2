//! Checking and applying definitions of many rules and members.

use std::process::Stdio;

use anyhow::Result;

use super::super::Options;
use super::super::report::{Figure, Findings};
use super::at_most;
use super::definition;
use super::enforcer::Enforcer;

pub(super) const NAME: &str = "check and apply";

/// A definition that is checked and applied.
struct Case {
    name: String,
    file: String,
    /// Goal of applying it, in seconds.
    goal: Option<f64>,
}

pub(super) fn measure(options: &Options, findings: &mut Findings) -> Result<()> {
    let enforcer = Enforcer::new(options)?;
    let interface = |groups: &str| Enforcer::interface(&enforcer.near, "db", groups);
    let mut cases = Vec::new();
    let mut add = |name: String, text: String, goal| -> Result<()> {
        let file = enforcer.write(&format!("{}.toml", cases.len()), &text)?;
        cases.push(Case { name, file, goal });
        Ok(())
    };
    for (rules, goal) in [(1_000, None), (100_000, Some(1.0))] {
        let text = definition::one_group(rules) + &interface("\"g\"");
        let name = format!("{} rules of one group", thousands(rules));
        add(name, text, goal)?;
    }
    let spread: &[u32] = if options.full {
        &[100_000, 1_000_000]
    } else {
        &[100_000]
    };
    for rules in spread {
        let (text, carried) = definition::spread(*rules);
        let name = format!("{} rules of groups of 50", thousands(*rules));
        add(name, text + &interface(&carried), None)?;
    }
    for (members, goal) in [(1_000, None), (100_000, None), (1_000_000, Some(5.0))] {
        if options.full || goal.is_some() {
            let text = definition::members(members) + &interface("\"db\"");
            add(format!("{} members", thousands(members)), text, goal)?;
        }
    }

    // What an apply does the first time, and never again.
    let first = enforcer.run(&["apply", &cases[0].file], Stdio::null())?;
    findings.figures.push(Figure::new(
        NAME,
        "first apply: tables made, programs verified",
        "s",
        vec![first.seconds],
    ));
    // `[check or apply][case]`
    let mut seconds = vec![vec![Vec::new(); cases.len()]; 2];
    let mut memory = seconds.clone();
    for _ in 0..options.rounds {
        for (place, case) in cases.iter().enumerate() {
            for (what, command) in ["check", "apply"].into_iter().enumerate() {
                let cost = enforcer.run(&[command, &case.file], Stdio::null())?;
                seconds[what][place].push(cost.seconds);
                memory[what][place].push(cost.memory);
            }
        }
    }
    for (place, case) in cases.iter().enumerate() {
        for (what, command) in ["check", "apply"].into_iter().enumerate() {
            let name = |of: &str| format!("{command} {}{of}", case.name);
            let figure = |name: String, unit, rounds: &[f64]| {
                Figure::new(NAME, &name, unit, rounds.to_vec())
            };
            let time = figure(name(""), "s", &seconds[what][place]);
            let peak = figure(name(", peak memory"), "MiB", &memory[what][place]);
            findings.figures.extend([time, peak]);
        }
        if let Some(goal) = case.goal {
            let rounds = seconds[1][place].clone();
            let what = format!("apply {}", case.name);
            let goal = at_most(&what, "s", goal, rounds, String::new());
            findings.goals.push(goal);
        }
    }
    Ok(())
}

/// `1 k`, `1 M`.
pub(super) fn thousands(count: u32) -> String {
    if count.is_multiple_of(1_000_000) {
        format!("{} M", count / 1_000_000)
    } else {
        format!("{} k", count / 1_000)
    }
}
