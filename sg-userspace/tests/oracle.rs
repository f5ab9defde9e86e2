//! Oracle and pipeline agree about every packet of random cases. Without root; the loaded programs join
//! them in the program `dataplane`.

mod voices;

use voices::{
    AMPLE, TIGHT, campaign,
    core::Core,
    recorded,
    run::{Tally, run},
    text,
};

/// Cases of about 770 packets: always the same, and of the moment.
const SEEDS: (u64, u64) = (260, 60);

/// Runs cases of either kind of tables.
struct Cores {
    ample: Core,
    tight: Core,
}

impl Cores {
    fn new() -> Self {
        Self {
            ample: Core::new(AMPLE),
            tight: Core::new(TIGHT),
        }
    }

    fn of(&mut self, tight: bool) -> &mut Core {
        if tight {
            &mut self.tight
        } else {
            &mut self.ample
        }
    }
}

#[test]
fn oracle_and_pipeline_agree() {
    let mut cores = Cores::new();
    let mut tally = Tally::default();
    for seed in campaign::seeds(SEEDS.0, SEEDS.1) {
        let case = campaign::case(seed);
        let cores = cores.of(case.is_tight());
        if let Err(report) = campaign::attempt(cores, seed, &case, &mut tally) {
            panic!("{report}");
        }
    }
    println!("{tally}");
}

#[test]
fn recorded_cases_are_judged_alike() {
    for (name, case) in recorded::cases() {
        let mut cores = Cores::new();
        if let Err(failure) = run(cores.of(case.is_tight()), &case, &mut Tally::default()) {
            panic!("{name}: {failure}");
        }
    }
}

#[test]
fn a_case_is_its_text() {
    for seed in 0..20 {
        let case = campaign::case(seed);
        assert_eq!(text::read(&text::write(&case)), case);
    }
}
