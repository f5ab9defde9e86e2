//! Threads: which CPU they are bound to, and what of its time they take.

use std::fs;
use std::sync::LazyLock;

use anyhow::{Context, Result};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

/// CPU of whoever sends.
pub(super) const SENDER: usize = 0;
/// CPU of whoever receives: the first on another core than the sender's, if there is one.
pub(super) static RECEIVER: LazyLock<usize> = LazyLock::new(|| {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let core = read("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list");
    let online = read("/sys/devices/system/cpu/online");
    elsewhere(&core, &online).unwrap_or(SENDER + 1)
});

/// The first CPU of `online` that is not of `core`; both are lists such as `0-1,4`.
fn elsewhere(core: &str, online: &str) -> Option<usize> {
    let core: Vec<usize> = cpus(core).collect();
    cpus(online).find(|cpu| !core.contains(cpu))
}

fn cpus(list: &str) -> impl Iterator<Item = usize> {
    list.trim().split(',').flat_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        match (first.parse(), last.parse::<usize>()) {
            (Ok(first), Ok(last)) => first..last + 1,
            _ => 0..0,
        }
    })
}

/// CPU time of what belongs to a measurement, ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Busy {
    pub(super) sender: u64,
    pub(super) receiver: u64,
}

/// What was done, and what it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) amount: u64,
    pub(super) busy: Busy,
}

impl Busy {
    /// What was added to `earlier`.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            sender: self.sender - earlier.sender,
            receiver: self.receiver - earlier.receiver,
        }
    }

    /// And so much more.
    pub(super) fn and(self, sender: u64, receiver: u64) -> Self {
        Self {
            sender: self.sender + sender,
            receiver: self.receiver + receiver,
        }
    }
}

impl Work {
    /// How much can be done in a second: one of the two CPUs has nothing but this to do then. What other
    /// processes take of the CPUs does not count.
    pub(super) fn per_second(self) -> f64 {
        let busiest = self.busy.sender.max(self.busy.receiver);
        self.amount as f64 * 1e9 / busiest as f64
    }
}

/// What a task has had of its CPU, ns: exact while it sleeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Turns {
    /// It ran.
    pub(super) ran: u64,
    /// It would have run, but others did.
    pub(super) waited: u64,
}

/// What a task has had of its CPU so far.
///
/// # Errors
/// If it is not there, or the kernel does not tell (CONFIG_SCHED_INFO).
pub(super) fn turns(task: Pid) -> Result<Turns> {
    let path = format!("/proc/{}/schedstat", task.as_raw_nonzero());
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let mut numbers = text.split_whitespace().map(str::parse);
    let mut next = || numbers.next().context("it is too short");
    let turns = Turns {
        ran: next().with_context(|| format!("read {path}"))??,
        waited: next().with_context(|| format!("read {path}"))??,
    };
    Ok(turns)
}

/// The thread that a CPU leaves work on packets to when there is much.
///
/// # Errors
/// If there is none.
pub(super) fn soft_interrupts(cpu: usize) -> Result<Pid> {
    kernel_thread(&format!("ksoftirqd/{cpu}\n"))?
        .with_context(|| format!("CPU {cpu} has no ksoftirqd"))
}

/// Runs `task` on a CPU, by the calling thread, and says what CPU time it took, ns.
///
/// # Errors
/// Those of `task`, or if the kernel refuses.
pub(super) fn timed<T>(cpu: usize, task: impl FnOnce() -> Result<T>) -> Result<(T, u64)> {
    pin(None, cpu)?;
    let time = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    };
    let before = time();
    let done = task()?;
    Ok((done, time() - before))
}

/// Whether a task has nothing to do.
///
/// # Errors
/// If it is not there.
pub(super) fn is_asleep(task: Pid) -> Result<bool> {
    let path = format!("/proc/{}/stat", task.as_raw_nonzero());
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    // The state stands behind the name, which may hold anything (proc_pid_stat(5)).
    let (_, state) = text.rsplit_once(") ").unwrap_or_default();
    Ok(state.starts_with('S'))
}

/// The thread whose name begins like this.
///
/// # Errors
/// If /proc cannot be listed.
pub(super) fn kernel_thread(name: &str) -> Result<Option<Pid>> {
    for entry in fs::read_dir("/proc").context("list /proc")?.flatten() {
        // A process may have ended by now.
        let found = fs::read_to_string(entry.path().join("comm"));
        if found.is_ok_and(|found| found.starts_with(name)) {
            let number = entry.file_name().to_string_lossy().parse().unwrap_or(0);
            return Ok(Pid::from_raw(number));
        }
    }
    Ok(None)
}

/// Binds a task, or the calling thread, to a CPU.
///
/// # Errors
/// If the kernel refuses.
pub(super) fn pin(task: Option<Pid>, cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(task, &set).with_context(|| format!("bind a task to CPU {cpu}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receiver_has_a_core_of_its_own() {
        assert_eq!(elsewhere("0\n", "0-1\n"), Some(1));
        assert_eq!(elsewhere("0-1\n", "0-3\n"), Some(2));
        assert_eq!(elsewhere("0,4\n", "0,2-7\n"), Some(2));
        assert_eq!(elsewhere("0-1", "0-1"), None);
        assert_eq!(elsewhere("", ""), None);
    }

    #[test]
    fn what_can_be_done_in_a_second_is_up_to_the_busier_cpu() {
        let busy = |sender, receiver| Busy { sender, receiver };
        let work = Work {
            amount: 100,
            busy: busy(250_000_000, 500_000_000),
        };
        assert_eq!(work.per_second(), 200.0);
        let before = busy(1, 2);
        assert_eq!(busy(5, 9).since(before).and(10, 20), busy(14, 27));
    }
}
