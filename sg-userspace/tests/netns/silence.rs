//! Things tried at once that must all come to nothing.

use std::thread;

/// Runs all attempts at the same time; each answers whether nothing came of it.
#[track_caller]
pub(crate) fn all(attempts: &[(&str, &(dyn Fn() -> bool + Sync))]) {
    let came_through: Vec<&str> = thread::scope(|scope| {
        let running: Vec<_> = attempts
            .iter()
            .map(|(what, attempt)| (*what, scope.spawn(attempt)))
            .collect();
        running
            .into_iter()
            .filter_map(|(what, attempt)| (!attempt.join().unwrap()).then_some(what))
            .collect()
    });
    assert!(
        came_through.is_empty(),
        "not met by silence: {came_through:?}"
    );
}
