//! Which cases there are, and which goals they are held against.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, bail};
use sg_common::verdict::{Direction, DropReason, PassKind, Verdict};

use super::Hook;
use super::floor::Floor;
use super::frame::{
    self, ACK, LOCAL_PORT, PEER4, PEER6, REMOTE_PORT, SYN, TCP, WORKLOAD4, WORKLOAD6,
};
use super::pattern::{Pattern, rule_port};
use super::plan::{Case, Net, Objects, Plan, Prepare, WHOLE_SEQUENCE};
use super::policy::{CLOSED, Policy};
use super::world::World;
use crate::bench::Options;
use crate::bench::report::{Bound, Figure, Findings, Goal, Spread, number};

/// Bits of a peer's number that go into its port; the rest goes into its address.
const PORT_BITS: u32 = 15;
/// Where the generator of random numbers begins.
const STATE: u64 = 0x2545_f491_4f6c_dd1d;
/// Entries of the preallocated map that new flows go into: as many as the default allowance.
const ROOM: u32 = 262_144;
/// `XDP_PASS` of `include/uapi/linux/bpf.h`.
const XDP_PASS: u32 = 2;

/// Interfaces that are measured, in the order of their devices.
const MEASURED: [&str; 8] = [
    "talk", "thousand", "open", "dns", "10-10", "10-10k", "1k-10k", "100k-10k",
];
/// Interfaces with so many rules over so many prefixes.
const RULES: [(&str, u32, u32); 4] = [
    ("10-10", 10, 10),
    ("10-10k", 10, 10_000),
    ("1k-10k", 1000, 10_000),
    ("100k-10k", 100_000, 10_000),
];
/// Growth that is none: what two measurements of the same may differ by.
const NO_GROWTH: f64 = 1.05;

/// Cases that others may need as well, and where they stand.
struct Scenarios<'a> {
    options: &'a Options,
    plan: Plan,
    worlds: HashMap<&'static str, Rc<World>>,
    floors: HashMap<String, Net>,
    /// What flows there are, by world, family and number.
    established: HashMap<(&'static str, bool), u32>,
    goals: Vec<Row>,
}

/// A sum of cases, each times a factor.
type Sum = Vec<(f64, usize)>;

/// A row of the goal table, before it is measured.
struct Row {
    what: String,
    of: String,
    bound: Bound,
    goal: f64,
    aim: Option<f64>,
    measured: Sum,
    /// `None`: an absolute goal.
    beside: Option<Sum>,
}

/// Measures everything that is wanted.
pub(crate) fn measure(options: &Options, objects: Objects) -> Result<Findings> {
    let mut scenarios = Scenarios {
        options,
        plan: Plan::new(objects)?,
        worlds: HashMap::new(),
        floors: HashMap::new(),
        established: HashMap::new(),
        goals: Vec::new(),
    };
    scenarios.all()?;
    scenarios.plan.run(options.rounds)?;
    let meter = &scenarios.plan.meter;
    eprintln!(
        "{} samples taken again, {} taken although the CPU was slow",
        meter.repeated, meter.doubtful
    );
    Ok(scenarios.findings())
}

