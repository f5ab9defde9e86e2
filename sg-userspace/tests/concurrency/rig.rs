//! Loaded programs, their maps, and a thread on each CPU that runs them.

use std::{
    collections::BTreeMap,
    hint,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use aya::programs::{SchedClassifier, TestRun, TestRunOptions, Xdp};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use sg_common::{
    abi::map,
    layout::{Counters, Spills},
    verdict::Verdict,
};
use sg_userspace::{
    bank, compile,
    control::{Control, Inserted},
    definition::{self, Source},
    index,
    model::Conntrack,
    resolve,
    session::Session,
    state::Lock,
    table::Table,
};

use crate::{
    common::netns::{Enforcer, Namespace},
    context::{Context, SkBuff, XdpMd},
    flow::{Flow, Packet},
};

/// Where a frame meets a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Xdp,
    TcIngress,
    TcEgress,
}

/// What is loaded.
pub(crate) struct Rig {
    pub(crate) session: Session,
    pub(crate) control: Control,
    pub(crate) spills: Table<u32, Spills>,
    xdp: Xdp,
    tc_ingress: SchedClassifier,
    tc_egress: SchedClassifier,
    _enforcer: Enforcer,
}

/// Ids of the interfaces, which both may have every flow that the host may have, all of them tracked.
pub(crate) const INTERFACES: [u32; 2] = [1, 2];

/// Number of the namespace that the programs are loaded for; any will do.
const NAMESPACE: u32 = 3;

/// A device's index by its interface's id.
const fn device(interface: u32) -> u32 {
    9 + interface
}

/// Runs a test with everything loaded, inside a network namespace of its own: that is where the kernel
/// looks for the devices of test runs. One at a time, because each wants all CPUs.
pub(crate) fn with_rig(allowance: u32, test: impl FnOnce(&mut Rig) + Send) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone: MutexGuard<'_, ()> = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let namespace = Namespace::new("conc");
    let [first, second] = INTERFACES.map(device);
    namespace.ip(&format!(
        "link add d1 index {first} type veth peer name d2 index {second}"
    ));
    namespace.run(|| test(&mut Rig::new(allowance)));
}

impl Rig {
    fn new(allowance: u32) -> Self {
        let enforcer = Enforcer::new();
        let lock = Lock::take(&enforcer.context.state_dir).unwrap();
        let conntrack = Conntrack {
            allowance,
            accounting: true,
        };
        let mut session = Session::create(&enforcer.context, &lock, conntrack).unwrap();
        let control = session.control().unwrap();
        for id in INTERFACES {
            let table = &session.tables.interface_index;
            index::insert(table, NAMESPACE, device(id), id).unwrap();
        }
        enforce(&mut session, &control, allowance);
        let programs = session.programs(NAMESPACE);
        let (xdp, tc_ingress) = (programs.xdp_ingress(), programs.tc_ingress());
        let tc_egress = programs.tc_egress();
        Self {
            xdp: xdp.unwrap(),
            tc_ingress: tc_ingress.unwrap(),
            tc_egress: tc_egress.unwrap(),
            control,
            spills: Table::open(&session.pins.map(map::CT_SPILLS)).unwrap(),
            session,
            _enforcer: enforcer,
        }
    }

    /// Whether a packet passes.
    pub(crate) fn passes(&self, packet: &Packet) -> bool {
        let (ifindex, frame) = (device(packet.interface), &packet.frame);
        let skb = SkBuff::new(ifindex, 1);
        let md = XdpMd::new(ifindex, frame.len() as u32);
        // XDP_PASS, XDP_DROP; TCX_NEXT, TCX_DROP (`include/uapi/linux/bpf.h`).
        let (answer, pass, drop) = match packet.hook {
            Hook::Xdp => (run(&self.xdp, frame, &md), 2, 1),
            Hook::TcIngress => (run(&self.tc_ingress, frame, &skb), u32::MAX, 2),
            Hook::TcEgress => (run(&self.tc_egress, frame, &skb), u32::MAX, 2),
        };
        assert!(answer == pass || answer == drop, "{answer}");
        answer == pass
    }

    /// Two datagrams of a UDP flow each way, after which it is assured; answers how many passed.
    pub(crate) fn talk(&self, flow: &Flow) -> usize {
        let (to, from) = (flow.packet(Hook::Xdp), flow.packet(Hook::TcEgress));
        let packets = [&to, &from, &to, &from].into_iter();
        packets.filter(|packet| self.passes(packet)).count()
    }

    /// Makes an assured flow by command.
    pub(crate) fn adopt(&self, flow: &Flow) -> Inserted {
        self.control
            .insert(flow.interface, &flow.tuple, true)
            .unwrap()
    }

    /// Ends a flow by command; `false` if there is no such flow.
    pub(crate) fn delete(&self, flow: &Flow) -> bool {
        self.control.delete(flow.interface, &flow.tuple).unwrap()
    }

