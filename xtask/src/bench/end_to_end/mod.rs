//! End to end: packets and connections through network namespaces, behind nothing, behind the enforcer and
//! behind its peers.
//!
//! A [`bed`] per firewall, packets by a [`generator`] in the kernel, connections by real sockets. The sender
//! has one CPU, the receiver another.

mod bed;
mod bulk;
mod connections;
mod enforced;
mod firewall;
mod generator;
mod goals;
mod namespace;
mod netfilter;
mod packets;
mod rounds;
mod streams;
mod task;
#[path = "../../../../sg-ebpf/src/bench/traffic.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the program that shares it calls what only tests call here, and has another idea of what is public"
)]
mod traffic;

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::Options;
use super::report::{Figure, Findings};
use crate::demo::enforcer::{Enforcer, Places};
use crate::demo::teardown::Teardown;
use crate::demo::turn::Turn;
use crate::ebpf::Flavour;
use crate::setup;
use bed::{Bed, Course};
use firewall::{Firewall, Floor, Form, Protocol, Rules};
use generator::Generator;
use packets::{Range, Sample, Subject, Traffic};
use rounds::Paired;

/// The bench's own directories.
const BENCH: Places = Places {
    user: "a bench",
    remedy: "cargo xtask clean",
    pins: "/sys/fs/bpf/sgbench-e2e-pins",
    state: "/run/sgbench-e2e-state",
    files: "/run/sgbench-e2e-files",
};

/// Rules of the goal table.
const RULES: u32 = 1000;
/// Numbers of rules under `--full`, in the order in which they are measured.
const ALL_RULES: [u32; 3] = [10, RULES, 10_000];
/// Flows of the goal table.
const FLOWS: [u32; 2] = [1 << 10, 1 << 16];

/// Kinds of packets.
const KINDS: [Traffic; 4] = [
    Traffic::Established(FLOWS[0]),
    Traffic::Established(FLOWS[1]),
    Traffic::New,
    Traffic::Denied,
];

/// What was measured with so many rules.
struct Cell {
    rules: u32,
    traffic: Traffic,
    /// In the order of the subjects, the reference first.
    rows: Vec<(Firewall, Vec<Paired<Sample>>)>,
}

/// Measures all cases that are wanted.
///
/// # Errors
/// If namespaces, firewalls or packets cannot be made, or packets do not take the way that a case is about.
pub(crate) fn measure(options: &Options) -> Result<Findings> {
    setup::tools(&[setup::DEMO, setup::BENCH].concat())?;
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        bail!("end to end takes two CPUs: one that sends, one that receives");
    }
    let limit = netfilter::limit()?;
    if limit < 2 * u64::from(FLOWS[1]) {
        bail!(
            "net.netfilter.nf_conntrack_max is {limit}: too few for the peers to track as many flows"
        );
    }
    let _turn = Turn::take(&BENCH)?;
    let enforcer = Enforcer {
        program: options.sgctl.clone(),
        places: &BENCH,
    };
    let namespaces = namespace::all(u8::MAX);
    Teardown::of_earlier(namespaces.clone(), enforcer.clone())?;
    let teardown = Teardown::new(namespaces, enforcer.clone())?;
    let mut bench = Bench {
        options,
        enforcer,
        teardown: &teardown,
        generator: Generator::load(&Flavour::Bench.place(), FLOWS[1])?,
        beds: 0,
    };
    let findings = bench.measure();
    drop(bench);
    teardown.remove()?;
    findings
}

struct Bench<'a> {
    options: &'a Options,
    enforcer: Enforcer,
    teardown: &'a Teardown,
    generator: Generator,
    beds: u8,
}

