//! One CPU, one thread, and samples that are taken only while the CPU runs at its best.

use std::hint::black_box;
use std::io;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// How much slower than the fastest probe of the run a probe beside a sample may be.
const TOLERANCE: f64 = 1.06;
/// Samples that are taken at most for one that is accepted; the last of them counts as it is.
const ATTEMPTS: u32 = 5;

/// Takes samples.
#[derive(Debug)]
pub(crate) struct Meter {
    /// The fastest probe yet, in seconds.
    best: f64,
    /// Samples accepted.
    taken: u32,
    /// Samples taken again: no more than were accepted, since a machine that is busy all the time
    /// has no better ones.
    pub(crate) repeated: u32,
    /// Samples accepted although the CPU was slow.
    pub(crate) doubtful: u32,
}

impl Meter {
    /// Ties this thread to the last CPU.
    pub(crate) fn new() -> Result<Self> {
        let last = std::thread::available_parallelism().map_or(1, usize::from) - 1;
        let mut set = CpuSet::new();
        set.set(last);
        sched_setaffinity(None, &set).with_context(|| format!("stay on CPU {last}"))?;
        let best = (0..200).map(|_| probe()).fold(f64::INFINITY, f64::min);
        Ok(Self {
            best,
            taken: 0,
            repeated: 0,
            doubtful: 0,
        })
    }

    /// Nanoseconds per packet of `run`, which answers what it took and how many packets.
    pub(crate) fn sample(
        &mut self,
        mut run: impl FnMut() -> Result<(Duration, u64)>,
    ) -> Result<f64> {
        for attempt in 1.. {
            let before = probe();
            let (took, packets) = match run() {
                Err(error) if is_interruption(&error) && attempt < ATTEMPTS => continue,
                other => other?,
            };
            let after = probe();
            self.best = self.best.min(before).min(after);
            let good = before.max(after) <= self.best * TOLERANCE;
            if !good && attempt < ATTEMPTS && self.repeated <= self.taken {
                self.repeated += 1;
                std::thread::sleep(Duration::from_millis(2));
                continue;
            }
            self.taken += 1;
            self.doubtful += u32::from(!good);
            return Ok(took.as_nanos() as f64 / packets as f64);
        }
        unreachable!("an attempt is the last");
    }
}

/// Whether a test run was cut short, by whatever the kernel has this thread do meanwhile.
fn is_interruption(error: &anyhow::Error) -> bool {
    let mut causes = error.chain();
    causes.any(|cause| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| cause.kind() == io::ErrorKind::Interrupted)
    })
}

/// CPU time of this thread: other work on this CPU does not count.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Seconds of CPU time for a fixed amount of arithmetic, about half a millisecond.
fn probe() -> f64 {
    let start = cpu_time();
    let mut state = 1_u64;
    for _ in 0..50_000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    black_box(state);
    (cpu_time() - start).as_secs_f64()
}

/// Runs `task` ahead of every ordinary thread of this CPU: each thread switch would empty the caches
/// that are measured.
pub(crate) fn undisturbed<T>(task: impl FnOnce() -> T) -> T {
    set_scheduler(libc::SCHED_FIFO, 1);
    let answer = task();
    set_scheduler(libc::SCHED_OTHER, 0);
    answer
}

/// Where it is refused the sample is as good as the other threads let it be.
fn set_scheduler(policy: libc::c_int, priority: libc::c_int) {
    // SAFETY: all zero is a valid value of plain integers.
    let mut parameter: libc::sched_param = unsafe { std::mem::zeroed() };
    parameter.sched_priority = priority;
    // SAFETY: the parameter lives across the call; 0 is this thread.
    let _ = unsafe { libc::sched_setscheduler(0, policy, &raw const parameter) };
}
