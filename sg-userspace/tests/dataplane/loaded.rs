//! The loaded programs beside the pipeline on the host, for cases in which time passes: the kernel's
//! clock cannot be moved on, so what it is compared with is moved back.

use aya::maps::{HashMap, Map, MapData};
use sg_common::{
    abi::map,
    conntrack::{Meta, flag},
    host::Host,
    layout::{FragmentKey, Live},
    tables::Tables as _,
};
use sg_oracle::{policy::Policy, random};
use sg_userspace::model::Conntrack;

use crate::{
    bench::{Bench, Hook, moves},
    common::netns::Namespace,
    voices::{Enforcer, Said, compiled_policy, core::Counted, mirror},
};

/// Both, made for a kind of cases.
pub(crate) struct Loaded {
    bench: Bench,
    made: Conntrack,
    counted: Counted,
    fragments: HashMap<MapData, FragmentKey, u32>,
    /// The clock of the last [`Enforcer::now`].
    now: u64,
    /// Nothing of the case is in force yet.
    fresh: bool,
}

impl Loaded {
    /// Loads everything; see [`Bench::new`].
    pub(crate) fn new(namespace: &Namespace, made: Conntrack) -> Self {
        let bench = Bench::new(namespace, made);
        let pin = bench.session.pins.map(map::FRAGMENTS);
        let fragments = Map::LruHashMap(MapData::from_pin(pin).unwrap());
        Self {
            bench,
            made,
            counted: Counted::new(),
            fragments: fragments.try_into().unwrap(),
            now: 0,
            fresh: true,
        }
    }

    /// Gives the host's entries the stamps that the kernel's have. The clock may have gone on between the
    /// two, and which entry is the oldest decides what is replaced.
    fn align(&self) {
        let tables = &self.bench.session.tables;
        let (host, moved) = (&self.bench.host, self.bench.moved);
        let read = tables.accounted4.for_each(|index, one| {
            if Meta(one.slot.meta).tracked() {
                let seen = one.slot.live.seen.wrapping_add(moved as u32);
                // SAFETY: a valid entry, and nothing runs on it now.
                unsafe { (*host.slot4(false, index).unwrap()).live.seen = seen };
            }
        });
        read.unwrap();
        let read = tables.accounted6.for_each(|index, one| {
            if Meta(one.slot.meta).tracked() {
                let seen = one.slot.live.seen.wrapping_add(moved as u32);
                // SAFETY: as above.
                unsafe { (*host.slot6(false, index).unwrap()).live.seen = seen };
            }
        });
        read.unwrap();
    }

    /// Makes everything in the kernel older.
    fn age(&mut self, jiffies: u32) {
        let tables = &self.bench.session.tables;
        let mut changed = Vec::new();
        let read = tables.accounted4.for_each(|index, one| {
            let mut older = *one;
            let slot = &mut older.slot;
            age(Meta(slot.meta), slot.owner, &mut slot.live, jiffies);
            if older != *one {
                changed.push((index, older));
            }
        });
        read.unwrap();
        for (index, one) in changed {
            tables.accounted4.set(&index, &one).unwrap();
        }
        let mut changed = Vec::new();
        let read = tables.accounted6.for_each(|index, one| {
            let mut older = *one;
            let slot = &mut older.slot;
            age(Meta(slot.meta), slot.owner, &mut slot.live, jiffies);
            if older != *one {
                changed.push((index, older));
            }
        });
        read.unwrap();
        for (index, one) in changed {
            tables.accounted6.set(&index, &one).unwrap();
        }
        let all: Vec<_> = self.fragments.iter().map(Result::unwrap).collect();
        for (key, stamp) in all {
            let stamp = stamp.wrapping_sub(jiffies);
            self.fragments.insert(key, stamp, 0).unwrap();
        }
        let runtime = &mut self.bench.session.runtime;
        runtime.changed = runtime.changed.wrapping_sub(jiffies.into());
        self.bench.session.tables.runtime.set(&0, runtime).unwrap();
    }
}

