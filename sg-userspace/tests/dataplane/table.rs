//! What a case is, and how the table is run: each in both families, orientations and at every hook.

use std::collections::{BTreeSet, HashSet};

use sg_common::{
    conntrack::State,
    verdict::{
        Direction::{self, Egress, Ingress},
        DropReason, PassKind, Verdict,
    },
};

use crate::{
    bench::{Bench, Disagreement, Hook},
    frame::Ip,
    voices::entry,
};

/// A policy and the cases under it.
pub(crate) struct World {
    pub(crate) name: &'static str,
    /// The definition; [`interface`] writes the tables of its interfaces.
    pub(crate) definition: String,
    pub(crate) cases: Vec<Case>,
}

/// A sequence of packets on an interface that starts without flows.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Interface: its name without `-own` or `-host`.
    pub(crate) interface: &'static str,
    pub(crate) steps: fn(Ip) -> Vec<Step>,
    pub(crate) only: Only,
}

/// Which of the variants of a case are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Only {
    /// All of them.
    All,
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// The host's side of the workload's link.
    Host,
    /// The workload's own interface.
    Own,
    /// TC: XDP has no merged frames.
    Tc,
    /// One for each family, because the case takes its time.
    Brief,
}

/// What happens in a case.
pub(crate) enum Step {
    /// A frame in the workload's direction, standing for some packets, and its verdict.
    Frame(Direction, Vec<u8>, u32, Verdict),
    /// The same at a moment of its own, later than everything before.
    Later(Direction, Vec<u8>, Verdict),
    /// The state of the interface's only flow; `None`: there is none.
    State(Option<State>),
    /// Tracked flows of the interface.
    Tracked(u64),
    /// Tracked flows of the interface that are not assured.
    Unassured(u64),
    /// Goes on with another interface.
    On(&'static str),
    /// Puts another definition in force, in which interfaces keep their ids.
    Apply(String),
    /// Has the interface's policy taken back as its first one.
    Unconfirmed,
    /// Waits until what lives a second without a packet is over.
    Second,
    /// At least so many flows of the interface were replaced in this case.
    Replaced(u64),
}

/// A frame that passes.
pub(crate) fn passes(direction: Direction, frame: Vec<u8>, kind: PassKind) -> Step {
    Step::Frame(direction, frame, 1, Verdict::Pass(kind))
}

/// A frame that is dropped.
pub(crate) fn drops(direction: Direction, frame: Vec<u8>, reason: DropReason) -> Step {
    Step::Frame(direction, frame, 1, Verdict::Drop(reason))
}

/// The interface's only flow is in this state.
pub(crate) fn state(state: State) -> Step {
    Step::State(Some(state))
}

impl Case {
    pub(crate) fn new(
        name: &'static str,
        interface: &'static str,
        steps: fn(Ip) -> Vec<Step>,
    ) -> Self {
        Self {
            name,
            interface,
            steps,
            only: Only::All,
        }
    }

    /// Restricts the variants.
    pub(crate) fn only(self, only: Only) -> Self {
        Self { only, ..self }
    }
}

/// The tables of an interface in both orientations, called `name-own` and `name-host`.
pub(crate) fn interface(name: &str, groups: &str, more: &str) -> String {
    ["own", "host"]
        .map(|orientation| {
            format!(
                "[interfaces.{name}-{orientation}]\norientation = \"{orientation}\"\ngroups = {groups}\n{more}\n"
            )
        })
        .concat()
}

/// What running the table has shown.
#[derive(Default)]
pub(crate) struct Findings {
    /// Steps that went otherwise.
    pub(crate) failures: Vec<String>,
    /// Counters that moved.
    pub(crate) moved: HashSet<(Direction, Verdict)>,
    /// Every frame, merged ones aside.
    pub(crate) corpus: BTreeSet<Vec<u8>>,
    /// Variants run.
    pub(crate) variants: usize,
}

/// Where a case is run.
#[derive(Clone, Copy, Debug)]
struct Variant {
    ip: Ip,
    orientation: &'static str,
    /// What arrives by the device meets this hook; the other direction is TC egress.
    ingress: Hook,
}

impl Variant {
    fn all() -> impl Iterator<Item = Variant> {
        Ip::BOTH.into_iter().flat_map(|ip| {
            ["own", "host"].into_iter().flat_map(move |orientation| {
                [Hook::Xdp, Hook::TcIngress].map(|ingress| Variant {
                    ip,
                    orientation,
                    ingress,
                })
            })
        })
    }

    fn of(only: Only) -> impl Iterator<Item = Variant> {
        Self::all().filter(move |variant| match only {
            Only::All => true,
            Only::V4 => variant.ip == Ip::V4,
            Only::V6 => variant.ip == Ip::V6,
            Only::Host => variant.orientation == "host",
            Only::Own => variant.orientation == "own",
            Only::Tc => variant.ingress == Hook::TcIngress,
            Only::Brief => {
                let v4 = (Ip::V4, "own", Hook::Xdp);
                let v6 = (Ip::V6, "host", Hook::TcIngress);
                [v4, v6].contains(&(variant.ip, variant.orientation, variant.ingress))
            }
        })
    }

