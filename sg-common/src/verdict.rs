//! What happens to a packet, and the counter it moves: the one list of both.

/// A packet's direction as the workload sees it, whatever the hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Direction {
    /// Towards the workload.
    Ingress = 0,
    /// From the workload.
    Egress = 1,
}

impl Direction {
    /// Both directions, in the order of their numbers.
    pub const ALL: [Direction; 2] = [Direction::Ingress, Direction::Egress];

    /// The other direction.
    #[inline(always)]
    pub const fn reverse(self) -> Self {
        match self {
            Direction::Ingress => Direction::Egress,
            Direction::Egress => Direction::Ingress,
        }
    }

    /// `ingress` or `egress`.
    pub const fn name(self) -> &'static str {
        match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }
    }
}

macro_rules! outcomes {
    (
        $(#[$pass_doc:meta])* pass { $($pass:ident = $pass_number:literal, $pass_name:literal, $pass_meaning:literal;)* }
        $(#[$drop_doc:meta])* drop { $($drop:ident = $drop_number:literal, $drop_name:literal, $drop_meaning:literal, $drop_advice:literal;)* }
    ) => {
        $(#[$pass_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum PassKind { $(#[doc = $pass_meaning] $pass = $pass_number,)* }

        impl PassKind {
            /// Every kind, in the order of their numbers.
            pub const ALL: &'static [PassKind] = &[$(PassKind::$pass),*];
            /// Name in counters and metrics.
            pub const fn name(self) -> &'static str { match self { $(PassKind::$pass => $pass_name,)* } }
            /// One sentence for users.
            pub const fn meaning(self) -> &'static str { match self { $(PassKind::$pass => $pass_meaning,)* } }
        }

        $(#[$drop_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason { $(#[doc = $drop_meaning] $drop = $drop_number,)* }

        impl DropReason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$drop),*];
            /// Name in counters and metrics.
            pub const fn name(self) -> &'static str { match self { $(DropReason::$drop => $drop_name,)* } }
            /// One sentence for users.
            pub const fn meaning(self) -> &'static str { match self { $(DropReason::$drop => $drop_meaning,)* } }
            /// What a user does about it.
            pub const fn advice(self) -> &'static str { match self { $(DropReason::$drop => $drop_advice,)* } }
        }
    };
}

outcomes! {
    /// How a packet came to pass. Numbers are never reused.
    pass {
        Established = 0, "established", "belongs to a live tracked flow";
        New = 1, "new", "opened a tracked flow that a rule allows";
        Untracked = 2, "untracked", "belongs to a flow whose policy is open both ways and is judged packet by packet";
        Stateless = 3, "stateless", "allowed by a rule without opening a flow (ICMP other than echo)";
        Related = 4, "related", "ICMP error that quotes a live flow";
        Fragment = 5, "fragment", "later fragment of a datagram whose first fragment passed";
        Arp = 6, "arp", "ARP, always passed";
        NeighborDiscovery = 7, "neighbor_discovery", "IPv6 neighbour or router solicitation or neighbour advertisement, always passed";
        RouterAdvertisement = 8, "router_advertisement", "IPv6 router advertisement towards the workload";
        Redirect = 9, "redirect", "IPv6 redirect towards the workload, where `nd_redirect` allows it";
        MulticastListener = 10, "multicast_listener", "MLD, passed unless `mld = false`";
        Dhcp = 11, "dhcp", "DHCP of a client";
        Service = 12, "service", "link-local service listed in `services`";
        TakenOver = 13, "taken_over", "belongs to a flow that was untracked until the last change and is tracked from now on";
        ListedEthertype = 14, "listed_ethertype", "protocol listed in `ethertypes`";
        Unconfirmed = 15, "unconfirmed", "meets an interface whose first policy was not confirmed in time (`sgctl apply --confirm-within`): everything passes until the next apply";
    }
    /// Why a packet was dropped. Numbers are never reused.
    drop {
        NoRule = 0, "no_rule", "no rule of the interface's groups allows it", "add a rule to one of the interface's groups if it should pass";
        MidStream = 1, "mid_stream", "TCP segment other than SYN without a tracked flow", "the flow idled out, predates the enforcer, or was untracked until an earlier change: reconnect, raise `tcp_established`, or set `tcp_loose`";
        AllowanceExceeded = 2, "conntrack_allowance_exceeded", "no room for another tracked flow", "raise `allowance`, shorten timeouts, or open the policy both ways so that flows need no tracking";
        IcmpUnrelated = 3, "icmp_unrelated", "ICMP error that quotes no live flow", "none if it is a stray; a rule for its type lets it pass";
        IcmpQuote = 4, "icmp_quote", "ICMP error whose quoted packet cannot be read or does not fit its outer addresses", "look at the sender: this is malformed or forged";
        FragmentOrphan = 5, "fragment_orphan", "later fragment with no allowed first fragment known", "lower the sender's packet size; fragments that overtake their first are lost";
        FragmentTiny = 6, "fragment_tiny", "first fragment without the whole transport header", "look at the sender: this is an evasion technique";
        FragmentOverlap = 7, "fragment_overlap", "later fragment that would overwrite the transport header", "look at the sender: this is an evasion technique";
        Truncated = 8, "truncated", "shorter than its headers say", "look at the sender or the link";
        VlanTag = 9, "vlan_tag", "carries a VLAN tag", "attach to the VLAN interface instead";
        Ethertype = 10, "ethertype", "neither ARP, IPv4, IPv6 nor listed in `ethertypes`", "list it under the interface's `ethertypes` if it should pass, LLDP for instance";
        IpVersion = 11, "ip_version", "IP version does not match the ethertype", "look at the sender: this is malformed";
        IpHeaderLength = 12, "ip_header_length", "IPv4 header length below 20 bytes", "look at the sender: this is malformed";
        IpTotalLength = 13, "ip_total_length", "IP length field disagrees with the frame", "look at the sender: this is malformed";
        IpOptions = 14, "ip_options", "carries IPv4 options other than IGMP's router alert", "none: options are not carried";
        IpSource = 15, "ip_source", "impossible source address (loopback, multicast, broadcast, unspecified, mapped)", "look at the sender: this is forged or misconfigured";
        IpDestination = 16, "ip_destination", "impossible destination address (loopback, unspecified, mapped)", "look at the sender: this is forged or misconfigured";
        Land = 17, "land", "source and destination address are equal", "look at the sender: this is forged";
        Ipv6Extension = 18, "ipv6_extension", "extension headers malformed, misplaced or too many", "look at the sender";
        Ipv6Routing = 19, "ipv6_routing", "routing header with segments left", "none: source routing is not carried";
        Ipv6NoNextHeader = 20, "ipv6_no_next_header", "IPv6 packet without a transport header", "none";
        Ipv6FragmentRepeated = 21, "ipv6_fragment_repeated", "more than one fragment header", "look at the sender: this is an evasion technique";
        TcpHeader = 22, "tcp_header", "TCP data offset below 20 bytes or past the packet", "look at the sender: this is malformed";
        TcpFlags = 23, "tcp_flags", "TCP flags that no real segment carries", "look at the sender: this is a scan";
        NeighborInvalid = 24, "neighbor_invalid", "neighbour discovery that cannot be real, or not in this direction", "look at the sender: this is forged, or a workload posing as a router";
        ArpInvalid = 25, "arp_invalid", "ARP that is malformed", "look at the sender";
        AddressSpoofed = 26, "address_spoofed", "the workload claims an address that is not its own (source, ARP, neighbour advertisement or solicitation)", "list the address under the interface's `addresses` if it is legitimate; of a router set `source_dest_check = false`, and list the addresses for which it answers ARP and neighbour discovery: those are checked all the same";
        InterfaceUnknown = 27, "interface_unknown", "the interface has no policy in force", "run `sgctl apply` again; `sgctl status` shows the interface";
        Revoked = 28, "revoked", "its flow was cut because no rule allows it any more (`on_revoke = \"reevaluate\"`)", "none if the rule was meant to go; else add it again and reconnect";
        DestinationForeign = 29, "destination_foreign", "towards the workload, but not to one of its addresses", "list the address under the interface's `addresses`; of a router set `source_dest_check = false`";
    }
}

/// What the pipeline decides for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Goes on to whoever comes next.
    Pass(PassKind),
    /// Dropped silently (fact 1.5: no RST, no ICMP).
    Drop(DropReason),
}