    /// Ends all flows of an interface by command; answers how many there were.
    pub(crate) fn flush(&self, interface: u32) -> u64 {
        let buckets = self.session.runtime.buckets;
        self.control.flush(interface, buckets).unwrap()
    }

    /// Packets of both interfaces with this verdict.
    pub(crate) fn counted(&self, verdict: Verdict) -> u64 {
        let of = |counters: &Counters| -> u64 {
            let both = counters.counts.iter();
            both.map(|by_outcome| by_outcome[verdict.outcome()].packets)
                .sum()
        };
        let table = &self.session.tables.counters;
        let all = INTERFACES.map(|id| table.get_per_cpu(&id).unwrap());
        all.iter().flatten().map(of).sum()
    }

    /// Packets of both interfaces that were dropped for any reason.
    pub(crate) fn dropped(&self) -> u64 {
        Verdict::all()
            .filter(|verdict| !verdict.passes())
            .map(|verdict| self.counted(verdict))
            .sum()
    }
}

/// Puts two interfaces in force on which every flow of TCP and UDP is allowed and tracked, and openings of
/// TCP live for a second.
fn enforce(session: &mut Session, control: &Control, allowance: u32) {
    let rules = r#"[
        { protocol = "tcp", ports = "0-65535", cidr = ["0.0.0.0/0", "::/0"] },
        { protocol = "udp", ports = "0-65535", cidr = ["0.0.0.0/0", "::/0"] },
    ]"#;
    let interface = "orientation = \"own\"\ngroups = [\"open\"]\ntrack = \"always\"\n\
                     timeouts = { tcp_syn_sent = 1 }\n";
    let text = format!(
        "[conntrack]\nallowance = {allowance}\n[groups.open]\ningress = {rules}\negress = {rules}\n\
         [interfaces.d1]\n{interface}[interfaces.d2]\n{interface}"
    );
    let checked = definition::check(&[Source::new("test.toml", text.clone().into())]);
    let Some(model) = checked.model else {
        panic!("{:#?}\n{text}", checked.diagnostics);
    };
    let compiled = compile::compile(&resolve::resolve(&model, &BTreeMap::new())).unwrap();
    session.set_limits(&compiled);
    let now = control.now().unwrap();
    bank::put_in_force(
        &session.tables,
        &session.object,
        &compiled,
        &mut session.runtime,
        now,
        |name| match name {
            "d1" => Some(INTERFACES[0]),
            _ => Some(INTERFACES[1]),
        },
    )
    .unwrap();
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
    program.test_run(options).unwrap().return_value
}

/// A thread of a CPU's own among the others.
#[derive(Clone, Copy)]
pub(crate) struct Cpu<'a> {
    /// From 0 on.
    pub(crate) number: u32,
    pub(crate) count: u32,
    arrived: &'a [AtomicU32],
    start: Instant,
}

/// How long a thread waits for others at most, all its steps together: on a machine that does other work the
/// rest goes without, or it would take minutes, and flows idle out.
const WAITING: Duration = Duration::from_millis(400);

impl Cpu<'_> {
    /// Waits until every CPU has come to this step; steps ascend from 1.
    pub(crate) fn meet(&self, step: u32) {
        self.arrived[self.number as usize].store(step, Ordering::Release);
        for other in self.arrived {
            let mut spins = 0_u32;
            while other.load(Ordering::Acquire) < step {
                hint::spin_loop();
                spins += 1;
                if spins.is_multiple_of(1024) {
                    if self.start.elapsed() > WAITING {
                        return;
                    }
                    // Somebody else's work may be what keeps the other one from running.
                    thread::yield_now();
                }
            }
        }
    }
}

/// Runs `task` on every CPU at once, in a thread that stays there.
pub(crate) fn on_every_cpu<T: Send>(task: impl Fn(Cpu<'_>) -> T + Sync) -> Vec<T> {
    let set = sched_getaffinity(None).unwrap();
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|cpu| set.is_set(*cpu))
        .collect();
    assert!(cpus.len() >= 2, "one CPU cannot do it");
    let arrived: Vec<AtomicU32> = cpus.iter().map(|_| AtomicU32::new(0)).collect();
    thread::scope(|scope| {
        let started: Vec<_> = (0..)
            .zip(&cpus)
            .map(|(number, cpu)| {
                let (task, arrived) = (&task, &arrived[..]);
                scope.spawn(move || {
                    let mut own = CpuSet::new();
                    own.set(*cpu);
                    sched_setaffinity(None, &own).unwrap();
                    task(Cpu {
                        number,
                        count: arrived.len() as u32,
                        arrived,
                        start: Instant::now(),
                    })
                })
            })
            .collect();
        let done = started.into_iter().map(|thread| thread.join());
        done.map(|result| result.expect("what a CPU did")).collect()
    })
}
