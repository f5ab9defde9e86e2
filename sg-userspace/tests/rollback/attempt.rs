//! What the tests have in common: a generation to try, and who may pass by it.

use std::{
    net::TcpStream,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    netns::{Answer, Enforcer, answers, eventually_within},
    pair::{NEAR, Pair},
};
use sg_userspace::{pin::Pins, tables::Tables};

/// How long a generation waits, where a test sees it taken back.
pub(crate) const WITHIN: &str = "--confirm-within=3s";
/// How long a test waits for that, on a machine that has other things to do, too.
pub(crate) const LATER: Duration = Duration::from_secs(20);

/// The generation in force, from the map; 0 where there is none yet.
pub(crate) fn generation(enforcer: &Enforcer) -> u32 {
    let pins = Pins::new(&enforcer.context.bpffs);
    Tables::open(&pins).map_or(0, |tables| tables.generation().unwrap())
}

/// Waits until a generation is in force.
#[track_caller]
pub(crate) fn comes(enforcer: &Enforcer, wanted: u32) {
    let what = format!("generation {wanted}");
    eventually_within(LATER, &what, || generation(enforcer) == wanted);
}

/// Whether the far end can open a connection.
pub(crate) fn opens(pair: &Pair, port: u16) -> bool {
    match pair.far.connect(NEAR, port) {
        Ok(mut stream) => answers(&mut stream),
        Err(_) => false,
    }
}

/// A connection from the far end that is answered.
#[track_caller]
pub(crate) fn open(pair: &Pair, port: u16) -> TcpStream {
    let mut stream = pair.far.connect(NEAR, port).unwrap();
    assert!(answers(&mut stream));
    stream
}

/// Starts `sgctl apply` of a definition, with more arguments.
pub(crate) fn begin(enforcer: &Enforcer, definition: &str, arguments: &[&str]) -> Child {
    std::fs::write(&enforcer.file, definition).unwrap();
    let mut all = vec!["apply", enforcer.file.to_str().unwrap()];
    all.extend(arguments);
    let mut command = enforcer.command(&all);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Kills a process with SIGKILL as soon as a generation is in force.
#[track_caller]
pub(crate) fn killed_at(enforcer: &Enforcer, mut child: Child, wanted: u32) {
    let start = Instant::now();
    while generation(enforcer) < wanted {
        assert!(start.elapsed() < LATER, "generation {wanted} did not come");
        thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// `sgctl status`, as JSON.
pub(crate) fn status(enforcer: &Enforcer) -> serde_json::Value {
    let said: Answer = enforcer.sgctl(&["status", "--json"]);
    serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

/// A sample of `sgctl export`.
#[track_caller]
pub(crate) fn exported(enforcer: &Enforcer, name: &str) -> u64 {
    let text = enforcer.sgctl(&["export"]).ok().out;
    crate::common::agent::sample(&text, name).unwrap_or_else(|| panic!("no {name} in {text}"))
}
