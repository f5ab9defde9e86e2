//! The control plane: what checking, applying and listing take in time and memory, how soon a member is
//! one, and whether a packet meets a mixture of generations while they change.

mod change;
mod definition;
mod enforcer;
mod flows;
mod interfaces;
mod join;
mod memory;
mod switch;

use anyhow::Result;

use super::Options;
use super::report::{Bound, Findings, Goal};

/// Measures one thing and adds what it found.
type Measure = fn(&Options, &mut Findings) -> Result<()>;

/// Measures all parts that are wanted.
pub(crate) fn measure(options: &Options) -> Result<Findings> {
    let mut findings = Findings::default();
    let parts: [(&str, Measure); 6] = [
        (change::NAME, change::measure),
        (interfaces::NAME, interfaces::measure),
        (join::NAME, join::measure),
        (switch::NAME, switch::measure),
        (flows::NAME, flows::measure),
        (memory::NAME, memory::measure),
    ];
    for (name, part) in parts {
        if options.wants(name) {
            eprintln!("control plane: {name}");
            part(options, &mut findings)?;
        }
    }
    Ok(findings)
}

/// A goal that is an absolute figure.
fn at_most(what: &str, unit: &str, goal: f64, rounds: Vec<f64>, detail: String) -> Goal {
    Goal {
        what: what.to_owned(),
        of: unit.to_owned(),
        bound: Bound::AtMost,
        goal,
        aim: None,
        rounds,
        detail,
    }
}
