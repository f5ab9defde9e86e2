//! Rounds in which every sample stands between two of the reference: the pace of a machine changes by a third
//! within minutes, hardly within a tenth of a second.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How far a sample may be from one that nothing disturbed: the ratio of the references before and after it, and
/// what others took of its CPU.
const TOLERANCE: f64 = 1.06;
/// How often a sample is taken until it is near enough.
const ATTEMPTS: usize = 4;
/// How long samples are taken again: on a machine that has much else to do, none is ever near enough.
const PATIENCE: Duration = Duration::from_secs(20);

/// A sample beside the reference of the same moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Paired<T> {
    pub(super) sample: T,
    /// Its value over the mean of the references before and after it.
    pub(super) ratio: f64,
}

/// The rounds of every subject, in their order; the first is the reference, and its ratios are to the sample
/// before. A sample whose references disagree, or that was disturbed (0: not at all), is taken again; the best of
/// all attempts counts.
///
/// # Errors
/// Those of `sample`.
pub(super) fn interleaved<S, T: Copy>(
    subjects: &mut [S],
    rounds: usize,
    mut sample: impl FnMut(&mut S) -> Result<T>,
    value: impl Fn(&T) -> f64,
    disturbed: impl Fn(&T) -> f64,
) -> Result<Vec<Vec<Paired<T>>>> {
    let (reference, others) = subjects
        .split_first_mut()
        .context("there is no reference")?;
    let start = Instant::now();
    let mut taken: Vec<Vec<Paired<T>>> = (0..=others.len()).map(|_| Vec::new()).collect();
    for round in 0..rounds {
        let mut before = sample(reference)?;
        for place in 0..others.len() {
            // No subject always follows the same other.
            let place = (place + round) % others.len();
            let mut best: Option<(f64, Paired<T>)> = None;
            for _ in 0..ATTEMPTS {
                let between = sample(&mut others[place])?;
                let after = sample(reference)?;
                let references = [value(&before), value(&after)];
                let (apart, ratio) = beside(value(&between), references);
                let distance = apart * (1.0 + disturbed(&between));
                if best.is_none_or(|(least, _)| distance < least) {
                    let sample = between;
                    best = Some((distance, Paired { sample, ratio }));
                }
                taken[0].push(Paired {
                    sample: after,
                    ratio: references[1] / references[0],
                });
                before = after;
                if distance <= TOLERANCE || start.elapsed() > PATIENCE {
                    break;
                }
            }
            taken[place + 1].extend(best.map(|(_, paired)| paired));
        }
    }
    Ok(taken)
}

/// How far references are apart, and a value over their mean.
fn beside(value: f64, [before, after]: [f64; 2]) -> (f64, f64) {
    let distance = (before / after).max(after / before);
    (distance, value / f64::midpoint(before, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_held_against_the_mean_of_the_references_around_it() {
        assert_eq!(beside(150.0, [100.0, 100.0]), (1.0, 1.5));
        assert_eq!(beside(150.0, [100.0, 200.0]), (2.0, 1.0));
        assert_eq!(beside(150.0, [200.0, 100.0]), (2.0, 1.0));
    }

    #[test]
    fn a_pace_that_changes_for_good_costs_one_sample() {
        // The machine becomes half as fast with the fifth sample, a subject's.
        let mut number = 0;
        let mut subjects = [1.0, 3.0, 5.0];
        let taken = interleaved(
            &mut subjects,
            2,
            |subject| {
                number += 1;
                Ok(if number < 5 { *subject } else { 2.0 * *subject })
            },
            |value| *value,
            |_| 0.0,
        );
        let taken = taken.unwrap();
        let ratios =
            |place: usize| -> Vec<f64> { taken[place].iter().map(|paired| paired.ratio).collect() };
        // Reference 1, subject 3, reference 1, subject 5, reference 2: taken again.
        assert_eq!(ratios(1), [3.0, 3.0]);
        assert_eq!(ratios(2), [5.0, 5.0]);
        assert_eq!(ratios(0), [1.0, 2.0, 1.0, 1.0, 1.0]);
        assert_eq!(number, 12);
    }

    #[test]
    fn the_least_disturbed_attempt_counts() {
        let mut attempts = [(7.0, 0.5), (5.0, 0.2), (6.0, 0.1), (9.0, 0.9)].into_iter();
        let taken = interleaved(
            &mut [false, true],
            1,
            |subject| {
                Ok(if *subject {
                    attempts.next().unwrap()
                } else {
                    (1.0, 0.0)
                })
            },
            |sample| sample.0,
            |sample| sample.1,
        );
        assert_eq!(taken.unwrap()[1][0].ratio, 6.0);
    }

    #[test]
    fn where_no_references_agree_the_nearest_count() {
        let mut references = [100.0, 200.0, 220.0, 400.0, 600.0].into_iter();
        let mut subjects = [0, 1];
        let taken = interleaved(
            &mut subjects,
            1,
            |subject| {
                Ok(if *subject == 0 {
                    references.next().unwrap()
                } else {
                    21.0
                })
            },
            |value| *value,
            |_| 0.0,
        );
        assert_eq!(
            taken.unwrap()[1],
            [Paired {
                sample: 21.0,
                ratio: 0.1
            }]
        );
    }
}
