//! Attachment while everything is in motion.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    common::{
        netns::{Enforcer, ip},
        pair::{FAR, FAR6, NEAR, NEAR6, Pair, denies_all},
        require::require,
    },
    lines::{Line, Lines},
    storm::Storm,
};

/// How often it is attached and detached.
const ROUNDS: usize = 5;

#[test]
fn attaching_cuts_nothing_that_lives_at_the_workloads_own_device() {
    require!(Root, Object);
    race("own", "by its sockets");
}

#[test]
fn attaching_cuts_nothing_that_lives_behind_the_hosts_end() {
    require!(Root, Object);
    race("host", "by the workload's sockets");
}

/// Many connections and datagram streams in both directions, over both versions of IP.
fn lines(pair: &Pair) -> Vec<Line> {
    let Pair { near, far } = pair;
    let mut lines = Vec::new();
    for port in 5000..5006 {
        lines.extend([
            Line::tcp(far, (near, NEAR), port),
            Line::tcp(far, (near, NEAR6), port),
            Line::tcp(near, (far, FAR), port),
            Line::tcp(near, (far, FAR6), port),
        ]);
    }
    for port in 6000..6004 {
        lines.extend([
            Line::udp(far, near, [FAR.into(), NEAR.into()], port),
            Line::udp(far, near, [FAR6.into(), NEAR6.into()], port),
            Line::udp(near, far, [NEAR.into(), FAR.into()], port + 100),
            Line::udp(near, far, [NEAR6.into(), FAR6.into()], port + 100),
        ]);
    }
    lines
}

fn race(orientation: &str, source: &str) {
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    // Programs stay as long as one interface is attached, and attaching another takes a moment only.
    pair.near
        .run(|| ip("link add other type veth peer name nobody"));
    let interface = pair.interface("w", "[\"none\"]", "");
    let other = pair.interface("other", "[\"none\"]", "");
    let definition = denies_all("none")
        + &interface.replace("\"own\"", &format!("\"{orientation}\""))
        + &other.replace("eth0", "other");
    let (mut before, mut attempts) = (0, 0);
    let lines = Lines::start(lines(&pair));
    lines.go_on();
    for round in 0..ROUNDS {
        let storms = [
            Storm::start(&pair.far, &pair.near, NEAR),
            Storm::start(&pair.near, &pair.far, FAR6),
        ];
        thread::sleep(Duration::from_millis(50));
        let said = enforcer.apply(&definition, &[]).ok();
        let returned = Instant::now();
        assert!(said.out.contains(source), "{said:?}");
        lines.go_on();
        thread::sleep(Duration::from_millis(300));
        for storm in storms {
            let outcome = storm.finish(returned);
            assert_eq!(
                (outcome.cut.as_slice(), outcome.late),
                (&[][..], 0),
                "{outcome:?}"
            );
            assert!(outcome.before > 0 && outcome.failed > 0, "{outcome:?}");
            before += outcome.before;
            attempts += outcome.failed;
        }
        let refused = enforcer.figure("w", "conntrack_allowance_exceeded");
        assert_eq!(refused, 0);
        let detached = if round == 0 { "--all" } else { "w" };
        if round + 1 == ROUNDS {
            let listed = enforcer.sgctl(&["ct", "list"]).ok().out;
            let adopted = listed.lines().filter(|line| line.contains(" adopted"));
            assert!(adopted.count() >= 40, "{listed}");
        }
        enforcer.sgctl(&["detach", detached]).ok();
        lines.go_on();
    }
    let numbers = lines.finish();
    println!(
        "{orientation}: {numbers} numbers came, none was lost; {before} of the storm's connections were open before an attachment, none was cut; {attempts} attempts failed after it"
    );
}