impl Bench<'_> {
    fn measure(&mut self) -> Result<Findings> {
        let files = Path::new(BENCH.files);
        self.teardown.making(|| {
            fs::create_dir_all(files).with_context(|| format!("create {}", files.display()))?;
            namespace::senders()
        })?;
        let (connections, streams) = self.tcp_subjects()?;
        let numbers: &[u32] = if self.options.full {
            &ALL_RULES
        } else {
            &[RULES]
        };
        let mut subjects = Vec::new();
        for &rules in numbers {
            let mut titles = KINDS.iter().map(|kind| title(rules, *kind));
            if titles.any(|title| self.options.wants(&title)) {
                subjects.push(self.udp_subjects(rules)?);
            }
        }
        // All of the enforcer's beds are in one definition.
        let everything = subjects.iter().flatten();
        self.enforce(everything.chain(&connections).chain(&streams))?;

        let mut cells = Vec::new();
        for subjects in &mut subjects {
            self.packets(subjects, &mut cells)?;
        }
        let mut findings = Findings::default();
        for cell in &cells {
            findings.figures.extend(cell.figures());
        }
        findings.goals = goals::of_packets(&cells, RULES, FLOWS);
        streams::measure(
            self.options,
            &self.enforcer,
            &connections,
            &streams,
            &mut findings,
        )?;
        Ok(findings)
    }

    fn bed(&mut self, course: Course) -> Result<Bed> {
        self.beds += 1;
        self.teardown.making(|| Bed::new(self.beds, course))
    }

    /// Subjects of generated packets; the reference first.
    fn udp_subjects(&mut self, count: u32) -> Result<Vec<Subject>> {
        let mut firewalls = vec![Firewall::Pass, Firewall::Nothing, Firewall::Discard];
        firewalls.extend(Floor::ALL.map(Firewall::Floor));
        firewalls.push(Firewall::Enforcer("xdp"));
        if self.options.full {
            firewalls.push(Firewall::Enforcer("tc"));
        }
        let forms = Form::ALL.into_iter();
        let forms = forms.filter(|form| self.options.full || *form != Form::Linear);
        firewalls.extend(forms.map(Firewall::Nftables));
        firewalls.push(Firewall::Ipset);
        let rules = Rules {
            protocol: Protocol::Udp,
            count,
        };
        firewalls
            .into_iter()
            .map(|firewall| self.subject(firewall, rules, Course::Forwarded, false))
            .collect()
    }

    /// Subjects of connections, and of bulk streams; the reference first in both.
    fn tcp_subjects(&mut self) -> Result<(Vec<Subject>, Vec<Subject>)> {
        let rules = Rules {
            protocol: Protocol::Tcp,
            count: RULES,
        };
        let peers = [Form::Sets, Form::Concatenation].map(Firewall::Nftables);
        let connections = [
            Firewall::Pass,
            Firewall::Floor(Floor::Entry),
            Firewall::Enforcer("xdp"),
        ];
        // Each has the same program at XDP, so that all receive alike.
        let connections = self.subjects(
            streams::CONNECTIONS,
            connections.into_iter().chain(peers),
            |bench, firewall| bench.subject(firewall, rules, Course::Connections, true),
        )?;
        let streams = self.subjects(
            streams::STREAM,
            [Firewall::Nothing, Firewall::Enforcer("auto")].into_iter(),
            |bench, firewall| bench.subject(firewall, rules, Course::Plain, false),
        )?;
        Ok((connections, streams))
    }

    /// Subjects of what is called `title`, if that is wanted.
    fn subjects(
        &mut self,
        title: &str,
        firewalls: impl Iterator<Item = Firewall>,
        mut make: impl FnMut(&mut Self, Firewall) -> Result<Subject>,
    ) -> Result<Vec<Subject>> {
        if !self.options.wants(title) {
            return Ok(Vec::new());
        }
        firewalls.map(|firewall| make(self, firewall)).collect()
    }

    fn subject(
        &mut self,
        firewall: Firewall,
        rules: Rules,
        course: Course,
        pass: bool,
    ) -> Result<Subject> {
        let bed = self.bed(course)?;
        if course == Course::Forwarded {
            self.generator.end(&bed)?;
        }
        match firewall {
            Firewall::Pass => self.generator.attach(generator::PASS, &bed)?,
            Firewall::Discard => self.generator.attach(generator::DISCARD, &bed)?,
            Firewall::Floor(floor) => {
                self.generator.allow(rules)?;
                self.generator.attach(floor.program(), &bed)?;
            }
            Firewall::Nftables(_) | Firewall::Ipset => {
                if pass {
                    self.generator.attach(generator::PASS, &bed)?;
                }
                rules.enforce_by_peer(&bed, firewall)?;
            }
            Firewall::Nothing | Firewall::Enforcer(_) => {}
        }
        Ok(Subject {
            bed,
            firewall,
            rules,
            count: 0,
            opened: Instant::now(),
        })
    }

    /// Puts the definition of all beds of the enforcer in force.
    fn enforce<'s>(&self, subjects: impl Iterator<Item = &'s Subject>) -> Result<()> {
        let mut definition = String::new();
        let mut asked = Vec::new();
        for subject in subjects {
            if let Firewall::Enforcer(hook) = subject.firewall {
                definition += &subject.rules.definition(&subject.bed, hook);
                asked.push((&subject.bed.device, hook));
            }
        }
        if asked.is_empty() {
            return Ok(());
        }
        enforced::apply(&self.enforcer, &definition)?;
        for (device, hook) in asked {
            let got = enforced::hook(&self.enforcer, device)?;
            // On a veth the hook is chosen for throughput.
            let expected = if hook == "auto" { "tc" } else { hook };
            if got != expected {
                bail!("{device} is judged by {got}, not {expected}");
            }
        }
        Ok(())
    }

    fn packets(&mut self, subjects: &mut Vec<Subject>, cells: &mut Vec<Cell>) -> Result<()> {
        let established = FLOWS.map(Traffic::Established);
        let kinds = established
            .into_iter()
            .chain([Traffic::New, Traffic::Denied]);
        for traffic in kinds {
            let rules = subjects[0].rules.count;
            if !self.options.wants(&title(rules, traffic)) {
                continue;
            }
            eprintln!("{}", title(rules, traffic));
            // What drops everything is a floor of what is denied, and of nothing else. Established packets
            // do not come as far as the rules, and so slow a list takes too long to open so many flows.
            let (mut wanted, rest): (Vec<Subject>, Vec<Subject>) =
                subjects.drain(..).partition(|one| match one.firewall {
                    Firewall::Discard => traffic == Traffic::Denied,
                    Firewall::Nothing | Firewall::Floor(Floor::Headers) => {
                        traffic != Traffic::Denied
                    }
                    Firewall::Floor(Floor::Entry) => matches!(traffic, Traffic::Established(_)),
                    Firewall::Floor(Floor::Open) => traffic == Traffic::New,
                    Firewall::Floor(Floor::Deny) => traffic == Traffic::Denied,
                    Firewall::Nftables(Form::Linear) => {
                        [Traffic::New, Traffic::Denied].contains(&traffic)
                    }
                    _ => true,
                });
            let mut range = Range {
                generator: &mut self.generator,
                enforcer: &self.enforcer,
            };
            let taken = packets::rounds(&mut range, &mut wanted, traffic, self.options.rounds)?;
            let firewalls = wanted.iter().map(|one| one.firewall);
            cells.push(Cell {
                rules,
                traffic,
                rows: firewalls.zip(taken).collect(),
            });
            wanted.extend(rest);
            *subjects = wanted;
        }
        Ok(())
    }
}

