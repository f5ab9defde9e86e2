//! `sgctl run`: the agent.

use std::{net::SocketAddr, path::Path, process::ExitCode};

use anyhow::Context as _;
use clap::ValueEnum;
use log::LevelFilter;
use sg_userspace::{
    agent::{self, AgentError, EnforcementError, Options},
    definition::render,
    session::Context,
};

use super::{absolute, adopting::Adopting, definition, logger, text::remark};

/// Enforce a definition and follow changes until stopped.
///
/// Applies the definition as `sgctl apply` does, then follows its files, and the devices and
/// addresses of its interfaces: what is saved comes into force, what has mistakes is reported and
/// leaves everything as it is. Ctrl-C and SIGTERM end the agent and leave enforcement in place;
/// SIGHUP has the files read again.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sgctl run sg.toml                      enforce and follow one file
  sgctl run /etc/sgctl/ --metrics        every file of a directory; figures on port 9464
  sgctl run sg.toml --detach-on-exit     enforce only while it runs
  curl http://127.0.0.1:9464/metrics     what monitoring reads

While it runs, other commands that change things are refused; those that show something work.")]
pub(crate) struct Run {
    #[command(flatten)]
    files: definition::Files,
    /// Stop enforcing, when the agent ends, on the interfaces that it attached
    #[arg(long)]
    detach_on_exit: bool,
    /// Serve figures as OpenMetrics at http://ADDR/metrics [without ADDR: 127.0.0.1:9464]
    #[arg(
        long,
        value_name = "ADDR",
        num_args = 0..=1,
        default_missing_value = "127.0.0.1:9464",
        value_parser = address
    )]
    metrics: Option<SocketAddr>,
    /// Allow serving figures on an address that others can reach
    #[arg(long)]
    metrics_public: bool,
    #[command(flatten)]
    adopt: Adopting,
    #[command(flatten)]
    trust: definition::TrustFiles,
    /// How much to say on standard error
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t = Log::Info)]
    log: Log,
}

#[derive(Clone, Copy, ValueEnum)]
enum Log {
    Error,
    Warn,
    Info,
    Debug,
}

impl Run {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<ExitCode> {
        logger::start(match self.log {
            Log::Error => LevelFilter::Error,
            Log::Warn => LevelFilter::Warn,
            Log::Info => LevelFilter::Info,
            Log::Debug => LevelFilter::Debug,
        });
        let options = Options {
            files: self.files.paths.iter().map(|file| absolute(file)).collect(),
            format: self.files.format,
            trust: self.trust.trust(),
            adopt: self.adopt.adopt(),
            detach_on_exit: self.detach_on_exit,
            metrics: self.metrics,
            metrics_public: self.metrics_public,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the agent's loop")?;
        let ended = runtime.block_on(agent::run(context.clone(), options));
        if let Err(AgentError::Enforcement(EnforcementError::Definition { diagnostics })) = &ended {
            remark(&render(diagnostics));
        }
        ended?;
        Ok(ExitCode::SUCCESS)
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let file = Path::new(text).exists();
        let hint = if file {
            "; write FILE before --metrics"
        } else {
            ""
        };
        format!("an address is an IP address and a port, as 127.0.0.1:9464 or [::1]:9464{hint}")
    })
}