impl Scenarios<'_> {
    fn all(&mut self) -> Result<()> {
        if self.options.wants("established") {
            self.established()?;
        }
        if self.options.wants("untracked") {
            self.untracked()?;
        }
        if self.options.wants("always passed") {
            self.always_passed()?;
        }
        if self.options.wants("denied") {
            self.denied()?;
        }
        if self.options.wants("new flow") {
            self.new_flow()?;
        }
        if self.options.wants("rules") {
            self.rules()?;
        }
        if self.options.wants("host") {
            self.host()?;
        }
        if self.options.wants("members") {
            self.members()?;
        }
        if self.options.wants("fragment") {
            self.fragment()?;
        }
        if self.options.wants("ICMP error") {
            self.icmp_error()?;
        }
        if self.plan.cases.is_empty() {
            bail!("no case is called like that");
        }
        Ok(())
    }

    fn established(&mut self) -> Result<()> {
        let empty = self.empty(Hook::Xdp)?;
        let mut counts = vec![1 << 10, 1 << 16, 1 << 20];
        if self.options.full {
            counts.insert(0, 1);
        }
        for count in counts {
            let ours = self.established_case(Hook::Xdp, false, count)?;
            let lookup = self.lookup(false, count)?;
            if self.options.full {
                self.floor("lru", "LRU", false, count)?;
            }
            let goal = match count {
                0x400 => 0.8,
                0x1_0000 => 0.45,
                0x10_0000 => 0.35,
                _ => continue,
            };
            let of = format!("LOOKUP at {}", counted(count));
            self.row(
                &format!("established, {}", flows(count)),
                &of,
                goal,
                None,
                net(ours),
                net(lookup),
            );
            if count == 1 << 10 {
                let whole = [vec![(1.0, empty)], net(ours)].concat();
                self.row(
                    "established, whole program, 1 k flows",
                    "empty program",
                    2.4,
                    None,
                    whole,
                    vec![(1.0, empty)],
                );
                for hook in [Hook::TcIngress, Hook::TcEgress] {
                    let tc = self.established_case(hook, false, count)?;
                    let what = format!("established, {} less XDP", hook.name());
                    self.absolute(&what, 15.0, minus(net(tc), net(ours)));
                }
            }
        }
        for count in [1 << 10, 1 << 16] {
            let four = self.established_case(Hook::Xdp, false, count)?;
            let six = self.established_case(Hook::Xdp, true, count)?;
            let what = format!("established, IPv6, {}", flows(count));
            self.row(&what, "IPv4", 1.2, None, net(six), net(four));
            if self.options.full {
                self.lookup(true, count)?;
                self.floor("lru", "LRU", true, count)?;
            }
        }
        for (hook, ipv6) in self.others() {
            for count in [1, 1 << 10, 1 << 16, 1 << 20] {
                self.established_case(hook, ipv6, count)?;
                self.lookup(ipv6, count)?;
            }
        }
        Ok(())
    }

    /// Hooks and families, in a full run.
    fn others(&self) -> impl Iterator<Item = (Hook, bool)> + use<> {
        let all = [Hook::Xdp, Hook::TcIngress, Hook::TcEgress];
        let all = all.map(|hook| [(hook, false), (hook, true)]);
        let full = self.options.full;
        all.into_iter().flatten().filter(move |_| full)
    }

    fn untracked(&mut self) -> Result<()> {
        let lookup = self.lookup(false, 1 << 10)?;
        let ours = self.untracked_case(Hook::Xdp, false)?;
        self.row(
            "untracked",
            "LOOKUP at 1 k",
            0.5,
            None,
            net(ours),
            net(lookup),
        );
        let six = self.untracked_case(Hook::Xdp, true)?;
        self.row("untracked, IPv6", "IPv4", 1.2, None, net(six), net(ours));
        for hook in [Hook::TcIngress, Hook::TcEgress] {
            let tc = self.untracked_case(hook, false)?;
            let what = format!("untracked, {} less XDP", hook.name());
            self.absolute(&what, 15.0, minus(net(tc), net(ours)));
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
            let frame = frame::resolution(ipv6);
            let verdict = Verdict::Pass(kind);
            let ours = self.case(
                name,
                Hook::Xdp,
                frame,
                nothing(),
                "thousand",
                verdict,
                Prepare::Nothing,
            )?;
            self.row(name, "LOOKUP at 1 k", 0.5, None, net(ours), net(lookup));
        }
        Ok(())
    }

    fn denied(&mut self) -> Result<()> {
        let floor = self.policy_floor(false, 1000)?;
        let ours = self.denied_case(Hook::Xdp, false)?;
        self.row(
            "denied, 1 k rules",
            "LPM + LOOKUP at 1 k",
            1.0,
            Some(0.7),
            net(ours),
            floor,
        );
        let six = self.denied_case(Hook::Xdp, true)?;
        self.row(
            "denied, 1 k rules, IPv6",
            "IPv4",
            1.2,
            None,
            net(six),
            net(ours),
        );
        for hook in [Hook::TcIngress, Hook::TcEgress] {
            let tc = self.denied_case(hook, false)?;
            let what = format!("denied, {} less XDP", hook.name());
            self.absolute(&what, 15.0, minus(net(tc), net(ours)));
        }
        for (hook, ipv6) in self.others() {
            self.denied_case(hook, ipv6)?;
            self.policy_floor(ipv6, 1000)?;
        }
        Ok(())
    }

    fn new_flow(&mut self) -> Result<()> {
        let denied = self.denied_case(Hook::Xdp, false)?;
        let insert = self.insert(false)?;
        let ours = self.new_case(Hook::Xdp, false)?;
        let allowed = [net(denied), times(1.2, insert)].concat();
        self.row(
            "new flow, 1 k rules",
            "denied + 1.2 × insert",
            1.0,
            None,
            net(ours),
            allowed,
        );
        let six = self.new_case(Hook::Xdp, true)?;
        self.row(
            "new flow, 1 k rules, IPv6",
            "IPv4",
            1.2,
            None,
            net(six),
            net(ours),
        );
        for hook in [Hook::TcIngress, Hook::TcEgress] {
            let tc = self.new_case(hook, false)?;
            let what = format!("new flow, {} less XDP", hook.name());
            self.absolute(&what, 15.0, minus(net(tc), net(ours)));
        }
        for (hook, ipv6) in self.others() {
            self.new_case(hook, ipv6)?;
            self.insert(ipv6)?;
            self.insert_allocating(ipv6)?;
            for (world, what, time) in [
                ("flood", "of which each replaces another", Duration::ZERO),
                (
                    "brief",
                    "over 64 k expired ones",
                    Duration::from_millis(1200),
                ),
            ] {
                self.crowded(world, hook, ipv6, what, time)?;
            }
        }
        Ok(())
    }

    /// New flows where unassured ones are at their limit already.
    fn crowded(
        &mut self,
        world: &'static str,
        hook: Hook,
        ipv6: bool,
        what: &str,
        time: Duration,
    ) -> Result<Net> {
        let name = format!("new flow, {}, {}, {what}", hook.name(), family(ipv6));
        let at = frame::offsets(ipv6, hook.is_ingress());
        let pattern = Pattern {
            sequential: 1,
            ..peers(at, 1)
        };
        let frame = frame::tcp(ipv6, hook.is_ingress(), SYN, LOCAL_PORT);
        let verdict = Verdict::Pass(PassKind::New);
        let prepare = Prepare::Age(ROOM / 4, time);
        self.case_in(world, &name, hook, frame, pattern, "talk", verdict, prepare)
    }

    /// Growth with the rules of an interface.
    fn rules(&mut self) -> Result<()> {
        let few_prefixes = self.trie(false, 10)?;
        let many_prefixes = self.trie(false, 10_000)?;
        let lpm = minus(net(many_prefixes), net(few_prefixes));
        let least = self.denied_by(false, "10-10", 10, 10)?;
        let few = self.denied_by(false, "10-10k", 10, 10_000)?;
        let many = self.denied_by(false, "1k-10k", 1000, 10_000)?;
        self.row(
            "denied, 10 to 1 k rules, 10 k prefixes",
            "10 rules",
            1.25,
            None,
            net(many),
            net(few),
        );
        let what = "denied, 10 to 1 k rules, 10 to 10 k prefixes";
        self.row(
            what,
            "10 rules, LPM's growth off",
            1.25,
            None,
            minus(net(many), lpm.clone()),
            net(least),
        );
        let least = self.new_by(false, "10-10", 10, 10)?;
        let few = self.new_by(false, "10-10k", 10, 10_000)?;
        let many = self.new_by(false, "1k-10k", 1000, 10_000)?;
        self.row(
            "new flow, 10 to 1 k rules, 10 k prefixes",
            "10 rules",
            1.25,
            None,
            net(many),
            net(few),
        );
        for ipv6 in [false, true] {
            if !self.options.full {
                break;
            }
            for (interface, rules, prefixes) in RULES {
                self.denied_by(ipv6, interface, rules, prefixes)?;
                self.new_by(ipv6, interface, rules, prefixes)?;
                self.trie(ipv6, prefixes)?;
            }
        }
        let what = "new flow, 10 to 1 k rules, 10 to 10 k prefixes";
        self.row(
            what,
            "10 rules, LPM's growth off",
            1.25,
            None,
            minus(net(many), lpm),
            net(least),
        );
        Ok(())
    }

    /// Growth with what else is on the host.
    fn host(&mut self) -> Result<()> {
        let one = self.denied_case(Hook::Xdp, false)?;
        let (name, frame) = (
            "denied, XDP, IPv4, 1 k rules, 1 k interfaces",
            syn(Hook::Xdp, false),
        );
        let verdict = Verdict::Drop(DropReason::NoRule);
        let pattern = strangers(false, 1000, 1000);
        let many = self.case_in(
            "host",
            name,
            Hook::Xdp,
            frame,
            pattern,
            "thousand",
            verdict,
            Prepare::Nothing,
        )?;
        self.row(
            "denied, 1 k interfaces and groups",
            "1 interface",
            NO_GROWTH,
            None,
            net(many),
            net(one),
        );
        let one = self.established_case(Hook::Xdp, false, 1 << 10)?;
        self.establish("host", false, 1 << 10)?;
        let (name, frame) = (
            "established, XDP, IPv4, 1 k flows, 1 k interfaces",
            frame::tcp(false, true, ACK, LOCAL_PORT),
        );
        let pattern = peers(frame::offsets(false, true), 1 << 10);
        let verdict = Verdict::Pass(PassKind::Established);
        let many = self.case_in(
            "host",
            name,
            Hook::Xdp,
            frame,
            pattern,
            "talk",
            verdict,
            Prepare::Nothing,
        )?;
        self.row(
            "established, 1 k interfaces and groups",
            "1 interface",
            NO_GROWTH,
            None,
            net(many),
            net(one),
        );
        Ok(())
    }

    /// Growth with the members of a group that a rule refers to.
    fn members(&mut self) -> Result<()> {
        let mut sizes = vec![(10, "10 members"), (1_000_000, "1 M members")];
        if self.options.full {
            sizes.insert(1, (10_000, "10 k members"));
        }
        let mut found = Vec::new();
        for (count, world) in sizes {
            let frame = syn(Hook::Xdp, false);
            let pattern = Pattern {
                port_bits: 0,
                ..peers(frame::offsets(false, true), count)
            };
            let verdict = Verdict::Drop(DropReason::NoRule);
            let name = format!("denied, XDP, IPv4, {world}");
            let ours = self.case_in(
                world,
                &name,
                Hook::Xdp,
                frame,
                pattern,
                "talk",
                verdict,
                Prepare::Nothing,
            )?;
            let name = format!("parse and hash lookup, IPv4, {world}");
            let lookup = self.filled("hash", "HASH", false, &name, pattern)?;
            // Members come and go one by one: theirs is a map that allocates.
            let name = format!("parse and lookup in a hash map that allocates, IPv4, {world}");
            self.filled("allocating", "ALLOCATING", false, &name, pattern)?;
            found.push((net(ours), net(lookup)));
        }
        let (Some((few, lookup_few)), Some((many, lookup_many))) = (found.first(), found.last())
        else {
            return Ok(());
        };
        let less = minus(many.clone(), minus(lookup_many.clone(), lookup_few.clone()));
        self.row(
            "denied, 10 to 1 M members",
            "10, lookup's growth off",
            NO_GROWTH,
            None,
            less,
            few.clone(),
        );
        Ok(())
    }

    fn fragment(&mut self) -> Result<()> {
        for ipv6 in [false, true] {
            let name = format!("later fragment, XDP, {}", family(ipv6));
            let at = frame::fragment_id(ipv6);
            let later = Pattern {
                count: 1 << 10,
                port_at: at,
                port: 1,
                port_bits: 10,
                ..nothing()
            };
            let first = Pattern {
                sequential: 1,
                ..later
            };
            let program = self.world("small")?.program(Hook::Xdp)?;
            // They are forgotten after 15 seconds.
            let prepare = Prepare::Run(program, frame::fragment(ipv6, true), first, 1 << 10);
            let verdict = Verdict::Pass(PassKind::Fragment);
            self.case(
                &name,
                Hook::Xdp,
                frame::fragment(ipv6, false),
                later,
                "dns",
                verdict,
                prepare,
            )?;
        }
        Ok(())
    }

    fn icmp_error(&mut self) -> Result<()> {
        for ipv6 in [false, true] {
            self.establish("small", ipv6, 1 << 10)?;
            let name = format!("ICMP error, XDP, {}, 1 k flows", family(ipv6));
            let pattern = peers(frame::quoted_offsets(ipv6), 1 << 10);
            let verdict = Verdict::Pass(PassKind::Related);
            self.case(
                &name,
                Hook::Xdp,
                frame::icmp_error(ipv6),
                pattern,
                "talk",
                verdict,
                Prepare::Nothing,
            )?;
        }
        Ok(())
    }

    /// A SYN to a closed port under other rules.
    fn denied_by(&mut self, ipv6: bool, interface: &str, rules: u32, prefixes: u32) -> Result<Net> {
        let name = format!(
            "denied, XDP, {}, rules and prefixes {interface}",
            family(ipv6)
        );
        let verdict = Verdict::Drop(DropReason::NoRule);
        let pattern = strangers(ipv6, rules, prefixes);
        self.case_in(
            "rules",
            &name,
            Hook::Xdp,
            syn(Hook::Xdp, ipv6),
            pattern,
            interface,
            verdict,
            Prepare::Nothing,
        )
    }

    /// A SYN that one of other rules allows.
    fn new_by(&mut self, ipv6: bool, interface: &str, rules: u32, prefixes: u32) -> Result<Net> {
        let name = format!(
            "new flow, XDP, {}, rules and prefixes {interface}",
            family(ipv6)
        );
        let verdict = Verdict::Pass(PassKind::New);
        let pattern = within(Hook::Xdp, ipv6, rules, prefixes);
        self.case_in(
            "rules",
            &name,
            Hook::Xdp,
            syn(Hook::Xdp, ipv6),
            pattern,
            interface,
            verdict,
            Prepare::Flush,
        )
    }

    /// A packet of one of `count` established flows.
    fn established_case(&mut self, hook: Hook, ipv6: bool, count: u32) -> Result<Net> {
        let name = format!(
            "established, {}, {}, {}",
            hook.name(),
            family(ipv6),
            flows(count)
        );
        if let Some(known) = self.floors.get(&name) {
            return Ok(*known);
        }
        let world = if count > 1 << 16 {
            if ipv6 { "large, IPv6" } else { "large" }
        } else if count > 1 << 10 {
            "medium"
        } else {
            "small"
        };
        self.establish(world, ipv6, count)?;
        let frame = frame::tcp(ipv6, hook.is_ingress(), ACK, LOCAL_PORT);
        let at = frame::offsets(ipv6, hook.is_ingress());
        let verdict = Verdict::Pass(PassKind::Established);
        let pattern = peers(at, count);
        self.case_in(
            world,
            &name,
            hook,
            frame,
            pattern,
            "talk",
            verdict,
            Prepare::Nothing,
        )
    }

    /// Tracks the first `count` flows of a world.
    fn establish(&mut self, world: &'static str, ipv6: bool, count: u32) -> Result<()> {
        let made = self
            .established
            .get(&(world, ipv6))
            .copied()
            .unwrap_or_default();
        let inside = self.world(world)?;
        let id = inside.id("talk")?;
        let workload: IpAddr = if ipv6 {
            Ipv6Addr::from(WORKLOAD6).into()
        } else {
            Ipv4Addr::from(WORKLOAD4).into()
        };
        for number in made..count {
            let (address, port) = peer(ipv6, number);
            inside.establish(id, TCP, (workload, LOCAL_PORT), (address, port))?;
        }
        self.established.insert((world, ipv6), made.max(count));
        Ok(())
    }

    fn untracked_case(&mut self, hook: Hook, ipv6: bool) -> Result<Net> {
        let name = format!("untracked, {}, {}", hook.name(), family(ipv6));
        let frame = frame::tcp(ipv6, hook.is_ingress(), ACK, LOCAL_PORT);
        let pattern = peers(frame::offsets(ipv6, hook.is_ingress()), 1 << 10);
        let verdict = Verdict::Pass(PassKind::Untracked);
        self.case(
            &name,
            hook,
            frame,
            pattern,
            "open",
            verdict,
            Prepare::Nothing,
        )
    }

    /// A SYN to a port that no rule allows, of a peer within the prefixes of the rules.
    fn denied_case(&mut self, hook: Hook, ipv6: bool) -> Result<Net> {
        let name = format!("denied, {}, {}, 1 k rules", hook.name(), family(ipv6));
        let frame = syn(hook, ipv6);
        let pattern = Pattern {
            sequential: 0,
            rule_port_at: 0,
            ..within(hook, ipv6, 1000, 1000)
        };
        let verdict = Verdict::Drop(DropReason::NoRule);
        self.case(
            &name,
            hook,
            frame,
            pattern,
            "thousand",
            verdict,
            Prepare::Nothing,
        )
    }

    /// A SYN that a rule allows.
    fn new_case(&mut self, hook: Hook, ipv6: bool) -> Result<Net> {
        let name = format!("new flow, {}, {}, 1 k rules", hook.name(), family(ipv6));
        let verdict = Verdict::Pass(PassKind::New);
        let pattern = within(hook, ipv6, 1000, 1000);
        self.case(
            &name,
            hook,
            syn(hook, ipv6),
            pattern,
            "thousand",
            verdict,
            Prepare::Flush,
        )
    }

    /// One insertion into the kernel's preallocated hash map, without parsing.
    fn insert(&mut self, ipv6: bool) -> Result<Sum> {
        let (map, family) = (if ipv6 { "HASH6" } else { "HASH4" }, digit(ipv6));
        let mut floor = Floor::new(self.plan.objects.bench, map, ROOM)?;
        let pattern = within(Hook::Xdp, ipv6, 1000, 1000);
        let frame = syn(Hook::Xdp, ipv6);
        let delete = floor.program(&format!("xdp_delete_hash{family}"))?;
        let prepare = Prepare::Run(delete, frame.clone(), pattern, WHOLE_SEQUENCE);
        let program = floor.program(&format!("xdp_insert_hash{family}"))?;
        let name = format!("parse and insert into a preallocated hash map, IPv{family}");
        let insert = self.bare(&name, frame.clone(), pattern, program, prepare)?;
        let program = floor.program(&format!("xdp_parse{family}"))?;
        let name = format!("parse, new flows, IPv{family}");
        let parse = self.bare(&name, frame, pattern, program, Prepare::Nothing)?;
        Ok(minus(net(insert), net(parse)))
    }

    /// The same into a hash map that allocates.
    fn insert_allocating(&mut self, ipv6: bool) -> Result<Net> {
        let family = digit(ipv6);
        let map = if ipv6 { "ALLOCATING6" } else { "ALLOCATING4" };
        let mut floor = Floor::new(self.plan.objects.bench, map, ROOM)?;
        let pattern = within(Hook::Xdp, ipv6, 1000, 1000);
        let frame = syn(Hook::Xdp, ipv6);
        let delete = floor.program(&format!("xdp_delete_allocating{family}"))?;
        let prepare = Prepare::Run(delete, frame.clone(), pattern, WHOLE_SEQUENCE);
        let program = floor.program(&format!("xdp_insert_allocating{family}"))?;
        let name = format!("parse and insert into a hash map that allocates, IPv{family}");
        self.bare(&name, frame, pattern, program, prepare)
    }

    /// LPM + LOOKUP at 1 k: a longest match among as many prefixes, and a lookup.
    fn policy_floor(&mut self, ipv6: bool, prefixes: u32) -> Result<Sum> {
        let lookup = self.lookup(ipv6, 1 << 10)?;
        let trie = self.trie(ipv6, prefixes)?;
        Ok([net(lookup), net(trie)].concat())
    }

    fn trie(&mut self, ipv6: bool, prefixes: u32) -> Result<Net> {
        let (map, family) = (if ipv6 { "LPM6" } else { "LPM4" }, digit(ipv6));
        let name = format!("LPM trie, IPv{family}, {} prefixes", counted(prefixes));
        if let Some(known) = self.floors.get(&name) {
            return Ok(*known);
        }
        let mut floor = Floor::new(self.plan.objects.bench, map, prefixes)?;
        floor.fill_trie(ipv6, prefixes)?;
        let program = floor.program(&format!("xdp_lpm{family}"))?;
        let pattern = Pattern {
            sequential: 0,
            rule_port_at: 0,
            ..within(Hook::Xdp, ipv6, prefixes, prefixes)
        };
        self.bare(
            &name,
            syn(Hook::Xdp, ipv6),
            pattern,
            program,
            Prepare::Nothing,
        )
    }

    /// LOOKUP: parse and one lookup in the kernel's preallocated hash map, with `count` entries.
    fn lookup(&mut self, ipv6: bool, count: u32) -> Result<Net> {
        self.floor("hash", "HASH", ipv6, count)
    }

    fn floor(&mut self, kind: &str, map: &str, ipv6: bool, count: u32) -> Result<Net> {
        let name = format!(
            "parse and {kind} lookup, IPv{}, {}",
            digit(ipv6),
            flows(count)
        );
        let pattern = peers(frame::offsets(ipv6, true), count);
        self.filled(kind, map, ipv6, &name, pattern)
    }

    /// A lookup in a map that holds all packets of a pattern.
    fn filled(
        &mut self,
        kind: &str,
        map: &str,
        ipv6: bool,
        name: &str,
        pattern: Pattern,
    ) -> Result<Net> {
        if let Some(known) = self.floors.get(name) {
            return Ok(*known);
        }
        let (family, count) = (digit(ipv6), pattern.count);
        let mut floor = Floor::new(self.plan.objects.bench, &format!("{map}{family}"), count)?;
        let frame = frame::tcp(ipv6, true, ACK, LOCAL_PORT);
        let all = Pattern {
            sequential: 1,
            ..pattern
        };
        let insert = floor.program(&format!("xdp_insert_{kind}{family}"))?;
        let answer = self.plan.feed(&insert, &frame, &all, count)?;
        anyhow::ensure!(answer == XDP_PASS, "the {kind} map has no room");
        let program = floor.program(&format!("xdp_{kind}{family}"))?;
        self.bare(name, frame, pattern, program, Prepare::Nothing)
    }

    /// A program that does nothing, without the wrapper's packets: a raw case.
    fn empty(&mut self, hook: Hook) -> Result<usize> {
        let mut floor = Floor::new(self.plan.objects.bench, "HASH4", 1)?;
        let program = floor.program(if hook == Hook::Xdp {
            "xdp_empty"
        } else {
            "tc_empty"
        })?;
        let frame = frame::tcp(false, true, ACK, LOCAL_PORT);
        Ok(self
            .bare("empty program", frame, nothing(), program, Prepare::Nothing)?
            .case)
    }

    /// A floor.
    fn bare(
        &mut self,
        name: &str,
        frame: Vec<u8>,
        pattern: Pattern,
        program: aya::programs::ProgramFd,
        prepare: Prepare,
    ) -> Result<Net> {
        if let Some(known) = self.floors.get(name) {
            return Ok(*known);
        }
        let made = self.plan.add(Case {
            group: "floors, XDP".to_owned(),
            name: name.to_owned(),
            hook: Hook::Xdp,
            frame,
            pattern,
            program,
            device: 0,
            prepare,
            watch: None,
            answer: Some(XDP_PASS),
        })?;
        self.floors.insert(name.to_owned(), made);
        Ok(made)
    }

    #[expect(clippy::too_many_arguments, reason = "all of them make a case")]
    fn case(
        &mut self,
        name: &str,
        hook: Hook,
        frame: Vec<u8>,
        pattern: Pattern,
        interface: &str,
        verdict: Verdict,
        prepare: Prepare,
    ) -> Result<Net> {
        self.case_in(
            "small", name, hook, frame, pattern, interface, verdict, prepare,
        )
    }

    /// A case of our own programs.
    #[expect(clippy::too_many_arguments, reason = "all of them make a case")]
    fn case_in(
        &mut self,
        world: &'static str,
        name: &str,
        hook: Hook,
        frame: Vec<u8>,
        pattern: Pattern,
        interface: &str,
        verdict: Verdict,
        prepare: Prepare,
    ) -> Result<Net> {
        if let Some(known) = self.floors.get(name) {
            return Ok(*known);
        }
        let world = self.world(world)?;
        let id = world.id(interface)?;
        let direction = if hook.is_ingress() {
            Direction::Ingress
        } else {
            Direction::Egress
        };
        let device = MEASURED
            .iter()
            .position(|one| *one == interface)
            .unwrap_or_default();
        let made = self.plan.add(Case {
            group: "programs".to_owned(),
            name: name.to_owned(),
            hook,
            frame,
            pattern,
            program: world.program(hook)?,
            device: device as u32,
            prepare,
            watch: Some((world, id, direction, verdict)),
            answer: None,
        })?;
        self.floors.insert(name.to_owned(), made);
        Ok(made)
    }

    fn world(&mut self, name: &'static str) -> Result<Rc<World>> {
        if let Some(made) = self.worlds.get(name) {
            return Ok(Rc::clone(made));
        }
        eprintln!("preparing: {name}");
        let policy = definition(name);
        let made = World::new(self.plan.objects.enforcer, policy.text(), &MEASURED)?;
        let made = Rc::new(made);
        self.worlds.insert(name, Rc::clone(&made));
        Ok(made)
    }

    fn row(
        &mut self,
        what: &str,
        of: &str,
        goal: f64,
        aim: Option<f64>,
        measured: Sum,
        beside: Sum,
    ) {
        self.goals.push(Row {
            what: what.to_owned(),
            of: of.to_owned(),
            bound: Bound::AtMost,
            goal,
            aim,
            measured,
            beside: Some(beside),
        });
    }

    fn absolute(&mut self, what: &str, goal: f64, measured: Sum) {
        self.goals.push(Row {
            what: what.to_owned(),
            of: "ns".to_owned(),
            bound: Bound::AtMost,
            goal,
            aim: None,
            measured,
            beside: None,
        });
    }

    fn findings(self) -> Findings {
        let rounds = &self.plan.rounds;
        let value = |sum: &Sum| -> Vec<f64> {
            (0..self.options.rounds)
                .map(|round| {
                    sum.iter()
                        .map(|(factor, case)| factor * rounds[*case][round])
                        .sum()
                })
                .collect()
        };
        let mut figures = Vec::new();
        for net in &self.plan.nets {
            let case = &self.plan.cases[net.case];
            let heading = format!("{}, ns per packet, net", case.group);
            let values = value(&vec![(1.0, net.case), (-1.0, net.control)]);
            figures.push(Figure::new(&heading, &case.name, "ns", values));
        }
        for net in &self.plan.nets {
            let case = &self.plan.cases[net.case];
            let heading = format!("{}, ns per packet, with the wrapper", case.group);
            let name = format!("{} (empty: {})", case.name, short(&rounds[net.control]));
            figures.push(Figure::new(&heading, &name, "ns", rounds[net.case].clone()).aside());
        }
        figures.sort_by(|one, other| one.group.cmp(&other.group));
        let goals = self.goals.iter().map(|row| {
            let measured = value(&row.measured);
            let beside = row.beside.as_ref().map(&value);
            let detail = beside.as_ref().map_or(String::new(), |beside| {
                format!("{} ns to {} ns", short(&measured), short(beside))
            });
            Goal {
                what: row.what.clone(),
                of: row.of.clone(),
                bound: row.bound,
                goal: row.goal,
                aim: row.aim,
                rounds: match beside {
                    Some(beside) => crate::bench::report::ratio(&measured, &beside),
                    None => measured,
                },
                detail,
            }
        });
        Findings {
            goals: goals.collect(),
            figures,
        }
    }
}

