//! What a model loses on its way to AWS, whatever the format.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ipnet::IpNet;
use sg_common::verdict::Direction;

use super::in_words;
use crate::model::{Group, Ids, Model, Peer, Rule, RuleId};

/// The model as AWS could hold it, and what that leaves out.
pub(super) fn portable(model: &Model) -> (Model, Vec<String>) {
    let mut model = model.clone();
    let mut left_out = Vec::new();
    foreign_ids(&mut model.ids, &mut left_out);
    let mixed = split_lists(&mut model, &mut left_out);
    let names: Vec<String> = model.groups.keys().cloned().collect();
    for name in names {
        let known = |group: &str| group.starts_with("sg-") || model.groups.contains_key(group);
        let mut group = model.groups[&name].clone();
        for direction in Direction::ALL {
            let rules = match direction {
                Direction::Ingress => &mut group.ingress,
                Direction::Egress => &mut group.egress,
            };
            let mut kept = Vec::with_capacity(rules.len());
            for rule in rules.drain(..) {
                let mut lost = |why: &str| {
                    let direction = direction.name();
                    let rule = in_words(&rule);
                    left_out.push(format!(
                        "the {direction} rule {rule} of group {name}: {why}"
                    ));
                };
                match &rule.peer {
                    Peer::GroupOf(..) => lost("AWS's references to groups are of both families"),
                    Peer::Group(group) if !known(group) => lost("there is no such group"),
                    Peer::PrefixList(list) if mixed.contains_key(list) => {
                        kept.extend(of_parts(&name, direction, &rule, &mixed[list]));
                    }
                    _ => kept.push(rule),
                }
            }
            *rules = kept;
        }
        model.groups.insert(name, group);
    }
    (model, left_out)
}

/// Ids that another cloud gave.
fn foreign_ids(ids: &mut Ids, left_out: &mut Vec<String>) {
    let kinds = [
        ("group", "sg-", &mut ids.groups),
        ("prefix list", "pl-", &mut ids.prefix_lists),
        ("interface", "eni-", &mut ids.interfaces),
    ];
    for (kind, prefix, ids) in kinds {
        ids.retain(|name, id| {
            let own = id.starts_with(prefix);
            if !own {
                left_out.push(format!("the id {id} of {kind} {name}: AWS's are {prefix}…"));
            }
            own
        });
    }
}

/// A list of AWS is of one family (fact 1.29): one that mixes both becomes two, by the name that it had.
fn split_lists(model: &mut Model, left_out: &mut Vec<String>) -> BTreeMap<String, [String; 2]> {
    let is_v6 = |net: &IpNet| matches!(net, IpNet::V6(_));
    let mixed: Vec<String> = model
        .prefix_lists
        .iter()
        .filter(|(_, nets)| nets.iter().any(is_v6) && !nets.iter().all(is_v6))
        .map(|(name, _)| name.clone())
        .collect();
    let mut parts = BTreeMap::new();
    for name in mixed {
        let nets = model.prefix_lists.remove(&name).unwrap_or_default();
        model.ids.prefix_lists.remove(&name);
        let (v6, v4) = nets.into_iter().partition(is_v6);
        let names = ["ipv4", "ipv6"].map(|family| free(model, format!("{name} ({family})")));
        for (name, nets) in names.iter().zip([v4, v6]) {
            model.prefix_lists.insert(name.clone(), nets);
        }
        left_out.push(format!(
            "that {name} is one prefix list: AWS's are of one family, so it is {} and {}",
            names[0], names[1]
        ));
        parts.insert(name, names);
    }
    parts
}

fn free(model: &Model, name: String) -> String {
    let mut free = name.clone();
    let mut number = 2;
    while model.prefix_lists.contains_key(&free) {
        free = format!("{name} {number}");
        number += 1;
    }
    free
}

/// A rule for each family that its protocol has.
fn of_parts(group: &str, direction: Direction, rule: &Rule, lists: &[String; 2]) -> Vec<Rule> {
    let families = [false, true].into_iter().zip(lists);
    let of_family = families.filter(|(ipv6, _)| rule.traffic.slices(*ipv6).next().is_some());
    of_family
        .map(|(_, list)| {
            let peer = Peer::PrefixList(list.clone());
            Rule {
                id: RuleId::derive(group, direction, &rule.traffic, &peer),
                peer,
                ..rule.clone()
            }
        })
        .collect()
}

/// The id of a group; of one that is gone its name, which is its id.
pub(super) fn group_id<'m>(model: &'m Model, name: &'m str) -> Cow<'m, str> {
    match model.ids.groups.get(name) {
        Some(id) => id.into(),
        None if !model.groups.contains_key(name) => name.into(),
        None => Ids::derived_group(name).into(),
    }
}

/// The id of a prefix list.
pub(super) fn list_id<'m>(model: &'m Model, name: &str) -> Cow<'m, str> {
    match model.ids.prefix_lists.get(name) {
        Some(id) => id.into(),
        None => Ids::derived_prefix_list(name).into(),
    }
}

/// `IPv4` or `IPv6`; a list without entries is of IPv4.
pub(super) fn family(nets: &[IpNet]) -> &'static str {
    match nets.first() {
        Some(IpNet::V6(_)) => "IPv6",
        _ => "IPv4",
    }
}

/// Whether the rule has the id that it would have without one.
pub(super) fn has_own_id(group: &str, direction: Direction, rule: &Rule) -> bool {
    rule.id == RuleId::derive(group, direction, &rule.traffic, &rule.peer)
}

/// All rules of a group with their direction, ingress first.
pub(super) fn rules(group: &Group) -> impl Iterator<Item = (Direction, &Rule)> {
    let ingress = group.ingress.iter().map(|rule| (Direction::Ingress, rule));
    let egress = group.egress.iter().map(|rule| (Direction::Egress, rule));
    ingress.chain(egress)
}
