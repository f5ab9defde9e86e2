//! Replays the committed inputs of every fuzz target.

use std::{fs, path::Path};

#[path = "../fuzz/src/lib.rs"]
pub mod targets;

/// Where inputs are: found by fuzzing and minimised, and kept by hand.
const DIRECTORIES: [&str; 2] = ["corpus", "regressions"];

fn replay(name: &str) {
    let (_, run) = targets::TARGETS
        .into_iter()
        .find(|(target, _)| *target == name)
        .expect("a target");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let mut replayed = 0;
    for directory in DIRECTORIES.map(|directory| root.join(directory).join(name)) {
        for entry in directory.read_dir().into_iter().flatten() {
            let path = entry.expect("an entry").path();
            let input = fs::read(&path).expect("a file");
            let result = std::panic::catch_unwind(|| run(&input));
            assert!(result.is_ok(), "{} failed", path.display());
            replayed += 1;
        }
    }
    assert_ne!(replayed, 0, "no inputs of {name}");
}

#[test]
fn definitions() {
    replay("definition");
}

#[test]
fn frames() {
    replay("frame");
}

#[test]
fn packets() {
    replay("packets");
}

#[test]
fn pipelines() {
    replay("pipeline");
}

#[test]
fn sources() {
    replay("sources");
}

#[test]
fn states() {
    replay("state");
}
