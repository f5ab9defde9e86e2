//! `cargo xtask run`: the demo; or, after `--`, the agent on an interface of this machine.

use std::env;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser as _;

use crate::demo::{self, Options};
use crate::{Answer, build, live, process, setup};

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Build sgctl optimised, and the object without log output.
    #[arg(long)]
    release: bool,
    /// Take a rule out of the maps behind the enforcer's back, by its id or description: the run
    /// must fail then.
    #[arg(long = "break", value_name = "RULE")]
    broken: Option<String>,
    /// Leave everything up afterwards, and say how to look around.
    #[arg(long)]
    keep: bool,
    /// Remove what `--keep` left.
    #[arg(long, conflicts_with_all = ["broken", "keep"])]
    down: bool,
    /// Take this sgctl rather than build one.
    #[arg(long, value_name = "PATH", hide = true)]
    sgctl: Option<PathBuf>,
    /// Run the agent on an interface of this machine instead: `-- --help` tells more.
    #[arg(last = true, value_name = "AGENT OPTIONS", conflicts_with_all = ["broken", "keep", "down"])]
    agent: Vec<String>,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask run                       security groups on traffic between namespaces of its own
  cargo xtask run --break \"the web\"     the same with a rule missing in the kernel: it must fail
  cargo xtask run --keep                leave it up; --down removes it
  cargo xtask run -- --interface eth0 --file my.toml
                                        the agent on an interface of this machine

Exit status: 0 everything went as the definition says; 1 something did not; 2 it could not be done.";

/// Carries out `cargo xtask run`.
pub(crate) fn run(arguments: &Arguments) -> Result<Answer> {
    let live = match arguments.agent.as_slice() {
        [] => None,
        agent => {
            // Mistakes, and questions for help, are answered before anything is built.
            let words = ["cargo xtask run --".to_owned()].into_iter();
            Some(live::Arguments::parse_from(
                words.chain(agent.iter().cloned()),
            ))
        }
    };
    let sgctl = match &arguments.sgctl {
        Some(sgctl) => sgctl.clone(),
        None => {
            setup::tools(setup::DEMO)?;
            build::sgctl(arguments.release)?
        }
    };
    if let Some(live) = live {
        return live::run(&live, &sgctl);
    }
    if !process::is_root() {
        return Err(as_root(arguments, sgctl));
    }
    if arguments.down {
        return demo::down(sgctl);
    }
    demo::run(&Options {
        sgctl,
        broken: arguments.broken.clone(),
        keep: arguments.keep,
    })
}

/// Becomes the same program as root; returns only if that fails.
fn as_root(arguments: &Arguments, sgctl: PathBuf) -> anyhow::Error {
    let become_root = || -> Result<std::convert::Infallible> {
        println!("the demo needs root for namespaces and BPF: it is run by sudo");
        let own = env::current_exe().context("find this program")?;
        let mut command = process::privileged(&own.to_string_lossy())?;
        command.arg("run").arg("--sgctl").arg(sgctl);
        if let Some(rule) = &arguments.broken {
            command.arg(format!("--break={rule}"));
        }
        for (given, option) in [(arguments.keep, "--keep"), (arguments.down, "--down")] {
            if given {
                command.arg(option);
            }
        }
        let shown = process::shown(&command);
        Err(command.exec()).with_context(|| format!("start `{shown}`"))
    };
    match become_root() {
        Ok(never) => match never {},
        Err(error) => error,
    }
}