/// The definition of a world.
fn definition(world: &str) -> Policy {
    let mut policy = Policy::new(if world.starts_with("large") {
        1 << 21
    } else {
        ROOM
    });
    if let Some(members) = world.strip_suffix(" members") {
        let count = match members {
            "10" => 10,
            "10 k" => 10_000,
            _ => 1_000_000,
        };
        let rule = format!(
            "{{ protocol = \"tcp\", ports = {}, group = \"peers\" }}",
            rule_port(0)
        );
        policy.rules("own", &rule, &rule);
        policy.rules("peers", "", "");
        policy.members(
            "peers",
            (u32::from_be_bytes(PEER4), u128::from_be_bytes(PEER6)),
            count,
        );
        policy.interface("talk", "own");
        return policy;
    }
    if world.starts_with("flood") || world.starts_with("brief") {
        let peers = "cidr = [\"100.64.0.0/10\", \"2001:db8:2::/48\"]";
        policy.rules(
            "peers",
            &format!("{{ protocol = \"tcp\", ports = {LOCAL_PORT}, {peers} }}"),
            &format!("{{ protocol = \"tcp\", ports = \"1-65535\", {peers} }}"),
        );
        policy.interface("talk", "peers");
        if world.starts_with("brief") {
            policy.timeout("tcp_syn_sent", 1);
        }
        return policy;
    }
    policy.group("thousand", 1000, 1000);
    policy.interface("talk", "thousand");
    policy.interface("thousand", "thousand");
    match world {
        "small" => {
            let all = "{ protocol = \"all\", cidr = [\"0.0.0.0/0\", \"::/0\"] }";
            policy.rules("open", all, all);
            policy.interface("open", "open");
            let dns = "{ protocol = \"udp\", ports = 53, cidr = [\"100.64.0.0/10\", \"2001:db8:2::/48\"] }";
            policy.rules("dns", dns, "");
            policy.interface("dns", "dns");
        }
        "rules" => {
            for (name, rules, prefixes) in RULES.into_iter().filter(|(_, rules, _)| *rules <= 1000)
            {
                policy.group(name, rules, prefixes);
                policy.interface(name, name);
            }
        }
        "100 k rules" => {
            policy.group("100k-10k", 100_000, 10_000);
            policy.interface("100k-10k", "100k-10k");
        }
        "host" => {
            for number in 2..1000 {
                let name = format!("other-{number}");
                // Other ports make them other policies.
                policy.group_from(&name, number, 10, 10);
                policy.interface(&name, &name);
            }
        }
        _ => {}
    }
    policy
}

