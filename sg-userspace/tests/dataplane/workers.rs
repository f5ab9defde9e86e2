//! Cases in several namespaces at once, each with programs and maps of its own: a change of policy
//! waits for the kernel longer than it works.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use sg_userspace::model::Conntrack;

use crate::{
    common::netns::Namespace,
    loaded::Loaded,
    voices::{
        AMPLE, TIGHT, campaign, recorded,
        run::{Tally, run},
    },
};

/// Tables of the workers, by what they are made for; a quarter of the cases is tight.
const WORKERS: [(bool, Conntrack); 8] = [
    (false, AMPLE),
    (true, TIGHT),
    (false, AMPLE),
    (false, AMPLE),
    (false, AMPLE),
    (true, TIGHT),
    (false, AMPLE),
    (false, AMPLE),
];

/// What all workers share.
pub(crate) struct Work<S> {
    /// The cases, by seed.
    pub(crate) seeds: S,
    /// Whether there is time for another one.
    pub(crate) goes_on: fn() -> bool,
    /// Said now and then; `None`: never.
    pub(crate) progress: Option<Duration>,
}

/// Runs recorded cases and those of the seeds; answers what was seen, and the highest seed.
///
/// # Errors
/// Voices disagree: all that is to be said about it.
pub(crate) fn work<S>(work: &Work<S>) -> Result<(Tally, u64), String>
where
    S: Iterator<Item = u64> + Clone + Sync,
{
    let (tally, highest) = (Mutex::new(Tally::default()), AtomicU64::new(0));
    let (failed, busy) = (Mutex::new(None), AtomicU64::new(WORKERS.len() as u64));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for number in 0..WORKERS.len() {
            let (tally, highest, failed, busy, stop) = (&tally, &highest, &failed, &busy, &stop);
            scope.spawn(move || {
                let namespace = Namespace::new("voices");
                let outcome = namespace.run(|| {
                    worker(&namespace, number, work, stop, |more, seed| {
                        tally.lock().unwrap().add(more);
                        highest.fetch_max(seed, Ordering::Relaxed);
                    })
                });
                if let Err(report) = outcome {
                    stop.store(true, Ordering::Relaxed);
                    failed.lock().unwrap().get_or_insert(report);
                }
                busy.fetch_sub(1, Ordering::Relaxed);
            });
        }
        let Some(every) = work.progress else {
            return;
        };
        let tick = Duration::from_millis(250);
        let mut waited = Duration::ZERO;
        while busy.load(Ordering::Relaxed) != 0 {
            thread::sleep(tick);
            waited += tick;
            if waited >= every {
                waited = Duration::ZERO;
                let seed = highest.load(Ordering::Relaxed);
                println!("up to seed {seed}: {}", tally.lock().unwrap());
            }
        }
    });
    match failed.into_inner().unwrap() {
        Some(report) => Err(report),
        None => Ok((tally.into_inner().unwrap(), highest.into_inner())),
    }
}

fn worker<S: Iterator<Item = u64> + Clone>(
    namespace: &Namespace,
    number: usize,
    work: &Work<S>,
    stop: &AtomicBool,
    seen: impl Fn(&Tally, u64),
) -> Result<(), String> {
    let (tight, made) = WORKERS[number];
    let peers = WORKERS.iter().filter(|other| other.0 == tight).count();
    let before = &WORKERS[..number];
    let mine = before.iter().filter(|other| other.0 == tight).count();
    let mut loaded = Loaded::new(namespace, made);
    if mine == 0 {
        for (name, case) in recorded::cases() {
            if case.is_tight() == tight {
                let done = run(&mut loaded, &case, &mut Tally::default());
                done.map_err(|failure| format!("{name}: {failure}"))?;
            }
        }
    }
    let mut number = 0;
    for seed in work.seeds.clone() {
        if stop.load(Ordering::Relaxed) || !(work.goes_on)() {
            break;
        }
        let case = campaign::case(seed);
        if case.is_tight() != tight {
            continue;
        }
        number += 1;
        if number % peers == mine {
            let mut tally = Tally::default();
            campaign::attempt(&mut loaded, seed, &case, &mut tally)?;
            seen(&tally, seed);
        }
    }
    Ok(())
}
