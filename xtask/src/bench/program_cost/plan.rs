//! Cases, taken in turn, round by round.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::programs::ProgramFd;
use sg_common::verdict::{Direction, Verdict};

use super::Hook;
use super::floor::{Floor, Wrapper};
use super::pattern::Pattern;
use super::sample::{Meter, cpu_time, undisturbed};
use super::traffic::Traffic;
use super::world::{FIRST_DEVICE, World, check};

/// What is measured, and what it is measured with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Objects {
    /// The object of sgctl.
    pub(crate) enforcer: &'static [u8],
    /// The benchmark's own.
    pub(crate) bench: &'static [u8],
}

/// CPU time that a sample should take.
const SAMPLE: Duration = Duration::from_millis(12);
/// Packets of a sample, at least and at most.
const PACKETS: (u32, u32) = (10_000, 1_000_000);
/// Packets that are measured of a batch in sequence, before what they left is removed.
const SEQUENCE: u32 = 30_000;
/// Packets by which each batch in sequence begins before it is measured.
const LEAD: u32 = 2000;
/// Packets of a batch in sequence, those before it is measured included.
pub(crate) const WHOLE_SEQUENCE: u32 = LEAD + SEQUENCE;
/// Batches of packets in sequence per sample.
const BATCHES: u32 = 3;

/// What must be done before a batch.
pub(crate) enum Prepare {
    /// Nothing.
    Nothing,
    /// The flows of the interface that is watched are ended.
    Flush,
    /// So many more packets of the case's own sequence, and time for what they made to grow old.
    Age(u32, Duration),
    /// Another program is given so many packets.
    Run(ProgramFd, Traffic, u32),
}

/// What a sample consists of.
pub(crate) struct Case {
    /// Heading and name of the figure.
    pub(crate) group: String,
    pub(crate) name: String,
    pub(crate) traffic: Traffic,
    pub(crate) program: ProgramFd,
    /// Place of the interface among those measured, which is that of its device.
    pub(crate) device: u32,
    pub(crate) prepare: Prepare,
    /// What all packets must meet: world, interface, direction and verdict.
    pub(crate) watch: Option<(Rc<World>, u32, Direction, Verdict)>,
    /// What the program must answer.
    pub(crate) answer: Option<u32>,
}

/// A case, and the empty program behind the same wrapper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Net {
    pub(crate) case: usize,
    pub(crate) control: usize,
}

/// All cases, and their values by round.
pub(crate) struct Plan {
    pub(crate) objects: Objects,
    wrapper: Wrapper,
    empty: [ProgramFd; 2],
    pub(crate) cases: Vec<Case>,
    pub(crate) rounds: Vec<Vec<f64>>,
    packets: Vec<u32>,
    /// Next number of sequences that go on from batch to batch.
    onward: u32,
    /// Which cases have a control, in the order in which they were added.
    pub(crate) nets: Vec<Net>,
    pub(crate) meter: Meter,
}

impl Plan {
    pub(crate) fn new(objects: Objects) -> Result<Self> {
        let mut floor = Floor::new(objects.bench, "HASH4", 1)?;
        Ok(Self {
            objects,
            wrapper: Wrapper::new(objects.bench)?,
            empty: [floor.program("xdp_empty")?, floor.program("tc_empty")?],
            cases: Vec::new(),
            rounds: Vec::new(),
            packets: Vec::new(),
            onward: 0,
            nets: Vec::new(),
            meter: Meter::new()?,
        })
    }

    /// Adds a case, and its control if there is none like it; answers where both stand.
    pub(crate) fn add(&mut self, case: Case) -> Result<Net> {
        let alike = |one: &Case| {
            one.name == CONTROL
                && (one.traffic.hook == Hook::Xdp) == (case.traffic.hook == Hook::Xdp)
                && one.traffic.pattern == case.traffic.pattern
                && one.traffic.frame.len() == case.traffic.frame.len()
        };
        let control = match self.cases.iter().position(alike) {
            Some(control) => control,
            None => {
                self.cases.push(Case {
                    group: String::new(),
                    name: CONTROL.to_owned(),
                    program: self.empty[usize::from(case.traffic.hook != Hook::Xdp)].try_clone()?,
                    traffic: case.traffic.clone(),
                    device: 0,
                    prepare: Prepare::Nothing,
                    watch: None,
                    answer: None,
                });
                self.cases.len() - 1
            }
        };
        self.cases.push(case);
        let net = Net {
            case: self.cases.len() - 1,
            control,
        };
        self.nets.push(net);
        Ok(net)
    }

    /// Gives packets to a program once, outside of any measurement; answers what it said last.
    pub(crate) fn feed(
        &mut self,
        program: &ProgramFd,
        traffic: &Traffic,
        packets: u32,
    ) -> Result<u32> {
        self.wrapper.set(traffic.hook, &traffic.pattern, program)?;
        self.wrapper
            .run(traffic.hook, FIRST_DEVICE, &traffic.frame, packets)
    }

