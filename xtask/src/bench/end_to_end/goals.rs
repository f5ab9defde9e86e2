//! What is held against the goals.

use super::Cell;
use super::firewall::Firewall;
use super::packets::{Sample, Subject, Traffic};
use super::rounds::Paired;
use super::streams::Rounds;
use crate::bench::report::{Bound, Goal, Spread, number};

/// The enforcer as goals mean it.
const ENFORCER: Firewall = Firewall::Enforcer("xdp");

/// Goals of generated packets, at this many rules and with these numbers of flows.
pub(super) fn of_packets(cells: &[Cell], rules: u32, flows: [u32; 2]) -> Vec<Goal> {
    let cell = |traffic| {
        cells
            .iter()
            .find(|cell| cell.rules == rules && cell.traffic == traffic)
    };
    let [few, many] = flows.map(Traffic::Established);
    let over = [(few, 1.05), (many, 1.10), (Traffic::New, 1.35)];
    let beside = [
        (Traffic::Denied, 6.0, 8.0),
        (Traffic::New, 1.8, 2.1),
        (many, 1.6, 1.75),
    ];
    let over = over
        .into_iter()
        .filter_map(|(traffic, goal)| over_reference(cell(traffic)?, goal));
    let beside = beside
        .into_iter()
        .filter_map(|(traffic, goal, aim)| beside_nftables(cell(traffic)?, goal, aim));
    over.chain(beside).collect()
}

fn over_reference(cell: &Cell, goal: f64) -> Option<Goal> {
    let taken = cell.row(ENFORCER)?;
    Some(Goal {
        what: format!("end to end, {}", cell.traffic.name()),
        of: "an empty XDP program".to_owned(),
        bound: Bound::AtMost,
        goal,
        aim: None,
        rounds: taken.iter().map(|paired| paired.ratio).collect(),
        detail: format!(
            "{} ns to {} ns",
            median_cost(taken),
            median_cost(cell.row(Firewall::Pass)?)
        ),
    })
}

/// Against the form of nftables that did best in this run. Both are taken over the reference of their own
/// moment first, since the machine's pace changes between them.
fn beside_nftables(cell: &Cell, goal: f64, aim: f64) -> Option<Goal> {
    let ours = cell.row(ENFORCER)?;
    let forms = cell.rows.iter().filter_map(|(firewall, taken)| {
        let Firewall::Nftables(_) = firewall else {
            return None;
        };
        Some((median_ratio(taken)?, *firewall, taken))
    });
    let (_, best, theirs) = forms.min_by(|one, other| one.0.total_cmp(&other.0))?;
    Some(Goal {
        what: format!("nftables ÷ sgctl, {}", cell.traffic.name()),
        of: best.name(),
        bound: Bound::AtLeast,
        goal,
        aim: Some(aim),
        rounds: ours
            .iter()
            .zip(theirs)
            .map(|(ours, theirs)| theirs.ratio / ours.ratio)
            .collect(),
        detail: format!("{} ns to {} ns", median_cost(theirs), median_cost(ours)),
    })
}

fn median_ratio(taken: &[Paired<Sample>]) -> Option<f64> {
    let ratios: Vec<f64> = taken.iter().map(|paired| paired.ratio).collect();
    Spread::of(&ratios).map(|spread| spread.median)
}

fn median_cost(taken: &[Paired<Sample>]) -> String {
    let costs: Vec<f64> = taken.iter().map(|paired| paired.sample.cost).collect();
    median(&costs)
}

fn median(values: &[f64]) -> String {
    Spread::of(values).map_or("-".to_owned(), |spread| number(spread.median))
}

/// The goal of connections; `rounds` are those of `subjects`.
pub(super) fn of_connections(subjects: &[Subject], rounds: &[Rounds]) -> Option<Goal> {
    of_throughput(subjects, rounds, "TCP connect/close", 0.98, ("/s", 1.0))
}

/// The goal of the bulk stream.
pub(super) fn of_streams(subjects: &[Subject], rounds: &[Rounds]) -> Option<Goal> {
    of_throughput(
        subjects,
        rounds,
        "bulk TCP through a veth",
        0.95,
        ("Gb/s", 1e9),
    )
}

fn of_throughput(
    subjects: &[Subject],
    rounds: &[Rounds],
    what: &str,
    goal: f64,
    (unit, size): (&str, f64),
) -> Option<Goal> {
    let place = subjects
        .iter()
        .position(|one| matches!(one.firewall, Firewall::Enforcer(_)))?;
    let rate = |rounds: &Rounds| {
        let values: Vec<f64> = rounds.iter().map(|one| one.sample / size).collect();
        median(&values)
    };
    let (reference, taken) = (rounds.first()?, rounds.get(place)?);
    Some(Goal {
        what: what.to_owned(),
        of: "no firewall".to_owned(),
        bound: Bound::AtLeast,
        goal,
        aim: None,
        rounds: taken.iter().map(|paired| paired.ratio).collect(),
        detail: format!("{} {unit} to {} {unit}", rate(taken), rate(reference),),
    })
}

#[cfg(test)]
mod tests {
    use super::super::firewall::Form;
    use super::super::packets::Sample;
    use super::*;

    fn paired(cost: f64, ratio: f64) -> Paired<Sample> {
        Paired {
            sample: Sample {
                cost,
                rate: 1.0,
                disturbed: 0.0,
            },
            ratio,
        }
    }

    fn cell() -> Cell {
        let sets = Firewall::Nftables(Form::Sets);
        let map = Firewall::Nftables(Form::VerdictMap);
        Cell {
            rules: 1000,
            traffic: Traffic::Denied,
            rows: vec![
                (Firewall::Pass, vec![paired(700.0, 1.0); 2]),
                (ENFORCER, vec![paired(140.0, 0.2), paired(280.0, 0.4)]),
                (sets, vec![paired(1400.0, 2.0), paired(1400.0, 2.0)]),
                (map, vec![paired(1300.0, 1.8), paired(1500.0, 2.4)]),
            ],
        }
    }

    #[test]
    fn the_enforcer_is_held_against_the_best_form_round_by_round() {
        let goals = of_packets(&[cell()], 1000, [1, 2]);
        assert_eq!(goals.len(), 1);
        assert_eq!(goals[0].of, "nftables, sets");
        assert_eq!(goals[0].rounds, [10.0, 5.0]);
        assert_eq!(goals[0].met(), Some(true));
    }

    #[test]
    fn a_goal_over_the_reference_takes_the_ratio_of_each_round() {
        let mut established = cell();
        established.traffic = Traffic::Established(1);
        let goals = of_packets(&[established], 1000, [1, 2]);
        assert_eq!(goals.len(), 1);
        assert_eq!(goals[0].rounds, [0.2, 0.4]);
    }
}
