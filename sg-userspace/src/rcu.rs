//! RCU grace periods, expedited while many interfaces are attached or detached.
//!
//! With each tcx link that it makes or detaches the kernel waits for a grace period (`tcx_entry_sync` of
//! `include/net/tcx.h`), 5 to 20 ms, and holds its lock of all devices meanwhile, so that one interface comes after
//! the other however many threads ask. Its own waits under that lock are expedited (`synchronize_net` of
//! `net/core/dev.c`); these are if `/sys/kernel/rcu_expedited` says so, which is for all of the host. It is therefore
//! set where there is much to wait for only, and not where somebody has decided: it is set already, or
//! `/sys/kernel/rcu_normal` forbids it, as real-time kernels do. That it is set is written down before, so that whoever
//! takes the lock next sets it back if this process was killed.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd as _, RawFd},
        unix::fs::FileExt as _,
    },
    ptr,
    sync::atomic::{AtomicBool, AtomicI32, Ordering},
};

use crate::{state::Lock, status::chain};

/// From so many interfaces on; fewer take less than a quarter of a second.
const MANY: usize = 8;

/// Whether grace periods are expedited; 1 or 0.
pub const EXPEDITED: &str = "/sys/kernel/rcu_expedited";
/// Whether expediting is forbidden.
const NORMAL: &str = "/sys/kernel/rcu_normal";
/// A name of the time since the kernel was started.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

static LEFT_ALONE: AtomicBool = AtomicBool::new(false);
/// Whether this process has it set.
static HELD: AtomicBool = AtomicBool::new(false);
/// What a signal handler writes to; -1: nothing.
static KNOB: AtomicI32 = AtomicI32::new(-1);

/// Makes this process leave grace periods as they are.
pub fn leave_alone() {
    LEFT_ALONE.store(true, Ordering::Relaxed);
}

/// Grace periods are expedited until it is dropped, or the process ended by a signal that it can see.
pub(crate) struct Expedited<'a> {
    lock: &'a Lock,
    knob: File,
    handled: Vec<libc::c_int>,
}

impl<'a> Expedited<'a> {
    /// For attaching or detaching so many interfaces. Where it is not to be or cannot be, it takes its time.
    pub(crate) fn begin(lock: &'a Lock, interfaces: usize) -> Option<Self> {
        if interfaces < MANY || LEFT_ALONE.load(Ordering::Relaxed) {
            return None;
        }
        if HELD.swap(true, Ordering::Relaxed) {
            return None;
        }
        let begun = Self::raise(lock).unwrap_or_else(|error| {
            log::debug!("grace periods are not expedited: {}", chain(&error));
            None
        });
        if begun.is_none() {
            HELD.store(false, Ordering::Relaxed);
        }
        begun
    }

    fn raise(lock: &'a Lock) -> io::Result<Option<Self>> {
        if is_set(EXPEDITED)? || is_set(NORMAL)? {
            return Ok(None);
        }
        let knob = OpenOptions::new().write(true).open(EXPEDITED)?;
        let boot = fs::read_to_string(BOOT)?;
        lock.write_expedited(boot.trim())
            .map_err(io::Error::other)?;
        let raised = Self {
            lock,
            handled: handle(knob.as_raw_fd()),
            knob,
        };
        raised.knob.write_all_at(b"1", 0)?;
        Ok(Some(raised))
    }
}

impl Drop for Expedited<'_> {
    fn drop(&mut self) {
        let lowered = self.knob.write_all_at(b"0", 0);
        KNOB.store(-1, Ordering::SeqCst);
        for signal in &self.handled {
            // SAFETY: the default is what it was.
            unsafe { libc::signal(*signal, libc::SIG_DFL) };
        }
        HELD.store(false, Ordering::Relaxed);
        match lowered {
            Ok(()) => forget(self.lock),
            Err(error) => warn(&error),
        }
    }
}

/// Undoes what a process that was killed has left.
pub(crate) fn settle(lock: &Lock) {
    let lower = || -> io::Result<()> {
        let Some(boot) = lock.read_expedited().map_err(io::Error::other)? else {
            return Ok(());
        };
        if fs::read_to_string(BOOT)?.trim() == boot && is_set(EXPEDITED)? {
            fs::write(EXPEDITED, "0")?;
        }
        forget(lock);
        Ok(())
    };
    if let Err(error) = lower() {
        warn(&error);
    }
}

fn forget(lock: &Lock) {
    if let Err(error) = lock.remove_expedited() {
        log::warn!("{}", chain(&error));
    }
}

fn warn(error: &io::Error) {
    log::warn!("{EXPEDITED} cannot be set back to 0: {error}");
}

fn is_set(knob: &str) -> io::Result<bool> {
    match fs::read_to_string(knob) {
        Ok(value) => Ok(value.trim() != "0"),
        Err(error) => Err(error),
    }
}

/// Has the signals that end a process set it back before they do; answers which. Whoever handles one otherwise
/// goes on until it is dropped.
fn handle(knob: RawFd) -> Vec<libc::c_int> {
    KNOB.store(knob, Ordering::SeqCst);
    let signals = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];
    let handled = signals.into_iter().filter(|signal| {
        // SAFETY: the structs are plain data, zero a valid value of each; the handler calls only functions that
        // signal-safety(7) lists.
        unsafe {
            let mut before: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(*signal, ptr::null(), &mut before) != 0
                || before.sa_sigaction != libc::SIG_DFL
            {
                return false;
            }
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = set_back as extern "C" fn(libc::c_int) as libc::sighandler_t;
            action.sa_flags = libc::SA_RESETHAND;
            libc::sigaction(*signal, &action, ptr::null_mut()) == 0
        }
    });
    handled.collect()
}

/// The default handling is in force again when this is called, and meets the signal when this returns.
extern "C" fn set_back(signal: libc::c_int) {
    let knob = KNOB.load(Ordering::SeqCst);
    // SAFETY: the descriptor is open as long as it is there; both functions may be called by a handler.
    unsafe {
        libc::pwrite(knob, b"0".as_ptr().cast(), 1, 0);
        libc::raise(signal);
    }
}
