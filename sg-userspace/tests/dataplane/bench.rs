//! The loaded programs and the host's pipeline side by side, under one policy and one clock.

use std::{collections::BTreeMap, fmt};

use aya::programs::{SchedClassifier, TestRun, TestRunOptions, Xdp};
use sg_common::{
    abi::{MAX_COUNTED, MAX_INTERFACES},
    host::{Host, INTERFACES},
    layout::{Count, Counters, Interface, interface_flags},
    table::Occupancy,
    verdict::{Direction, OUTCOMES, Verdict},
};
use sg_userspace::{
    bank, compile::Compiled, control::Control, index, model::Conntrack, session::Session,
    state::Lock,
};

use crate::{
    common::netns::{Enforcer, Namespace},
    context::{Context, SkBuff, XdpMd},
    voices::{
        comparable, compiled,
        entry::{self, Entry},
        mirror,
    },
};

/// Where a frame meets a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Xdp,
    TcIngress,
    TcEgress,
}

impl Hook {
    pub(crate) const ALL: [Hook; 3] = [Hook::Xdp, Hook::TcIngress, Hook::TcEgress];

    pub(crate) fn is_ingress(self) -> bool {
        self != Hook::TcEgress
    }

    /// Whether the kernel makes such a frame for a test run: at XDP not without an Ethernet header,
    /// at TC not without payload, nor, since Linux 6.18, without the whole header of an IP packet.
    pub(crate) fn takes(self, frame: &[u8]) -> bool {
        let least = match (self, frame.get(12..14)) {
            (Hook::Xdp, _) => 14,
            (_, Some([0x08, 0x00])) => 34,
            (_, Some([0x86, 0xdd])) => 54,
            _ => 15,
        };
        frame.len() >= least
    }
}

/// Both sides.
pub(crate) struct Bench {
    /// The kernel's maps.
    pub(crate) session: Session,
    control: Control,
    xdp: Xdp,
    tc_ingress: SchedClassifier,
    tc_egress: SchedClassifier,
    /// The other side.
    pub(crate) host: Host,
    /// By interface id; 0 is a device that no interface is.
    devices: Vec<u32>,
    /// Ids of the definition's interfaces.
    ids: BTreeMap<String, u32>,
    /// What every counter should stand at, by interface id.
    pub(crate) expected: Vec<Counters>,
    /// Sets of rules of the policy in force.
    sets: u32,
    /// What the kernel's clock told last, of which a part is told, and what it comes to.
    clock: (u32, u64),
    /// Jiffies by which the host's clock is ahead of the kernel's.
    pub(crate) moved: u64,
    _enforcer: Enforcer,
}

/// What a frame met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disagreement(pub(crate) String);

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `XDP_PASS` of `include/uapi/linux/bpf.h`.
const XDP_PASS: u32 = 2;

/// Number of the namespace that the programs are loaded for; any will do.
const NAMESPACE: u32 = 3;

impl Bench {
    /// Loads everything. The caller's thread must be inside `namespace` from here on: that is where
    /// the kernel looks for the devices of test runs.
    pub(crate) fn new(namespace: &Namespace, conntrack: Conntrack) -> Self {
        let enforcer = Enforcer::new();
        let lock = Lock::take(&enforcer.context.state_dir).unwrap();
        let session = Session::create(&enforcer.context, &lock, conntrack).unwrap();
        let programs = session.programs(NAMESPACE);
        let devices = make_devices(namespace);
        for (id, device) in devices.iter().enumerate().skip(1) {
            let table = &session.tables.interface_index;
            index::insert(table, NAMESPACE, *device, id as u32).unwrap();
        }
        let (xdp, tc_ingress) = (programs.xdp_ingress(), programs.tc_ingress());
        let (tc_egress, control) = (programs.tc_egress(), session.control().unwrap());
        let now = control.now().unwrap();
        Self {
            xdp: xdp.unwrap(),
            tc_ingress: tc_ingress.unwrap(),
            tc_egress: tc_egress.unwrap(),
            control,
            host: Host::new(session.runtime),
            session,
            devices,
            ids: BTreeMap::new(),
            expected: vec![Counters::ZERO; INTERFACES as usize],
            sets: 0,
            clock: (now as u32 & (u32::MAX >> 1), now),
            moved: 0,
            _enforcer: enforcer,
        }
    }

    /// Puts a definition in force on both sides, with ids in the order of the interfaces' names.
    #[track_caller]
    pub(crate) fn apply(&mut self, definition: &str) {
        self.forget_interfaces();
        self.change(definition);
    }

    /// Gives the interfaces of the next definition ids anew.
    pub(crate) fn forget_interfaces(&mut self) {
        self.ids.clear();
    }

