//! One case through all voices.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use sg_common::verdict;
use sg_oracle::{
    Arrival, Direction, Flow, Judgement, Oracle, Rivals, Verdict,
    policy::Policy,
    random::{Case, Step},
};

use super::{Enforcer, Said, entry};

/// What voices say differently, and at which step of a case: its number from 0, or how many there are.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) step: usize,
    pub(crate) what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {}: {}", self.step, self.what)
    }
}

/// What cases have shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Packets judged by all.
    pub(crate) packets: usize,
    /// Directions and names of verdicts.
    pub(crate) met: BTreeSet<(&'static str, &'static str)>,
    /// Flows compared.
    pub(crate) flows: usize,
    /// Flows that were replaced.
    pub(crate) replaced: usize,
}

impl Tally {
    /// Takes what others have seen to it.
    pub(crate) fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.met.extend(&other.met);
        self.flows += other.flows;
        self.replaced += other.replaced;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} packets judged alike, {} flows compared, {} replaced",
            self.packets, self.flows, self.replaced
        )
    }
}

/// Packets between two comparisons of all flows.
const COMPARED: usize = 200;

/// A case at work.
struct Run<'e, E> {
    enforcer: &'e mut E,
    oracle: Oracle,
    /// Names of interfaces that are or were in force, by id.
    names: BTreeMap<u32, String>,
    policy: Policy,
    tight: bool,
    tally: Tally,
}

/// Runs a case; `tally` gains what was seen until the end or the failure.
pub(crate) fn run(
    enforcer: &mut impl Enforcer,
    case: &Case,
    tally: &mut Tally,
) -> Result<(), Failure> {
    enforcer.begin();
    let hz = enforcer.host().runtime.hz;
    let mut run = Run {
        enforcer,
        oracle: Oracle::new(hz),
        names: BTreeMap::new(),
        policy: Policy::default(),
        tight: case.is_tight(),
        tally: std::mem::take(tally),
    };
    run.change(&case.policy);
    let done = case
        .steps
        .iter()
        .enumerate()
        .try_for_each(|(number, step)| run.step(step).map_err(|what| (number, what)))
        .and_then(|()| run.compare().map_err(|what| (case.steps.len(), what)));
    *tally = run.tally;
    done.map_err(|(step, what)| Failure { step, what })
}