    fn hook(self, direction: Direction) -> Hook {
        let arrives = if self.orientation == "own" {
            Ingress
        } else {
            Egress
        };
        if direction == arrives {
            self.ingress
        } else {
            Hook::TcEgress
        }
    }
}

impl Findings {
    /// Runs the cases of a world.
    pub(crate) fn run(&mut self, bench: &mut Bench, world: &World) {
        settle(bench, world);
        for case in &world.cases {
            for variant in Variant::of(case.only) {
                self.variants += 1;
                let steps = (case.steps)(variant.ip);
                let changes = |step| matches!(step, &Step::Apply(_) | &Step::Unconfirmed);
                let changes = steps.iter().any(changes);
                if let Err(failure) = self.case(bench, case, variant, steps) {
                    let (world, case) = (world.name, case.name);
                    let failure = format!("{world}: {case} {variant:?}: {failure}");
                    eprintln!("{failure}");
                    self.failures.push(failure);
                }
                bench.flush();
                if changes {
                    settle(bench, world);
                }
            }
        }
    }

    fn case(
        &mut self,
        bench: &mut Bench,
        case: &Case,
        variant: Variant,
        steps: Vec<Step>,
    ) -> Result<(), Disagreement> {
        let id_of =
            |bench: &Bench, name: &str| bench.id(&format!("{name}-{}", variant.orientation));
        let mut id = id_of(bench, case.interface);
        let replaced = bench.occupancy(id).replaced;
        for (number, step) in steps.into_iter().enumerate() {
            let outcome = match step {
                Step::Frame(direction, frame, segments, expected) => {
                    let hook = variant.hook(direction);
                    self.frame(bench, (hook, direction, id), frame, segments, expected)
                }
                Step::Later(direction, frame, expected) => {
                    bench.wait(0);
                    let hook = variant.hook(direction);
                    self.frame(bench, (hook, direction, id), frame, 1, expected)
                }
                Step::State(expected) => in_state(bench, id, expected),
                Step::Tracked(expected) => {
                    bench.compare_flows()?;
                    same("tracked flows", bench.occupancy(id).tracked, expected)
                }
                Step::Unassured(expected) => {
                    same("unassured flows", bench.occupancy(id).unassured, expected)
                }
                Step::On(name) => {
                    id = id_of(bench, name);
                    Ok(())
                }
                Step::Apply(definition) => {
                    bench.change(&definition);
                    Ok(())
                }
                Step::Unconfirmed => {
                    bench.take_back(id);
                    Ok(())
                }
                Step::Second => {
                    bench.wait(bench.hz() + 2);
                    Ok(())
                }
                Step::Replaced(least) => {
                    let found = bench.occupancy(id).replaced - replaced;
                    if found >= least {
                        Ok(())
                    } else {
                        Err(Disagreement(format!("{found} flows were replaced")))
                    }
                }
            };
            outcome.map_err(|what| Disagreement(format!("step {number}: {what}")))?;
        }
        bench.compare_flows()
    }

    fn frame(
        &mut self,
        bench: &mut Bench,
        (hook, direction, id): (Hook, Direction, u32),
        frame: Vec<u8>,
        segments: u32,
        expected: Verdict,
    ) -> Result<(), Disagreement> {
        if !hook.takes(&frame) {
            let verdict = bench.fresh_host().judge(&frame, id, hook.is_ingress());
            return same_verdict(verdict, expected);
        }
        let (counted, verdict) = bench.judge(hook, id, &frame, segments)?;
        // Without a policy there is no orientation either.
        let seen = match (verdict, hook) {
            (Verdict::Drop(DropReason::InterfaceUnknown), Hook::TcEgress) => Egress,
            (Verdict::Drop(DropReason::InterfaceUnknown), _) => Ingress,
            _ => direction,
        };
        if counted != seen {
            return Err(Disagreement(format!("counted as {}", counted.name())));
        }
        self.moved.insert((counted, verdict));
        if segments == 1 {
            self.corpus.insert(frame);
        }
        same_verdict(verdict, expected)
    }
}

/// Puts a world in force, and once more, so that the generation before is no other world's.
fn settle(bench: &mut Bench, world: &World) {
    bench.apply(&world.definition);
    bench.apply(&world.definition);
}

fn same_verdict(found: Verdict, expected: Verdict) -> Result<(), Disagreement> {
    if found == expected {
        Ok(())
    } else {
        Err(Disagreement(format!(
            "{found:?} where {expected:?} is expected"
        )))
    }
}

fn same(what: &str, found: u64, expected: u64) -> Result<(), Disagreement> {
    if found == expected {
        Ok(())
    } else {
        Err(Disagreement(format!(
            "{found} {what} where {expected} are expected"
        )))
    }
}

fn in_state(bench: &mut Bench, id: u32, expected: Option<State>) -> Result<(), Disagreement> {
    bench.compare_flows()?;
    let entries = bench.entries();
    let states: Vec<State> = entries
        .iter()
        .filter(|one| one.interface() == id)
        .map(entry::Entry::state)
        .collect();
    if states == Vec::from_iter(expected) {
        Ok(())
    } else {
        Err(Disagreement(format!(
            "flows are {states:?} where {expected:?} is expected"
        )))
    }
}