    /// Puts another definition in force, in which interfaces keep their ids.
    #[track_caller]
    pub(crate) fn change(&mut self, definition: &str) {
        self.put_in_force(&compiled(definition));
    }

    /// Makes an interface's record what `ct_control` makes of one that the generation before did not know.
    pub(crate) fn take_back(&mut self, id: u32) {
        let bank = self.host.context().generation & 1;
        let record = &mut self.host.banks[bank as usize].interfaces[id as usize];
        let host = record.flags & interface_flags::HOST;
        *record = Interface {
            flags: interface_flags::UNCONFIRMED | host,
            ..Interface::ZERO
        };
        let records = &self.session.tables.interfaces;
        records.set(&(bank * MAX_INTERFACES + id), record).unwrap();
    }

    /// The same, compiled.
    pub(crate) fn put_in_force(&mut self, compiled: &Compiled) {
        for one in &compiled.interfaces {
            let next = self.ids.len() as u32 + 1;
            let id = *self.ids.entry(one.name.clone()).or_insert(next);
            assert!(id < INTERFACES, "there are no more devices");
        }
        let hz = self.session.runtime.hz;
        let now = self.now();
        self.session.set_limits(compiled);
        // Packets run on any CPU, and what one kept to itself would differ.
        self.session.runtime.credit = 0;
        let generation = bank::put_in_force(
            &self.session.tables,
            &self.session.object,
            compiled,
            &mut self.session.runtime,
            self.control.now().unwrap(),
            |name| self.ids.get(name).copied(),
        )
        .unwrap();
        let records = &self.session.tables.interfaces;
        for id in self.ids.values() {
            let key = (generation & 1) * MAX_INTERFACES + id;
            let mut record = records.get(&key).unwrap().unwrap();
            record.credit = 0;
            records.set(&key, &record).unwrap();
        }
        self.host.runtime = self.session.runtime;
        self.host.runtime.changed = now + self.moved;
        let ids = &self.ids;
        let before = &self.host.banks[(generation & 1 ^ 1) as usize].interfaces;
        self.host.banks[(generation & 1) as usize] =
            mirror::bank(compiled, hz, |name| ids[name], before, generation);
        self.host.forget_hits(generation & 1);
        self.host.set_generation(generation);
        self.sets = bank::counted(compiled.rule_sets.len());
    }

    /// The id of an interface of the definition in force; 0 if it has none of that name.
    pub(crate) fn id(&self, name: &str) -> u32 {
        self.ids.get(name).copied().unwrap_or_default()
    }

    /// Jiffies per second.
    pub(crate) fn hz(&self) -> u32 {
        self.session.runtime.hz
    }

    /// The kernel's clock, of which 31 bits are told.
    pub(crate) fn now(&mut self) -> u64 {
        let told = self.control.clock().unwrap();
        let (last, now) = self.clock;
        let passed = told.wrapping_sub(last) & (u32::MAX >> 1);
        self.clock = (told, now + u64::from(passed));
        self.clock.1
    }

