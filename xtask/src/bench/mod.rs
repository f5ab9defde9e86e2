//! `cargo xtask bench`: what a packet, a flow, a rule and a change cost, beside floors and peers
//! measured in the same run, and the goals these figures are held against.

mod budget;
mod control_plane;
mod end_to_end;
mod leftover;
mod machine;
mod program_cost;
mod report;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::ebpf::{self, Flavour};
use crate::{Answer, build, process, workspace};

use machine::Machine;
use report::{Findings, Report};

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Measure every axis, not only what the goal table needs.
    #[arg(long)]
    full: bool,
    /// Measure this part only; may be given several times.
    #[arg(long, value_name = "PART")]
    only: Vec<Part>,
    /// Measure only cases whose name contains this, and what their goals compare them with.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Interleaved rounds of which the median is taken.
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Print the report as JSON, with the value of every round.
    #[arg(long)]
    json: bool,
    /// Keep the report as target/bench/NAME.json.
    #[arg(long, value_name = "NAME")]
    save: Option<String>,
    /// Show every figure beside that of a kept report, as a ratio.
    #[arg(long, value_name = "NAME")]
    compare: Option<String>,
    /// Measure nothing; take what the programs are now as their budget (sg-ebpf/budget.toml).
    #[arg(long)]
    bless_budget: bool,
    /// Take what an ordinary user has built, as root.
    #[arg(long, hide = true)]
    built: bool,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask bench                             the goal table; under ten minutes
  cargo xtask bench --only program --filter established
                                                one kind of packet beside its floors
  cargo xtask bench --save before               … and after a change
  cargo xtask bench --compare before            what the change did

Exit status: 0 measured (whether goals are met or not); 2 it could not be done.";

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// The kernel's own duration of a program, packet by packet.
    Program,
    /// Packets and connections through network namespaces.
    EndToEnd,
    /// Time and memory of the control plane.
    ControlPlane,
}

/// What every part is told.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Every axis.
    pub(crate) full: bool,
    /// Only cases whose name contains this, and what their goals need.
    pub(crate) filter: Option<String>,
    /// Interleaved rounds.
    pub(crate) rounds: usize,
    /// sgctl, optimised, with the object inside.
    pub(crate) sgctl: PathBuf,
}

impl Options {
    /// Whether a case of this name is wanted.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.filter
            .as_ref()
            .is_none_or(|filter| name.contains(filter))
    }
}

/// Carries out `cargo xtask bench`.
pub(crate) fn run(arguments: &Arguments) -> Result<Answer> {
    let saved = arguments.compare.as_deref().map(load).transpose()?;
    let wants = |part| {
        !arguments.bless_budget && (arguments.only.is_empty() || arguments.only.contains(&part))
    };
    let sgctl = build(
        arguments,
        wants(Part::EndToEnd) || wants(Part::ControlPlane),
    )?;
    if !process::is_root() {
        return Err(as_root());
    }
    leftover::remove();
    if arguments.bless_budget {
        budget::bless()?;
        return Ok(Answer::Yes);
    }
    let options = Options {
        full: arguments.full,
        filter: arguments.filter.clone(),
        rounds: arguments.rounds as usize,
        sgctl,
    };

    let mut findings = Findings::default();
    let mut add = |found: Findings| {
        findings.figures.extend(found.figures);
        findings.goals.extend(found.goals);
    };
    if wants(Part::Program) {
        add(program_cost::measure(&options)?);
        add(budget::measure()?);
    }
    if wants(Part::EndToEnd) {
        add(end_to_end::measure(&options)?);
    }
    if wants(Part::ControlPlane) {
        add(control_plane::measure(&options)?);
    }

    let report = Report {
        machine: Machine::this(),
        findings,
    };
    if let Some(name) = &arguments.save {
        save(name, &report)?;
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.table(saved.as_ref(), arguments.full));
    }
    Ok(Answer::Yes)
}

/// Builds what is measured, unless an ordinary user has; answers where sgctl is.
fn build(arguments: &Arguments, sgctl: bool) -> Result<PathBuf> {
    let own = std::env::current_exe().context("find this program")?;
    let target = own
        .ancestors()
        .nth(2)
        .context("find the target directory")?;
    if arguments.built {
        return Ok(target.join("release/sgctl"));
    }
    ebpf::build(Flavour::Bench)?;
    ebpf::build(Flavour::Measured)?;
    if arguments.bless_budget {
        ebpf::build(Flavour::Debug)?;
    }
    if sgctl {
        return build::sgctl(true);
    }
    Ok(target.join("release/sgctl"))
}

/// Becomes the same program as root; returns only if that fails.
fn as_root() -> anyhow::Error {
    use std::os::unix::process::CommandExt as _;
    let become_root = || -> Result<std::convert::Infallible> {
        eprintln!("measuring needs root for BPF and namespaces: it is done by sudo");
        let own = std::env::current_exe().context("find this program")?;
        let mut command = process::privileged(&own.to_string_lossy())?;
        command.args(std::env::args_os().skip(1)).arg("--built");
        let shown = process::shown(&command);
        Err(command.exec()).with_context(|| format!("start `{shown}`"))
    };
    match become_root() {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn place(name: &str) -> Result<PathBuf> {
    if name.is_empty()
        || !name
            .chars()
            .all(|c| c.is_alphanumeric() || "-_.".contains(c))
    {
        bail!("`{name}` is no name for a report: letters, digits, - _ .");
    }
    Ok(workspace::bench_directory().join(format!("{name}.json")))
}

fn load(name: &str) -> Result<Report> {
    let path = place(name)?;
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))
}

fn save(name: &str, report: &Report) -> Result<()> {
    let path = place(name)?;
    let write = || -> Result<()> {
        fs::create_dir_all(path.parent().context("has a directory")?)?;
        Ok(fs::write(&path, serde_json::to_string_pretty(report)?)?)
    };
    write().with_context(|| format!("write {}", path.display()))
}
