//! The order of judgement, and sections 7 to 9.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    Arrival, Direction, Judgement, Oracle, Rivals,
    Verdict::{self, Drop, Pass},
    addresses, always,
    entry::Key,
    errors,
    flows::Table,
    frame,
    ip::{Packet, Part},
    rules::{Detail, View},
    transport::{self, Header, Icmp},
};

/// Judges one frame.
pub(crate) fn judge(
    oracle: &mut Oracle,
    now: u64,
    interface: &str,
    arrival: &Arrival<'_>,
) -> Judgement {
    let Oracle {
        hz,
        current,
        previous,
        reevaluating,
        table,
        firsts,
    } = oracle;
    let known = current.as_ref().and_then(|generation| {
        let view = View::new(&generation.policy, interface)?;
        Some((view, generation.since))
    });
    let Some((view, since)) = known else {
        let direction = if arrival.ingress {
            Direction::In
        } else {
            Direction::Out
        };
        return Judgement {
            direction,
            verdict: Drop("interface_unknown"),
            replaces: None,
        };
    };
    // What comes in by the host's side of a link comes out of the workload.
    let direction = if arrival.ingress != view.interface.host {
        Direction::In
    } else {
        Direction::Out
    };
    table.expire(view.policy, now, *hz);

    let mut judge = Judge {
        now,
        hz: *hz,
        name: interface,
        view,
        since,
        previous: previous
            .as_ref()
            .and_then(|policy| View::new(policy, interface)),
        reevaluating,
        table,
        direction,
        arrival,
        replaces: None,
    };
    let packet = match frame::read(arrival, direction, view.interface) {
        Ok(packet) => packet,
        Err(verdict) => {
            return Judgement {
                direction,
                verdict,
                replaces: None,
            };
        }
    };
    let verdict = if packet.part == Part::Later {
        match judge.before_flows(&packet, None) {
            Some(verdict) => verdict,
            None => firsts.judge(interface, direction, &packet, now, *hz),
        }
    } else {
        judge.packet(&packet)
    };
    let replaces = judge.replaces;
    let followed = matches!(
        verdict,
        Pass("established" | "new" | "taken_over" | "untracked" | "stateless" | "related")
    );
    if packet.part == Part::First && followed {
        firsts.remember(interface, direction, &packet, now, *hz);
    }
    Judgement {
        direction,
        verdict,
        replaces,
    }
}

/// What judging one frame needs.
pub(crate) struct Judge<'a> {
    pub(crate) now: u64,
    pub(crate) hz: u64,
    pub(crate) name: &'a str,
    pub(crate) view: View<'a>,
    /// When the generation in force came.
    pub(crate) since: u64,
    /// What the generation before said of this interface.
    pub(crate) previous: Option<View<'a>>,
    pub(crate) reevaluating: &'a [BTreeSet<String>],
    pub(crate) table: &'a mut Table,
    pub(crate) direction: Direction,
    pub(crate) arrival: &'a Arrival<'a>,
    pub(crate) replaces: Option<Rivals>,
}

impl Judge<'_> {
    /// Sections 3 to 13 for whole packets and first fragments.
    fn packet(&mut self, packet: &Packet<'_>) -> Verdict {
        // Sections 3 and 4 come before 5; what they drop or pass has no need of a transport header.
        let header = transport::read(packet);
        if let Some(verdict) = self.before_flows(packet, Some(&header)) {
            return verdict;
        }
        let header = match header {
            Ok(header) => header,
            Err(reason) => return Drop(reason),
        };
        if let Header::Icmp(icmp) = header
            && !icmp.is_echo()
        {
            return self.icmp(packet, &icmp);
        }
        let key = Key::new(self.name, self.direction, packet, &header);
        match header {
            Header::Tcp(segment) if segment.is_syn() => self.syn(key, &header, &segment),
            _ => self.flow(key, &header),
        }
    }

    /// Sections 3 to 7; a later fragment has no header.
    fn before_flows(
        &self,
        packet: &Packet<'_>,
        header: Option<&Result<Header, &'static str>>,
    ) -> Option<Verdict> {
        if let Some(verdict) = always::judge(packet, self.direction, self.view.interface) {
            return Some(verdict);
        }
        if let Err(reason) = addresses::possible(packet) {
            return Some(Drop(reason));
        }
        let header = match header {
            Some(Err(reason)) => return Some(Drop(reason)),
            Some(Ok(header)) => Some(*header),
            None => None,
        };
        let syn_in = self.direction == Direction::In
            && matches!(header, Some(Header::Tcp(segment)) if segment.is_syn());
        let service = self.view.policy.services.contains(&self.remote(packet)) && !syn_in;
        // Section 6 comes later for the errors whose quote is read, but not after a verdict.
        let quotes = matches!(header, Some(Header::Icmp(icmp)) if self.reads_quote(&icmp));
        if (service || !quotes)
            && let Some(verdict) = self.foreign(packet)
        {
            return Some(verdict);
        }
        service.then_some(Pass("service"))
    }

    /// Section 6.
    fn foreign(&self, packet: &Packet<'_>) -> Option<Verdict> {
        addresses::own(packet, self.direction, self.view.interface)
            .err()
            .map(Drop)
    }

    fn remote(&self, packet: &Packet<'_>) -> IpAddr {
        match self.direction {
            Direction::In => packet.source,
            Direction::Out => packet.destination,
        }
    }

    fn reads_quote(&self, icmp: &Icmp) -> bool {
        icmp.is_error() && !self.view.interface.icmp_strict
    }

    /// Sections 8 and 9: ICMP but for echo.
    fn icmp(&self, packet: &Packet<'_>, icmp: &Icmp) -> Verdict {
        if self.reads_quote(icmp) {
            let Some(quoted) = errors::quoted(self.name, self.direction, packet) else {
                return Drop("icmp_quote");
            };
            if let Some(verdict) = self.foreign(packet) {
                return verdict;
            }
            if self.table.find(&quoted).is_some() || self.view.is_untracked(&quoted) {
                return Pass("related");
            }
        }
        let detail = Detail::Icmp(icmp.kind, icmp.code);
        if self
            .view
            .allows(self.direction, self.remote(packet), packet.protocol, detail)
        {
            Pass("stateless")
        } else if icmp.is_error() {
            Drop("icmp_unrelated")
        } else {
            Drop("no_rule")
        }
    }
}
