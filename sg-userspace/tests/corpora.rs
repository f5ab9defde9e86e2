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
    for directory in DIRECTORIES.map(|directory| root.join(directory).join(name)) {
        for entry in directory.read_dir().into_iter().flatten() {
            let path = entry.expect("an entry").path();
            let input = fs::read(&path).expect("a file");
            // Says which input it was.
            let shown = path.clone();
            let result = std::panic::catch_unwind(move || run(&input));
            assert!(result.is_ok(), "{} failed", shown.display());
        }
    }
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
fn states() {
    replay("state");
}
