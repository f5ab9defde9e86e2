//! All traffic at once, and the balance at its end.
//!
//! Nothing else than the enforcer may drop a packet here: few are under way at a time, sockets have room,
//! neighbours are known. That is verified, by the counters of the kernel. Then the enforcer must have dropped
//! as many packets as were sent and did not arrive, all for want of a rule, in either direction of each link. So
//! a segment of a long-lived connection that was dropped and sent again would be found, too.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use sg_userspace::stats;

use crate::{
    bed::Bed,
    channel::Counts,
    common::netns::{Namespace, eventually_within},
    lane::Lane,
    scale::patience,
    streams::{Streams, Transferred},
};

/// What threads tell each other.
#[derive(Debug)]
pub(crate) struct Signals {
    pub(crate) stop: AtomicBool,
    /// Odd while a device is not as it should be.
    pub(crate) disturbances: AtomicU32,
    /// Rounds of each lane.
    pub(crate) rounds: Vec<AtomicU64>,
    /// Rounds of each lane in which everything arrived that had to.
    pub(crate) whole: Vec<AtomicU64>,
    names: Vec<String>,
    /// Links whose connections end with their device.
    forgiven: Mutex<Vec<&'static str>>,
    failures: Mutex<Vec<String>>,
}

impl Signals {
    fn new(names: Vec<String>) -> Self {
        Self {
            stop: AtomicBool::new(false),
            disturbances: AtomicU32::new(0),
            rounds: names.iter().map(|_| AtomicU64::new(0)).collect(),
            whole: names.iter().map(|_| AtomicU64::new(0)).collect(),
            names,
            forgiven: Mutex::default(),
            failures: Mutex::default(),
        }
    }

    pub(crate) fn place(&self, name: &str) -> usize {
        let place = self.names.iter().position(|one| one == name);
        place.expect("it is one of the lanes")
    }

    pub(crate) fn is_disturbed(&self) -> bool {
        !self.disturbances.load(Ordering::Relaxed).is_multiple_of(2)
    }

    pub(crate) fn was_disturbed(&self) -> bool {
        self.disturbances.load(Ordering::Relaxed) > 0
    }

    fn fail(&self, failure: String) {
        self.failures.lock().unwrap().push(failure);
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Fails if traffic has.
    #[track_caller]
    pub(crate) fn check(&self) {
        let failures = self.failures.lock().unwrap();
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }

    /// Waits until every lane has begun and ended two rounds from now on.
    #[track_caller]
    pub(crate) fn probe(&self) {
        self.two_more(&self.rounds, "a round of packets");
    }

    #[track_caller]
    fn two_more(&self, counts: &[AtomicU64], what: &str) {
        let read = || -> Vec<u64> {
            let counts = counts.iter();
            counts.map(|count| count.load(Ordering::Relaxed)).collect()
        };
        let before = read();
        eventually_within(patience(Duration::from_secs(60)), what, || {
            self.check();
            read()
                .iter()
                .zip(&before)
                .all(|(now, then)| *now >= then + 2)
        });
    }

    /// Does something during which packets may be lost that nobody judges, and waits until none are.
    #[track_caller]
    pub(crate) fn disturb<T>(&self, act: impl FnOnce() -> T) -> T {
        self.disturbances.fetch_add(1, Ordering::Relaxed);
        let done = act();
        self.two_more(&self.whole, "a round of packets that all arrive");
        self.disturbances.fetch_add(1, Ordering::Relaxed);
        done
    }

    /// Long-lived connections of a link may end.
    pub(crate) fn forgive_streams(&self, wire: &'static str) {
        self.forgiven.lock().unwrap().push(wire);
    }

    pub(crate) fn is_forgiven(&self, wire: &str) -> bool {
        self.forgiven.lock().unwrap().contains(&wire)
    }
}

/// How exact the balance must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Balance {
    /// Every packet that did not arrive was dropped by the enforcer for want of a rule.
    Exact,
    /// Some got lost on the way to it.
    AtMost,
}

