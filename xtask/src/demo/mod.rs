//! The demo: security groups on real traffic between network namespaces of its own.
//!
//! It makes its [`topology`] and [`service`]s, has the agent enforce the example, carries out the
//! [`script`] and compares what happens with what the model computes, then changes a rule while
//! connections are open. Everything it makes is removed by [`teardown`].

mod attempt;
pub(crate) mod enforcer;
mod figures;
mod outcome;
mod report;
mod revision;
mod sabotage;
mod script;
pub(crate) mod service;
mod table;
pub(crate) mod teardown;
mod topology;
pub(crate) mod turn;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sg_userspace::definition::{self, render};
use sg_userspace::model::Model;
use sg_userspace::resolve::{Resolved, resolve};

use crate::{Answer, workspace};
use attempt::{Attempt, Reaction};
use enforcer::{Agent, DEMO, Enforcer};
use outcome::{Expected, Observed};
use revision::Revision;
use service::Service;
use table::{Half, Table};
use teardown::Teardown;
use topology::Topology;
use turn::Turn;

/// How long an answer may take that is expected to come.
const ANSWER: Duration = Duration::from_secs(3);

/// How long silence is listened to where it is expected: less than the second after which TCP
/// repeats a SYN (RFC 6298 §2). That the packet was dropped is then told by the counters.
const SILENCE: Duration = Duration::from_millis(600);

/// What to do beyond the ordinary.
pub(crate) struct Options {
    /// The program `sgctl`, with an eBPF object inside.
    pub(crate) sgctl: PathBuf,
    /// Id or description of rules to take out of the maps.
    pub(crate) broken: Option<String>,
    /// Leave everything up.
    pub(crate) keep: bool,
}

/// Runs the demo; needs root.
///
/// # Errors
/// If it cannot be carried out. What it made is removed all the same.
pub(crate) fn run(options: &Options) -> Result<Answer> {
    let start = Instant::now();
    let _turn = Turn::take(&DEMO)?;
    let model = self::definition(&example())?;
    let topology = Topology::of(&model)?;
    let enforcer = Enforcer {
        program: options.sgctl.clone(),
        places: &DEMO,
    };
    let mut demo = Demo {
        teardown: Teardown::new(topology.namespaces(), enforcer.clone())?,
        enforcer,
        topology,
        totals: (0, 0),
    };
    match demo.play(&model, options) {
        Ok(_services) if options.keep => {
            report::surroundings(&demo.enforcer, &demo.topology);
            demo.teardown.keep();
        }
        Ok(_services) => {
            demo.teardown.remove()?;
            println!("\neverything is removed again");
        }
        Err(error) => return Err(error),
    }
    let (attempts, differences) = demo.totals;
    let seconds = start.elapsed().as_secs_f64();
    if differences == 0 {
        println!("{attempts} attempts, all as the definition says ({seconds:.0} s)");
        return Ok(Answer::Yes);
    }
    println!("{differences} of {attempts} attempts went otherwise than the definition says");
    Ok(Answer::No)
}

/// Removes what a demo left that was kept or killed; needs root.
///
/// # Errors
/// If something remains.
pub(crate) fn down(sgctl: PathBuf) -> Result<Answer> {
    let _turn = Turn::take(&DEMO)?;
    let topology = Topology::of(&self::definition(&example())?)?;
    let found = Teardown::of_earlier(
        topology.namespaces(),
        Enforcer {
            program: sgctl,
            places: &DEMO,
        },
    )?;
    println!(
        "{}",
        if found {
            "the demo is removed"
        } else {
            "there is no demo"
        }
    );
    Ok(Answer::Yes)
}

struct Demo {
    teardown: Teardown,
    enforcer: Enforcer,
    topology: Topology,
    /// Attempts and differences.
    totals: (usize, usize),
}

impl Demo {
    /// Returns the services, which end when they are dropped.
    fn play(&mut self, model: &Model, options: &Options) -> Result<Vec<Service>> {
        let resolved = resolve(model, &BTreeMap::new());
        let broken = match &options.broken {
            Some(name) => sabotage::find(&resolved, name)?,
            None => Vec::new(),
        };
        self.topology.build(&self.teardown)?;
        report::network(&resolved, &self.topology);
        let services = self.start_services(options.keep)?;
        let revision = self
            .teardown
            .making(|| Revision::new(&example(), DEMO.files))?;
        let mut agent = self.start_agent(&revision, model)?;
        if !broken.is_empty() {
            let ranges = sabotage::remove(&self.enforcer.context(), &broken)?;
            println!(
                "\n--break: {} of {} rules were emptied in the maps, behind the agent's back",
                plural(ranges, "port range"),
                broken.len()
            );
        }
        println!();
        let table = self.compare(&resolved, &script::ATTEMPTS, &[])?;
        self.count(&table);
        let open = [self.open_web(false)?, self.open_web(true)?];
        self.change_a_rule(model, &resolved, &revision, &mut agent, &open)?;
        report::figures(&self.enforcer, script::WEB.to)?;
        Ok(services)
    }

    fn start_services(&self, stay: bool) -> Result<Vec<Service>> {
        let services = script::SERVICES.iter();
        services
            .map(|(node, services)| {
                let node = self.topology.node(node)?;
                self.teardown
                    .making(|| Service::start(node, services, stay))
            })
            .collect()
    }

