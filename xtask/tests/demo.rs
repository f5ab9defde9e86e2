//! `cargo xtask run` as it is typed, short of the build: the demo passes, it fails when a rule is
//! missing in the kernel, and it leaves nothing behind.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

mod common {
    #[path = "../../../sg-userspace/tests/common/require.rs"]
    pub(crate) mod require;
    pub(crate) mod sgctl;
}

use common::require::require;
use common::sgctl::sgctl;

#[test]
fn the_demo_goes_as_the_definition_says_and_leaves_nothing() {
    require!(Root, Object);
    let _turn = turn();
    let links = names("/sys/class/net");
    let (code, text) = demo(&[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("all as the definition says"), "{text}");
    for outcome in [
        "connected",
        "refused by the application",
        "timed out: dropped",
    ] {
        assert!(text.contains(outcome), "no {outcome} in {text}");
    }
    assert!(!text.contains("DIFFERS"), "{text}");
    assert_eq!(links, names("/sys/class/net"));
    assert_nothing_is_left();
}

#[test]
fn a_rule_missing_in_the_kernel_fails_the_demo_which_can_be_kept() {
    require!(Root, Object);
    let _turn = turn();
    let (code, text) = demo(&["--break", "the web", "--keep"]);
    let (second, refusal) = demo(&[]);
    let (removed, _) = demo(&["--down"]);
    assert_eq!(code, 1, "{text}");
    let differs = |what: &str| {
        let mut rows = text.lines().filter(|line| line.contains(what));
        rows.any(|row| row.starts_with("DIFFERS"))
    };
    assert!(differs("tcp 443"), "{text}");
    assert!(!differs("udp 443"), "{text}");

    assert_eq!(second, 2, "{refusal}");
    assert!(refusal.contains("cargo xtask run --down"), "{refusal}");
    assert_eq!(removed, 0);
    assert_nothing_is_left();
}

#[test]
fn a_rule_that_there_is_not_breaks_nothing() {
    require!(Root, Object);
    let _turn = turn();
    let (code, text) = demo(&["--break", "sgr-00000000000000000"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("the web"), "{text}");
    assert_nothing_is_left();
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    require!(Root, Object);
    let _turn = turn();
    let mut child = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["run", "--sgctl", &sgctl()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pins = Path::new("/sys/fs/bpf/sgdemo-pins");
    let own = Pid::from_child(&child);
    wait("the demo to enforce", || pins.exists() || ended(&mut child));
    kill_process(own, Signal::INT).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(2));
    assert_nothing_is_left();
}

/// There is but one demo at a time.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `cargo xtask run` with these arguments. Exit code and output.
fn demo(arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["run", "--sgctl", &sgctl()])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8(text).unwrap(),
    )
}

#[track_caller]
fn assert_nothing_is_left() {
    for directory in ["/run/netns", "/run", "/sys/fs/bpf"] {
        let left = names(directory);
        let left: Vec<_> = left
            .iter()
            .filter(|name| name.starts_with("sgdemo-"))
            .collect();
        assert!(left.is_empty(), "{left:?} in {directory}");
    }
}

fn ended(child: &mut std::process::Child) -> bool {
    child.try_wait().unwrap().is_some()
}

fn names(directory: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[track_caller]
fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(90);
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