/// Lets all traffic flow while `act` does something, and checks every packet of it.
#[track_caller]
pub(crate) fn during<T>(bed: &Bed, balance: Balance, act: impl FnOnce(&Signals) -> T) -> T {
    let ways = bed
        .wires
        .iter()
        .flat_map(|wire| [(wire, true), (wire, false)]);
    let names = ways.clone().map(|(wire, forward)| {
        format!("{} {}", wire.name, if forward { "forward" } else { "back" })
    });
    let signals = &Signals::new(names.collect());
    let before = Figures::read(bed);
    let mut streams: Vec<Streams> = bed.wires.iter().map(Streams::new).collect();
    let lanes: Vec<Lane<'_>> = ways
        .map(|(wire, forward)| Lane::new(bed, wire, forward, signals))
        .collect();
    let cpus = cpus();
    let (done, lanes, transferred) = thread::scope(|scope| {
        let lanes: Vec<_> = lanes
            .into_iter()
            .zip(cpus.iter().cycle())
            .map(|(mut lane, cpu)| {
                scope.spawn(move || {
                    stay_on(*cpu);
                    if let Err(failure) = lane.run().and_then(|()| lane.close()) {
                        signals.fail(failure);
                    }
                    lane
                })
            })
            .collect();
        let streams: Vec<_> = streams
            .iter_mut()
            .map(|streams| {
                scope.spawn(move || {
                    streams.run(signals).unwrap_or_else(|failure| {
                        signals.fail(failure);
                        Transferred::default()
                    })
                })
            })
            .collect();
        let done = {
            // Traffic ends with the test, however that ends.
            let _stop = Stop(signals);
            signals.probe();
            let done = act(signals);
            signals.probe();
            done
        };
        let lanes: Vec<Lane<'_>> = lanes.into_iter().map(|lane| lane.join().unwrap()).collect();
        let transferred: Vec<_> = streams.into_iter().map(|one| one.join().unwrap()).collect();
        (done, lanes, transferred)
    });
    signals.check();
    let after = Figures::read(bed);
    println!("{}", summary(&lanes, &transferred));
    for lane in &lanes {
        for channel in &lane.channels {
            let Counts { sent, .. } = channel.counts;
            assert!(sent > 0, "{}: nothing of {}", lane.name, channel.name);
        }
    }
    for (lanes, wire) in lanes.chunks(2).zip(&bed.wires) {
        for (lane, direction) in lanes.iter().zip(wire.directions()) {
            let counts = lane.channels.iter().map(|channel| channel.counts);
            let missing: u64 = counts.map(|counts| counts.sent - counts.arrived).sum();
            let dropped = after.dropped(&before, wire.name, direction);
            // The kernels at both ends report groups of IPv6 multicast that they listen to, unasked.
            let reports = after.reports(&before, wire.name);
            // What ends a connection may have been lost behind us, and be sent again when nobody knows it any more. Were
            // it of a connection that lives, that would not go on.
            let known: &[&str] = match balance {
                Balance::Exact => &["no_rule"],
                Balance::AtMost => &["no_rule", "mid_stream"],
            };
            // `ip_source`: reports of a device that has no address yet.
            let only = dropped.iter().all(|(reason, count)| {
                known.contains(&&**reason) || (reason == "ip_source" && *count <= reports)
            });
            let no_rule = dropped.get("no_rule").copied().unwrap_or(0);
            let most = missing + reports;
            let balanced = match balance {
                Balance::Exact => (missing..=most).contains(&no_rule),
                Balance::AtMost => no_rule <= most,
            };
            assert!(
                only && balanced,
                "{}: {missing} packets did not arrive, dropped as {dropped:?}; {reports} reports; elsewhere {}",
                lane.name,
                after.lost(&before)
            );
        }
    }
    if balance == Balance::Exact {
        assert_eq!(after.lost(&before), 0, "packets were lost elsewhere");
    }
    done
}

struct Stop<'a>(&'a Signals);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

