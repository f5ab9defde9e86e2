//! Processes that are killed while they change something.

use std::{
    fs,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use sg_userspace::{session::Context, status};

use crate::{
    bed::{Bed, Side},
    common::{
        netns::{Answer, Enforcer},
        require::require,
    },
    remains::{self, Remains},
    scale::{self, Random},
    traffic::{Balance, during},
};

/// How long `sgctl apply` takes here and now, the median of some.
fn duration(mut apply: impl FnMut() -> Answer) -> Duration {
    let mut times = [Duration::ZERO; 6];
    for time in &mut times {
        let start = Instant::now();
        apply().ok();
        *time = start.elapsed();
    }
    times.sort();
    times[times.len() / 2]
}

/// Runs `sgctl` and kills it after `delay`; whether it had ended before.
fn kill(enforcer: &Enforcer, arguments: &[&str], delay: Duration) -> bool {
    let mut child = enforcer
        .command(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    thread::sleep(delay);
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code().unwrap_or(0) == 0, "{output:?}: {said}");
    output.status.success()
}

#[test]
fn m3_an_apply_that_is_killed_leaves_one_generation_or_the_other() {
    require!(Root, Object);
    kill_some();
}

pub(crate) fn kill_some() {
    let bed = Bed::new();
    let random = &mut Random::new();
    let (mut before, mut after, mut ended) = (0, 0, 0);
    let mut whole = Duration::ZERO;
    during(&bed, Balance::Exact, |signals| {
        let mut side = Side::A;
        whole = duration(|| {
            side = side.other();
            bed.sgctl_apply(side)
        });
        let expected = Remains::of(&bed);
        for _ in 0..scale::kills() {
            let generation = bed.generation();
            let wanted = side.other();
            bed.announce(wanted, side);
            // Every other one in the last third, where the switch is.
            let length = whole.as_micros() as u64;
            let delay = match random.below(2) {
                0 => random.below(length),
                _ => length * 2 / 3 + random.below(length / 3),
            };
            let file = bed.file(wanted).to_str().unwrap();
            let done = kill(
                &bed.enforcer,
                &["apply", file],
                Duration::from_micros(delay),
            );
            let now = bed.generation();
            match (now.wrapping_sub(generation), done) {
                (0, false) => before += 1,
                (1, false) => after += 1,
                (1, true) => ended += 1,
                other => panic!("{other:?} after {delay} µs of {whole:?}"),
            }
            if now != generation {
                side = wanted;
            }
            // Wholly the one or the other, as every packet of every kind shows.
            signals.probe();
            remains::enforced(&bed);
            if done {
                remains::clean(&bed, &expected);
            }
            // Sometimes what follows is killed, too.
            if random.below(2) == 0 {
                let wanted = if random.below(2) == 0 {
                    side
                } else {
                    side.other()
                };
                let start = Instant::now();
                bed.sgctl_apply(wanted).ok();
                side = wanted;
                // The machine is not always as fast.
                whole = (3 * whole + start.elapsed()) / 4;
                remains::clean(&bed, &expected);
            }
        }
        let wanted = side.other();
        bed.sgctl_apply(wanted).ok();
        remains::clean(&bed, &expected);
    });
    println!(
        "killed before the switch {before}, after it {after}, too late {ended}; {whole:?} each"
    );
    if scale::kills() >= 100 {
        assert!(before > 0 && after > 0, "{before} {after}");
    }
}

#[test]
fn a_first_apply_that_is_killed_is_repeated_and_leaves_nothing() {
    require!(Root, Object);
    let bed = Bed::new();
    let random = &mut Random::new();
    let file = bed.file(Side::A).to_str().unwrap().to_owned();
    let Enforcer { context, .. } = &bed.enforcer;
    let start = Instant::now();
    begin_anew(&bed);
    bed.sgctl_apply(Side::A).ok();
    let whole = start.elapsed();
    bed.sgctl_apply(Side::A).ok();
    let expected = Remains::of(&bed);
    for _ in 0..2 * scale::rounds() {
        begin_anew(&bed);
        let delay = random.below(whole.as_micros() as u64);
        kill(
            &bed.enforcer,
            &["apply", &file],
            Duration::from_micros(delay),
        );
        // What it says of itself is true, or it says that it does not know.
        if let Ok(status) = status::read(context)
            && status.is_enforced()
        {
            assert!(status.generation > 0, "{status:#?}");
        }
        bed.sgctl_apply(Side::A).ok();
        // Now both banks are in use.
        bed.sgctl_apply(Side::A).ok();
        remains::clean(&bed, &expected);
        during(&bed, Balance::Exact, |_| ());
    }
}

fn begin_anew(bed: &Bed) {
    let Context {
        bpffs, state_dir, ..
    } = &bed.enforcer.context;
    let maps = remains::maps(bed);
    bed.enforcer.sgctl(&["detach", "--all"]).ok();
    remains::gone(&maps);
    assert!(!bpffs.exists(), "{bpffs:?}");
    for entry in fs::read_dir(state_dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let gone = ["state", "policy", "sets", "rules"]
            .iter()
            .all(|kind| !name.starts_with(kind));
        assert!(gone, "{name} is left");
    }
    bed.generations.from(0, Side::A);
}