    /// Waits until the clock has moved on by more than `jiffies`.
    pub(crate) fn wait(&mut self, jiffies: u32) {
        let start = self.now();
        while self.now() - start <= u64::from(jiffies) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    /// Whether the kernel lets a frame pass.
    pub(crate) fn kernel(&self, hook: Hook, id: u32, frame: &[u8], segments: u32) -> bool {
        let ifindex = self.devices[id as usize];
        let skb = SkBuff::new(ifindex, segments);
        let md = XdpMd::new(ifindex, frame.len() as u32);
        // TCX_NEXT, TCX_DROP; XDP_PASS, XDP_DROP.
        let (answer, pass, drop) = match hook {
            Hook::Xdp => (run(&self.xdp, frame, &md), XDP_PASS, 1),
            Hook::TcIngress => (run(&self.tc_ingress, frame, &skb), u32::MAX, 2),
            Hook::TcEgress => (run(&self.tc_egress, frame, &skb), u32::MAX, 2),
        };
        assert!(answer == pass || answer == drop, "{hook:?}: {answer}");
        answer == pass
    }

    /// The host's verdict, at the clock of the last [`Bench::now`].
    pub(crate) fn mirrored(&self, hook: Hook, id: u32, frame: &[u8], segments: u32) -> Verdict {
        self.host.set_now(self.clock.1 + self.moved);
        mirror::judge(&self.host, frame, id, hook.is_ingress(), segments)
    }

    /// Judges a frame on both sides and compares verdict, reason, the counters of every interface and
    /// the occupancy of this one and the host; `Ok` is the verdict of both and the direction it was counted in.
    pub(crate) fn judge(
        &mut self,
        hook: Hook,
        id: u32,
        frame: &[u8],
        segments: u32,
    ) -> Result<(Direction, Verdict), Disagreement> {
        self.now();
        let verdict = self.mirrored(hook, id, frame, segments);
        let passes = self.kernel(hook, id, frame, segments);
        let mut moved = Vec::new();
        for id in 0..INTERFACES {
            let found = self.counted(id);
            let before = &self.expected[id as usize];
            moved.extend(moves(id, before, &found));
            self.expected[id as usize] = found;
        }
        let host = moves_of_host(&self.host, &self.expected);
        let [one] = &moved[..] else {
            return Err(Disagreement(format!(
                "not exactly one counter moved: {moved:?}"
            )));
        };
        let expected = Move {
            packets: segments.into(),
            bytes: frame.len() as u64,
            ..*one
        };
        if *one != expected || one.verdict != verdict || passes != verdict.passes() {
            return Err(Disagreement(format!(
                "the kernel {} and counted {one:?}, the host says {verdict:?}",
                if passes { "passed" } else { "dropped" },
            )));
        }
        if let Some(difference) = host {
            return Err(Disagreement(difference));
        }
        // The kernel's own sweep may have been there in between; then both are swept and looked at.
        let flows = comparable(self.occupancy(id)) == comparable(self.host.interface_state(id));
        let all = comparable(self.host_occupancy()) == comparable(self.host.host_state());
        if !flows || !all {
            self.compare_flows()?;
        }
        Ok((one.direction, verdict))
    }

    /// Judges a frame on both sides and compares the verdict alone; [`Bench::compare_counters`] sees
    /// to the reasons of many.
    pub(crate) fn judge_quickly(
        &mut self,
        hook: Hook,
        id: u32,
        frame: &[u8],
    ) -> Result<Verdict, Disagreement> {
        let verdict = self.mirrored(hook, id, frame, 1);
        if self.kernel(hook, id, frame, 1) == verdict.passes() {
            Ok(verdict)
        } else {
            Err(Disagreement(format!(
                "the kernel does not say {verdict:?} at {hook:?} to {frame:02x?}"
            )))
        }
    }

    /// The same at XDP, with only the first `linear` bytes in the frame's first buffer; `None` if the
    /// kernel makes no such frames (before Linux 6.18).
    pub(crate) fn judge_split(
        &mut self,
        id: u32,
        frame: &[u8],
        linear: u32,
    ) -> Option<Result<Verdict, Disagreement>> {
        let md = XdpMd::new(self.devices[id as usize], linear);
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(md.bytes()),
            ..TestRunOptions::new()
        };
        let answer = self.xdp.test_run(options).ok()?.return_value;
        let verdict = self.mirrored(Hook::Xdp, id, frame, 1);
        Some(if (answer == XDP_PASS) == verdict.passes() {
            Ok(verdict)
        } else {
            Err(Disagreement(format!(
                "the kernel does not say {verdict:?} with {linear} bytes in front to {frame:02x?}"
            )))
        })
    }

    /// Whether every counter stands alike on both sides.
    pub(crate) fn compare_counters(&mut self) -> Result<(), Disagreement> {
        self.expected = (0..INTERFACES).map(|id| self.counted(id)).collect();
        match moves_of_host(&self.host, &self.expected) {
            None => Ok(()),
            Some(difference) => Err(Disagreement(difference)),
        }
    }

    /// The host with empty tables, under the policy in force.
    pub(crate) fn fresh_host(&self) -> Host {
        let mut fresh = Host::new(self.host.runtime);
        fresh.banks = self.host.banks.clone();
        fresh.set_generation(self.host.context().generation);
        fresh
    }

    /// Counters of an interface, all CPUs together.
    pub(crate) fn counted(&self, id: u32) -> Counters {
        let mut sum = Counters::ZERO;
        for one in self.session.tables.counters.get_per_cpu(&id).unwrap() {
            for direction in 0..2 {
                for outcome in 0..OUTCOMES {
                    let (to, from) = (
                        &mut sum.counts[direction][outcome],
                        one.counts[direction][outcome],
                    );
                    to.packets += from.packets;
                    to.bytes += from.bytes;
                }
            }
        }
        sum
    }

    /// Whether both sides counted the same for every set of rules in force.
    fn compare_hits(&self) -> Result<(), Disagreement> {
        let bank = self.host.context().generation & 1;
        let hits = &self.session.tables.rule_hits;
        let kernel = hits.sums(bank * MAX_COUNTED, self.sets).unwrap();
        for (set, kernel) in (0..).zip(kernel) {
            let host = self.host.hits(bank, set);
            if kernel != host {
                return Err(Disagreement(format!(
                    "rule set {set}: the kernel counted {kernel}, the host {host}"
                )));
            }
        }
        Ok(())
    }

