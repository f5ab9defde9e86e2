//! The pipeline on the host by itself.

use std::collections::BTreeMap;

use sg_common::{
    abi,
    host::{Host, INTERFACES},
    layout::Runtime,
    verdict::{Direction, OUTCOMES, Verdict},
};
use sg_oracle::{policy::Policy, random::Hook};
use sg_userspace::model::Conntrack;

use super::{Enforcer, Said, compiled_policy, mirror};

/// Jiffies per second.
const HZ: u32 = 250;

/// The pipeline, its clock and its definition.
pub(crate) struct Core {
    host: Host,
    made: Conntrack,
    now: u64,
    generation: u32,
    ids: BTreeMap<String, u32>,
    counted: Counted,
}

/// Packets that were counted, to see what moves.
pub(crate) struct Counted(Vec<[[u64; OUTCOMES]; 2]>);

impl Counted {
    pub(crate) fn new() -> Self {
        Self(vec![[[0; OUTCOMES]; 2]; INTERFACES as usize])
    }

    /// The direction that a verdict about a frame on an interface has just been counted in.
    ///
    /// # Errors
    /// It was not counted in one direction, with the packets that it stood for.
    pub(crate) fn direction(
        &mut self,
        host: &Host,
        id: u32,
        verdict: Verdict,
        packets: u32,
    ) -> Result<Direction, String> {
        let mut moved = Vec::new();
        for id in [id, 0] {
            for direction in Direction::ALL {
                let found = host.counted(id, direction, verdict).packets;
                let before = &mut self.0[id as usize][direction as usize][verdict.outcome()];
                if found != *before {
                    moved.push((direction, found - *before));
                    *before = found;
                }
            }
        }
        match &moved[..] {
            [(direction, counted)] if *counted == u64::from(packets) => Ok(*direction),
            _ => Err(format!("the host says {verdict:?} and counts {moved:?}")),
        }
    }
}

impl Core {
    /// With tables for so many flows.
    pub(crate) fn new(made: Conntrack) -> Self {
        Self {
            host: Host::new(Runtime::ZERO),
            made,
            // Soon the low half wraps.
            now: u64::from(u32::MAX - 100 * HZ),
            generation: 0,
            ids: BTreeMap::new(),
            counted: Counted::new(),
        }
    }
}

impl Enforcer for Core {
    fn host(&self) -> &Host {
        &self.host
    }

    fn now(&mut self) -> u64 {
        self.host.set_now(self.now);
        self.now
    }

    fn begin(&mut self) {
        *self = Self::new(self.made);
        let buckets = abi::buckets(self.made.allowance);
        self.host = Host::new(Runtime {
            hz: HZ,
            accounting: 1,
            buckets: [buckets; 2],
            seed: std::array::from_fn(|word| 0x9e37_79b9_u32.wrapping_mul(1 + word as u32)),
            ..Runtime::ZERO
        });
    }

    fn change(&mut self, policy: &Policy) {
        let compiled = compiled_policy(policy);
        for one in &compiled.interfaces {
            let next = self.ids.len() as u32 + 1;
            self.ids.entry(one.name.clone()).or_insert(next);
        }
        let reserved: u32 = compiled.interfaces.iter().map(|one| one.reserve).sum();
        let unassured = compiled.allowance * abi::CT_UNASSURED_PERCENT / 100;
        let runtime = &mut self.host.runtime;
        runtime.allowance = compiled.allowance;
        runtime.shared = compiled.allowance - reserved;
        runtime.unassured = unassured.max(1);
        runtime.previous = self.generation;
        runtime.changed = self.now;
        self.generation += 1;
        let before = &self.host.banks[(self.generation & 1 ^ 1) as usize].interfaces;
        let ids = &self.ids;
        let bank = mirror::bank(&compiled, HZ, |name| ids[name], before, self.generation);
        self.host.banks[(self.generation & 1) as usize] = bank;
        self.host.set_generation(self.generation);
    }

    fn end(&mut self, name: &str) {
        mirror::flush(&self.host, self.id(name));
    }

    fn id(&self, name: &str) -> u32 {
        self.ids.get(name).copied().unwrap_or_default()
    }

    fn pass(&mut self, jiffies: u32) {
        self.now += u64::from(jiffies);
    }

    fn judge(
        &mut self,
        hook: Hook,
        id: u32,
        frame: &[u8],
        packets: u32,
    ) -> Result<Vec<Said>, String> {
        let verdict = mirror::judge(&self.host, frame, id, hook.is_ingress(), packets);
        let direction = self.counted.direction(&self.host, id, verdict, packets)?;
        Ok(vec![Said {
            who: "the host",
            direction,
            verdict,
        }])
    }

    fn sweep(&mut self) {
        self.now();
        self.host.sweep();
    }

    fn agree(&mut self) -> Result<(), String> {
        self.sweep();
        Ok(())
    }
}