    /// Takes all rounds.
    pub(crate) fn run(&mut self, rounds: usize) -> Result<()> {
        self.rounds = vec![Vec::with_capacity(rounds); self.cases.len()];
        self.packets = vec![0; self.cases.len()];
        for number in 0..self.cases.len() {
            self.packets[number] = self.calibrate(number).with_context(|| self.shown(number))?;
        }
        for round in 0..rounds {
            eprint!("\rround {} of {rounds} ", round + 1);
            for number in 0..self.cases.len() {
                let value = self.sample(number).with_context(|| self.shown(number))?;
                self.rounds[number].push(value);
            }
        }
        eprintln!();
        Ok(())
    }

    fn shown(&self, number: usize) -> String {
        let case = &self.cases[number];
        format!("{} {}", case.group, case.name)
    }

    /// How many packets make a sample.
    fn calibrate(&mut self, number: usize) -> Result<u32> {
        let case = &self.cases[number];
        if case.traffic.pattern.sequential != 0 {
            return Ok(SEQUENCE);
        }
        let packets = 4000;
        self.wrapper
            .set(case.traffic.hook, &case.traffic.pattern, &case.program)?;
        if let Prepare::Run(..) = case.prepare {
            return Ok(PACKETS.0 * 10);
        }
        let mut least = Duration::MAX;
        for _ in 0..2 {
            let start = cpu_time();
            self.wrapper.run(
                case.traffic.hook,
                FIRST_DEVICE + case.device,
                &case.traffic.frame,
                packets,
            )?;
            least = least.min(cpu_time() - start);
        }
        let wanted = SAMPLE.as_secs_f64() / least.as_secs_f64() * f64::from(packets);
        Ok((wanted as u32).clamp(PACKETS.0, PACKETS.1))
    }

    fn sample(&mut self, number: usize) -> Result<f64> {
        let Self {
            wrapper,
            cases,
            meter,
            packets,
            onward,
            ..
        } = self;
        let (case, packets) = (&cases[number], packets[number]);
        let ifindex = FIRST_DEVICE + case.device;
        let warm = match case.traffic.pattern.sequential {
            0 => case
                .traffic
                .pattern
                .count
                .saturating_mul(4)
                .clamp(2000, 200_000),
            _ => LEAD,
        };
        let batches = if case.traffic.pattern.sequential == 0 {
            1
        } else {
            BATCHES
        };
        meter.sample(|| {
            let mut took = Duration::ZERO;
            for _ in 0..batches {
                prepare(case, wrapper, onward)?;
                let before = case
                    .watch
                    .as_ref()
                    .map(|(world, id, ..)| world.counters(*id));
                wrapper.set(
                    case.traffic.hook,
                    &next(case, onward, packets + warm),
                    &case.program,
                )?;
                let (answer, spent) = undisturbed(|| -> Result<_> {
                    wrapper.run(case.traffic.hook, ifindex, &case.traffic.frame, warm)?;
                    let start = cpu_time();
                    let answer =
                        wrapper.run(case.traffic.hook, ifindex, &case.traffic.frame, packets)?;
                    Ok((answer, cpu_time() - start))
                })?;
                took += spent;
                if let (Some((world, id, direction, verdict)), Some(before)) = (&case.watch, before)
                {
                    let after = world.counters(*id)?;
                    check(
                        &before?,
                        &after,
                        *direction,
                        *verdict,
                        u64::from(packets + warm),
                    )?;
                }
                if let Some(expected) = case.answer {
                    anyhow::ensure!(
                        answer == expected,
                        "the program answered {answer}, not {expected}"
                    );
                }
            }
            Ok((took, u64::from(packets) * u64::from(batches)))
        })
    }
}

/// Name of a case that is measured for others only.
const CONTROL: &str = "empty program behind the wrapper";

/// The pattern of the next batch.
fn next(case: &Case, onward: &mut u32, packets: u32) -> Pattern {
    let mut pattern = case.traffic.pattern;
    if let Prepare::Age(..) = case.prepare {
        pattern.counter = *onward;
        *onward = onward.wrapping_add(packets);
    }
    pattern
}

fn prepare(case: &Case, wrapper: &mut Wrapper, onward: &mut u32) -> Result<()> {
    match &case.prepare {
        Prepare::Nothing => {}
        Prepare::Flush => {
            let (world, id, ..) = case.watch.as_ref().context("an interface is watched")?;
            world.flush(*id)?;
        }
        Prepare::Age(packets, time) => {
            wrapper.set(
                case.traffic.hook,
                &next(case, onward, *packets),
                &case.program,
            )?;
            wrapper.run(
                case.traffic.hook,
                FIRST_DEVICE + case.device,
                &case.traffic.frame,
                *packets,
            )?;
            std::thread::sleep(*time);
        }
        Prepare::Run(program, traffic, packets) => {
            wrapper.set(traffic.hook, &traffic.pattern, program)?;
            let ifindex = FIRST_DEVICE + case.device;
            wrapper.run(traffic.hook, ifindex, &traffic.frame, *packets)?;
        }
    }
    Ok(())
}
