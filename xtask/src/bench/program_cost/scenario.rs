//! Which cases there are, and which goals they are held against.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, bail};
use sg_common::verdict::{DropReason, PassKind, Verdict};

use super::Hook;
use super::baseline::{ALLOCATING, HASH, LRU};
use super::case::{counted, flows};
use super::frame;
use super::goal::{Row, Sum, findings, minus, net, plus, times};
use super::plan::{Net, Objects, Plan, Prepare};
use super::policy::RULES;
use super::traffic::Traffic;
use super::world::World;
use crate::bench::Options;
use crate::bench::report::Findings;

/// Growth that is none: what two measurements of the same may differ by.
const NO_GROWTH: f64 = 1.05;
/// What IPv6 may take more than IPv4.
const IPV6: f64 = 1.2;
/// Nanoseconds that TC may take more than XDP.
const TC: f64 = 15.0;

/// Prepares cases and the goals that they are held against.
type Scenario<T> = fn(&mut T) -> Result<()>;
/// Prepares the case of a family under some of [`RULES`].
type ByRules<T> = fn(&mut T, bool, (&str, u32, u32)) -> Result<Net>;

/// What has been prepared yet.
pub(crate) struct Scenarios<'a> {
    options: &'a Options,
    pub(crate) plan: Plan,
    pub(crate) worlds: HashMap<&'static str, Rc<World>>,
    /// Cases by name.
    pub(crate) known: HashMap<String, Net>,
    /// How many flows there are, by world and family.
    pub(crate) established: HashMap<(&'static str, bool), u32>,
    rows: Vec<Row>,
}

/// Measures everything that is wanted.
pub(crate) fn measure(options: &Options, objects: Objects) -> Result<Findings> {
    let mut scenarios = Scenarios {
        options,
        plan: Plan::new(objects)?,
        worlds: HashMap::new(),
        known: HashMap::new(),
        established: HashMap::new(),
        rows: Vec::new(),
    };
    scenarios.all()?;
    scenarios.plan.run(options.rounds)?;
    let meter = &scenarios.plan.meter;
    eprintln!(
        "{} samples taken again, {} taken although the CPU was slow",
        meter.repeated, meter.doubtful
    );
    Ok(findings(&scenarios.plan, &scenarios.rows))
}

