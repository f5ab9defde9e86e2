//! Section 11, what a packet does to its flow, and section 13, what opens one.

use crate::{
    Direction,
    Verdict::{self, Drop, Pass},
    entry::{self, Entry, Key, State},
    ip::{ICMP, ICMPV6},
    judge::Judge,
    rules::Detail,
    tcp,
    transport::{FIN, Header, RST, SYN, Segment},
};

impl Judge<'_> {
    /// Section 11 for all but a SYN.
    pub(crate) fn flow(&mut self, key: Key, header: &Header) -> Verdict {
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
    pub(crate) fn syn(&mut self, key: Key, header: &Header, segment: &Segment) -> Verdict {
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
            Header::Tcp(segment) if !segment.has(RST) => entry::ESTABLISHED,
            Header::Udp { .. } => entry::STREAM,
            _ => return None,
        };
        let life = entry::seconds(self.view.interface, timeout) * self.hz;
        let openings = self.previous?.untracked_openings(key);
        if self.now.saturating_sub(self.since) >= life {
            return None;
        }
        [self.direction, self.direction.reverse()]
            .into_iter()
            .filter(|direction| openings.contains(direction))
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
        self.replaces = self.table.rivals(self.name, &self.view);
        let Some(reserved) = self.table.place(self.name, &self.view) else {
            return Drop("conntrack_allowance_exceeded");
        };
        let by_local = opening == Direction::Out;
        let mut entry = Entry::open(
            key,
            header,
            self.direction,
            by_local,
            self.generation(),
            self.now,
        );
        entry.reserved = reserved;
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
        (protocol, _) if !entry::has_ports(protocol) => Detail::Nothing,
        (_, Direction::In) => Detail::Port(key.local_port),
        (_, Direction::Out) => Detail::Port(key.remote_port),
    }
}