fn summary(lanes: &[Lane<'_>], transferred: &[Transferred]) -> String {
    let mut text = String::new();
    for lane in lanes {
        for channel in &lane.channels {
            let Counts {
                sent,
                arrived,
                due,
                barred,
            } = channel.counts;
            let name = &channel.name;
            let _ = writeln!(
                text,
                "{}: {name}: {sent} sent, {arrived} arrived, {due} had to, {barred} must not",
                lane.name
            );
        }
    }
    for one in transferred {
        let longest = one.longest.as_millis();
        let _ = writeln!(
            text,
            "streams: {} bytes, longest wait {longest} ms",
            one.bytes
        );
    }
    text
}

/// Counters of the enforcer, and of what else could drop a packet.
struct Figures {
    /// By interface, direction and reason.
    dropped: BTreeMap<(String, String, String), u64>,
    /// Datagrams that sockets had no room for.
    lost: u64,
    /// Messages that kernels sent of themselves, by link.
    reports: BTreeMap<&'static str, u64>,
}

impl Figures {
    fn read(bed: &Bed) -> Self {
        let stats = stats::read(&bed.enforcer.context, None).unwrap();
        let mut dropped = BTreeMap::new();
        for interface in stats.interfaces {
            for count in interface.verdicts.into_iter().filter(|one| !one.passed) {
                let key = (interface.name.clone(), count.direction, count.outcome);
                dropped.insert(key, count.packets);
            }
        }
        let mut reports = BTreeMap::new();
        let mut lost = 0;
        for wire in &bed.wires {
            for end in [&wire.near, &wire.far] {
                let own = Kernel::read(end);
                lost += own.lost;
                *reports.entry(wire.name).or_default() += own.reports;
            }
        }
        Self {
            dropped,
            lost,
            reports,
        }
    }

    /// Packets dropped since `before`, by reason.
    fn dropped(&self, before: &Self, interface: &str, direction: &str) -> BTreeMap<String, u64> {
        let mut rises = BTreeMap::new();
        for ((name, way, reason), count) in &self.dropped {
            let key = (name.clone(), way.clone(), reason.clone());
            // A device that is made again is another interface, which begins at 0.
            let before = before.dropped.get(&key).copied().unwrap_or(0);
            let rise = count.saturating_sub(before);
            if name == interface && way == direction && rise > 0 {
                rises.insert(reason.clone(), rise);
            }
        }
        rises
    }

    fn lost(&self, before: &Self) -> u64 {
        self.lost - before.lost
    }

    fn reports(&self, before: &Self, wire: &str) -> u64 {
        self.reports[wire] - before.reports[wire]
    }
}

/// Counters of a namespace.
struct Kernel {
    lost: u64,
    reports: u64,
}

impl Kernel {
    fn read(namespace: &Namespace) -> Self {
        let (v4, v6) = namespace.run(|| {
            let read = |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}"));
            (read("snmp").unwrap(), read("snmp6").unwrap())
        });
        let mut udp = v4.lines().filter_map(|line| line.strip_prefix("Udp: "));
        let (names, values) = (udp.next().unwrap(), udp.next().unwrap());
        let named = names.split(' ').zip(values.split(' '));
        let v4 = named
            .filter(|(name, _)| ["InErrors", "RcvbufErrors"].contains(name))
            .map(|(_, value)| value.parse::<u64>().unwrap());
        let of_v6 = |wanted: &[&str]| -> u64 {
            let named = v6.lines().filter_map(|line| {
                let (name, value) = line.split_once(char::is_whitespace)?;
                wanted
                    .contains(&name)
                    .then(|| value.trim().parse::<u64>().unwrap())
            });
            named.sum()
        };
        Self {
            lost: v4.sum::<u64>() + of_v6(&["Udp6InErrors", "Udp6RcvbufErrors"]),
            // MLD, of either version (RFC 2710, RFC 3810).
            reports: of_v6(&["Icmp6OutType131", "Icmp6OutType132", "Icmp6OutType143"]),
        }
    }
}

fn cpus() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap();
    let all = 0..CpuSet::MAX_CPU;
    all.filter(|cpu| set.is_set(*cpu)).collect()
}

/// Keeps the calling thread on one CPU, so that what it sends is judged in the order it was sent.
fn stay_on(cpu: usize) {
    let mut own = CpuSet::new();
    own.set(cpu);
    sched_setaffinity(None, &own).unwrap();
}