/// Makes an entry older: when it was last seen, and, where numbers mean nothing, when its opener was.
fn age(meta: Meta, owner: u32, live: &mut Live, jiffies: u32) {
    if !meta.tracked() {
        return;
    }
    live.seen = live.seen.wrapping_sub(jiffies);
    if owner as u8 != 6 {
        let opener = usize::from(meta.flags() & flag::OPENER_LOCAL == 0);
        live.fin[opener] = live.fin[opener].wrapping_sub(jiffies);
    }
}

fn hook(hook: random::Hook) -> Hook {
    match hook {
        random::Hook::Xdp => Hook::Xdp,
        random::Hook::TcIngress => Hook::TcIngress,
        random::Hook::TcEgress => Hook::TcEgress,
    }
}

impl Enforcer for Loaded {
    fn host(&self) -> &Host {
        &self.bench.host
    }

    fn now(&mut self) -> u64 {
        self.now = self.bench.now() + self.bench.moved;
        self.bench.host.set_now(self.now);
        self.now
    }

    fn begin(&mut self) {
        self.bench.flush();
        self.bench.forget_interfaces();
        self.fresh = true;
        let all: Vec<FragmentKey> = self.fragments.keys().map(Result::unwrap).collect();
        for key in all {
            self.fragments.remove(&key).unwrap();
        }
        // The host forgets fragments by age alone.
        let seconds = 20;
        let jiffies = seconds * self.bench.hz();
        self.bench.moved += u64::from(jiffies);
    }

    fn change(&mut self, policy: &Policy) {
        self.bench.put_in_force(&compiled_policy(policy));
        if std::mem::take(&mut self.fresh) {
            // What was in force before was another case's: nobody asks it.
            let runtime = &mut self.bench.session.runtime;
            runtime.previous = runtime.previous.wrapping_sub(1);
            self.bench.session.tables.runtime.set(&0, runtime).unwrap();
            self.bench.host.runtime.previous = runtime.previous;
        }
    }

    fn end(&mut self, name: &str) {
        self.bench.end(self.bench.id(name));
    }

    fn id(&self, name: &str) -> u32 {
        self.bench.id(name)
    }

    fn pass(&mut self, jiffies: u32) {
        // What is expired goes now: the kernel's own sweep must find nothing to do meanwhile.
        self.sweep();
        self.age(jiffies);
        self.bench.moved += u64::from(jiffies);
    }

    fn judge(
        &mut self,
        met: random::Hook,
        id: u32,
        frame: &[u8],
        packets: u32,
    ) -> Result<Vec<Said>, String> {
        let host = &self.bench.host;
        let verdict = mirror::judge(host, frame, id, met.is_ingress(), packets);
        let direction = self.counted.direction(host, id, verdict, packets)?;
        let mut said = vec![Said {
            who: "the host",
            direction,
            verdict,
        }];
        if !hook(met).takes(frame) {
            return Ok(said);
        }
        let passes = self.bench.kernel(hook(met), id, frame, packets);
        let mut moved = Vec::new();
        for id in [id, 0] {
            if moved.is_empty() {
                let found = self.bench.counted(id);
                moved.extend(moves(id, &self.bench.expected[id as usize], &found));
                self.bench.expected[id as usize] = found;
            }
        }
        let expected = (u64::from(packets), frame.len() as u64);
        match &moved[..] {
            [one] if (one.packets, one.bytes) == expected && one.verdict.passes() == passes => {
                said.push(Said {
                    who: "the kernel",
                    direction: one.direction,
                    verdict: one.verdict,
                });
            }
            _ => {
                let did = if passes { "passed" } else { "dropped" };
                return Err(format!(
                    "the kernel {did} {expected:?} and counted {moved:?}"
                ));
            }
        }
        if self.made == crate::voices::TIGHT {
            let before = self.now;
            if self.now() != before {
                self.align();
            }
        }
        Ok(said)
    }

    fn sweep(&mut self) {
        self.bench.sweep();
    }

    fn agree(&mut self) -> Result<(), String> {
        self.bench
            .compare_flows()
            .map_err(|difference| difference.to_string())
    }
}
