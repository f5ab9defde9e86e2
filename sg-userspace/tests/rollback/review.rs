//! Flows that a generation does not track end when it is in force for good.

use sg_userspace::{pin::Pins, tables::Tables};

use crate::{
    attempt::{WITHIN, comes, generation, open},
    common::{
        agent::Agent,
        netns::{Enforcer, answers, eventually},
        pair::{NEAR, Pair, web},
        require::require,
    },
};

const OPEN: &str = "[groups.g]\ningress = [{ protocol = \"all\", cidr = [\"0.0.0.0/0\", \"::/0\"] }]\negress = [{ protocol = \"all\", cidr = [\"0.0.0.0/0\", \"::/0\"] }]\n";

/// Whether packets that need no tracking pass unlooked for.
fn is_reviewed(enforcer: &Enforcer) -> bool {
    let tables = Tables::open(&Pins::new(&enforcer.context.bpffs)).unwrap();
    tables.runtime().unwrap().reviewed == generation(enforcer)
}

#[test]
fn what_is_confirmed_is_reviewed() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _server = pair.near.serve(NEAR, 8080);
    let interface = pair.interface("a", "[\"g\"]", "");
    let tried = OPEN.to_owned() + &interface;
    for by_agent in [false, true] {
        enforcer.apply(&(web("g", 8080) + &interface), &[]).ok();
        let mut stream = open(&pair, 8080);
        assert_eq!(enforcer.figure("a", "conntrack_tracked"), 1);
        enforcer.apply(&tried, &["--confirm-within=5m"]).ok();
        assert!(!is_reviewed(&enforcer));
        assert_eq!(enforcer.figure("a", "conntrack_tracked"), 1);
        if by_agent {
            let mut agent = Agent::spawn(&enforcer, &[]);
            agent.says("waits for `sgctl confirm`");
            enforcer.sgctl(&["confirm"]).ok();
            agent.says("applied generation");
            eventually("the review", || is_reviewed(&enforcer));
            assert_eq!(agent.interrupt(), Some(0));
        } else {
            enforcer.sgctl(&["confirm"]).ok();
        }
        assert!(is_reviewed(&enforcer));
        assert_eq!(
            enforcer.figure("a", "conntrack_tracked"),
            0,
            "untracked from now on"
        );
        assert!(answers(&mut stream));
        enforcer.sgctl(&["detach", "--all"]).ok();
    }
}

#[test]
fn what_came_back_is_reviewed_by_who_comes_next() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _server = pair.near.serve(NEAR, 8080);
    let interface = pair.interface("a", "[\"g\"]", "");
    enforcer.apply(&(OPEN.to_owned() + &interface), &[]).ok();
    assert!(is_reviewed(&enforcer));
    enforcer
        .apply(&(web("g", 8080) + &interface), &[WITHIN])
        .ok();
    let mut stream = open(&pair, 8080);
    comes(&enforcer, 3);
    assert!(!is_reviewed(&enforcer));
    enforcer.sgctl(&["detach", "nobody"]).fails(&["nobody"]);
    assert!(is_reviewed(&enforcer));
    assert_eq!(enforcer.figure("a", "conntrack_tracked"), 0);
    assert!(answers(&mut stream));
}
