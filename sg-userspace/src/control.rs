//! Conntrack commands: the program `ct_control`, run on demand by BPF_PROG_TEST_RUN.
//!
//! Userspace never writes conntrack entries itself; the program does it by the same protocol as
//! the packet path.

use std::{
    net::IpAddr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    programs::{ProgramError, SchedClassifier, TestRun as _, TestRunOptions},
};
use sg_common::{
    layout::{CtCommand, CtRecord, Limits, ct_op},
    table::with_stash,
};

mod restore;

pub use restore::{Addition, Restored};

/// The conntrack command program.
#[derive(Debug)]
pub struct Control {
    program: Commands,
}

/// Where the program is.
#[derive(Debug)]
enum Commands {
    Pinned(Box<SchedClassifier>),
    /// Loaded by this process for itself, under a name.
    Own(Box<Ebpf>, &'static str),
}

/// A flow as seen from its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow {
    /// IP protocol number.
    pub protocol: u8,
    /// The workload's address.
    pub local: IpAddr,
    /// The other side's address, of the same family.
    pub remote: IpAddr,
    /// The workload's port, or identifier of an echo.
    pub local_port: u16,
    /// The other side's port, or identifier of an echo.
    pub remote_port: u16,
}

/// What became of an insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is tracked now.
    Added,
    /// It was tracked already.
    Known,
    /// There is no room.
    Full,
    /// No packet has its addresses: it does not leave the host.
    Impossible,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The pinned program cannot be opened.
    #[error("cannot open the conntrack program")]
    Open(#[source] ProgramError),
    /// It cannot be run.
    #[error("cannot run conntrack command {operation}")]
    Run {
        /// The command.
        operation: &'static str,
        /// aya's answer.
        source: ProgramError,
    },
    /// It gave an answer that it does not give.
    #[error("conntrack command {operation} answered {answer:#x}")]
    Answer {
        /// The command.
        operation: &'static str,
        /// The answer.
        answer: u32,
    },
    /// The kernel's clock runs at no rate that Linux can be built with.
    #[error("jiffies advance at {measured} per second, which no Linux kernel is built for")]
    Clock {
        /// Measured rate in Hz.
        measured: u32,
    },
}

/// Attempts to start the timer, and the pause after each: a second in all.
const ARM_ATTEMPTS: u32 = 50;
const ARM_PAUSE: Duration = Duration::from_millis(20);

impl Control {
    /// Opens the pinned program.
    ///
    /// # Errors
    /// [`ControlError::Open`].
    pub fn open(pin: &Path) -> Result<Self, ControlError> {
        let program = SchedClassifier::from_pin(pin).map_err(ControlError::Open)?;
        let program = Commands::Pinned(Box::new(program));
        Ok(Self { program })
    }

    /// The program of this name, which has been loaded.
    pub fn of(ebpf: Ebpf, name: &'static str) -> Self {
        Self {
            program: Commands::Own(Box::new(ebpf), name),
        }
    }

    fn program(&self) -> Result<&SchedClassifier, ProgramError> {
        match &self.program {
            Commands::Pinned(program) => Ok(program),
            Commands::Own(ebpf, name) => {
                let program = ebpf.program(name).ok_or(ProgramError::NotLoaded)?;
                program.try_into()
            }
        }
    }

