//! sgctl as demo and bench use it: with pins and state of their own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{os::unix::process::CommandExt as _, thread};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use sg_userspace::session;

use super::figures::Figures;
use super::topology::{ROUTER, inside};

/// Directories of one user of an enforcer within xtask; nobody else has them.
#[derive(Debug)]
pub(crate) struct Places {
    /// Who, for messages.
    pub(crate) user: &'static str,
    /// What removes them if they are left behind.
    pub(crate) remedy: &'static str,
    /// Pins of its enforcer.
    pub(crate) pins: &'static str,
    /// State of its enforcer.
    pub(crate) state: &'static str,
    /// Whatever files it makes.
    pub(crate) files: &'static str,
}

/// Those of the demo: a definition that the agent follows, and the agent's log.
pub(crate) const DEMO: Places = Places {
    user: "a demo",
    remedy: "cargo xtask run --down",
    pins: "/sys/fs/bpf/sgdemo-pins",
    state: "/run/sgdemo-state",
    files: "/run/sgdemo-files",
};

/// How long the agent may take to enforce a definition or a change of it, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the agent may take to say what it has done.
const WORD: Duration = Duration::from_secs(2);

/// A program `sgctl`.
#[derive(Clone)]
pub(crate) struct Enforcer {
    /// Where it is.
    pub(crate) program: PathBuf,
    /// Where its pins and state are.
    pub(crate) places: &'static Places,
}

/// `sgctl run` at work.
pub(crate) struct Agent {
    child: Child,
    log: PathBuf,
    /// Bytes of the log that have been told.
    told: usize,
}

impl Enforcer {
    /// The same for the library.
    pub(crate) fn context(&self) -> session::Context {
        session::Context {
            bpffs: self.places.pins.into(),
            state_dir: self.places.state.into(),
            netns: None,
        }
    }

    /// Starts the agent, which follows `file` and writes to `log`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn start(&self, file: &Path, log: &Path) -> Result<Agent> {
        let output = File::create(log).with_context(|| format!("create {}", log.display()))?;
        let errors = output.try_clone().context("share the agent's log")?;
        let mut command = self.command();
        command
            .arg("run")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            // Ctrl-C is for the demo alone, which ends the agent in its turn.
            .process_group(0);
        let child = inside(ROUTER, move || command.spawn())?.context("start `sgctl run`")?;
        Ok(Agent {
            child,
            log: log.to_owned(),
            told: 0,
        })
    }

    /// Waits until as many interfaces as this are enforced.
    ///
    /// # Errors
    /// If that does not come about.
    pub(crate) fn wait_enforced(&self, agent: &mut Agent, interfaces: usize) -> Result<()> {
        agent.wait_until("the agent does not enforce the definition", || {
            let Ok(status) = self.json(&["status", "--json"]) else {
                return false;
            };
            status["interfaces"].as_array().is_some_and(|all| {
                all.len() == interfaces && all.iter().all(|one| one["enforced"] == true)
            })
        })
    }

    /// Waits until a newer generation than `before` is in force, and returns it.
    ///
    /// # Errors
    /// If that does not come about.
    pub(crate) fn wait_newer(&self, agent: &mut Agent, before: u64) -> Result<u64> {
        let mut generation = before;
        agent.wait_until("the agent does not apply the change", || {
            if let Ok(figures) = self.figures() {
                generation = figures.generation;
            }
            generation > before
        })?;
        Ok(generation)
    }

    /// The counters of all interfaces.
    ///
    /// # Errors
    /// If sgctl does not tell them.
    pub(crate) fn figures(&self) -> Result<Figures> {
        Figures::read(&self.json(&["stats", "--json"])?)
    }

    /// What a command prints.
    ///
    /// # Errors
    /// If it fails.
    pub(crate) fn printed(&self, arguments: &[&str]) -> Result<String> {
        let output = self
            .command()
            .args(arguments)
            .output()
            .context("start sgctl")?;
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr);
            bail!("`sgctl {}`: {}", arguments.join(" "), reason.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Ends enforcement and removes pins and state.
    ///
    /// # Errors
    /// If sgctl cannot.
    pub(crate) fn detach(&self) -> Result<()> {
        self.printed(&["detach", "--all"]).map(drop)
    }

    /// How one would type it.
    pub(crate) fn shown(&self) -> String {
        format!(
            "{} --bpffs {} --state-dir {}",
            self.program.display(),
            self.places.pins,
            self.places.state
        )
    }

    /// What a command prints with `--json`.
    ///
    /// # Errors
    /// If that is no JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let output = self
            .command()
            .args(arguments)
            .output()
            .context("start sgctl")?;
        // `status` ends with 1 where something is not enforced, and prints all the same.
        serde_json::from_slice(&output.stdout).with_context(|| {
            let reason = String::from_utf8_lossy(&output.stderr);
            format!("`sgctl {}`: {}", arguments.join(" "), reason.trim())
        })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--bpffs", self.places.pins]);
        command.args(["--state-dir", self.places.state]);
        command.stdin(Stdio::null());
        command
    }
}

impl Agent {
    fn wait_until(&mut self, otherwise: &str, mut done: impl FnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !done() {
            if let Some(status) = self.child.try_wait().context("look after the agent")? {
                bail!("the agent ended ({status}):\n{}", self.log());
            }
            if Instant::now() > deadline {
                bail!("{otherwise}:\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// What it has written since this was last asked, up to its word that a generation is applied:
    /// that comes a little after the generation is in force, or never if its words have changed.
    pub(crate) fn news(&mut self, generation: u64) -> String {
        let last = format!("generation {generation}\n");
        let deadline = Instant::now() + WORD;
        let mut log = self.log();
        while !log.ends_with(&last) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
            log = self.log();
        }
        let news = log.get(self.told..).unwrap_or_default().to_owned();
        self.told = log.len();
        news
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}
