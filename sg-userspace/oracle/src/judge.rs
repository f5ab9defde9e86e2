//! The order of judgement, and sections 7 to 9, 11 and 13.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    Arrival, Direction, Judgement, Oracle,
    Verdict::{self, Drop, Pass},
    addresses, always, errors,
    flows::{self, Entry, Key, State, Table},
    frame,
    ip::{ICMP, ICMPV6, Packet, Part},
    rules::{Detail, View},
    tcp,
    transport::{self, FIN, Header, Icmp, RST, SYN},
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
            replaces: false,
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
        replaces: false,
    };
    let packet = match frame::read(arrival, direction, view.interface) {
        Ok(packet) => packet,
        Err(verdict) => {
            return Judgement {
                direction,
                verdict,
                replaces: false,
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

struct Judge<'a> {
    now: u64,
    hz: u64,
    name: &'a str,
    view: View<'a>,
    /// When the generation in force came.
    since: u64,
    /// What the generation before said of this interface.
    previous: Option<View<'a>>,
    reevaluating: &'a [BTreeSet<String>],
    table: &'a mut Table,
    direction: Direction,
    arrival: &'a Arrival<'a>,
    replaces: bool,
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

    /// Section 11 for all but a SYN.
    fn flow(&mut self, key: Key, header: &Header) -> Verdict {
        let untracked = self.view.is_untracked(&key);
        let mut revoked = false;
        if let Some(at) = self.table.find(&key) {
            let generation = self.generation();
            let older = self.table.entry(at).generation < generation;
            revoked = !untracked && self.is_revoked(at);
            if (older && untracked) || revoked {
                self.table.remove(at);
            } else {
                let entry = self.table.entry(at);
                entry.generation = generation;
                entry.count(self.direction, self.arrival);
                entry.advance(header, self.direction, self.now, self.hz);
                return Pass("established");
            }
        }
        if untracked {
            return Pass("untracked");
        }
        match self.rules(key, header) {
            Drop(_) if revoked => Drop("revoked"),
            verdict => verdict,
        }
    }

    /// Section 11 for a SYN.
    fn syn(&mut self, key: Key, header: &Header, segment: &transport::Segment) -> Verdict {
        let untracked = self.view.is_untracked(&key);
        if !untracked && !self.is_allowed(self.direction, &key, header) {
            return Drop("no_rule");
        }
        if let Some(at) = self.table.find(&key) {
            let over = matches!(self.table.entry(at).state, State::TimeWait | State::Close);
            if over || untracked || self.is_revoked(at) {
                self.table.remove(at);
            } else {
                let generation = self.generation();
                let entry = self.table.entry(at);
                entry.generation = generation;
                entry.count(self.direction, self.arrival);
                if entry.opening() == self.direction {
                    tcp::open_again(&mut entry.sides, segment);
                }
                return Pass("established");
            }
        }
        if untracked {
            return Pass("untracked");
        }
        self.open("new", key, header, self.direction)
    }

    /// Section 13 for all but a SYN.
    fn rules(&mut self, key: Key, header: &Header) -> Verdict {
        let loose = self.view.interface.tcp_loose;
        let mid_stream =
            matches!(header, Header::Tcp(segment) if !loose || segment.has(SYN | RST | FIN));
        let allowed = self.is_allowed(self.direction, &key, header);
        if mid_stream || !allowed {
            if let Some(opening) = self.hand_over(&key, header) {
                return self.open("taken_over", key, header, opening);
            }
            return Drop(if mid_stream { "mid_stream" } else { "no_rule" });
        }
        if matches!(header, Header::Icmp(icmp) if icmp.is_reply()) {
            return Pass("stateless");
        }
        self.open("new", key, header, self.direction)
    }

    /// The direction of the opener of a flow that was untracked and is to be tracked.
    fn hand_over(&self, key: &Key, header: &Header) -> Option<Direction> {
        let timeout = match header {
            Header::Tcp(segment) if !segment.has(RST) => flows::ESTABLISHED,
            Header::Udp { .. } => flows::STREAM,
            _ => return None,
        };
        let life = flows::seconds(self.view.interface, timeout) * self.hz;
        if !self.previous?.is_untracked(key) || self.now.saturating_sub(self.since) > life {
            return None;
        }
        [self.direction, self.direction.reverse()]
            .into_iter()
            .find(|direction| self.is_allowed(*direction, key, header))
    }

    /// Makes an entry if there is room for it.
    fn open(
        &mut self,
        passed: &'static str,
        key: Key,
        header: &Header,
        opening: Direction,
    ) -> Verdict {
        if !self.table.has_room(self.name, &self.view) {
            return Drop("conntrack_allowance_exceeded");
        }
        self.replaces = self.table.is_share_full(self.view.policy);
        let by_local = opening == Direction::Out;
        let mut entry = Entry::open(
            key,
            header,
            self.direction,
            by_local,
            self.generation(),
            self.now,
        );
        entry.count(self.direction, self.arrival);
        self.table.insert(entry);
        Pass(passed)
    }

    /// A rule of a direction allows a packet of the flow that goes that way.
    fn is_allowed(&self, direction: Direction, key: &Key, header: &Header) -> bool {
        let detail = match header {
            Header::Icmp(icmp) => Detail::Icmp(icmp.kind, icmp.code),
            _ => port_of(direction, key),
        };
        self.view
            .allows(direction, key.remote, key.protocol, detail)
    }

    /// A group was to cut what no rule allows any more, and no rule allows the entry's opener to open it.
    fn is_revoked(&mut self, at: usize) -> bool {
        let entry = self.table.entry(at);
        let opening = entry.opening();
        let detail = match entry.key.protocol {
            // Echo requests; the entry does not know their code, which is 0 (RFC 792, RFC 4443).
            ICMP if entry.key.local.is_ipv4() => Detail::Icmp(8, 0),
            ICMPV6 if entry.key.local.is_ipv6() => Detail::Icmp(128, 0),
            _ => port_of(opening, &entry.key),
        };
        let (remote, protocol, judged) = (entry.key.remote, entry.key.protocol, entry.generation);
        judged < self.generation()
            && self
                .reevaluating
                .iter()
                .skip(judged)
                .any(|interfaces| interfaces.contains(self.name))
            && !self.view.allows(opening, remote, protocol, detail)
    }

    /// Number of the generation in force.
    fn generation(&self) -> usize {
        self.reevaluating.len().saturating_sub(1)
    }
}

/// The destination port of a packet of the flow that goes that way.
fn port_of(direction: Direction, key: &Key) -> Detail {
    match (key.protocol, direction) {
        (protocol, _) if !flows::has_ports(protocol) => Detail::Nothing,
        (_, Direction::In) => Detail::Port(key.local_port),
        (_, Direction::Out) => Detail::Port(key.remote_port),
    }
}
