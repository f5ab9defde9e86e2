//! Judges side by side.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use sg_common::verdict::Direction;
use sg_userspace::{
    definition,
    model::{Model, Peer, Ports, Track, Traffic},
    resolve::{Resolved, resolve},
};

use crate::{
    common::netns::{Enforcer, eventually},
    conntrack,
    definitions::{self, Case},
    differences::{self, UNTRACKED},
    interest, packet,
    probe::{self, Probe, Step},
    random::Random,
    translate::{Family, ruleset},
    twin::{Stand, Twin},
};

/// Differences that are shown when a trial fails.
const SHOWN: usize = 40;

/// Conversations about a rule that is missing.
const MISSING: usize = 40;

/// The judges, what they enforce, and what came of it.
pub(crate) struct Trial {
    /// What led to the definition in force.
    pub(crate) origin: String,
    hook: &'static str,
    enforcer: Enforcer,
    open: Twin,
    nftables: Twin,
    own: Twin,
    host: Twin,
    _stand: Stand,
    definition: String,
    /// The first definition that failed.
    culprit: Option<String>,
    resolved: Resolved,
    seen: BTreeMap<&'static str, BTreeSet<&'static str>>,
    failures: Vec<String>,
    packets: usize,
    passed: usize,
}

impl Trial {
    /// What is missing on this machine.
    pub(crate) fn lack() -> Option<&'static str> {
        let nft = Command::new("nft").arg("--version").output();
        if !nft.is_ok_and(|said| said.status.success()) {
            return Some("needs nft: `cargo xtask setup` installs it");
        }
        // It is not loaded from here: it would change what bridges of this machine do.
        let bridges = Path::new("/proc/sys/net/bridge").exists();
        (!bridges).then_some("needs netfilter on bridges: `modprobe br_netfilter` loads it")
    }

    /// Judges that let everything in; `hook` is that of the `own` interface.
    pub(crate) fn new(hook: &'static str) -> Self {
        let stand = Stand::new();
        let mut trial = Self {
            origin: String::new(),
            hook,
            enforcer: Enforcer::new(),
            open: stand.twin("open"),
            nftables: stand.twin("nftables"),
            own: stand.twin("own"),
            host: stand.twin("host"),
            _stand: stand,
            definition: String::new(),
            culprit: None,
            resolved: resolve(&Model::default(), &BTreeMap::new()),
            seen: BTreeMap::new(),
            failures: Vec::new(),
            packets: 0,
            passed: 0,
        };
        for family in ["iptables", "ip6tables"] {
            let key = format!("net/bridge/bridge-nf-call-{family}");
            trial.nftables.middle.sysctl(&key, "1");
        }
        trial.awake();
        trial
    }

    /// Waits until every bridge forwards, and until every judge judges.
    fn awake(&mut self) {
        let remote = "198.18.7.7".parse().unwrap();
        let probe = || [probe::exchange(remote, Direction::Ingress, (1, 2))];
        eventually("a packet through the open bridge", || {
            self.open.run(&probe())[0][0]
        });
        self.enforce(&definitions::all_in());
        for twin in [&mut self.nftables, &mut self.own, &mut self.host] {
            eventually("a packet that is allowed", || twin.run(&probe())[0][0]);
            eventually("silence where nothing is", || {
                let [mut probe] = probe();
                probe.steps.remove(0);
                !twin.run(&[probe])[0][0]
            });
        }
    }

    /// Puts a definition in force, in everybody's words. Flows stay, but none of them has an address
    /// in common with what is yet to come. Nothing is left to take over from the definition before.
    pub(crate) fn enforce(&mut self, case: &Case) {
        if leaves_untracked(&self.resolved) {
            self.succeed(&definitions::nothing());
        }
        self.succeed(case);
    }

    /// Puts a definition in force directly after the one before.
    pub(crate) fn succeed(&mut self, case: &Case) {
        let places = [&self.own, &self.host].map(|twin| twin.middle.name.as_str());
        self.definition = case.definition(places, self.hook);
        if case.name != "random" {
            case.name.clone_into(&mut self.origin);
        }
        let said = self.enforcer.apply(&self.definition, &[]);
        assert_eq!(said.code, 0, "{said:?}\n{}", self.definition);
        let checked = definition::load(std::slice::from_ref(&self.enforcer.file)).unwrap();
        self.resolved = resolve(&checked.model.unwrap(), &BTreeMap::new());
        self.translate(&self.resolved);
    }

    /// Puts a definition in force in the words of nftables.
    fn translate(&self, resolved: &Resolved) {
        let settings = &resolved.interfaces["own"].settings;
        let loose = if settings.tcp_loose { "1" } else { "0" };
        let nftables = &self.nftables.middle;
        nftables.sysctl("net/netfilter/nf_conntrack_tcp_loose", loose);
        let ruleset = ruleset(resolved, "own");
        nftables.run(|| nft(&ruleset));
    }

    /// Tries what the definition in force is about.
    pub(crate) fn probe_rules(&mut self, random: &mut Random, most: usize) {
        self.nftables.middle.run(conntrack::flush);
        let probes = interest::probes(&self.resolved, "own", random, most);
        self.probe(&probes);
    }

    /// Takes each rule of the definition in force out of nftables, one after the other: each must be
    /// missed.
    pub(crate) fn misses_every_rule(&mut self) {
        let whole = self.resolved.clone();
        let whole = &whole;
        let rules = whole.interfaces["own"].groups.iter().flat_map(|group| {
            Direction::ALL.into_iter().flat_map(move |direction| {
                let count = whole.groups[group].rules(direction).len();
                (0..count).map(move |rule| (group, direction, rule))
            })
        });
        for (group, direction, rule) in rules {
            let mut less = whole.clone();
            let group = less.groups.get_mut(group).unwrap();
            let lost = match direction {
                Direction::Ingress => group.ingress.remove(rule),
                Direction::Egress => group.egress.remove(rule),
            };
            // Nobody misses a rule that covers nobody.
            let idle = match &lost.peer {
                Peer::Cidr(_) => false,
                Peer::PrefixList(list) => whole.prefix_lists[list].is_empty(),
                Peer::Group(group) => whole.groups[group].members.is_empty(),
                Peer::GroupOf(group, family) => !whole.groups[group]
                    .members
                    .iter()
                    .any(|member| member.is_ipv6() == family.is_ipv6()),
            };
            if idle {
                continue;
            }
            self.translate(&less);
            let probes = interest::lost(whole, &less, "own", &mut Random(0), MISSING);
            self.nftables.middle.run(conntrack::flush);
            let (ours, theirs) = (self.own.run(&probes), self.nftables.run(&probes));
            let mut verdicts = ours.iter().flatten().zip(theirs.iter().flatten());
            assert!(
                verdicts.any(|(ours, theirs)| *ours && !theirs),
                "{}: nobody misses {lost:?}",
                self.origin
            );
        }
        self.translate(whole);
    }

    /// Sends the same packets to everybody and compares what arrives.
    pub(crate) fn probe(&mut self, probes: &[Probe]) {
        let open = self.open.run(probes);
        let theirs = self.nftables.run(probes);
        for twin in [&mut self.own, &mut self.host] {
            let ours = twin.run(probes);
            for (number, probe) in probes.iter().enumerate() {
                for (at, step) in probe.steps.iter().enumerate() {
                    assert!(open[number][at], "not sent: {probe:?}, step {at}");
                    let (ours, theirs) = (ours[number][at], theirs[number][at]);
                    self.packets += 1;
                    self.passed += usize::from(ours);
                    if ours == theirs {
                        continue;
                    }
                    if let Some(name) = explain(&self.resolved, probe, step, ours, twin.name) {
                        self.seen.entry(name).or_default().insert(twin.name);
                        continue;
                    }
                    let verdict = if ours { "passes" } else { "drops" };
                    self.failures.push(format!(
                        "{}: {} {verdict} step {at} ({:?}) of {} at {}, nftables does not",
                        self.origin, twin.name, step.direction, probe.what, probe.local
                    ));
                    self.culprit.get_or_insert_with(|| self.definition.clone());
                }
            }
        }
    }

    /// No difference is listed that does not exist.
    pub(crate) fn every_difference_was_seen(&mut self) {
        for difference in &differences::ALL {
            let twins: &[&str] = if difference.host_only {
                &["host"]
            } else {
                &["host", "own"]
            };
            for twin in twins {
                let seen = self.seen.get(difference.name);
                if !seen.is_some_and(|seen| seen.contains(twin)) {
                    let name = difference.name;
                    self.failures
                        .push(format!("no difference by {name} is seen at {twin}"));
                }
            }
        }
    }

    /// Fails if anything was otherwise than it should be.
    pub(crate) fn finish(self) {
        let exceeded = ["own", "host"].map(|interface| {
            self.enforcer
                .figure(interface, "conntrack_allowance_exceeded")
        });
        assert_eq!(exceeded, [0, 0], "packets were dropped for want of room");
        println!("{} packets, {} passed", self.packets, self.passed);
        let all = self.failures.len();
        let shown: Vec<String> = self.failures.into_iter().take(SHOWN).collect();
        assert!(
            shown.is_empty(),
            "{all} differences, such as\n{}\nthe first under\n{}",
            shown.join("\n"),
            self.culprit.unwrap_or_default()
        );
        assert!(self.passed > 0 && self.passed < self.packets);
    }
}