/// Number of pass kinds.
pub const PASS_KINDS: usize = PassKind::ALL.len();
/// Number of drop reasons.
pub const DROP_REASONS: usize = DropReason::ALL.len();
/// Number of outcomes: the pass kinds, then the drop reasons.
pub const OUTCOMES: usize = PASS_KINDS + DROP_REASONS;

impl Verdict {
    /// Position of the verdict's counter: pass kinds first, drop reasons after them.
    #[inline(always)]
    pub const fn outcome(self) -> usize {
        match self {
            Verdict::Pass(kind) => kind as usize,
            Verdict::Drop(reason) => PASS_KINDS + reason as usize,
        }
    }

    /// Whether the packet goes on.
    #[inline(always)]
    pub const fn passes(self) -> bool {
        matches!(self, Verdict::Pass(_))
    }

    /// The verdict with this outcome.
    pub fn from_outcome(outcome: usize) -> Option<Verdict> {
        Self::all().nth(outcome)
    }

    /// Every verdict, in the order of [`Verdict::outcome`].
    pub fn all() -> impl Iterator<Item = Verdict> {
        PassKind::ALL
            .iter()
            .map(|kind| Verdict::Pass(*kind))
            .chain(DropReason::ALL.iter().map(|reason| Verdict::Drop(*reason)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_in_order() {
        for (outcome, verdict) in Verdict::all().enumerate() {
            assert_eq!(verdict.outcome(), outcome);
        }
        assert_eq!(Verdict::all().count(), OUTCOMES);
    }

    /// Numbers are part of the public interface: this list only ever grows at its ends.
    #[test]
    fn numbers_are_never_reused() {
        const PASSED: &str = "established new untracked stateless related fragment arp \
            neighbor_discovery router_advertisement redirect multicast_listener dhcp service taken_over \
            listed_ethertype unconfirmed";
        const DROPPED: &str = "no_rule mid_stream conntrack_allowance_exceeded icmp_unrelated icmp_quote \
            fragment_orphan fragment_tiny fragment_overlap truncated vlan_tag ethertype ip_version \
            ip_header_length ip_total_length ip_options ip_source ip_destination land ipv6_extension \
            ipv6_routing ipv6_no_next_header ipv6_fragment_repeated tcp_header tcp_flags neighbor_invalid \
            arp_invalid address_spoofed interface_unknown revoked destination_foreign";
        let passed: std::vec::Vec<_> = PassKind::ALL.iter().map(|kind| kind.name()).collect();
        let dropped: std::vec::Vec<_> = DropReason::ALL.iter().map(|one| one.name()).collect();
        assert!(passed.join(" ").starts_with(PASSED));
        assert!(dropped.join(" ").starts_with(DROPPED));
    }

    #[test]
    fn names_are_unique() {
        let mut names: std::vec::Vec<_> = PassKind::ALL
            .iter()
            .map(|kind| kind.name())
            .chain(DropReason::ALL.iter().map(|reason| reason.name()))
            .collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), OUTCOMES);
    }
}