/// Heading of a cell.
fn title(rules: u32, traffic: Traffic) -> String {
    let rules = match rules {
        0..1000 => rules.to_string(),
        _ => format!("{} k", rules / 1000),
    };
    format!("end to end, {rules} rules, {}", traffic.name())
}

impl Cell {
    fn figures(&self) -> Vec<Figure> {
        let title = title(self.rules, self.traffic);
        type Row = (Firewall, Vec<Paired<Sample>>);
        let figure = |(firewall, taken): &Row, (of, unit), value: fn(&Paired<Sample>) -> f64| {
            let rounds = taken.iter().map(value).collect();
            Figure::new(&format!("{title}: {of}"), &firewall.name(), unit, rounds)
        };
        let cost = ("CPU/packet", "ns");
        let ratio = ("÷ XDP pass", "×");
        let rate = ("packets/s", "M/s");
        let rows = || self.rows.iter();
        let costs = rows().map(|row| figure(row, cost, |paired| paired.sample.cost));
        let ratios = rows().skip(1);
        let ratios = ratios.map(|row| figure(row, ratio, |paired| paired.ratio));
        let rates = rows().map(|row| figure(row, rate, |paired| paired.sample.rate / 1e6));
        let mut figures: Vec<Figure> = costs.chain(ratios).chain(rates).collect();
        if let Some(floor) = self.row(Firewall::Discard) {
            let judging = rows().filter(|(firewall, _)| firewall.judges());
            figures.extend(judging.map(|(firewall, taken)| {
                let pairs = taken.iter().zip(floor);
                let rounds = pairs.map(|(one, floor)| one.ratio / floor.ratio).collect();
                Figure::new(
                    &format!("{title}: ÷ XDP drop"),
                    &firewall.name(),
                    "×",
                    rounds,
                )
            }));
        }
        figures
    }

    /// The rounds of a firewall.
    fn row(&self, wanted: Firewall) -> Option<&[Paired<Sample>]> {
        let row = self.rows.iter().find(|(firewall, _)| *firewall == wanted);
        row.map(|(_, taken)| taken.as_slice())
    }
}
