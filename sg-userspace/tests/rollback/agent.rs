//! An agent beside a generation that waits.

use rustix::process::Signal;

use crate::{
    attempt::{WITHIN, comes, generation, opens},
    common::{
        agent::Agent,
        netns::Enforcer,
        pair::{NEAR, Pair, web},
        require::require,
    },
};

#[test]
fn an_agent_that_starts_waits_for_the_confirmation() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _servers = [8080, 9090].map(|port| pair.near.serve(NEAR, port));
    let interface = pair.interface("a", "[\"g\"]", "");
    enforcer.apply(&(web("g", 8080) + &interface), &[]).ok();
    let tried = web("g", 9090) + &interface;
    enforcer.apply(&tried, &["--confirm-within=5m"]).ok();

    let mut agent = Agent::spawn(&enforcer, &[]);
    agent.says("generation 2 waits for `sgctl confirm`");
    assert_eq!(generation(&enforcer), 2);
    agent.signal(Signal::TERM);
    assert_eq!(agent.wait().code(), Some(0));

    let mut agent = Agent::spawn(&enforcer, &[]);
    agent.says("generation 2 waits for `sgctl confirm`");
    enforcer.sgctl(&["confirm"]).ok();
    agent.says("applied generation 3");
    assert!(opens(&pair, 9090));
    // It is the only writer from here on.
    enforcer.apply(&tried, &[WITHIN]).fails(&["another sgctl"]);
    assert_eq!(agent.interrupt(), Some(0));
}

#[test]
fn an_agent_that_starts_after_a_generation_was_taken_back_goes_on_from_there() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _servers = [8080, 9090].map(|port| pair.near.serve(NEAR, port));
    let interface = pair.interface("a", "[\"g\"]", "");
    let good = web("g", 8080) + &interface;
    enforcer.apply(&good, &[]).ok();
    enforcer
        .apply(&(web("g", 9090) + &interface), &[WITHIN])
        .ok();
    comes(&enforcer, 3);
    let mut agent = Agent::start(&enforcer, &good, &[]);
    agent.says("applied generation 4");
    assert!(opens(&pair, 8080) && pair.far.connect_is_dropped(NEAR, 9090));
    let listed = enforcer.sgctl(&["history"]).ok().out;
    assert!(
        listed.contains(", run ") && listed.contains(", rolled back"),
        "{listed}"
    );
    assert_eq!(agent.interrupt(), Some(0));
}