/// The difference that is meant; `ours` is whether the enforcer let the packet pass.
fn explain(
    resolved: &Resolved,
    probe: &Probe,
    step: &Step,
    ours: bool,
    twin: &str,
) -> Option<&'static str> {
    let listed = step
        .difference
        .map(differences::named)
        .filter(|listed| listed.passes == ours && (twin == "host" || !listed.host_only));
    let untracked = || (ours && is_untracked(resolved, probe)).then_some(UNTRACKED);
    listed.map(|listed| listed.name).or_else(untracked)
}

/// Whether there may be flows that are open both ways.
fn leaves_untracked(resolved: &Resolved) -> bool {
    Family::ALL.into_iter().any(|family| {
        [packet::TCP, packet::UDP].into_iter().any(|protocol| {
            let open = |direction| !everywhere(resolved, direction, family, protocol).is_empty();
            Direction::ALL.into_iter().all(open)
        })
    })
}

/// Whether the flow is open both ways (docs/semantics.md, section 12).
fn is_untracked(resolved: &Resolved, probe: &Probe) -> bool {
    let Some((protocol, local, remote)) = probe.flow else {
        return false;
    };
    if resolved.interfaces["own"].settings.track == Track::Always {
        return false;
    }
    let family = Family::of(probe.remote);
    let covered = |direction: Direction| {
        let ranges = everywhere(resolved, direction, family, protocol);
        (0..=u16::MAX)
            .filter(|port| ranges.iter().any(|range| range.contains(*port)))
            .collect::<BTreeSet<u16>>()
    };
    let (inward, outward) = (covered(Direction::Ingress), covered(Direction::Egress));
    let open = |ports: &BTreeSet<u16>| ports.len() == 65_536;
    (open(&inward) && outward.contains(&remote)) || (open(&outward) && inward.contains(&local))
}