fn short(rounds: &[f64]) -> String {
    Spread::of(rounds).map_or(String::new(), |spread| number(spread.median))
}

fn net(net: Net) -> Sum {
    vec![(1.0, net.case), (-1.0, net.control)]
}

fn times(factor: f64, sum: Sum) -> Sum {
    sum.into_iter()
        .map(|(one, case)| (factor * one, case))
        .collect()
}

fn minus(one: Sum, other: Sum) -> Sum {
    [one, times(-1.0, other)].concat()
}

/// A packet that is always the same.
fn nothing() -> Pattern {
    Pattern {
        state: STATE,
        count: 1,
        ..Pattern::default()
    }
}

/// Packets of `count` peers at random.
fn peers(at: frame::Offsets, count: u32) -> Pattern {
    Pattern {
        state: STATE,
        count,
        address_at: at.remote_low,
        address: u32::from_be_bytes(PEER4),
        port_at: at.remote_port,
        port: REMOTE_PORT.into(),
        port_bits: PORT_BITS,
        ..Pattern::default()
    }
}

/// The peer of a number, as the wrapper writes it.
fn peer(ipv6: bool, number: u32) -> (IpAddr, u16) {
    let low = u32::from_be_bytes(PEER4) + (number >> PORT_BITS);
    let port = REMOTE_PORT + (number & ((1 << PORT_BITS) - 1)) as u16;
    let address = if ipv6 {
        let mut bytes = PEER6;
        bytes[12..].copy_from_slice(&low.to_be_bytes());
        Ipv6Addr::from(bytes).into()
    } else {
        Ipv4Addr::from(low).into()
    };
    (address, port)
}