    fn start_agent(&self, revision: &Revision, model: &Model) -> Result<Agent> {
        let log = Path::new(DEMO.files).join("agent.log");
        let mut agent = self
            .teardown
            .making(|| self.enforcer.start(&revision.file, &log))?;
        self.enforcer
            .wait_enforced(&mut agent, model.interfaces.len())?;
        println!("sgctl run {}", revision.file.display());
        report::indented(&agent.news(self.enforcer.figures()?.generation));
        Ok(agent)
    }

    /// Makes attempts over both families and prints them beside what the model computes, in a table
    /// with room for `more`.
    fn compare(&self, resolved: &Resolved, attempts: &[Attempt], more: &[String]) -> Result<Table> {
        let mut expected = Vec::new();
        for attempt in attempts {
            let of = |ipv6| Expected::of(resolved, &self.topology, attempt, ipv6);
            expected.push([of(false)?, of(true)?]);
        }
        let texts: Vec<String> = expected.iter().flatten().map(Expected::to_string).collect();
        let tried: Vec<String> = attempts.iter().map(Attempt::to_string).collect();
        let mut table = Table::new(tried.iter().chain(more), &texts);
        println!("{}", table.heading());
        for ((attempt, expected), tried) in attempts.iter().zip(&expected).zip(&tried) {
            let [ipv4, ipv6] = expected;
            let ipv4 = Half::new(ipv4, &self.observe(attempt, false, ipv4)?);
            let ipv6 = Half::new(ipv6, &self.observe(attempt, true, ipv6)?);
            println!("{}", table.row(tried, [&ipv4, &ipv6]));
        }
        Ok(table)
    }

    fn observe(&self, attempt: &Attempt, ipv6: bool, expected: &Expected) -> Result<Observed> {
        let patience = if expected.is_silence() {
            SILENCE
        } else {
            ANSWER
        };
        let before = self.enforcer.figures()?;
        let reaction = attempt.carry_out(&self.topology, ipv6, patience)?;
        let after = self.enforcer.figures()?;
        Ok(Observed::new(attempt, reaction, after.since(&before)))
    }

    /// Removes the rule of the web while connections that it allowed are `open`.
    fn change_a_rule(
        &mut self,
        model: &Model,
        resolved: &Resolved,
        revision: &Revision,
        agent: &mut Agent,
        open: &[Option<TcpStream>; 2],
    ) -> Result<()> {
        let web = self.rule_of_the_web(resolved)?;
        let before = self.enforcer.figures()?.generation;
        let (line, model) = revision.remove_rule(model, web)?;
        let generation = self.enforcer.wait_newer(agent, before)?;
        println!("\nremoved from the file while connections that it allowed are open:");
        report::indented(&format!("- {line}"));
        report::indented(&agent.news(generation));
        println!();
        let tried = [format!("{}, open before", script::WEB)];
        let resolved = resolve(&model, &BTreeMap::new());
        let mut table = self.compare(&resolved, &script::AFTERWARDS, &tried)?;
        let [ipv4, ipv6] = open.each_ref().map(|open| still(open.as_ref()));
        println!("{}", table.row(&tried[0], [&ipv4, &ipv6]));
        self.count(&table);
        Ok(())
    }

    /// A connection to the web, if it comes about; that it should, the table has said.
    fn open_web(&self, ipv6: bool) -> Result<Option<TcpStream>> {
        let attempt::What::Tcp(port) = script::WEB.what else {
            bail!("the web is a TCP port");
        };
        let to = self.topology.node(script::WEB.to)?.address(ipv6);
        let from = &self.topology.node(script::WEB.from)?.namespace;
        Ok(attempt::open(from, SocketAddr::new(to, port), SILENCE)?.ok())
    }

    fn rule_of_the_web(&self, resolved: &Resolved) -> Result<sg_userspace::model::RuleId> {
        let [_, (interface, direction, remote)] = outcome::sides(&script::WEB);
        let remote = self.topology.node(remote)?.address(false);
        let (protocol, port) = script::WEB.what.selector(false);
        resolved
            .evaluate(interface, direction, protocol, remote, port)
            .context("the definition has no rule of the web to remove")
    }

    fn count(&mut self, table: &Table) {
        let (attempts, differences) = table.totals();
        self.totals.0 += attempts;
        self.totals.1 += differences;
    }
}

/// The definition that the demo is about.
pub(crate) fn example() -> PathBuf {
    workspace::root().join("sg-userspace/examples/three-tier.toml")
}

/// Reads a definition.
///
/// # Errors
/// If it has a mistake.
pub(crate) fn definition(file: &Path) -> Result<Model> {
    let checked = definition::load(&[file.to_owned()])?;
    match checked.model {
        Some(model) => Ok(model),
        None => bail!("{}", render(&checked.diagnostics)),
    }
}

/// Whether a connection that was opened before its rule went is served still, as tracked ones are.
fn still(open: Option<&TcpStream>) -> Half {
    let reaction = open.map_or(
        Reaction::Failed("it could not be opened".to_owned()),
        attempt::exchange,
    );
    Half {
        expected: "pass (tracked)".to_owned(),
        agrees: reaction == Reaction::Answered,
        observed: Observed::new(&script::WEB, reaction, Vec::new()).to_string(),
    }
}

fn plural(number: usize, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{ending}")
}
