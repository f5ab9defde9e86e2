//! Rules that allow nothing which another rule of their group does not allow as well.

use std::collections::HashMap;

use ipnet::IpNet;
use sg_common::verdict::Direction;

use super::Look;
use crate::model::{Group, Peer, Rule, Traffic};

/// Comparisons of rules and entries of lists for one group and direction.
const COMPARISONS: usize = 5_000_000;

impl Look<'_, '_> {
    pub(super) fn shadowed(&mut self, group: &Group) {
        for direction in Direction::ALL {
            let rules = group.rules(direction);
            let index = Index::new(rules);
            let mut left = COMPARISONS;
            for (number, rule) in rules.iter().enumerate() {
                let Some(at) = self.places.rule(rule) else {
                    continue;
                };
                let Some(other) =
                    index.covering(number, rule, &mut left, |list| self.entries(list))
                else {
                    if left == 0 {
                        // A definition of that size is written by a program.
                        break;
                    }
                    continue;
                };
                let message = format!(
                    "{} allows nothing that {} does not allow",
                    in_words(rule),
                    in_words(&rules[other])
                );
                let place = self.places.rule(&rules[other]);
                let finding = self.findings.note("shadowed-rule", at, message);
                if let Some(place) = place {
                    finding.related(place, "which stands here");
                }
            }
        }
    }
}

/// Rules by their peers.
struct Index<'m> {
    rules: &'m [Rule],
    nets: HashMap<IpNet, Vec<usize>>,
    lists: Vec<(&'m str, Vec<usize>)>,
    groups: HashMap<&'m str, Vec<usize>>,
}

impl<'m> Index<'m> {
    fn new(rules: &'m [Rule]) -> Self {
        let mut index = Self {
            rules,
            nets: HashMap::new(),
            lists: Vec::new(),
            groups: HashMap::new(),
        };
        let mut lists: HashMap<&str, Vec<usize>> = HashMap::new();
        for (number, rule) in rules.iter().enumerate() {
            match &rule.peer {
                Peer::Cidr(net) => index.nets.entry(*net).or_default().push(number),
                Peer::PrefixList(name) => lists.entry(name).or_default().push(number),
                Peer::Group(name) | Peer::GroupOf(name, _) => {
                    index.groups.entry(name).or_default().push(number);
                }
            }
        }
        index.lists = lists.into_iter().collect();
        index.lists.sort_unstable();
        index
    }

    /// The first other rule that covers a rule. Of two that cover each other the later one is covered.
    fn covering<'l>(
        &self,
        number: usize,
        rule: &Rule,
        left: &mut usize,
        entries: impl Fn(&str) -> &'l [IpNet],
    ) -> Option<usize> {
        let mut among = |candidates: &[usize]| {
            *left = left.saturating_sub(candidates.len());
            candidates.iter().copied().find(|other| {
                let covers = |a: &Rule, b: &Rule| {
                    includes(&a.traffic, &b.traffic) && includes_family(&a.peer, &b.peer)
                };
                let other_rule = &self.rules[*other];
                *other != number
                    && *left > 0
                    && covers(other_rule, rule)
                    && (*other < number
                        || !(covers(rule, other_rule) && same_peer(rule, other_rule, &entries)))
            })
        };
        if let Some(name) = rule.peer.group() {
            return among(&self.groups[name.as_str()]);
        }
        let nets: &[IpNet] = match &rule.peer {
            Peer::PrefixList(name) => entries(name),
            Peer::Cidr(net) => std::slice::from_ref(net),
            Peer::Group(_) | Peer::GroupOf(..) => &[],
        };
        let first = nets.first()?;
        for len in 0..=first.prefix_len() {
            let wider = IpNet::new_assert(first.addr(), len).trunc();
            if nets.iter().all(|net| wider.contains(net))
                && let Some(candidates) = self.nets.get(&wider)
                && let Some(found) = among(candidates)
            {
                return Some(found);
            }
        }
        for (name, candidates) in &self.lists {
            let own = entries(name);
            let within = matches!(&rule.peer, Peer::PrefixList(other) if other == name)
                || nets.len().saturating_mul(own.len()) < 100_000
                    && nets
                        .iter()
                        .all(|net| own.iter().any(|wider| wider.contains(net)));
            if within && let Some(found) = among(candidates) {
                return Some(found);
            }
        }
        None
    }
}

fn same_peer<'l>(a: &Rule, b: &Rule, entries: &impl Fn(&str) -> &'l [IpNet]) -> bool {
    let nets = |peer: &Peer| match peer {
        Peer::Cidr(net) => vec![*net],
        Peer::PrefixList(name) => {
            let mut nets = entries(name).to_vec();
            nets.sort_unstable();
            nets
        }
        Peer::Group(_) | Peer::GroupOf(..) => Vec::new(),
    };
    a.peer == b.peer || nets(&a.peer) == nets(&b.peer)
}

/// Whether the families of `wide` are all of `narrow`, both peers being the same group; others say it themselves.
fn includes_family(wide: &Peer, narrow: &Peer) -> bool {
    match (wide, narrow) {
        (Peer::GroupOf(_, wide), Peer::GroupOf(_, narrow)) => wide == narrow,
        (Peer::GroupOf(..), _) => false,
        _ => true,
    }
}

/// Whether all of `narrow` is in `wide`, with peers of the same family.
fn includes(wide: &Traffic, narrow: &Traffic) -> bool {
    match (wide, narrow) {
        (Traffic::All, _) => true,
        (Traffic::Tcp(wide), Traffic::Tcp(narrow)) | (Traffic::Udp(wide), Traffic::Udp(narrow)) => {
            wide.from <= narrow.from && narrow.to <= wide.to
        }
        (Traffic::Icmp(wide), Traffic::Icmp(narrow))
        | (Traffic::Icmpv6(wide), Traffic::Icmpv6(narrow)) => {
            let ((low, high), (from, to)) = (wide.range(), narrow.range());
            low <= from && to <= high
        }
        (Traffic::Protocol(wide), Traffic::Protocol(narrow)) => wide == narrow,
        _ => false,
    }
}

fn in_words(rule: &Rule) -> String {
    match &rule.peer {
        Peer::Cidr(net) => format!("\"{}, {net}\"", rule.traffic),
        Peer::PrefixList(name) => format!("\"{}, prefix list {name}\"", rule.traffic),
        Peer::Group(name) => format!("\"{}, group {name}\"", rule.traffic),
        Peer::GroupOf(name, family) => {
            format!("\"{}, group {name} ({})\"", rule.traffic, family.name())
        }
    }
}
