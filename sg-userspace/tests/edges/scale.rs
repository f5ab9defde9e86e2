//! How much is done: less where everything is slow, more when somebody has the time.

use std::{
    env,
    fmt::Display,
    str::FromStr,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, UNIX_EPOCH},
};

/// Generations that follow each other as fast as they can.
pub(crate) fn switches() -> usize {
    1000 / divisor()
}

/// Processes that are killed while they change something.
pub(crate) fn kills() -> usize {
    (200 / divisor()).max(20)
}

/// Rounds of something that takes seconds.
pub(crate) fn rounds() -> usize {
    (2 / divisor()).max(1)
}

/// Which of so many calls are made to fail, each in a process of its own: all of them if they are few or in a soak,
/// otherwise others each time.
pub(crate) fn calls(count: usize, random: &mut Random) -> Vec<usize> {
    let most = (40 / divisor()).max(8);
    let step = if ALL.load(Ordering::Relaxed) {
        1
    } else {
        count.div_ceil(most)
    };
    let first = random.below(step as u64) as usize;
    (first..count).step_by(step).collect()
}

/// The same of something that takes longer: fewer of them, the last one always.
pub(crate) fn some_calls(count: usize, random: &mut Random) -> Vec<usize> {
    let step = if ALL.load(Ordering::Relaxed) {
        1
    } else {
        count.div_ceil((4 / divisor()).max(2))
    };
    let first = random.below(step as u64) as usize;
    let last = count.saturating_sub(1);
    let mut chosen: Vec<usize> = (first..last).step_by(step).collect();
    chosen.extend(last..count);
    chosen
}

/// From now on every call is made to fail.
pub(crate) fn all_calls() {
    ALL.store(true, Ordering::Relaxed);
}

static ALL: AtomicBool = AtomicBool::new(false);

/// How long to wait for what takes so long on an ordinary machine.
pub(crate) fn patience(time: Duration) -> Duration {
    time * setting("SG_PATIENCE", 1)
}

/// By how much counts are to be less: on emulated kernels.
fn divisor() -> usize {
    setting("SG_COUNTS_DIVISOR", 1)
}

/// A number in the environment.
pub(crate) fn setting<T: FromStr<Err: Display>>(name: &str, default: T) -> T {
    match env::var(name) {
        Ok(value) => value
            .parse()
            .unwrap_or_else(|error| panic!("{name}={value}: {error}")),
        Err(_) => default,
    }
}

/// Numbers that look random and are the same for the same seed (Marsaglia, "Xorshift RNGs", 2003).
pub(crate) struct Random(u64);

impl Random {
    /// Begins with `SG_EDGES_SEED`, or anew with every run, and says with what.
    pub(crate) fn new() -> Self {
        let moment = UNIX_EPOCH.elapsed().expect("after 1970").as_millis() as u64;
        let seed = setting("SG_EDGES_SEED", moment);
        println!("SG_EDGES_SEED={seed}");
        Self(seed.max(1))
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end.max(1)
    }
}
