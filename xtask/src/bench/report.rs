//! Figures, the goals they are held against, and how both are shown, kept and compared.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::machine::Machine;

/// One measured quantity: a value per round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// Heading it stands under, such as `program, XDP, IPv4`.
    pub(crate) group: String,
    /// What was measured; unique within its group, and the same from run to run.
    pub(crate) name: String,
    /// Unit of the rounds, such as `ns`.
    pub(crate) unit: String,
    /// One value per round. Round n of one figure was taken next to round n of the others.
    pub(crate) rounds: Vec<f64>,
    /// Shown in the table of a full run only.
    #[serde(default)]
    pub(crate) aside: bool,
}

/// Which side of a goal is the good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Bound {
    /// The measured value must not be greater.
    AtMost,
    /// The measured value must not be smaller.
    AtLeast,
}

/// A row of the goal table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Goal {
    /// What is held against the goal, such as `established, IPv4, 1 k flows`.
    pub(crate) what: String,
    /// What it is a multiple of, such as `LOOKUP at 1 k`, or the unit of an absolute goal.
    pub(crate) of: String,
    /// Which side is good.
    pub(crate) bound: Bound,
    /// The value to reach.
    pub(crate) goal: f64,
    /// A better one to aim for.
    pub(crate) aim: Option<f64>,
    /// Measured values, one per round: ratios are taken round by round, never of two medians.
    pub(crate) rounds: Vec<f64>,
    /// What the two sides of the ratio took, for the reader: `31.0 ns to 38.5 ns`.
    pub(crate) detail: String,
}

/// What a part of the benchmark found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Findings {
    /// All figures, in the order in which they are shown.
    pub(crate) figures: Vec<Figure>,
    /// The rows of the goal table that the part covers.
    pub(crate) goals: Vec<Goal>,
}

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Where it ran.
    pub(crate) machine: Machine,
    /// What was found.
    #[serde(flatten)]
    pub(crate) findings: Findings,
}

/// Median and extremes of some rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` without rounds.
    pub(crate) fn of(rounds: &[f64]) -> Option<Self> {
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            (sorted[middle - 1] + sorted[middle]) / 2.0
        };
        Some(Self { median, min, max })
    }
}

impl Figure {
    pub(crate) fn new(group: &str, name: &str, unit: &str, rounds: Vec<f64>) -> Self {
        Self {
            group: group.to_owned(),
            name: name.to_owned(),
            unit: unit.to_owned(),
            rounds,
            aside: false,
        }
    }

    /// The same, for full tables only.
    pub(crate) fn aside(self) -> Self {
        Self {
            aside: true,
            ..self
        }
    }

    /// Median of the rounds; NaN without any.
    pub(crate) fn median(&self) -> f64 {
        Spread::of(&self.rounds).map_or(f64::NAN, |spread| spread.median)
    }
}

/// `one ÷ other`, round by round; as many rounds as both have.
pub(crate) fn ratio(one: &[f64], other: &[f64]) -> Vec<f64> {
    one.iter()
        .zip(other)
        .map(|(one, other)| one / other)
        .collect()
}

impl Goal {
    /// Whether the median reaches the goal; `None` without rounds.
    pub(crate) fn met(&self) -> Option<bool> {
        self.reaches(self.goal)
    }

    fn reaches(&self, value: f64) -> Option<bool> {
        let median = Spread::of(&self.rounds)?.median;
        Some(match self.bound {
            Bound::AtMost => median <= value,
            Bound::AtLeast => median >= value,
        })
    }

    fn verdict(&self) -> &'static str {
        match (self.met(), self.aim.map(|aim| self.reaches(aim))) {
            (None, _) => "not measured",
            (Some(true), Some(Some(true))) => "met, aim too",
            (Some(true), _) => "met",
            (Some(false), _) => "NOT MET",
        }
    }
}

impl Report {
    /// The figures, and the goal table last, in at most 120 columns; `saved` is an earlier run.
    pub(crate) fn table(&self, saved: Option<&Report>, full: bool) -> String {
        let mut text = self.machine.to_string();
        self.write_figures(&mut text, saved, full);
        self.write_goals(&mut text, saved);
        text
    }

    fn write_figures(&self, text: &mut String, saved: Option<&Report>, full: bool) {
        let earlier: BTreeMap<(&str, &str), f64> = saved
            .iter()
            .flat_map(|saved| &saved.findings.figures)
            .map(|one| ((&*one.group, &*one.name), one.median()))
            .collect();
        let mut group = "";
        for one in self
            .findings
            .figures
            .iter()
            .filter(|one| full || !one.aside)
        {
            if one.group != group {
                group = &one.group;
                let _ = write!(
                    text,
                    "\n{group:<60.60} {:>12}  {:<27}",
                    "median", "min … max"
                );
                let _ = writeln!(text, "{}", if saved.is_some() { "  ÷ saved" } else { "" });
            }
            let Some(spread) = Spread::of(&one.rounds) else {
                let _ = writeln!(text, "  {:<58.58} {:>12}", one.name, "not measured");
                continue;
            };
            let _ = write!(
                text,
                "  {:<58.58} {:>9} {:<4} {:<25}",
                one.name,
                number(spread.median),
                one.unit,
                format!("{} … {}", number(spread.min), number(spread.max)),
            );
            let before = earlier.get(&(&*one.group, &*one.name));
            let _ = writeln!(text, "{}", compared(spread.median, before));
        }
    }