    /// Low 31 bits of jiffies.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn clock(&self) -> Result<u32, ControlError> {
        self.run("clock", &command(ct_op::CLOCK))
    }

    /// Jiffies, all 64 bits of them; entries are stamped with the lower 32.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn now(&self) -> Result<u64, ControlError> {
        let part = |argument| {
            let command = CtCommand {
                argument,
                ..command(ct_op::CLOCK)
            };
            self.run("clock", &command).map(u64::from)
        };
        loop {
            let (high, middle, low) = (part(2)?, part(1)?, part(0)?);
            if part(1)? == middle {
                return Ok(high << 62 | middle << 31 | low);
            }
        }
    }

    /// Measures jiffies per second against the monotonic clock. Takes a quarter of a second.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn measure_hz(&self) -> Result<u32, ControlError> {
        let (start, before) = self.timed_clock()?;
        std::thread::sleep(Duration::from_millis(250));
        let (end, after) = self.timed_clock()?;
        let jiffies = u64::from(after.wrapping_sub(before) & 0x7fff_ffff);
        let micros = end.duration_since(start).as_micros().max(1) as u64;
        let measured = u32::try_from(jiffies * 1_000_000 / micros).unwrap_or(u32::MAX);
        nearest_hz(measured).ok_or(ControlError::Clock { measured })
    }

    /// Reads the clock at a known moment: of several readings the one with the least doubt, since
    /// any may be held up by other work on this CPU.
    fn timed_clock(&self) -> Result<(Instant, u32), ControlError> {
        let mut best: Option<(Duration, Instant, u32)> = None;
        for _ in 0..8 {
            let (start, jiffies) = (Instant::now(), self.clock()?);
            let doubt = start.elapsed();
            if best.is_none_or(|(least, ..)| doubt < least) {
                best = Some((doubt, start, jiffies));
            }
        }
        let (_, moment, jiffies) = best.expect("the loop runs at least once");
        Ok((moment, jiffies))
    }

    /// Makes an established flow.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn insert(
        &self,
        interface: u32,
        flow: &Flow,
        opened_by_local: bool,
    ) -> Result<Inserted, ControlError> {
        let attempt = |last: u32| {
            let command = CtCommand {
                argument: u32::from(opened_by_local) | last << 1,
                ..about(ct_op::INSERT, interface, flow)
            };
            self.run("insert", &command)
        };
        let answer = match attempt(0)? {
            ct_op::FULL => attempt(1)?,
            answer => answer,
        };
        match answer {
            ct_op::OK => Ok(Inserted::Added),
            ct_op::EXISTS => Ok(Inserted::Known),
            ct_op::FULL => Ok(Inserted::Full),
            ct_op::IMPOSSIBLE => Ok(Inserted::Impossible),
            answer => Err(ControlError::Answer {
                operation: "insert",
                answer,
            }),
        }
    }

    /// Ends a flow; `false` if there is no such flow.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn delete(&self, interface: u32, flow: &Flow) -> Result<bool, ControlError> {
        match self.run("delete", &about(ct_op::DELETE, interface, flow))? {
            ct_op::OK => Ok(true),
            ct_op::MISSING => Ok(false),
            answer => Err(ControlError::Answer {
                operation: "delete",
                answer,
            }),
        }
    }

    /// Ends all flows of an interface; `buckets` are those of the IPv4 and the IPv6 table. Returns
    /// how many there were.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn flush(&self, interface: u32, buckets: [u32; 2]) -> Result<u64, ControlError> {
        self.walk("flush", ct_op::FLUSH, interface, buckets)
    }

    /// Reclaims every expired flow, as the sweep timer does by and by; `buckets` as for
    /// [`Control::flush`]. Returns how many there were.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn sweep(&self, buckets: [u32; 2]) -> Result<u64, ControlError> {
        self.walk("sweep", ct_op::SWEEP, 0, buckets)
    }

    /// Ends every flow that the generation in force does not track; `buckets` as for [`Control::flush`]. Returns
    /// how many there were.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn review(&self, buckets: [u32; 2]) -> Result<u64, ControlError> {
        self.walk("review", ct_op::REVIEW, 0, buckets)
    }

    /// Runs a command over all buckets of both tables, as many at a time as one command may visit.
    fn walk(
        &self,
        operation: &'static str,
        op: u32,
        interface: u32,
        buckets: [u32; 2],
    ) -> Result<u64, ControlError> {
        let mut ended = 0;
        for (family, buckets) in [4, 6].into_iter().zip(buckets.map(with_stash)) {
            let mut first = 0;
            while first < buckets {
                let count = (buckets - first).min(ct_op::MAX_BUCKETS);
                let command = CtCommand {
                    interface,
                    family,
                    argument: first,
                    count,
                    ..command(op)
                };
                let answer = self.run(operation, &command)?;
                if answer > 0x7fff_ffff {
                    return Err(ControlError::Answer { operation, answer });
                }
                ended += u64::from(answer);
                first += count;
            }
        }
        Ok(ended)
    }

    /// Starts the sweep timer if it does not run. The kernel makes one from memory that it may not wait for
    /// (`bpf_timer_init`), so a refusal may be of the moment.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn arm(&self) -> Result<(), ControlError> {
        let mut answer = ct_op::INVALID;
        for _ in 0..ARM_ATTEMPTS {
            answer = self.run("arm", &command(ct_op::ARM))?;
            if answer == ct_op::OK {
                return Ok(());
            }
            thread::sleep(ARM_PAUSE);
        }
        Err(ControlError::Answer {
            operation: "arm",
            answer,
        })
    }

    /// Has `generation` taken back after `time` unless it is confirmed; the time begins anew if it waits already.
    /// `false` if it was taken back before.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn await_confirmation(
        &self,
        generation: u32,
        time: Duration,
        limits: Limits,
    ) -> Result<bool, ControlError> {
        let mut local = [0; 16];
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        local[..8].copy_from_slice(&nanoseconds.to_ne_bytes());
        let command = CtCommand {
            local,
            ..about_generation(ct_op::AWAIT, generation, limits)
        };
        let mut answer = ct_op::INVALID;
        // The timer is made as that of the sweep is: see `arm`.
        for _ in 0..ARM_ATTEMPTS {
            answer = self.run("await", &command)?;
            match answer {
                ct_op::OK => return Ok(true),
                ct_op::LATE => return Ok(false),
                _ => thread::sleep(ARM_PAUSE),
            }
        }
        Err(ControlError::Answer {
            operation: "await",
            answer,
        })
    }

    /// Confirms `generation`; `None` if it does not wait, `false` if it was taken back before.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn confirm(&self, generation: u32) -> Result<Option<bool>, ControlError> {
        let command = about_generation(ct_op::CONFIRM, generation, Limits::ZERO);
        match self.run("confirm", &command)? {
            ct_op::OK => Ok(Some(true)),
            ct_op::LATE => Ok(Some(false)),
            ct_op::MISSING => Ok(None),
            answer => Err(ControlError::Answer {
                operation: "confirm",
                answer,
            }),
        }
    }

    /// Takes `generation` back now, to the one before it, which must still be in its bank. `limits` are the ones
    /// before, unless the generation waits to be confirmed, which knows them. `failed` if its change did not
    /// succeed: then flows are asked again no more than they would have been without the two changes, and it does
    /// not count as taken back. `false` if it is not in force.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn take_back(
        &self,
        generation: u32,
        limits: Limits,
        failed: bool,
    ) -> Result<bool, ControlError> {
        let command = CtCommand {
            count: u32::from(failed),
            ..about_generation(ct_op::TAKE_BACK, generation, limits)
        };
        match self.run("take back", &command)? {
            ct_op::OK => Ok(true),
            ct_op::MISSING => Ok(false),
            answer => Err(ControlError::Answer {
                operation: "take back",
                answer,
            }),
        }
    }

    fn run(&self, operation: &'static str, command: &CtCommand) -> Result<u32, ControlError> {
        self.run_with(operation, command, &[])
    }

    /// Runs a command with what stands behind it.
    fn run_with(
        &self,
        operation: &'static str,
        command: &CtCommand,
        more: &[u8],
    ) -> Result<u32, ControlError> {
        const HEADER: usize = 14;
        const COMMAND: usize = HEADER + size_of::<CtCommand>();
        let mut frame = [0_u8; COMMAND + size_of::<CtRecord>()];
        // Neither address matters; an ethertype for local experiments (IEEE 802) keeps the kernel
        // from reading the payload as IP.
        frame[12..HEADER].copy_from_slice(&[0x88, 0xb5]);
        frame[HEADER..COMMAND].copy_from_slice(command.as_bytes());
        frame[COMMAND..COMMAND + more.len()].copy_from_slice(more);
        let mut back = [0_u8; 2 * (COMMAND + size_of::<CtRecord>())];
        let mut options = TestRunOptions::new();
        options.data_in = Some(&frame[..COMMAND + more.len()]);
        options.data_out = Some(&mut back);
        match self.program().and_then(|program| program.test_run(options)) {
            Ok(result) => Ok(result.return_value),
            Err(source) => Err(ControlError::Run { operation, source }),
        }
    }
}