    /// Whether both sides agree about every tracked flow, the occupancy and the hits of rules, after a sweep.
    pub(crate) fn compare_flows(&mut self) -> Result<(), Disagreement> {
        self.sweep();
        self.compare_hits()?;
        for id in 1..INTERFACES {
            let kernel = comparable(self.occupancy(id));
            let host = comparable(self.host.interface_state(id));
            if kernel != host {
                return Err(Disagreement(format!(
                    "interface {id}: the kernel has {kernel:?}, the host {host:?}"
                )));
            }
        }
        let kernel = comparable(self.host_occupancy());
        let host = comparable(self.host.host_state());
        if kernel != host {
            return Err(Disagreement(format!(
                "the kernel has {kernel:?}, the host {host:?}"
            )));
        }
        let (kernel, host) = (self.entries(), entry::on_host(&self.host));
        let only = |side: &[Entry], other: &[Entry]| {
            let differs = side.iter().filter(|one| !other.contains(one));
            differs.cloned().collect::<Vec<_>>()
        };
        if kernel == host {
            return Ok(());
        }
        Err(Disagreement(format!(
            "flows of the kernel alone: {:#?}, of the host alone: {:#?}",
            only(&kernel, &host),
            only(&host, &kernel)
        )))
    }

    /// Occupancy of an interface in the kernel.
    pub(crate) fn occupancy(&self, id: u32) -> Occupancy {
        self.session.tables.occupancy(id).unwrap()
    }

    fn host_occupancy(&self) -> Occupancy {
        self.session.tables.host_occupancy().unwrap()
    }

    /// Every tracked flow in the kernel.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        entry::in_kernel(&self.session.tables)
    }

    /// Reclaims what is expired, on both sides.
    pub(crate) fn sweep(&mut self) {
        self.control.sweep(self.session.runtime.buckets).unwrap();
        let now = self.now();
        self.host.set_now(now + self.moved);
        self.host.sweep();
    }

    /// Ends all flows of all interfaces, on both sides.
    pub(crate) fn flush(&mut self) {
        for id in 1..INTERFACES {
            self.end(id);
        }
    }

    /// Ends all flows of an interface, on both sides.
    pub(crate) fn end(&self, id: u32) {
        if self.occupancy(id).tracked != 0 {
            let buckets = self.session.runtime.buckets;
            self.control.flush(id, buckets).unwrap();
            mirror::flush(&self.host, id);
        }
    }
}

/// One counter that moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) id: u32,
    pub(crate) direction: Direction,
    pub(crate) verdict: Verdict,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

pub(crate) fn moves(id: u32, before: &Counters, after: &Counters) -> Vec<Move> {
    let mut found = Vec::new();
    if before == after {
        return found;
    }
    for direction in Direction::ALL {
        for verdict in Verdict::all() {
            let place = (direction as usize, verdict.outcome());
            let (before, after) = (
                before.counts[place.0][place.1],
                after.counts[place.0][place.1],
            );
            if before != after {
                found.push(Move {
                    id,
                    direction,
                    verdict,
                    packets: after.packets.wrapping_sub(before.packets),
                    bytes: after.bytes.wrapping_sub(before.bytes),
                });
            }
        }
    }
    found
}

/// The first counter of the host that is not as the kernel's.
fn moves_of_host(host: &Host, kernel: &[Counters]) -> Option<String> {
    for (id, kernel) in kernel.iter().enumerate() {
        for direction in Direction::ALL {
            for verdict in Verdict::all() {
                let found: Count = host.counted(id as u32, direction, verdict);
                let expected = kernel.counts[direction as usize][verdict.outcome()];
                if found != expected {
                    return Some(format!(
                        "interface {id}, {} {verdict:?}: the kernel counted {expected:?}, the host {found:?}",
                        direction.name()
                    ));
                }
            }
        }
    }
    None
}

fn run<'a, P>(program: &P, frame: &'a [u8], context: &'a impl Context) -> u32
where
    P: TestRun<Opts<'a> = TestRunOptions<'a>, Result = aya::programs::TestRunResult>,
{
    let options = TestRunOptions {
        data_in: Some(frame),
        ctx_in: Some(context.bytes()),
        ..TestRunOptions::new()
    };
    match program.test_run(options) {
        Ok(result) => result.return_value,
        Err(error) => panic!("{error:?} for {} bytes {frame:02x?}", frame.len()),
    }
}

/// One device per interface id, and one for id 0.
fn make_devices(namespace: &Namespace) -> Vec<u32> {
    let first = 10;
    for id in (0..INTERFACES).step_by(2) {
        namespace.ip(&format!(
            "link add d{id} index {} type veth peer name d{} index {}",
            first + id,
            id + 1,
            first + id + 1,
        ));
    }
    (first..first + INTERFACES).collect()
}
