//! Removal of everything that a demo, or the bench, made: at its end, when it fails, on Ctrl-C, and later.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use sg_userspace::netns::Netns;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::enforcer::Enforcer;

/// Where `ip netns` keeps named namespaces.
const NAMESPACES: &str = "/run/netns";

/// How long processes may take to end when they are asked to, and when they are killed: one that
/// has the kernel load a program ends after that.
const ENDING: [(Signal, Duration); 2] = [
    (Signal::TERM, Duration::from_secs(5)),
    (Signal::KILL, Duration::from_secs(30)),
];

/// Removes what was made when dropped, unless it is kept.
pub(crate) struct Teardown {
    shared: Arc<Shared>,
    kept: bool,
}

struct Shared {
    namespaces: Vec<String>,
    enforcer: Enforcer,
    /// Held while something is made: removal begins after it, and nothing is made after removal
    /// began on a signal.
    making: Mutex<()>,
}

impl Teardown {
    /// Takes charge of names that nothing has yet.
    ///
    /// # Errors
    /// If something has one of the names, or signals cannot be caught.
    pub(crate) fn new(namespaces: Vec<String>, enforcer: Enforcer) -> Result<Self> {
        let shared = Shared {
            namespaces,
            enforcer,
            making: Mutex::new(()),
        };
        if let Some(found) = shared.present().first() {
            bail!(
                "{} is there already: {} was kept, or was killed; \
                 `{}` removes it",
                found.display(),
                shared.enforcer.places.user,
                shared.enforcer.places.remedy
            );
        }
        let shared = Arc::new(shared);
        let mut signals =
            Signals::new([SIGINT, SIGTERM, SIGHUP]).context("catch signals to clean up after")?;
        let on_signal = Arc::clone(&shared);
        thread::spawn(move || {
            if signals.forever().next().is_some() {
                on_signal.interrupt();
            }
        });
        Ok(Self {
            shared,
            kept: false,
        })
    }

    /// Removes what an earlier demo left; says whether there was anything.
    ///
    /// # Errors
    /// If something remains.
    pub(crate) fn of_earlier(namespaces: Vec<String>, enforcer: Enforcer) -> Result<bool> {
        let shared = Shared {
            namespaces,
            enforcer,
            making: Mutex::new(()),
        };
        let found = !shared.present().is_empty();
        shared.remove();
        shared.check()?;
        Ok(found)
    }

    /// Runs a step that makes something to be removed; short, since a signal waits for it.
    ///
    /// # Errors
    /// The step's.
    pub(crate) fn making<T>(&self, step: impl FnOnce() -> Result<T>) -> Result<T> {
        let _making = self.shared.lock();
        step()
    }

    /// Leaves everything up.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }

    /// Removes everything.
    ///
    /// # Errors
    /// If something remains.
    pub(crate) fn remove(mut self) -> Result<()> {
        self.kept = true;
        let _making = self.shared.lock();
        self.shared.remove();
        self.shared.check()
    }
}

impl Drop for Teardown {
    fn drop(&mut self) {
        if !self.kept {
            let _making = self.shared.lock();
            self.shared.remove();
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, ()> {
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the guard that is skipped has been carried out here, and the main thread waits \
                  for an attempt or for the lock"
    )]
    fn interrupt(&self) -> ! {
        let _making = self.lock();
        eprintln!(
            "interrupted: removing what {} made",
            self.enforcer.places.user
        );
        self.remove();
        std::process::exit(2)
    }

    fn directories(&self) -> [&'static str; 3] {
        let places = self.enforcer.places;
        [places.state, places.pins, places.files]
    }

    /// What there is of it.
    fn present(&self) -> Vec<PathBuf> {
        let namespaces = self.namespaces.iter();
        namespaces
            .map(|name| Path::new(NAMESPACES).join(name))
            .chain(self.directories().map(PathBuf::from))
            .filter(|path| fs::symlink_metadata(path).is_ok())
            .collect()
    }

    /// Removes as much as can be, and says what cannot.
    fn remove(&self) {
        self.end_processes();
        let [state, pins, _] = self.directories();
        if Path::new(pins).exists() || Path::new(state).exists() {
            complain(self.enforcer.detach());
        }
        for name in &self.namespaces {
            if Path::new(NAMESPACES).join(name).exists() {
                complain(delete(name));
            }
        }
        for directory in self.directories() {
            complain(remove_directory(directory));
        }
    }

    fn check(&self) -> Result<()> {
        match self.present().first() {
            None => Ok(()),
            Some(path) => bail!("{} could not be removed", path.display()),
        }
    }

    /// Ends the agent, the services and whoever else runs in the namespaces.
    fn end_processes(&self) {
        for (signal, patience) in ENDING {
            let deadline = Instant::now() + patience;
            for process in self.processes() {
                // It may have ended by itself by now.
                let _ = kill_process(process, signal);
            }
            while !self.processes().is_empty() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(20));
            }
        }
    }

    fn processes(&self) -> Vec<Pid> {
        let identities: Vec<(u64, u64)> = self
            .namespaces
            .iter()
            .filter_map(|name| Netns::open(Some(name)).ok())
            .map(|netns| (netns.identity().device, netns.identity().inode))
            .collect();
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|process| {
                fs::metadata(format!("/proc/{process}/ns/net"))
                    .is_ok_and(|found| identities.contains(&(found.dev(), found.ino())))
            })
            .filter_map(Pid::from_raw)
            .collect()
    }
}

fn delete(namespace: &str) -> Result<()> {
    let output = Command::new("ip")
        .args(["netns", "delete", namespace])
        .output()
        .context("start `ip`")?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        bail!("remove network namespace {namespace}: {}", reason.trim());
    }
    Ok(())
}

fn remove_directory(path: &str) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {path}"))
        }
        _ => Ok(()),
    }
}

fn complain(done: Result<()>) {
    if let Err(error) = done {
        eprintln!("{error:#}");
    }
}
