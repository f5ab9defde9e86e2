//! Rows of the goal table as sums of cases, and what comes of them.

use super::plan::{Net, Plan};
use crate::bench::report::{Bound, Figure, Findings, Goal, Spread, number, ratio};

/// A sum of cases, each times a factor.
pub(crate) type Sum = Vec<(f64, usize)>;

/// What a case takes more than an empty program in its place.
pub(crate) fn net(net: Net) -> Sum {
    vec![(1.0, net.case), (-1.0, net.control)]
}

/// A sum so many times.
pub(crate) fn times(factor: f64, sum: Sum) -> Sum {
    sum.into_iter()
        .map(|(one, case)| (factor * one, case))
        .collect()
}

/// One sum and another.
pub(crate) fn plus(one: Sum, other: Sum) -> Sum {
    [one, other].concat()
}

/// One sum less another.
pub(crate) fn minus(one: Sum, other: Sum) -> Sum {
    plus(one, times(-1.0, other))
}

/// A row of the goal table, before it is measured: at most so many times another.
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) of: String,
    pub(crate) goal: f64,
    pub(crate) aim: Option<f64>,
    pub(crate) measured: Sum,
    /// `None`: an absolute goal, in nanoseconds.
    pub(crate) beside: Option<Sum>,
}

impl Row {
    fn goal(&self, plan: &Plan) -> Goal {
        let measured = values(&plan.rounds, &self.measured);
        let beside = self
            .beside
            .as_ref()
            .map(|beside| values(&plan.rounds, beside));
        let detail = beside.as_ref().map_or(String::new(), |beside| {
            format!("{} ns to {} ns", median(&measured), median(beside))
        });
        Goal {
            what: self.what.clone(),
            of: self.of.clone(),
            bound: Bound::AtMost,
            goal: self.goal,
            aim: self.aim,
            rounds: match beside {
                Some(beside) => ratio(&measured, &beside),
                None => measured,
            },
            detail,
        }
    }
}

/// A sum, round by round.
fn values(rounds: &[Vec<f64>], sum: &Sum) -> Vec<f64> {
    let value = |round: usize| {
        let terms = sum.iter();
        terms
            .map(|(factor, case)| factor * rounds[*case][round])
            .sum()
    };
    let count = rounds.first().map_or(0, Vec::len);
    (0..count).map(value).collect()
}

/// Figures of all cases, net and as they were measured, and the goals.
pub(crate) fn findings(plan: &Plan, rows: &[Row]) -> Findings {
    let mut figures = Vec::new();
    for one in &plan.nets {
        let case = &plan.cases[one.case];
        let heading = format!("{}, ns per packet, net", case.group);
        let values = values(&plan.rounds, &net(*one));
        figures.push(Figure::new(&heading, &case.name, "ns", values));
    }
    for one in &plan.nets {
        let case = &plan.cases[one.case];
        let heading = format!("{}, ns per packet, with the wrapper", case.group);
        let empty = median(&plan.rounds[one.control]);
        let name = format!("{} (empty program: {empty})", case.name);
        figures.push(Figure::new(&heading, &name, "ns", plan.rounds[one.case].clone()).aside());
    }
    figures.sort_by(|one, other| one.group.cmp(&other.group));
    Findings {
        goals: rows.iter().map(|row| row.goal(plan)).collect(),
        figures,
    }
}

fn median(rounds: &[f64]) -> String {
    Spread::of(rounds).map_or(String::new(), |spread| number(spread.median))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_made_round_by_round() {
        let rounds = [vec![10.0, 20.0], vec![1.0, 2.0], vec![5.0, 5.0]];
        let case = net(Net {
            case: 0,
            control: 1,
        });
        assert_eq!(values(&rounds, &case), [9.0, 18.0]);
        let sum = minus(plus(case, vec![(1.0, 2)]), times(2.0, vec![(1.0, 1)]));
        assert_eq!(values(&rounds, &sum), [12.0, 19.0]);
    }
}
