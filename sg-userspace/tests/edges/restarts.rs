//! The agent ends and begins again, in order and out of order, while packets flow.

use std::{fs, thread, time::Duration};

use rustix::process::Signal;

use crate::{
    bed::{Bed, Side, Sides},
    common::{
        agent::{Agent, replace},
        require::require,
    },
    remains,
    scale::{self, Random},
    traffic::{Balance, during},
};

#[test]
fn m3_no_end_of_the_agent_lets_anything_through_or_cuts_anything() {
    require!(Root, Object);
    restart();
}

pub(crate) fn restart() {
    let bed = Bed::new();
    let random = &mut Random::new();
    let file = &bed.enforcer.file;
    fs::write(file, bed.definition(Side::A)).unwrap();
    during(&bed, Balance::Exact, |signals| {
        let mut side = Side::A;
        for number in 0..scale::kills().div_ceil(10) {
            bed.generations.from(bed.generation() + 1, side);
            let mut agent = Agent::spawn(&bed.enforcer, &[]);
            if number % 4 == 0 {
                // While it begins, whatever it is doing then.
                thread::sleep(Duration::from_millis(random.below(200)));
                agent.signal(Signal::KILL);
                agent.wait();
            } else {
                agent.says("applied generation");
                // It follows its file, and ends before, meanwhile or afterwards.
                let seen = agent.lines().len();
                bed.generations.from(bed.generation() + 1, Sides::BOTH);
                side = side.other();
                replace(file, &bed.definition(side));
                if number % 4 == 1 {
                    thread::sleep(Duration::from_millis(random.below(1000)));
                } else {
                    agent.says_after(seen, "applied generation");
                }
                agent.signal([Signal::KILL, Signal::TERM][number % 2]);
                agent.wait();
            }
            signals.probe();
            remains::enforced(&bed);
        }
        bed.sgctl_apply(side).ok();
        signals.probe();
        remains::enforced(&bed);
    });
}
