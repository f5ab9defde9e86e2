//! Quotas of AWS (facts 2.1–2.4, 2.6, 2.8–2.10): warnings, or errors where the definition asks for AWS's rules.

use std::collections::HashMap;

use ipnet::IpNet;
use sg_common::verdict::Direction;

use super::super::escape::quote;
use super::super::tree::{At, Entry, Group, Quotas};
use super::Linker;
use crate::model::{Family, Peer};

/// Rules of a group in one direction and family (fact 2.2).
const RULES: usize = 60;
/// Per cent of that from which it is told of.
const HEADROOM: usize = 80;
/// Groups of an interface (fact 2.3).
const GROUPS_PER_INTERFACE: usize = 5;
/// What the two quotas multiply to at most, however they are adjusted (fact 2.4).
const PRODUCT: usize = 1000;
/// Groups of a Region (fact 2.1).
const GROUPS: usize = 2500;
/// Entries of a prefix list (fact 2.10).
const ENTRIES: usize = 1000;
/// Prefix lists of a Region (fact 2.10).
const LISTS: usize = 100;

/// Entries of a prefix list by family: IPv4, IPv6.
type Weights<'d> = HashMap<&'d str, [usize; 2]>;

impl<'d> Linker<'d, '_> {
    /// Checks everything that AWS counts.
    pub(super) fn check_quotas(&mut self) {
        let weights = self.check_lists();
        let most_rules = self.check_groups(&weights);
        let most_groups = self.check_interfaces();
        if most_rules.0 * most_groups.0 > PRODUCT
            && let (_, Some(at)) = most_rules
        {
            let message = format!(
                "{} rules in a group times {} groups on an interface is more than {PRODUCT}",
                most_rules.0, most_groups.0
            );
            self.exceeded("RulesPerSecurityGroupLimitExceeded", at, message);
        }
    }

    fn check_lists(&mut self) -> Weights<'d> {
        let mut weights = Weights::new();
        let lists = self.files().flat_map(|file| &file.prefix_lists);
        for (number, list) in (1..).zip(lists) {
            let ipv6 = |entry: &&super::Located<IpNet>| matches!(entry.value, IpNet::V6(_));
            let of_v6 = list.entries.iter().filter(ipv6).count();
            weights.insert(&list.name.value, [list.entries.len() - of_v6, of_v6]);
            if list.entries.len() > ENTRIES {
                let message = format!(
                    "{} entries in a prefix list; AWS allows {ENTRIES}",
                    list.entries.len()
                );
                self.exceeded("prefix-list-entries", list.name.at, message);
            }
            if number == LISTS + 1 {
                let message = format!("more than {LISTS} prefix lists");
                self.exceeded("prefix-lists", list.name.at, message);
            }
        }
        weights
    }

    /// The most rules that one group has in a direction and family, and that group's place.
    fn check_groups(&mut self, weights: &Weights<'d>) -> (usize, Option<At>) {
        let mut most = (0, None);
        let groups = self.files().flat_map(|file| &file.groups);
        for (number, group) in (1..).zip(groups) {
            if number == GROUPS + 1 {
                let message = format!("more than {GROUPS} groups");
                self.exceeded("SecurityGroupLimitExceeded", group.name.at, message);
            }
            for direction in Direction::ALL {
                let counts = count(entries(group, direction), weights);
                for (family, count) in ["IPv4", "IPv6"].into_iter().zip(counts) {
                    if count > most.0 {
                        most = (count, Some(group.name.at));
                    }
                    if (RULES * HEADROOM / 100..=RULES).contains(&count) {
                        let message = format!(
                            "group {} has {count} of the {RULES} {} rules for {family} that AWS allows",
                            quote(&group.name.value),
                            direction.name()
                        );
                        self.findings.note("quota-headroom", group.name.at, message);
                    }
                    if count > RULES {
                        let message = format!(
                            "group {} has {count} {} rules for {family}; AWS allows {RULES}",
                            quote(&group.name.value),
                            direction.name()
                        );
                        self.exceeded("RulesPerSecurityGroupLimitExceeded", group.name.at, message);
                    }
                }
            }
        }
        most
    }

    /// The most groups that one interface has, and where.
    fn check_interfaces(&mut self) -> (usize, Option<At>) {
        let mut most = (0, None);
        for interface in self.files().flat_map(|file| &file.interfaces) {
            let Some(groups) = &interface.groups else {
                continue;
            };
            let count = groups.value.len();
            if count > most.0 {
                most = (count, Some(groups.at));
            }
            if (GROUPS_PER_INTERFACE + 1..=crate::model::MAX_GROUPS_PER_INTERFACE).contains(&count)
            {
                let message =
                    format!("{count} groups on one interface; AWS allows {GROUPS_PER_INTERFACE}");
                self.exceeded(
                    "SecurityGroupsPerInterfaceLimitExceeded",
                    groups.at,
                    message,
                );
            }
        }
        most
    }

    fn exceeded(&mut self, code: &'static str, at: At, message: String) {
        let severity = self.quota_severity();
        let help = match self.quotas {
            Quotas::Warn => "AWS would refuse this by default; here it is enforced all the same",
            Quotas::Aws => "without `[defaults] quotas = \"aws\"` this is a warning",
        };
        self.findings.add(severity, code, at, message).help(help);
    }
}

fn entries(group: &Group, direction: Direction) -> &[Entry] {
    match direction {
        Direction::Ingress => &group.ingress,
        Direction::Egress => group.egress.as_deref().unwrap_or_default(),
    }
}

/// Rules by family as AWS counts them: a list by its entries, a group on both sides (facts 2.6, 2.8).
fn count(entries: &[Entry], weights: &Weights<'_>) -> [usize; 2] {
    let mut counts = [0, 0];
    for entry in entries {
        for peer in &entry.peers {
            let weight = match &peer.value {
                Peer::Cidr(IpNet::V4(_)) => [1, 0],
                Peer::Cidr(IpNet::V6(_)) => [0, 1],
                Peer::PrefixList(name) => weights.get(name.as_str()).copied().unwrap_or([0, 0]),
                Peer::Group(_) => [1, 1],
                Peer::GroupOf(_, Family::Ipv4) => [1, 0],
                Peer::GroupOf(_, Family::Ipv6) => [0, 1],
            };
            for (count, weight) in counts.iter_mut().zip(weight) {
                *count += weight * entry.traffic.len();
            }
        }
    }
    counts
}
