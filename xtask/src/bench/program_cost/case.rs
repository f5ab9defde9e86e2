//! Cases of the programs themselves, each made once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use sg_common::verdict::{Direction, DropReason, PassKind, Verdict};

use super::Hook;
use super::frame::{LOCAL_PORT, TCP, WORKLOAD4, WORKLOAD6};
use super::plan::{Case, Net, Prepare};
use super::policy::{self, ROOM};
use super::scenario::Scenarios;
use super::traffic::{Traffic, peer};
use super::world::World;

/// Interfaces that are measured, in the order of their devices.
const MEASURED: [&str; 8] = [
    "talk", "thousand", "open", "dns", "10-10", "10-10k", "1k-10k", "100k-10k",
];

/// Whose packets they are: world and interface.
type Place<'a> = (&'static str, &'a str);

impl Scenarios<'_> {
    /// A packet of one of `count` established flows.
    pub(crate) fn established_case(&mut self, hook: Hook, ipv6: bool, count: u32) -> Result<Net> {
        let world = match (count, ipv6) {
            (..=0x400, _) => "small",
            (..=0x1_0000, _) => "medium",
            (_, false) => "large",
            (_, true) => "large, IPv6",
        };
        self.established_in(world, hook, ipv6, count, "")
    }

    /// The same in a certain world; `more` tells the cases apart.
    pub(crate) fn established_in(
        &mut self,
        world: &'static str,
        hook: Hook,
        ipv6: bool,
        count: u32,
        more: &str,
    ) -> Result<Net> {
        let kind = of(hook, ipv6);
        let name = format!("established, {kind}, {}{more}", flows(count));
        self.establish(world, ipv6, count)?;
        let verdict = Verdict::Pass(PassKind::Established);
        let traffic = Traffic::segments(hook, ipv6, count);
        self.case(&name, (world, "talk"), traffic, verdict, Prepare::Nothing)
    }

    /// Tracks the first `count` flows of a world.
    fn establish(&mut self, world: &'static str, ipv6: bool, count: u32) -> Result<()> {
        let inside = self.world(world)?;
        let id = inside.id("talk")?;
        let workload: IpAddr = if ipv6 {
            Ipv6Addr::from(WORKLOAD6).into()
        } else {
            Ipv4Addr::from(WORKLOAD4).into()
        };
        let made = self.established.entry((world, ipv6)).or_default();
        for number in *made..count {
            inside.establish(id, TCP, (workload, LOCAL_PORT), peer(ipv6, number))?;
        }
        *made = (*made).max(count);
        Ok(())
    }

    /// A segment of a flow that is not tracked.
    pub(crate) fn untracked_case(&mut self, hook: Hook, ipv6: bool) -> Result<Net> {
        let name = format!("untracked, {}", of(hook, ipv6));
        let verdict = Verdict::Pass(PassKind::Untracked);
        let traffic = Traffic::segments(hook, ipv6, 1 << 10);
        self.case(&name, ("small", "open"), traffic, verdict, Prepare::Nothing)
    }

    /// A SYN to a port that no rule allows, of a peer within the prefixes of the rules.
    pub(crate) fn denied_case(&mut self, hook: Hook, ipv6: bool) -> Result<Net> {
        self.denied_in("small", hook, ipv6, "")
    }

    /// The same in a certain world; `more` tells the cases apart.
    pub(crate) fn denied_in(
        &mut self,
        world: &'static str,
        hook: Hook,
        ipv6: bool,
        more: &str,
    ) -> Result<Net> {
        let name = format!("denied, {}, 1 k rules{more}", of(hook, ipv6));
        let verdict = Verdict::Drop(DropReason::NoRule);
        let traffic = Traffic::denied(hook, ipv6, 1000, 1000);
        self.case(
            &name,
            (world, "thousand"),
            traffic,
            verdict,
            Prepare::Nothing,
        )
    }

    /// A SYN that one of a thousand rules allows.
    pub(crate) fn new_case(&mut self, hook: Hook, ipv6: bool) -> Result<Net> {
        let name = format!("new flow, {}, 1 k rules", of(hook, ipv6));
        let verdict = Verdict::Pass(PassKind::New);
        let traffic = Traffic::allowed(hook, ipv6, 1000, 1000);
        self.case(
            &name,
            ("small", "thousand"),
            traffic,
            verdict,
            Prepare::Flush,
        )
    }

    /// New flows where unassured ones are at their limit already, and `time` has passed.
    pub(crate) fn crowded_case(
        &mut self,
        world: &'static str,
        hook: Hook,
        ipv6: bool,
        what: &str,
        time: Duration,
    ) -> Result<Net> {
        let name = format!("new flow, {}, {what}", of(hook, ipv6));
        let verdict = Verdict::Pass(PassKind::New);
        let traffic = Traffic::connections(hook, ipv6);
        // A quarter of the allowance may be unassured.
        let prepare = Prepare::Age(ROOM / 4, time);
        self.case(&name, (world, "talk"), traffic, verdict, prepare)
    }

    /// A SYN to a closed port under other rules.
    pub(crate) fn denied_by(&mut self, ipv6: bool, rules: (&str, u32, u32)) -> Result<Net> {
        let (interface, count, prefixes) = rules;
        let name = format!(
            "denied, {}, rules and prefixes {interface}",
            of(Hook::Xdp, ipv6)
        );
        let verdict = Verdict::Drop(DropReason::NoRule);
        let traffic = Traffic::denied(Hook::Xdp, ipv6, count, prefixes);
        let place = (world_of(count), interface);
        self.case(&name, place, traffic, verdict, Prepare::Nothing)
    }

    /// A SYN that one of other rules allows.
    pub(crate) fn new_by(&mut self, ipv6: bool, rules: (&str, u32, u32)) -> Result<Net> {
        let (interface, count, prefixes) = rules;
        let name = format!(
            "new flow, {}, rules and prefixes {interface}",
            of(Hook::Xdp, ipv6)
        );
        let verdict = Verdict::Pass(PassKind::New);
        let traffic = Traffic::allowed(Hook::Xdp, ipv6, count, prefixes);
        let place = (world_of(count), interface);
        self.case(&name, place, traffic, verdict, Prepare::Flush)
    }

    /// A later fragment of one of a thousand datagrams.
    pub(crate) fn fragment_case(&mut self, ipv6: bool) -> Result<Net> {
        let name = format!("later fragment, {}", of(Hook::Xdp, ipv6));
        let verdict = Verdict::Pass(PassKind::Fragment);
        let program = self.world("small")?.program(Hook::Xdp)?;
        // First ones are forgotten after 15 seconds.
        let first = Traffic::fragments(ipv6, true, 10);
        let prepare = Prepare::Run(program, first, 1 << 10);
        let later = Traffic::fragments(ipv6, false, 10);
        self.case(&name, ("small", "dns"), later, verdict, prepare)
    }

    /// An ICMP error about one of a thousand flows.
    pub(crate) fn icmp_error_case(&mut self, ipv6: bool) -> Result<Net> {
        self.establish("small", ipv6, 1 << 10)?;
        let name = format!("ICMP error, {}, 1 k flows", of(Hook::Xdp, ipv6));
        let verdict = Verdict::Pass(PassKind::Related);
        let traffic = Traffic::icmp_errors(ipv6, 1 << 10);
        self.case(&name, ("small", "talk"), traffic, verdict, Prepare::Nothing)
    }

    /// Any case of the programs.
    pub(crate) fn case(
        &mut self,
        name: &str,
        place: Place<'_>,
        traffic: Traffic,
        verdict: Verdict,
        prepare: Prepare,
    ) -> Result<Net> {
        if let Some(known) = self.known.get(name) {
            return Ok(*known);
        }
        let world = self.world(place.0)?;
        let id = world.id(place.1)?;
        let direction = if traffic.hook.is_ingress() {
            Direction::Ingress
        } else {
            Direction::Egress
        };
        let device = MEASURED.iter().position(|one| *one == place.1);
        let made = self.plan.add(Case {
            group: "programs".to_owned(),
            name: name.to_owned(),
            program: world.program(traffic.hook)?,
            traffic,
            device: device.unwrap_or_default() as u32,
            prepare,
            watch: Some((world, id, direction, verdict)),
            answer: None,
        })?;
        self.known.insert(name.to_owned(), made);
        Ok(made)
    }

    /// Maps and programs under the definition of that name.
    fn world(&mut self, name: &'static str) -> Result<Rc<World>> {
        if let Some(made) = self.worlds.get(name) {
            return Ok(Rc::clone(made));
        }
        eprintln!("preparing: {name}");
        let policy = policy::definition(name);
        let made = World::new(self.plan.objects.enforcer, policy.text(), &MEASURED)?;
        let made = Rc::new(made);
        self.worlds.insert(name, Rc::clone(&made));
        Ok(made)
    }
}

fn world_of(rules: u32) -> &'static str {
    if rules > 1000 { "100 k rules" } else { "rules" }
}

fn of(hook: Hook, ipv6: bool) -> String {
    format!("{}, IPv{}", hook.name(), if ipv6 { 6 } else { 4 })
}

/// So many flows, in words.
pub(crate) fn flows(count: u32) -> String {
    let unit = if count == 1 { "flow" } else { "flows" };
    format!("{} {unit}", counted(count))
}

/// A number as one would say it.
pub(crate) fn counted(number: u32) -> String {
    let thousand = if number.is_multiple_of(1024) {
        1024
    } else {
        1000
    };
    match number {
        0..1000 => number.to_string(),
        1000..1_000_000 => format!("{} k", number / thousand),
        _ => format!("{} M", number / 1_000_000),
    }
}