/// Ports that rules from everywhere cover.
fn everywhere(
    resolved: &Resolved,
    direction: Direction,
    family: Family,
    protocol: u8,
) -> Vec<Ports> {
    let rules = resolved
        .rules_of("own", direction)
        .filter(|rule| match &rule.peer {
            Peer::Cidr(net) => net.prefix_len() == 0 && Family::of(net.addr()) == family,
            Peer::PrefixList(name) => resolved.prefix_lists[name]
                .iter()
                .any(|net| net.prefix_len() == 0 && Family::of(net.addr()) == family),
            Peer::Group(_) | Peer::GroupOf(..) => false,
        });
    rules
        .filter_map(|rule| match (rule.traffic, protocol) {
            (Traffic::All, _) => Some(Ports {
                from: 0,
                to: u16::MAX,
            }),
            (Traffic::Tcp(ports), packet::TCP) | (Traffic::Udp(ports), packet::UDP) => Some(ports),
            _ => None,
        })
        .collect()
}

/// Puts a ruleset in force in this namespace.
fn nft(ruleset: &str) {
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut words = nft.stdin.take().unwrap();
    words.write_all(ruleset.as_bytes()).unwrap();
    drop(words);
    let said = nft.wait_with_output().unwrap();
    assert!(
        said.status.success(),
        "{}\n{ruleset}",
        String::from_utf8_lossy(&said.stderr)
    );
}
