//! Rounds of TCP: connections (a byte each way), and one stream that carries as much as it can. Rates are per
//! second of the busier CPU's time: what they would be if nothing else ran.

use anyhow::{Context as _, Result, bail};

use super::bulk;
use super::connections::{self, Origins};
use super::enforced;
use super::firewall::Firewall;
use super::goals;
use super::netfilter;
use super::packets::Subject;
use super::rounds::{self, Paired};
use super::task::Work;
use crate::bench::Options;
use crate::bench::report::{Figure, Findings};
use crate::demo::enforcer::Enforcer;

/// What connections are called in reports.
pub(super) const CONNECTIONS: &str = "end to end, TCP connect/close";
/// What the stream is called in reports.
pub(super) const STREAM: &str = "end to end, one TCP stream through a veth";

/// Measures both; the first of either's subjects is what the others are compared with.
///
/// # Errors
/// If a connection fails, or is not judged as it should be.
pub(super) fn measure(
    options: &Options,
    enforcer: &Enforcer,
    connections: &[Subject],
    streams: &[Subject],
    findings: &mut Findings,
) -> Result<()> {
    let Some(first) = connections.iter().chain(streams).next() else {
        return Ok(());
    };
    let origins = Origins::within(first.rules);
    if !connections.is_empty() {
        eprintln!("{CONNECTIONS}");
        let taken = taken(connections, options.rounds, |subject| {
            connect(enforcer, subject, &origins).with_context(|| subject.firewall.name())
        })?;
        let figures = show(CONNECTIONS, ("/s", 1.0), connections, &taken);
        findings.figures.extend(figures);
        findings
            .goals
            .extend(goals::of_connections(connections, &taken));
    }
    if !streams.is_empty() {
        eprintln!("{STREAM}");
        let taken = taken(streams, options.rounds, |subject| {
            carry(enforcer, subject, &origins).with_context(|| subject.firewall.name())
        })?;
        let figures = show(STREAM, ("Gb/s", 1e9), streams, &taken);
        findings.figures.extend(figures);
        findings.goals.extend(goals::of_streams(streams, &taken));
    }
    Ok(())
}

/// Rounds of work per second.
pub(super) type Rounds = Vec<Paired<f64>>;

fn taken(
    subjects: &[Subject],
    number: usize,
    mut sample: impl FnMut(&Subject) -> Result<Work>,
) -> Result<Vec<Rounds>> {
    let mut subjects: Vec<&Subject> = subjects.iter().collect();
    for subject in &subjects {
        // Whatever is done but once.
        sample(subject)?;
    }
    rounds::interleaved(
        &mut subjects,
        number,
        |subject| Ok(sample(subject)?.per_second()),
        |value| *value,
        // The busier CPU's time leaves out what others took of it.
        |_| 0.0,
    )
}

fn show(title: &str, unit: (&str, f64), subjects: &[Subject], taken: &[Rounds]) -> Vec<Figure> {
    let over = format!("{title}: over {}", subjects[0].firewall.name());
    let figure = |(subject, taken): (&Subject, &Rounds),
                  title: &str,
                  unit,
                  value: &dyn Fn(&Paired<f64>) -> f64| {
        let rounds = taken.iter().map(value).collect();
        Figure::new(title, &subject.firewall.name(), unit, rounds)
    };
    let rows = || subjects.iter().zip(taken);
    let values = rows().map(|row| figure(row, title, unit.0, &|one| one.sample / unit.1));
    let ratios = rows()
        .skip(1)
        .map(|row| figure(row, &over, "×", &|one| one.ratio));
    values.chain(ratios).collect()
}

/// Connections; the tables are empty before, so that no sample inherits what is over.
fn connect(enforcer: &Enforcer, subject: &Subject, origins: &Origins) -> Result<Work> {
    let device = &subject.bed.device;
    match subject.firewall {
        Firewall::Enforcer(_) => {
            enforced::flush(enforcer, device)?;
            let before = enforced::counts(enforcer, device)?;
            let work = connections::sample(&subject.bed, origins)?;
            let counts = enforced::counts(enforcer, device)?.since(&before);
            let opened = work.amount;
            if counts.new != opened || counts.no_rule != 0 {
                bail!("{opened} connections were opened, but sgctl's counters say {counts:?}");
            }
            Ok(work)
        }
        Firewall::Nftables(_) | Firewall::Ipset => {
            subject.bed.inside(netfilter::flush)??;
            let work = connections::sample(&subject.bed, origins)?;
            let tracked = subject.bed.inside(netfilter::tracked)??;
            let opened = work.amount;
            if tracked != opened {
                bail!("{opened} connections were opened, but {tracked} are tracked");
            }
            Ok(work)
        }
        Firewall::Nothing | Firewall::Pass | Firewall::Discard | Firewall::Floor(_) => {
            connections::sample(&subject.bed, origins)
        }
    }
}

/// Bits of a stream.
fn carry(enforcer: &Enforcer, subject: &Subject, origins: &Origins) -> Result<Work> {
    let Firewall::Enforcer(_) = subject.firewall else {
        return bulk::sample(&subject.bed, origins);
    };
    let device = &subject.bed.device;
    let before = enforced::counts(enforcer, device)?;
    let work = bulk::sample(&subject.bed, origins)?;
    let counts = enforced::counts(enforcer, device)?.since(&before);
    // The rest of the connection is what the first packet opened.
    if counts.new != 1 || counts.established + 1 != counts.ingress {
        bail!("one connection was made, but sgctl's counters say {counts:?}");
    }
    Ok(work)
}
