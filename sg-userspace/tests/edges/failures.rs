//! Calls that fail, each in its turn, and a disk that is full.

use std::{collections::BTreeMap, fs};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::{
    bed::{Bed, Side},
    common::{netns::Answer, require::require},
    remains::{self, Remains},
    scale::{self, Random},
    supervisor::{self, Calls, Fault},
    traffic::{Balance, Signals, during},
};

/// Lets every call of an apply fail in its turn.
pub(crate) fn each(calls: Calls, fault: Fault) {
    let bed = Bed::new();
    let random = &mut Random::new();
    during(&bed, Balance::Exact, |signals| {
        let mut side = Side::A;
        for _ in 0..2 {
            side = side.other();
            bed.sgctl_apply(side).ok();
        }
        let expected = Remains::of(&bed);
        let attempt = |side: Side, fault| {
            let file = bed.file(side).to_str().unwrap();
            bed.announce(side, side.other());
            supervisor::run(bed.enforcer.command(&["apply", file]), calls, fault)
        };
        side = side.other();
        let watched = attempt(side, None);
        let count = watched.calls;
        watched.answer.ok();
        assert!(count > 10, "{count}");
        // By outcome: which calls.
        let mut outcomes: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        let chosen = scale::calls(count, random);
        for at in chosen.iter().copied() {
            let generation = bed.generation();
            let watched = attempt(side.other(), Some((at, fault)));
            let Some(failed) = watched.failed else {
                // One call less than the time before.
                assert!(
                    at + 5 > count,
                    "{at} of {count} was not reached: {watched:?}"
                );
                watched.answer.ok();
                side = side.other();
                continue;
            };
            let call = format!("call {at} of {count}, {failed:?}");
            let outcome = judge(&bed, signals, generation, &watched.answer, &call, fault);
            outcomes.entry(outcome).or_default().push(at);
            if bed.generation() == generation + 1 {
                side = side.other();
            }
            // The other way round, so that what is in force is seen to have come from here.
            side = side.other();
            let answer = bed.sgctl_apply(side);
            assert_eq!(answer.code, 0, "{call}: {answer:?}");
            remains::clean(&bed, &expected);
        }
        println!("{calls:?} {fault:?}: {outcomes:?}");
        let old = outcomes.get("old").map_or(0, Vec::len);
        assert!(old > chosen.len() / 4, "{outcomes:?}");
    });
}

/// What an apply has left that met a fault: the old generation and a message, or the new one; nothing else.
#[track_caller]
fn judge(
    bed: &Bed,
    signals: &Signals,
    generation: u32,
    answer: &Answer,
    call: &str,
    fault: Fault,
) -> &'static str {
    signals.probe();
    remains::enforced(bed);
    let rise = bed.generation().wrapping_sub(generation);
    match (answer.code, rise) {
        (0, 1) => "none needed it",
        (2, 0) => {
            assert!(!answer.err.trim().is_empty(), "{call}: {answer:?}");
            let taken_back = !answer.err.contains("could not be taken back");
            assert!(taken_back, "{call}: {answer:?}");
            "old"
        }
        (-1, 0) if fault == Fault::Kill => "old",
        (-1, 1) if fault == Fault::Kill => "new",
        _ => panic!("{call}: from {generation} by {rise}: {answer:?}"),
    }
}

#[test]
fn whichever_bpf_call_fails_the_old_generation_judges_on() {
    require!(Root, Object);
    each(Calls::Bpf, Fault::Error(libc::ENOMEM));
}

#[test]
fn whichever_file_call_fails_the_old_generation_judges_on() {
    require!(Root, Object);
    each(Calls::Files, Fault::Error(libc::EIO));
}

#[test]
fn before_whichever_file_call_it_is_killed_one_generation_judges() {
    require!(Root, Object);
    each(Calls::Files, Fault::Kill);
}

/// A file system of a few pages in the place of the state directory.
struct Small<'a>(&'a Bed);

impl<'a> Small<'a> {
    /// Pages that it has.
    const PAGES: usize = 256;
    const PAGE: usize = 4096;

    fn new(bed: &'a Bed) -> Self {
        let directory = &bed.enforcer.context.state_dir;
        bed.enforcer.sgctl(&["detach", "--all"]).ok();
        let options = format!("mode=0700,size={}", Self::PAGES * Self::PAGE);
        let options = std::ffi::CString::new(options).unwrap();
        mount(
            "tmpfs",
            directory,
            "tmpfs",
            MountFlags::empty(),
            Some(&*options),
        )
        .unwrap();
        Self(bed)
    }

    /// Fills it but for so many pages.
    fn fill(&self, but: usize) {
        let directory = &self.0.enforcer.context.state_dir;
        let found = rustix::fs::statvfs(directory).unwrap();
        let free = (found.f_bfree * found.f_frsize) as usize / Self::PAGE;
        let bytes = vec![0; free.saturating_sub(but) * Self::PAGE];
        fs::write(directory.join("filler"), bytes).unwrap();
    }

    fn empty(&self) {
        fs::remove_file(self.0.enforcer.context.state_dir.join("filler")).unwrap();
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = unmount(&self.0.enforcer.context.state_dir, UnmountFlags::DETACH);
    }
}

#[test]
fn wherever_the_disk_is_full_the_old_generation_judges_on() {
    require!(Root, Object);
    let bed = Bed::new();
    let small = Small::new(&bed);
    bed.generations.from(0, Side::A);
    for _ in 0..2 {
        bed.sgctl_apply(Side::A).ok();
    }
    let expected = Remains::of(&bed);
    during(&bed, Balance::Exact, |signals| {
        let (mut side, mut failures, mut successes) = (Side::A, 0, 0);
        let mut pages = 0;
        while successes < 3 {
            small.fill(pages);
            let generation = bed.generation();
            bed.announce(side.other(), side);
            let answer = bed
                .enforcer
                .sgctl(&["apply", bed.file(side.other()).to_str().unwrap()]);
            let call = format!("{pages} pages free");
            let error = Fault::Error(libc::ENOSPC);
            match judge(&bed, signals, generation, &answer, &call, error) {
                "old" => {
                    failures += 1;
                    assert!(answer.err.contains("No space left"), "{call}: {answer:?}");
                }
                "none needed it" => {
                    successes += 1;
                    side = side.other();
                }
                other => panic!("{call}: {other}: {answer:?}"),
            }
            small.empty();
            side = side.other();
            bed.sgctl_apply(side).ok();
            remains::clean(&bed, &expected);
            pages += 1;
        }
        println!("{failures} applies found no room");
        assert!(failures >= 3, "{failures}");
    });
}