fn command(op: u32) -> CtCommand {
    CtCommand {
        op,
        ..CtCommand::ZERO
    }
}

fn about_generation(op: u32, generation: u32, limits: Limits) -> CtCommand {
    let remote = limits.as_bytes().try_into().expect("16 bytes");
    CtCommand {
        argument: generation,
        remote,
        ..command(op)
    }
}

fn about(op: u32, interface: u32, flow: &Flow) -> CtCommand {
    CtCommand {
        interface,
        family: if flow.local.is_ipv4() { 4 } else { 6 },
        protocol: u32::from(flow.protocol),
        local: padded(flow.local),
        remote: padded(flow.remote),
        local_port: flow.local_port,
        remote_port: flow.remote_port,
        ..command(op)
    }
}

/// Network-order bytes; IPv4 in the first four, the rest zero.
pub(crate) fn padded(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            bytes
        }
        IpAddr::V6(address) => address.octets(),
    }
}

/// The rate of `kernel/Kconfig.hz` nearest to a measurement, if it is within a tenth.
fn nearest_hz(measured: u32) -> Option<u32> {
    [100, 250, 300, 1000]
        .into_iter()
        .min_by_key(|hz: &u32| hz.abs_diff(measured))
        .filter(|hz| hz.abs_diff(measured) * 10 <= *hz)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_rates_snap_to_what_kernels_are_built_with() {
        for (measured, hz) in [(99, 100), (253, 250), (249, 250), (296, 300), (1003, 1000)] {
            assert_eq!(nearest_hz(measured), Some(hz));
        }
        for measured in [0, 150, 500] {
            assert_eq!(nearest_hz(measured), None);
        }
    }
}