    fn write_goals(&self, text: &mut String, saved: Option<&Report>) {
        if self.findings.goals.is_empty() {
            return;
        }
        let earlier: BTreeMap<&str, f64> = saved
            .iter()
            .flat_map(|saved| &saved.findings.goals)
            .filter_map(|one| Some((&*one.what, Spread::of(&one.rounds)?.median)))
            .collect();
        let _ = writeln!(
            text,
            "\n{:<44} {:<24} {:>9} {:>9} {:<15} verdict",
            "goal", "of", "to reach", "measured", "min … max"
        );
        for one in &self.findings.goals {
            let sign = match one.bound {
                Bound::AtMost => "≤",
                Bound::AtLeast => "≥",
            };
            let spread = Spread::of(&one.rounds);
            let shown =
                |pick: fn(&Spread) -> f64| spread.as_ref().map(pick).map_or("-".into(), number);
            let _ = writeln!(
                text,
                "{:<44.44} {:<24.24} {:>9} {:>9} {:<15} {}",
                one.what,
                one.of,
                format!("{sign} {}", number(one.goal)),
                shown(|spread| spread.median),
                format!(
                    "{} … {}",
                    shown(|spread| spread.min),
                    shown(|spread| spread.max)
                ),
                one.verdict(),
            );
            let before = earlier.get(&*one.what);
            let saved = before.map_or(String::new(), |before| {
                format!("  saved: {}", number(*before))
            });
            if !one.detail.is_empty() || !saved.is_empty() {
                let _ = writeln!(text, "    {:.100}{saved}", one.detail);
            }
        }
        let met = self
            .findings
            .goals
            .iter()
            .filter(|one| one.met() == Some(true));
        let _ = writeln!(
            text,
            "{} of {} goals met",
            met.count(),
            self.findings.goals.len()
        );
    }
}

/// A median as a multiple of the saved one.
fn compared(now: f64, before: Option<&f64>) -> String {
    before.map_or(String::new(), |before| format!("  × {:.2}", now / before))
}

/// A value with three or so significant digits.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goal(bound: Bound, goal: f64, rounds: &[f64]) -> Goal {
        Goal {
            what: "it".into(),
            of: "another".into(),
            bound,
            goal,
            aim: None,
            rounds: rounds.to_vec(),
            detail: String::new(),
        }
    }

    #[test]
    fn the_median_is_in_the_middle_of_odd_and_even_rounds() {
        let odd = Spread::of(&[9.0, 1.0, 2.0]).unwrap();
        assert_eq!((odd.median, odd.min, odd.max), (2.0, 1.0, 9.0));
        let even = Spread::of(&[4.0, 1.0, 2.0, 100.0]).unwrap();
        assert_eq!(even.median, 3.0);
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        // The medians are 20 and 2: their ratio would be 10.
        let rounds = ratio(&[10.0, 20.0, 90.0], &[2.0, 1.0, 3.0]);
        assert_eq!(rounds, [5.0, 20.0, 30.0]);
    }

    #[test]
    fn no_line_of_the_table_is_wider_than_a_terminal() {
        let long = "something of which the name is much longer than there is room for, and longer";
        let figure = Figure::new(long, long, "ns", vec![1_000_000.0, 2e6, 3e6]);
        let goal = Goal {
            what: long.into(),
            of: long.into(),
            aim: Some(0.1),
            detail: long.repeat(3),
            ..goal(Bound::AtMost, 12.5, &[100.25, 120.0, 130.0])
        };
        let report = Report {
            machine: Machine {
                mitigations: vec![long.repeat(3)],
                ..Machine::default()
            },
            findings: Findings {
                figures: vec![figure],
                goals: vec![goal],
            },
        };
        let table = report.table(Some(&report), false);
        for line in table.lines() {
            assert!(line.chars().count() <= 120, "{line}");
        }
        // The same run beside itself.
        assert!(
            table.contains("× 1.00") && table.contains("saved: 120"),
            "{table}"
        );
        let read: Report = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        assert_eq!(read, report);
    }

    #[test]
    fn a_goal_is_met_by_the_median_on_its_good_side() {
        assert_eq!(goal(Bound::AtMost, 0.8, &[0.7, 0.8, 9.0]).met(), Some(true));
        assert_eq!(
            goal(Bound::AtMost, 0.8, &[0.7, 0.81, 0.9]).met(),
            Some(false)
        );
        assert_eq!(
            goal(Bound::AtLeast, 6.0, &[6.0, 7.0, 1.0]).met(),
            Some(true)
        );
        assert_eq!(goal(Bound::AtLeast, 6.0, &[5.9]).met(), Some(false));
        assert_eq!(goal(Bound::AtMost, 1.0, &[]).met(), None);
    }
}
