//! Many cases, by seed, and what is said about a failure.

use std::{env, time::UNIX_EPOCH};

use sg_common::verdict::{Direction, Verdict};
use sg_oracle::random::{Case, Source};

use super::{
    Enforcer,
    run::{Failure, Tally, run},
    shrink::shrink,
    text,
};

/// Steps of a case.
const STEPS: usize = 800;

/// The case of a seed.
pub(crate) fn case(seed: u64) -> Case {
    Case::new(&mut Source::Seed(seed), STEPS)
}

/// So many seeds that are always the same and so many of this moment, or the one that somebody wants.
pub(crate) fn seeds(always: u64, of_now: u64) -> Vec<u64> {
    if let Ok(seed) = env::var("SG_VOICES_SEED") {
        return vec![seed.parse().expect("SG_VOICES_SEED is a number")];
    }
    let now = moment();
    (0..always).chain(now..now + of_now).collect()
}

/// A seed of this moment.
pub(crate) fn moment() -> u64 {
    let now = UNIX_EPOCH.elapsed().expect("after 1970");
    now.as_millis() as u64 * 1000
}

/// Runs the case of a seed.
///
/// # Errors
/// Voices disagree: the seed, what they said, and a small case in which they still do.
pub(crate) fn attempt(
    enforcer: &mut impl Enforcer,
    seed: u64,
    case: &Case,
    tally: &mut Tally,
) -> Result<(), String> {
    run(enforcer, case, tally).map_err(|failure| {
        let report = report(enforcer, case, &failure);
        format!("SG_VOICES_SEED={seed}: {report}")
    })
}

/// What is said about a failure.
pub(crate) fn report(enforcer: &mut impl Enforcer, case: &Case, failure: &Failure) -> String {
    let small = shrink(case, |case| {
        let failed = run(enforcer, case, &mut Tally::default());
        failed.err().map(|failure| failure.step)
    });
    let still = match run(enforcer, &small, &mut Tally::default()) {
        Err(failure) => failure.to_string(),
        Ok(()) => "which does not fail every time".into(),
    };
    format!(
        "{failure}\nshrunk to a case for sg-userspace/tests/voices/cases:\n{}{still}\n",
        text::write(&small)
    )
}

/// Verdicts that no packet of a case can meet.
const NEVER: [(&str, &str); 6] = [
    // Workloads are no routers.
    ("egress", "router_advertisement"),
    ("egress", "redirect"),
    // Only the workload is told what it may call itself, and whom it is sent.
    ("ingress", "address_spoofed"),
    ("egress", "destination_foreign"),
    // Every change of a case is for good.
    ("ingress", "unconfirmed"),
    ("egress", "unconfirmed"),
];

/// Every verdict in every direction that cases are meant to meet and did not.
pub(crate) fn unmet(tally: &Tally) -> Vec<(&'static str, &'static str)> {
    let all = Direction::ALL.into_iter().flat_map(|direction| {
        Verdict::all().map(move |verdict| match verdict {
            Verdict::Pass(kind) => (direction.name(), kind.name()),
            Verdict::Drop(reason) => (direction.name(), reason.name()),
        })
    });
    all.filter(|one| !NEVER.contains(one) && !tally.met.contains(one))
        .collect()
}