impl Scenarios<'_> {
    fn all(&mut self) -> Result<()> {
        let scenarios: [(&str, Scenario<Self>); 10] = [
            ("established", Self::established),
            ("untracked", Self::untracked),
            ("always passed", Self::always_passed),
            ("denied", Self::denied),
            ("new flow", Self::new_flow),
            ("rules", Self::rules),
            ("host", Self::host),
            ("members", Self::members),
            ("fragment", Self::fragment),
            ("ICMP error", Self::icmp_error),
        ];
        for (name, prepare) in scenarios {
            if self.options.wants(name) {
                prepare(self)?;
            }
        }
        if self.plan.cases.is_empty() {
            let names = scenarios.map(|(name, _)| name).join(", ");
            bail!("no case is called like that; there are {names}");
        }
        Ok(())
    }

    fn established(&mut self) -> Result<()> {
        let empty = self.empty()?;
        for (count, goal) in [(1 << 10, 0.8), (1 << 16, 0.45), (1 << 20, 0.35)] {
            let ours = self.established_case(Hook::Xdp, false, count)?;
            let lookup = self.lookup(false, count)?;
            self.entry(count)?;
            let what = format!("established, {}", flows(count));
            let of = format!("LOOKUP at {}", counted(count));
            self.at_most(goal, &what, &of, net(ours), net(lookup));
        }
        let ours = self.established_case(Hook::Xdp, false, 1 << 10)?;
        let whole = plus(empty.clone(), net(ours));
        let what = "established, whole program, 1 k flows";
        self.at_most(2.4, what, "empty program", whole, empty);
        for hook in [Hook::TcIngress, Hook::TcEgress] {
            let tc = self.established_case(hook, false, 1 << 10)?;
            self.beside_xdp("established", hook, tc, ours);
        }
        for count in [1 << 10, 1 << 16] {
            let four = self.established_case(Hook::Xdp, false, count)?;
            let six = self.established_case(Hook::Xdp, true, count)?;
            let what = format!("established, IPv6, {}", flows(count));
            self.at_most(IPV6, &what, "IPv4", net(six), net(four));
        }
        for (hook, ipv6) in self.others() {
            for count in [1, 1 << 10, 1 << 16, 1 << 20] {
                self.established_case(hook, ipv6, count)?;
                self.lookup(ipv6, count)?;
                self.lookup_in(LRU, ipv6, count)?;
            }
        }
        Ok(())
    }

    fn untracked(&mut self) -> Result<()> {
        let lookup = self.lookup(false, 1 << 10)?;
        let ours = self.untracked_case(Hook::Xdp, false)?;
        self.at_most(0.5, "untracked", "LOOKUP at 1 k", net(ours), net(lookup));
        let six = self.untracked_case(Hook::Xdp, true)?;
        self.at_most(IPV6, "untracked, IPv6", "IPv4", net(six), net(ours));
        for hook in [Hook::TcIngress, Hook::TcEgress] {
            let tc = self.untracked_case(hook, false)?;
            self.beside_xdp("untracked", hook, tc, ours);
        }
        for (hook, ipv6) in self.others() {
            self.untracked_case(hook, ipv6)?;
        }
        Ok(())
    }

    fn always_passed(&mut self) -> Result<()> {
        let lookup = self.lookup(false, 1 << 10)?;
        for (ipv6, name, kind) in [
            (false, "always passed, ARP", PassKind::Arp),
            (
                true,
                "always passed, neighbour solicitation",
                PassKind::NeighborDiscovery,
            ),
        ] {
            let traffic = Traffic::same(frame::resolution(ipv6));
            let (place, verdict) = (("small", "thousand"), Verdict::Pass(kind));
            let ours = self.case(name, place, traffic, verdict, Prepare::Nothing)?;
            self.at_most(0.5, name, "LOOKUP at 1 k", net(ours), net(lookup));
        }
        Ok(())
    }

    fn denied(&mut self) -> Result<()> {
        let floor = self.policy_floor(false, 1000)?;
        let ours = self.denied_case(Hook::Xdp, false)?;
        self.at_most(
            1.0,
            "denied, 1 k rules",
            "LPM + LOOKUP at 1 k",
            net(ours),
            floor,
        );
        self.aim(0.7);
        let six = self.denied_case(Hook::Xdp, true)?;
        self.at_most(IPV6, "denied, 1 k rules, IPv6", "IPv4", net(six), net(ours));
        for hook in [Hook::TcIngress, Hook::TcEgress] {
            let tc = self.denied_case(hook, false)?;
            self.beside_xdp("denied", hook, tc, ours);
        }
        for (hook, ipv6) in self.others() {
            self.denied_case(hook, ipv6)?;
            self.policy_floor(ipv6, 1000)?;
        }
        Ok(())
    }

    fn new_flow(&mut self) -> Result<()> {
        let denied = self.denied_case(Hook::Xdp, false)?;
        let insertion = self.insertion(false)?;
        let ours = self.new_case(Hook::Xdp, false)?;
        let allowed = plus(net(denied), times(1.2, insertion));
        let of = "denied + 1.2 × insert";
        self.at_most(1.0, "new flow, 1 k rules", of, net(ours), allowed);
        let six = self.new_case(Hook::Xdp, true)?;
        self.at_most(
            IPV6,
            "new flow, 1 k rules, IPv6",
            "IPv4",
            net(six),
            net(ours),
        );
        for hook in [Hook::TcIngress, Hook::TcEgress] {
            let tc = self.new_case(hook, false)?;
            self.beside_xdp("new flow", hook, tc, ours);
        }
        for (hook, ipv6) in self.others() {
            self.new_case(hook, ipv6)?;
            self.insertion(ipv6)?;
            self.insertion_into(ALLOCATING, ipv6)?;
            // The limit on unassured flows is one for both families.
            let [flood, brief] = match ipv6 {
                false => ["flood 4", "brief 4"],
                true => ["flood 6", "brief 6"],
            };
            let what = "of which each replaces another";
            self.crowded_case(flood, hook, ipv6, what, Duration::ZERO)?;
            let (what, time) = ("over 64 k expired ones", Duration::from_millis(1200));
            self.crowded_case(brief, hook, ipv6, what, time)?;
        }
        Ok(())
    }

    /// Growth with the rules of an interface.
    fn rules(&mut self) -> Result<()> {
        let [least, few, many, _] = RULES;
        let trie = |scenarios: &mut Self, prefixes| scenarios.trie(false, prefixes).map(net);
        let growth = minus(trie(self, 10_000)?, trie(self, 10)?);
        let measured: [(&str, ByRules<Self>); 2] =
            [("denied", Self::denied_by), ("new flow", Self::new_by)];
        for (name, case) in measured {
            let least = case(self, false, least)?;
            let few = case(self, false, few)?;
            let many = case(self, false, many)?;
            let what = format!("{name}, 10 → 1 k rules, 10 k prefixes");
            self.at_most(1.25, &what, "10 rules", net(many), net(few));
            let what = format!("{name}, 10 → 1 k rules, 10 → 10 k prefixes");
            let beside = plus(net(least), growth.clone());
            self.at_most(1.25, &what, "10 + LPM's growth", net(many), beside);
            if !self.options.full {
                continue;
            }
            for ipv6 in [false, true] {
                for rules in RULES {
                    case(self, ipv6, rules)?;
                    self.trie(ipv6, rules.2)?;
                }
            }
        }
        Ok(())
    }

    /// Growth with what else is on the host.
    fn host(&mut self) -> Result<()> {
        let more = ", 1 k interfaces";
        let one = self.denied_case(Hook::Xdp, false)?;
        let many = self.denied_in("host", Hook::Xdp, false, more)?;
        let what = "denied, 1 k interfaces and groups";
        self.at_most(NO_GROWTH, what, "1 interface", net(many), net(one));
        let one = self.established_case(Hook::Xdp, false, 1 << 10)?;
        let many = self.established_in("host", Hook::Xdp, false, 1 << 10, more)?;
        let what = "established, 1 k interfaces and groups";
        self.at_most(NO_GROWTH, what, "1 interface", net(many), net(one));
        Ok(())
    }

    /// Growth with the members of a group that a rule refers to.
    fn members(&mut self) -> Result<()> {
        let few = self.members_case(10, "10 members")?;
        if self.options.full {
            self.members_case(10_000, "10 k members")?;
        }
        let many = self.members_case(1_000_000, "1 M members")?;
        let growth = minus(net(many.1), net(few.1));
        let (what, of) = ("denied, 10 → 1 M members", "10 + a lookup's growth");
        let beside = plus(net(few.0), growth);
        self.at_most(NO_GROWTH, what, of, net(many.0), beside);
        Ok(())
    }

    /// A SYN of a member to a closed port, and a lookup among as many keys.
    fn members_case(&mut self, count: u32, world: &'static str) -> Result<(Net, Net)> {
        let traffic = Traffic::members(false, count);
        let verdict = Verdict::Drop(DropReason::NoRule);
        let (name, place) = (format!("denied, XDP, IPv4, {world}"), (world, "talk"));
        let ours = self.case(&name, place, traffic, verdict, Prepare::Nothing)?;
        let traffic = Traffic::addresses(false, count);
        // Members come and go one by one: theirs is a map that allocates.
        self.lookup_of(ALLOCATING, false, traffic.clone(), world)?;
        let lookup = self.lookup_of(HASH, false, traffic, world)?;
        Ok((ours, lookup))
    }

    fn fragment(&mut self) -> Result<()> {
        self.fragment_case(false)?;
        self.fragment_case(true)?;
        Ok(())
    }

    fn icmp_error(&mut self) -> Result<()> {
        self.icmp_error_case(false)?;
        self.icmp_error_case(true)?;
        Ok(())
    }

    /// Hooks and families, in a full run.
    fn others(&self) -> impl Iterator<Item = (Hook, bool)> + use<> {
        let all = [Hook::Xdp, Hook::TcIngress, Hook::TcEgress];
        let all = all.map(|hook| [(hook, false), (hook, true)]);
        let full = self.options.full;
        all.into_iter().flatten().filter(move |_| full)
    }

    fn at_most(&mut self, goal: f64, what: &str, of: &str, measured: Sum, beside: Sum) {
        self.rows.push(Row {
            what: what.to_owned(),
            of: of.to_owned(),
            goal,
            aim: None,
            measured,
            beside: Some(beside),
        });
    }

    /// What the last row should rather reach.
    fn aim(&mut self, aim: f64) {
        if let Some(row) = self.rows.last_mut() {
            row.aim = Some(aim);
        }
    }

    fn beside_xdp(&mut self, what: &str, hook: Hook, tc: Net, xdp: Net) {
        self.rows.push(Row {
            what: format!("{what}, {} less XDP", hook.name()),
            of: "ns".to_owned(),
            goal: TC,
            aim: None,
            measured: minus(net(tc), net(xdp)),
            beside: None,
        });
    }
}