impl<E: Enforcer> Run<'_, E> {
    fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Packet {
                interface,
                hook,
                frame,
                packets,
            } => {
                self.tally.packets += 1;
                if self.tally.packets.is_multiple_of(COMPARED) {
                    self.compare()?;
                }
                let arrival = Arrival {
                    ingress: hook.is_ingress(),
                    frame,
                    tagged: false,
                    merged: *packets != 1,
                    packets: (*packets).into(),
                };
                if self.tight {
                    self.enforcer.sweep();
                }
                let now = self.enforcer.now();
                let before = self.tight.then(|| self.oracle.clone());
                let mut judged = self.oracle.judge(now, interface, &arrival);
                let id = self.enforcer.id(interface);
                let said = self.enforcer.judge(*hook, id, frame, *packets)?;
                if let (Some(rivals), Some(mut before)) = (judged.replaces, before)
                    && let Some(gone) = self.replaced(&before.flows(now), now, |flow| {
                        !flow.assured
                            && flow.local.is_ipv4() == is_ipv4(frame)
                            && (rivals == Rivals::Any || flow.interface == *interface)
                    })?
                {
                    self.tally.replaced += 1;
                    before.forget(&gone);
                    judged = before.judge(now, interface, &arrival);
                    self.oracle = before;
                }
                self.agree(&judged, &said)?;
                Ok(())
            }
            Step::Pass(seconds) => {
                // What is compared may have to lie within a time, or beyond it: never just on the edge.
                let hz = self.enforcer.host().runtime.hz;
                self.enforcer.pass(seconds * hz + hz / 10);
                if self.tight {
                    self.enforcer.sweep();
                }
                Ok(())
            }
            Step::Change(policy) => {
                self.compare()?;
                self.change(policy);
                Ok(())
            }
        }
    }

    fn change(&mut self, policy: &Policy) {
        let now = self.enforcer.now();
        self.enforcer.change(policy);
        self.oracle.apply(policy.clone(), now);
        for name in self.policy.interfaces.keys() {
            if !policy.interfaces.contains_key(name) {
                self.enforcer.end(name);
                self.oracle.end(name);
            }
        }
        for name in policy.interfaces.keys() {
            self.names.insert(self.enforcer.id(name), name.clone());
        }
        self.policy = policy.clone();
    }

    /// Whether all have said the same.
    fn agree(&mut self, judged: &Judgement, said: &[Said]) -> Result<(), String> {
        let direction = match judged.direction {
            Direction::In => "ingress",
            Direction::Out => "egress",
        };
        let differs = |said: &&Said| {
            said.direction.name() != direction
                || match (said.verdict, judged.verdict) {
                    (verdict::Verdict::Pass(kind), Verdict::Pass(name)) => kind.name() != name,
                    (verdict::Verdict::Drop(reason), Verdict::Drop(name)) => reason.name() != name,
                    _ => true,
                }
        };
        if said.iter().find(differs).is_some() {
            return Err(format!("the oracle says {judged:?}, the others {said:?}"));
        }
        let (Verdict::Pass(name) | Verdict::Drop(name)) = judged.verdict;
        self.tally.met.insert((direction, name));
        Ok(())
    }

    fn flows(&self) -> Vec<Flow> {
        let entries = entry::on_host(self.enforcer.host());
        let flows = entries.iter().map(|entry| entry.flow(&self.names));
        let mut flows: Vec<Flow> = flows.collect();
        flows.sort_by_key(order);
        flows
    }

    /// The flow that made room, of those there were before. There is none if no rival stands where the new
    /// one could: tight tables are such that this is one of its family.
    fn replaced(
        &self,
        before: &[Flow],
        now: u64,
        is_rival: impl Fn(&Flow) -> bool,
    ) -> Result<Option<Flow>, String> {
        let kept = self.flows();
        let stands = |flow: &Flow| kept.iter().any(|one| key(one) == key(flow));
        // What the packet itself ended is not meant.
        let expected = self.oracle.flows(now);
        let mut untouched = before.iter().filter(|flow| expected.contains(flow));
        let gone: Vec<&Flow> = untouched.clone().filter(|flow| !stands(flow)).collect();
        let rivals = untouched.any(&is_rival);
        match &gone[..] {
            [] if !rivals => Ok(None),
            [flow] if is_rival(flow) => Ok(Some((*flow).clone())),
            _ => Err(format!(
                "one rival should have made room, but gone are {gone:#?}"
            )),
        }
    }

    /// Compares all flows.
    fn compare(&mut self) -> Result<(), String> {
        self.enforcer.agree()?;
        let now = self.enforcer.now();
        let mut expected = self.oracle.flows(now);
        expected.sort_by_key(order);
        let found = self.flows();
        self.tally.flows += found.len();
        if found != expected {
            let only = |side: &[Flow], other: &[Flow]| -> Vec<Flow> {
                let differs = side.iter().filter(|one| !other.contains(one));
                differs.cloned().collect()
            };
            return Err(format!(
                "flows of the oracle alone: {:#?}, of the others alone: {:#?}",
                only(&expected, &found),
                only(&found, &expected)
            ));
        }
        for (id, name) in &self.names {
            let here = || expected.iter().filter(|flow| flow.interface == *name);
            let counted = (
                here().count() as u64,
                here().filter(|flow| !flow.assured).count() as u64,
            );
            let state = self.enforcer.host().interface_state(*id);
            if (state.tracked, state.unassured) != counted {
                return Err(format!(
                    "{name} has {counted:?} flows, assured or not and not, and counts {state:?}"
                ));
            }
        }
        Ok(())
    }
}

fn is_ipv4(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[0x08, 0x00])
}

/// What makes a flow this one.
fn key(flow: &Flow) -> impl PartialEq + Ord + use<> {
    let echo = matches!(flow.protocol, 1 | 58);
    (
        flow.interface.clone(),
        (flow.protocol, echo && flow.opened_by_local),
        (flow.local, flow.local_port),
        (flow.remote, flow.remote_port),
    )
}

fn order(flow: &Flow) -> impl Ord + use<> {
    key(flow)
}
