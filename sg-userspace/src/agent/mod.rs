//! The agent: a definition in force for as long as it runs, following files and devices.
//!
//! One loop waits for signals, for changes of files and for rtnetlink, lets changes that come
//! together settle for a moment, and has [`enforcement`] look at what is there now. Notifications
//! only say that it is time to look; what is done follows from what is found, so one that is lost
//! or comes twice does no harm.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use log::{debug, error, info, warn};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::{JoinError, JoinHandle},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use crate::{
    adopt::Adopt,
    confirm::{self, SettleError},
    definition::Format,
    metrics::{Server, ServerError},
    session::Context,
    state::{Lock, StateError},
    status::chain,
    trust::Trust,
};

mod devices;
mod enforcement;
mod kernel_log;
mod manager;
mod observation;
mod paths;
mod record;

use devices::Devices;
use enforcement::Enforcement;
use kernel_log::KernelLog;
use manager::Manager;
use paths::Paths;

pub use enforcement::EnforcementError;
pub use record::{Record, RecordError};

/// How long changes that come together are let to settle.
const SETTLE: Duration = Duration::from_millis(200);
/// How often links and namespaces are looked at of which no change is told: nobody tells when a
/// link is removed, or when a process goes and its namespace with it.
const LOOK: Duration = Duration::from_secs(5);
/// How often something that failed is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// What the agent is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Definition files and directories, absolute.
    pub files: Vec<PathBuf>,
    /// What they are written in, where that is not to be recognised.
    pub format: Option<Format>,
    /// Whose files these may be.
    pub trust: Trust,
    /// Track the flows that exist when an interface is first attached.
    pub adopt: Adopt,
    /// Detach at the end what was attached.
    pub detach_on_exit: bool,
    /// Where figures are served, if at all.
    pub metrics: Option<SocketAddr>,
    /// Figures may be served to others than this host.
    pub metrics_public: bool,
}

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// Figures cannot be served.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// It cannot be found out whether a generation waits to be confirmed.
    #[error(transparent)]
    Settle(#[from] SettleError),
    /// The definition cannot be put in force.
    #[error(transparent)]
    Enforcement(#[from] EnforcementError),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] io::Error),
    /// Files cannot be followed.
    #[error("cannot follow changes of files")]
    Paths(#[source] notify::Error),
    /// A thread of the agent's panicked.
    #[error("the agent failed; what was in force stays")]
    Panicked(#[source] JoinError),
    /// What was attached could not be detached.
    #[error("cannot detach")]
    Detach(#[from] crate::detach::DetachError),
}

/// Puts the definition in force and follows its files and devices until SIGINT or SIGTERM; SIGHUP
/// has it read again. Logs by the `log` facade. Needs a tokio runtime with I/O and time.
///
/// # Errors
/// See [`AgentError`]. What was in force stays in force.
pub async fn run(context: Context, options: Options) -> Result<(), AgentError> {
    let mut signals = Signals::listen()?;
    let server = match options.metrics {
        Some(address) => {
            let server = Server::listen(&context, address, options.metrics_public).await?;
            info!("serving metrics on http://{}/metrics", server.address());
            Some(tokio::spawn(server.run()))
        }
        None => None,
    };
    if !settled(&context, &mut signals).await? {
        return Ok(());
    }
    let mut agent = Agent::start(context, &options).await?;
    agent.follow(&mut signals).await?;
    if let Some(server) = server {
        server.abort();
    }
    agent.finish(options.detach_on_exit).await
}

/// How often an agent that starts looks whether a generation still waits to be confirmed.
const CONFIRMED: Duration = Duration::from_millis(200);
/// How often then whether somebody is still writing down that it was.
const PATIENCE: u32 = 25;

/// Waits while somebody tries a generation: whatever the agent would do, it would end the trial. `false` if the
/// agent is told to end.
async fn settled(context: &Context, signals: &mut Signals) -> Result<bool, AgentError> {
    let mut told = false;
    let mut patience = PATIENCE;
    loop {
        let confirmation = confirm::peek(context)?;
        let pending = confirmation.and_then(|found| found.pending());
        // Who confirms writes that down.
        let at_work = || {
            matches!(
                Lock::take(&context.state_dir),
                Err(StateError::Locked { .. })
            )
        };
        if pending.is_none() {
            patience -= 1;
            if !told || patience == 0 || !at_work() {
                return Ok(true);
            }
        }
        if let Some(pending) = pending
            && !told
        {
            warn!(
                "generation {} waits for `sgctl confirm`, or is taken back in {} s: nothing is applied until then",
                pending.generation, pending.seconds_left
            );
            told = true;
        }
        tokio::select! {
            _ = signals.interrupt.recv() => return Ok(false),
            _ = signals.terminate.recv() => return Ok(false),
            () = sleep_until(Instant::now() + CONFIRMED) => {}
        }
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> Result<Self, AgentError> {
        let listen = |kind| signal(kind).map_err(AgentError::Signals);
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }
}

struct Agent {
    context: Context,
    /// Absent only while another thread works with it.
    enforcement: Option<Enforcement>,
    files: Paths,
    namespaces: Paths,
    devices: Devices,
    kernel_log: KernelLog,
    manager: Manager,
    /// When devices were last looked at.
    looked: Option<Instant>,
}

/// What there is to do, and when.
#[derive(Debug, Default)]
struct Due {
    at: Option<Instant>,
    files: bool,
    /// Even if the files say what they said before.
    force: bool,
    retry: bool,
}

impl Due {
    fn settle(&mut self) {
        self.at.get_or_insert(Instant::now() + SETTLE);
    }

    /// At once, unless that was done just before: a device that appears may be taken into use at once, and
    /// many may appear together.
    fn soon(&mut self, before: Option<Instant>) {
        let settled = before.map_or_else(Instant::now, |before| before + SETTLE);
        self.at = Some(self.at.map_or(settled, |at| at.min(settled)));
    }

    fn now(&mut self) {
        self.at = Some(Instant::now());
    }
}

impl Agent {
    async fn start(context: Context, options: &Options) -> Result<Self, AgentError> {
        // Watched before they are read: a change in between is not missed.
        let files = Paths::watch(options.files.clone()).map_err(AgentError::Paths)?;
        let (place, what) = (context.clone(), options.clone());
        let enforcement = blocking(move || Enforcement::start(place, what)).await??;
        let namespaces = Paths::watch(enforcement.namespace_paths()).map_err(AgentError::Paths)?;
        Ok(Self {
            context,
            enforcement: Some(enforcement),
            files,
            namespaces,
            devices: Devices::default(),
            kernel_log: KernelLog::default(),
            manager: Manager::of_environment(),
            looked: None,
        })
    }

    async fn follow(&mut self, signals: &mut Signals) -> Result<(), AgentError> {
        let mut due = Due::default();
        let mut retried = Instant::now();
        let mut look = interval(self.manager.pace(LOOK));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.listen(&mut due).await?;
        let status = self.with(|enforcement| enforcement.summary()).await?;
        self.manager.ready(&status);
        loop {
            let at = due.at;
            tokio::select! {
                _ = signals.interrupt.recv() => return Ok(()),
                _ = signals.terminate.recv() => return Ok(()),
                _ = signals.hangup.recv() => {
                    info!("reading the definition again, as asked by SIGHUP");
                    (due.files, due.force, due.retry) = (true, true, true);
                    due.now();
                }
                () = self.files.changed() => {
                    debug!("a definition file may have changed");
                    due.files = true;
                    due.settle();
                }
                () = self.namespaces.changed() => due.settle(),
                () = self.devices.changed() => due.soon(self.looked),
                devices = self.devices.addressed() => {
                    // At once: a member that joins is waiting.
                    if !self.with(move |enforcement| enforcement.follow_members(&devices)).await? {
                        due.settle();
                    }
                }
                _ = look.tick() => {
                    let retry = retried.elapsed() >= RETRY;
                    if retry {
                        retried = Instant::now();
                    }
                    if self.with(move |enforcement| enforcement.is_due(retry)).await? {
                        due.retry |= retry;
                        due.settle();
                    }
                    // Only now: the enforcement has answered, and the loop has come round.
                    self.manager.alive();
                }
                () = sleep_until(at.unwrap_or_else(Instant::now)), if at.is_some() => {
                    self.work(std::mem::take(&mut due)).await?;
                    self.listen(&mut due).await?;
                }
            }
        }
    }

    /// Does what is due.
    async fn work(&mut self, due: Due) -> Result<(), AgentError> {
        if due.files {
            self.manager.reloading();
        }
        if due.files
            && let Err(error) = self.files.renew()
        {
            error!("cannot follow changes of files, SIGHUP still works: {error}");
        }
        let status = self
            .with(move |enforcement| {
                if due.files {
                    enforcement.reload(due.force);
                }
                enforcement.refresh(due.retry);
                enforcement.summary()
            })
            .await?;
        self.looked = Some(Instant::now());
        if due.files {
            self.manager.ready(&status);
        } else {
            self.manager.status(&status);
        }
        self.manager.alive();
        Ok(())
    }

    /// Listens to what is enforced now. What began to be listened to only now is looked at again.
    async fn listen(&mut self, due: &mut Due) -> Result<(), AgentError> {
        let (namespaces, paths) = self
            .with(|enforcement| (enforcement.namespaces(), enforcement.namespace_paths()))
            .await?;
        match self.namespaces.follow(paths) {
            Ok(true) => due.settle(),
            Ok(false) => {}
            Err(error) => warn!("cannot follow namespaces by name: {error}"),
        }
        match self.devices.follow(&namespaces) {
            Ok(true) => due.settle(),
            Ok(false) => {}
            Err(error) => warn!("cannot follow devices: {}", chain(&error)),
        }
        self.kernel_log.follow(&self.context.bpffs);
        Ok(())
    }

    async fn finish(mut self, detach_on_exit: bool) -> Result<(), AgentError> {
        self.manager.stopping();
        let enforcement = self
            .enforcement
            .take()
            .expect("no other thread works when the loop has ended");
        let enforced = enforcement.enforced();
        let detached = blocking(move || enforcement.finish(detach_on_exit)).await??;
        for name in &detached.interfaces {
            info!("{name}: detached");
        }
        let left = enforced
            .iter()
            .filter(|name| !detached.interfaces.contains(name));
        let left: Vec<&str> = left.map(String::as_str).collect();
        if !left.is_empty() {
            info!(
                "enforcement stays on {}; `sgctl detach` ends it",
                left.join(", ")
            );
        }
        Ok(())
    }

    async fn with<T: Send + 'static>(
        &mut self,
        task: impl FnOnce(&mut Enforcement) -> T + Send + 'static,
    ) -> Result<T, AgentError> {
        let mut enforcement = self
            .enforcement
            .take()
            .expect("it comes back before anybody asks for it again");
        let (enforcement, answer) = blocking(move || {
            let answer = task(&mut enforcement);
            (enforcement, answer)
        })
        .await?;
        self.enforcement = Some(enforcement);
        Ok(answer)
    }
}

async fn blocking<T: Send + 'static>(
    task: impl FnOnce() -> T + Send + 'static,
) -> Result<T, AgentError> {
    let running: JoinHandle<T> = tokio::task::spawn_blocking(task);
    running.await.map_err(AgentError::Panicked)
}