/// Packets in sequence, each of another flow, of peers within prefixes at random.
fn within(hook: Hook, ipv6: bool, rules: u32, prefixes: u32) -> Pattern {
    let at = frame::offsets(ipv6, hook.is_ingress());
    // The port that rules speak of is the destination's; the other one tells flows apart.
    let (own, other) = if hook.is_ingress() {
        (at.remote_port, at.local_port)
    } else {
        (at.local_port, at.remote_port)
    };
    Pattern {
        state: STATE,
        sequential: 1,
        count: 1 << PORT_BITS,
        address_at: at.remote,
        port_at: own,
        port: REMOTE_PORT.into(),
        port_bits: PORT_BITS,
        prefixes,
        rules,
        ipv6: ipv6.into(),
        rule_port_at: other,
        ..Pattern::default()
    }
}

/// Packets at random of peers within prefixes, to a closed port.
fn strangers(ipv6: bool, rules: u32, prefixes: u32) -> Pattern {
    Pattern {
        sequential: 0,
        rule_port_at: 0,
        ..within(Hook::Xdp, ipv6, rules, prefixes)
    }
}

/// A SYN to a closed port, until the wrapper gives it another.
fn syn(hook: Hook, ipv6: bool) -> Vec<u8> {
    let mut frame = frame::tcp(ipv6, hook.is_ingress(), SYN, LOCAL_PORT);
    let at = frame::offsets(ipv6, hook.is_ingress());
    let at = if hook.is_ingress() {
        at.local_port
    } else {
        at.remote_port
    } as usize;
    frame[at..at + 2].copy_from_slice(&CLOSED.to_be_bytes());
    frame
}

fn digit(ipv6: bool) -> u8 {
    if ipv6 { 6 } else { 4 }
}

fn family(ipv6: bool) -> &'static str {
    if ipv6 { "IPv6" } else { "IPv4" }
}

fn flows(count: u32) -> String {
    let unit = if count == 1 { "flow" } else { "flows" };
    format!("{} {unit}", counted(count))
}

/// A number as one would say it.
fn counted(number: u32) -> String {
    match number {
        0..1000 => number.to_string(),
        1000..1_000_000 => format!(
            "{} k",
            if number % 1024 == 0 {
                number / 1024
            } else {
                number / 1000
            }
        ),
        _ => format!("{} M", number / 1_000_000),
    }
}
