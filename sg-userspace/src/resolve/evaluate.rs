//! The policy read rule by rule: slow, plain, and the yardstick of what is compiled.

use std::net::IpAddr;

use sg_common::verdict::Direction;

use super::{Name, Resolved, ResolvedRule};
use crate::model::{Peer, RuleId};

impl Resolved {
    /// The rule that lets a new flow pass, or `None` if no rule does; the lowest id where several
    /// do. Tracking and what always passes play no part.
    ///
    /// `protocol` is the IP protocol number; `port` the destination port of TCP and UDP,
    /// `type << 8 | code` of the family's ICMP, and ignored otherwise. An unknown interface lets
    /// nothing pass.
    pub fn evaluate(
        &self,
        interface: &str,
        direction: Direction,
        protocol: u8,
        remote: IpAddr,
        port: u16,
    ) -> Option<RuleId> {
        self.matching(interface, direction, protocol, remote, port)
            .map(|rule| rule.id)
            .min()
    }

    /// All rules that let a new flow pass; arguments as for [`Self::evaluate`].
    pub fn matching(
        &self,
        interface: &str,
        direction: Direction,
        protocol: u8,
        remote: IpAddr,
        port: u16,
    ) -> impl Iterator<Item = &ResolvedRule> {
        self.rules_of(interface, direction).filter(move |rule| {
            rule.traffic.matches(remote.is_ipv6(), protocol, port)
                && self.covers(&rule.peer, remote)
        })
    }

    /// The rules of all groups of an interface, in the order of its groups.
    pub fn rules_of(
        &self,
        interface: &str,
        direction: Direction,
    ) -> impl Iterator<Item = &ResolvedRule> {
        self.interfaces
            .get(interface)
            .into_iter()
            .flat_map(|interface| &interface.groups)
            .filter_map(|group| self.groups.get(group))
            .flat_map(move |group| group.rules(direction))
    }

    fn covers(&self, peer: &Peer<Name>, remote: IpAddr) -> bool {
        match peer {
            Peer::Cidr(net) => net.contains(&remote),
            Peer::PrefixList(name) => self
                .prefix_lists
                .get(name)
                .is_some_and(|entries| entries.iter().any(|net| net.contains(&remote))),
            Peer::Group(name) => self.is_member(name, remote),
            Peer::GroupOf(name, family) => {
                family.is_ipv6() == remote.is_ipv6() && self.is_member(name, remote)
            }
        }
    }

    fn is_member(&self, group: &Name, address: IpAddr) -> bool {
        let group = self.groups.get(group);
        group.is_some_and(|group| group.members.contains(&address))
    }
}
