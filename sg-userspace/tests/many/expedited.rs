//! Grace periods are expedited while many interfaces are attached or detached, and never longer.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    process::{Child, ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use sg_userspace::rcu::EXPEDITED;

use crate::{
    ALONE,
    common::{
        netns::Enforcer,
        pair::Pair,
        require::{require, skip},
    },
    host_side, make_devices,
};

/// Enough for a look in between.
const MANY: u32 = 100;

fn is_set() -> bool {
    fs::read_to_string(EXPEDITED).unwrap().trim() == "1"
}

/// Whether grace periods are the kernel's own affair here, and can be expedited.
fn can_be_set() -> bool {
    let value = |knob| fs::read_to_string(knob).unwrap_or_default();
    value(EXPEDITED).trim() == "0" && value("/sys/kernel/rcu_normal").trim() == "0"
}

struct Bed {
    pair: Pair,
    enforcer: Enforcer,
}

impl Bed {
    fn new() -> Self {
        let bed = Self {
            pair: Pair::new(),
            enforcer: Enforcer::new(),
        };
        make_devices(&bed.pair, MANY);
        // Programs are verified before.
        bed.apply(1, &[]);
        bed
    }

    /// Starts an `apply` of the first so many interfaces.
    fn start(&self, count: u32, arguments: &[&str]) -> Child {
        let definition = host_side(&self.pair, count, |_| 80, |number| number);
        fs::write(&self.enforcer.file, definition).unwrap();
        let mut all = vec!["apply", self.enforcer.file.to_str().unwrap()];
        all.extend(arguments);
        let mut command = self.enforcer.command(&all);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    /// Whether it is set while that is done.
    fn apply(&self, count: u32, arguments: &[&str]) -> bool {
        let mut child = self.start(count, arguments);
        let mut seen = false;
        let status = loop {
            seen |= is_set();
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
        };
        assert!(status.success(), "{status}");
        assert!(!is_set(), "it is left set");
        seen
    }

    /// Ends an `apply` by a signal while it is set; answers how it ended.
    fn interrupted(&self, signal: Signal) -> ExitStatus {
        for _ in 0..20 {
            let mut child = self.start(MANY, &[]);
            let pid = Pid::from_child(&child);
            let status = loop {
                if is_set() {
                    kill_process(pid, signal).unwrap();
                    break child.wait().unwrap();
                }
                if let Some(status) = child.try_wait().unwrap() {
                    break status;
                }
            };
            // Unless it was ready with that, or with everything, before the signal came.
            if !status.success() && (signal != Signal::KILL || is_set()) {
                return status;
            }
            self.apply(1, &["--detach-missing"]);
        }
        panic!("no signal came in time");
    }
}

#[test]
fn grace_periods_are_expedited_only_for_many() {
    require!(Root, Object);
    let _alone = ALONE.lock();
    if !can_be_set() {
        return skip("the kernel's grace periods are expedited already, or must not be");
    }
    let bed = Bed::new();
    if bed.enforcer.is_by_filters() {
        return skip("TC filters wait for no grace period");
    }
    assert!(bed.apply(MANY, &[]), "it is never set");
    assert!(!bed.apply(MANY, &[]), "there is nothing to wait for");
    assert!(bed.apply(1, &["--detach-missing"]), "it is never set");
    assert!(!bed.apply(8, &[]), "seven are not many");
    assert!(!bed.apply(1, &["--detach-missing"]), "seven are not many");
    assert!(!bed.apply(20, &["--no-expedite"]), "it is forbidden");
}

#[test]
fn grace_periods_are_what_they_were_after_a_signal() {
    require!(Root, Object);
    let _alone = ALONE.lock();
    if !can_be_set() {
        return skip("the kernel's grace periods are expedited already, or must not be");
    }
    let bed = Bed::new();
    if bed.enforcer.is_by_filters() {
        return skip("TC filters wait for no grace period");
    }
    for signal in [Signal::TERM, Signal::INT] {
        let status = bed.interrupted(signal);
        assert_eq!(status.signal(), Some(signal.as_raw()));
        assert!(!is_set(), "{signal:?} leaves it set");
        bed.apply(1, &["--detach-missing"]);
    }
    // That one cannot be handled: who comes next sets it back.
    let status = bed.interrupted(Signal::KILL);
    assert_eq!(status.signal(), Some(Signal::KILL.as_raw()));
    bed.enforcer.sgctl(&["status"]);
    assert!(is_set(), "that changes nothing");
    bed.enforcer
        .sgctl(&["detach", "nothing"])
        .fails(&["nothing"]);
    assert!(!is_set(), "whoever takes the lock sets it back");
    bed.apply(1, &["--detach-missing"]);
}
