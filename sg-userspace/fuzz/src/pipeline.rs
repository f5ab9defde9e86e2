//! Definitions and what happens under them, spelled out by the input: oracle and pipeline on the
//! host agree about every packet and every flow.

use sg_oracle::random::{Case, Source};

#[path = "../../tests/voices/mod.rs"]
mod voices;

use voices::{
    AMPLE, TIGHT,
    core::Core,
    run::{Tally, run as judge},
    text,
};

/// Steps of a case; more would be another case.
const STEPS: usize = 200;

/// Chooses by the input what the generator of the random cases chooses by a seed.
pub fn run(input: &[u8]) {
    agree(&Case::new(&mut Source::Bytes(input), STEPS));
}

/// Runs a case through both.
pub(super) fn agree(case: &Case) {
    let tables = if case.is_tight() { TIGHT } else { AMPLE };
    let mut core = Core::new(tables);
    if let Err(failure) = judge(&mut core, case, &mut Tally::default()) {
        panic!(
            "{failure}\nas a case for sg-userspace/tests/voices/cases:\n{}",
            text::write(case)
        );
    }
}
