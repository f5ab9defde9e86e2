//! Rules whose packets no interface of their group can see, since it has no address of their family.

use std::net::IpAddr;

use ipnet::IpNet;
use sg_common::verdict::Direction;

use super::super::escape::quote;
use super::Look;
use crate::model::{Group, Peer, Rule};

/// Whether there is IPv4, and IPv6.
type Families = [bool; 2];

const BOTH: Families = [true, true];

impl Look<'_, '_> {
    pub(super) fn families(&mut self, name: &str, group: &Group) {
        let Some(own) = self.of_interfaces(name) else {
            return;
        };
        for direction in Direction::ALL {
            for rule in group.rules(direction) {
                let ruled = self.of_rule(rule);
                let (Some(at), [false, false]) = (
                    self.places.rule(rule),
                    [own[0] && ruled[0], own[1] && ruled[1]],
                ) else {
                    continue;
                };
                // That nothing matches at all is said otherwise.
                if ruled == [false, false] {
                    continue;
                }
                let family = if ruled[1] { "IPv6" } else { "IPv4" };
                let message = format!(
                    "this rule is of {family}, and no interface with group {} has an {family} address",
                    quote(name)
                );
                self.findings.note("never-matches-here", at, message);
            }
        }
    }

    /// Families of the addresses of all interfaces with a group; `None`: there are none, or they are not known.
    fn of_interfaces(&self, group: &str) -> Option<Families> {
        let mut carriers = self
            .model
            .interfaces
            .values()
            .filter(|interface| interface.groups.iter().any(|own| own == group))
            .peekable();
        carriers.peek()?;
        let mut families = [false, false];
        for carrier in carriers {
            let own = of_addresses(carrier.addresses.as_deref()?);
            families = [families[0] || own[0], families[1] || own[1]];
        }
        (families != [false, false]).then_some(families)
    }

    fn of_rule(&self, rule: &Rule) -> Families {
        let of_peer = match &rule.peer {
            Peer::Cidr(net) => of_nets(std::slice::from_ref(net)),
            Peer::PrefixList(name) => of_nets(self.entries(name)),
            // Its members may change.
            Peer::Group(_) => BOTH,
            Peer::GroupOf(_, family) => [!family.is_ipv6(), family.is_ipv6()],
        };
        let carries = |ipv6| rule.traffic.slices(ipv6).next().is_some();
        [of_peer[0] && carries(false), of_peer[1] && carries(true)]
    }
}

fn of_nets(nets: &[IpNet]) -> Families {
    let is_v6 = |net: &IpNet| matches!(net, IpNet::V6(_));
    [nets.iter().any(|net| !is_v6(net)), nets.iter().any(is_v6)]
}

fn of_addresses(addresses: &[IpAddr]) -> Families {
    [
        addresses.iter().any(IpAddr::is_ipv4),
        addresses.iter().any(IpAddr::is_ipv6),
    ]
}
