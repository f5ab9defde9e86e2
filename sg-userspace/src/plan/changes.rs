//! What changes in words of the definition: interfaces, settings, groups, rules, lists, members.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use ipnet::IpNet;
use serde::Serialize;
use serde_json::{Value, json};
use sg_common::{layout::TIMEOUT_DEFAULTS, verdict::Direction};

use super::{difference::Deciding, in_force::Fate, lookup::Lookup, peers::Peers};
use crate::{
    model::{OnRevoke, Origin, Peer, RuleId},
    resolve::{Name, Resolved, ResolvedInterface, ResolvedRule},
};

/// An interface of which something changes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InterfaceChange {
    /// Its name from then on, or the one that it had.
    pub name: String,
    /// Its device.
    pub device: String,
    /// What becomes of it.
    pub change: InterfaceFate,
    /// Why its device cannot be found, so that it is planned as what it would get.
    pub absent: Option<String>,
    /// What is different of one that stays.
    pub settings: Vec<Setting>,
}

/// What becomes of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InterfaceFate {
    /// It is not enforced and will be: until then everything passes.
    Attached,
    /// It stays enforced, and something about it changes.
    Updated,
    /// The definition does not name it any more; it keeps its policy.
    Orphaned,
    /// It is enforced and will not be: everything passes from then on.
    Detached,
    /// Its device is gone; it is forgotten.
    Gone,
}

/// A value that changes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setting {
    /// Its key in the definition.
    pub key: String,
    /// As it is; `null`: not given.
    pub before: Value,
    /// As it will be.
    pub after: Value,
}

/// What happens to something that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It comes.
    Added,
    /// It goes.
    Removed,
    /// It stays and is different.
    Changed,
}

/// A group of which something beside its rules and members changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupChange {
    /// Its name.
    pub group: String,
    /// What happens to it.
    pub change: Change,
    /// `on_revoke` as it is.
    pub on_revoke_before: Option<OnRevoke>,
    /// And as it will be.
    pub on_revoke_after: Option<OnRevoke>,
}

/// A rule that changes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleChange {
    /// Its id.
    pub id: RuleId,
    /// What happens to it.
    pub change: Change,
    /// Its group.
    pub group: String,
    /// `ingress` or `egress`.
    pub direction: &'static str,
    /// What it says now.
    pub before: Option<RuleText>,
    /// What it will say.
    pub after: Option<RuleText>,
    /// What comes of that.
    pub effect: Effect,
}

/// A rule in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleText {
    /// Protocol and ports: `tcp 80-90`, `icmp 8/0`, `all`.
    pub traffic: String,
    /// `cidr`, `prefix_list` or `group`.
    pub peer: &'static str,
    /// Which.
    pub of: String,
    /// Free text.
    pub description: Option<String>,
    /// Where it is written.
    pub origin: Option<Origin>,
}

/// What comes of a rule that comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Somebody gains or loses access by it.
    Access,
    /// Nobody does: only its description changes.
    None,
    /// Nobody does: other rules allow all of it, before and after.
    Covered,
    /// Nobody does: no interface that the definition names carries its group.
    NoInterface,
    /// Nobody does: its list is empty, its group has no members, or its protocol is the other family's.
    NoPeer,
}

/// Entries of a prefix list that come and go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListChange {
    /// The list.
    pub name: String,
    /// New entries.
    pub added: Vec<IpNet>,
    /// Entries that go.
    pub removed: Vec<IpNet>,
}

/// Members of a group that come and go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberChange {
    /// The group.
    pub group: String,
    /// New members, IPv4 and IPv6.
    pub joined: [Peers; 2],
    /// How many.
    pub joined_count: usize,
    /// Members that are so no longer.
    pub left: [Peers; 2],
    /// How many.
    pub left_count: usize,
}

/// Interfaces of which something changes.
pub(super) fn interfaces(
    before: &Resolved,
    after: &Resolved,
    fates: &[Fate],
    absent: &BTreeMap<String, String>,
) -> Vec<InterfaceChange> {
    let mut changes = Vec::new();
    for fate in fates {
        let (was, is) = fate.names();
        let old = was.and_then(|name| before.interfaces.get(name));
        let new = is.and_then(|name| after.interfaces.get(name));
        let change = match fate {
            Fate::Attached { .. } => InterfaceFate::Attached,
            Fate::Named { .. } => InterfaceFate::Updated,
            Fate::Orphaned { .. } if old.is_some_and(|old| old.orphan) => InterfaceFate::Updated,
            Fate::Orphaned { .. } => InterfaceFate::Orphaned,
            Fate::Detached { .. } => InterfaceFate::Detached,
            Fate::Gone { .. } => InterfaceFate::Gone,
        };
        let settings = match (old, new) {
            (Some(old), Some(new)) => differing(&settings(old, was), &settings(new, is)),
            _ => Vec::new(),
        };
        let Some(name) = is.or(was) else {
            continue;
        };
        if change == InterfaceFate::Updated && settings.is_empty() {
            continue;
        }
        let settings = if change == InterfaceFate::Updated {
            settings
        } else {
            Vec::new()
        };
        changes.push(InterfaceChange {
            name: name.to_owned(),
            device: new
                .or(old)
                .map_or_else(String::new, |one| one.settings.device.clone()),
            change,
            absent: is.and_then(|name| absent.get(name)).cloned(),
            settings,
        });
    }
    changes.sort_by(|one, other| one.name.cmp(&other.name));
    changes
}

/// Everything about an interface, by the keys of the definition.
fn settings(interface: &ResolvedInterface, name: Option<&str>) -> BTreeMap<String, Value> {
    let value = serde_json::to_value(&interface.settings).unwrap_or_default();
    let mut settings: BTreeMap<String, Value> = match value {
        Value::Object(keys) => keys.into_iter().collect(),
        _ => BTreeMap::new(),
    };
    settings.remove("timeouts");
    for ((timeout, _), seconds) in TIMEOUT_DEFAULTS.iter().zip(interface.settings.timeouts) {
        settings.insert((*timeout).to_owned(), json!(seconds));
    }
    let groups: Vec<&str> = interface
        .groups
        .iter()
        .map(|name| name.name.as_str())
        .collect();
    settings.insert("groups".into(), json!(groups));
    settings.insert("addresses".into(), json!(interface.addresses));
    settings.insert("name".into(), json!(name));
    settings.insert("named by the definition".into(), json!(!interface.orphan));
    settings
}

fn differing(before: &BTreeMap<String, Value>, after: &BTreeMap<String, Value>) -> Vec<Setting> {
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    keys.into_iter()
        .filter_map(|key| {
            let value = |side: &BTreeMap<String, Value>| side.get(key).cloned().unwrap_or_default();
            let (before, after) = (value(before), value(after));
            (before != after).then(|| Setting {
                key: key.clone(),
                before,
                after,
            })
        })
        .collect()
}

/// Settings of the host that change.
pub(super) fn host(before: &Resolved, after: &Resolved) -> Vec<Setting> {
    let settings = |side: &Resolved| {
        [
            ("allowance".to_owned(), json!(side.conntrack.allowance)),
            ("accounting".to_owned(), json!(side.conntrack.accounting)),
            ("services".to_owned(), json!(side.services)),
        ]
        .into()
    };
    differing(&settings(before), &settings(after))
}

/// Groups that come, go, or treat tracked flows otherwise.
pub(super) fn groups(before: &Resolved, after: &Resolved) -> Vec<GroupChange> {
    named(&before.groups, &after.groups)
        .filter_map(|(name, old, new)| {
            let change = match (old, new) {
                (None, _) => Change::Added,
                (_, None) => Change::Removed,
                (Some(old), Some(new)) if old.on_revoke == new.on_revoke => return None,
                _ => Change::Changed,
            };
            Some(GroupChange {
                group: name.name.clone(),
                change,
                on_revoke_before: old.map(|group| group.on_revoke),
                on_revoke_after: new.map(|group| group.on_revoke),
            })
        })
        .collect()
}

/// What either side has under a name of the definition. What is frozen with an orphan does not change.
fn named<'a, T>(
    before: &'a BTreeMap<Name, T>,
    after: &'a BTreeMap<Name, T>,
) -> impl Iterator<Item = (&'a Name, Option<&'a T>, Option<&'a T>)> {
    let names: BTreeSet<&Name> = before.keys().chain(after.keys()).collect();
    names
        .into_iter()
        .filter(|name| name.orphan.is_none())
        .map(|name| (name, before.get(name), after.get(name)))
}

/// Which groups interfaces carry that the definition names, and which rules match anybody.
struct Carried<'a> {
    groups: BTreeSet<&'a Name>,
    matching: HashSet<RuleId>,
}

impl<'a> Carried<'a> {
    fn new<'n>(
        resolved: &'a Resolved,
        lookup: &Lookup,
        interfaces: impl Iterator<Item = &'n str>,
    ) -> Self {
        let interfaces = interfaces.filter_map(|name| resolved.interfaces.get(name));
        let compiled = &lookup.compiled;
        let matching = compiled.rule_sets.iter().flatten();
        Self {
            groups: interfaces.flat_map(|interface| &interface.groups).collect(),
            matching: matching
                .map(|rule| compiled.rules[*rule as usize])
                .collect(),
        }
    }

    fn effect(&self, group: &Name, id: RuleId, deciding: &HashSet<RuleId>) -> Effect {
        if deciding.contains(&id) {
            Effect::Access
        } else if !self.groups.contains(group) {
            Effect::NoInterface
        } else if !self.matching.contains(&id) {
            Effect::NoPeer
        } else {
            Effect::Covered
        }
    }
}

/// Rules that come, go, or say something else under the same id.
pub(super) fn rules(
    (before, old): (&Resolved, &Lookup),
    (after, new): (&Resolved, &Lookup),
    fates: &[Fate],
    deciding: &Deciding,
) -> Vec<RuleChange> {
    let by_definition = || {
        let named = |fate: &&Fate| matches!(fate, Fate::Attached { .. } | Fate::Named { .. });
        fates.iter().filter(named).map(Fate::names)
    };
    let was_carried = Carried::new(before, old, by_definition().filter_map(|(was, _)| was));
    let is_carried = Carried::new(after, new, by_definition().filter_map(|(_, is)| is));
    let mut changes = Vec::new();
    for (name, old, new) in named(&before.groups, &after.groups) {
        for direction in Direction::ALL {
            let [old, new] =
                [old, new].map(|group| group.map_or(&[][..], |group| group.rules(direction)));
            let (known, wanted) = (by_id(old), by_id(new));
            let added = new.iter().filter(|rule| !known.contains_key(&rule.id));
            for id in old.iter().chain(added).map(|rule| rule.id) {
                let (was, is) = (known.get(&id).copied(), wanted.get(&id).copied());
                let effect = match (was, is) {
                    (Some(was), Some(is)) if says_the_same(was, is) => continue,
                    (Some(was), Some(is)) if (was.traffic, &was.peer) == (is.traffic, &is.peer) => {
                        Effect::None
                    }
                    (None, _) => is_carried.effect(name, id, &deciding.after),
                    (_, None) => was_carried.effect(name, id, &deciding.before),
                    (Some(_), Some(_)) => {
                        let ends = was_carried.effect(name, id, &deciding.before);
                        match is_carried.effect(name, id, &deciding.after) {
                            Effect::Access => Effect::Access,
                            _ if ends == Effect::Access => ends,
                            effect => effect,
                        }
                    }
                };
                changes.push(RuleChange {
                    id,
                    change: match (was, is) {
                        (None, _) => Change::Added,
                        (_, None) => Change::Removed,
                        _ => Change::Changed,
                    },
                    group: name.name.clone(),
                    direction: direction.name(),
                    before: was.map(RuleText::new),
                    after: is.map(RuleText::new),
                    effect,
                });
            }
        }
    }
    changes
}

fn by_id(rules: &[ResolvedRule]) -> HashMap<RuleId, &ResolvedRule> {
    rules.iter().map(|rule| (rule.id, rule)).collect()
}

/// Whether nothing that matters differs: where a rule is written does not.
fn says_the_same(one: &ResolvedRule, other: &ResolvedRule) -> bool {
    (one.traffic, &one.peer, &one.description) == (other.traffic, &other.peer, &other.description)
}

impl RuleText {
    fn new(rule: &ResolvedRule) -> Self {
        let (peer, of) = match &rule.peer {
            Peer::Cidr(net) => ("cidr", net.to_string()),
            Peer::PrefixList(name) => ("prefix_list", name.name.clone()),
            Peer::Group(name) => ("group", name.name.clone()),
            Peer::GroupOf(name, family) => ("group", format!("{} ({})", name.name, family.name())),
        };
        Self {
            traffic: rule.traffic.to_string(),
            peer,
            of,
            description: rule.description.as_deref().map(str::to_owned),
            origin: rule.origin.clone(),
        }
    }
}

/// Entries of prefix lists that come and go.
pub(super) fn lists(before: &Resolved, after: &Resolved) -> Vec<ListChange> {
    let lists = named(&before.prefix_lists, &after.prefix_lists);
    lists
        .filter_map(|(name, old, new)| {
            let [old, new] = [old, new]
                .map(|list| -> BTreeSet<IpNet> { list.into_iter().flatten().copied().collect() });
            (old != new).then(|| ListChange {
                name: name.name.clone(),
                added: new.difference(&old).copied().collect(),
                removed: old.difference(&new).copied().collect(),
            })
        })
        .collect()
}

/// Members of groups that come and go.
pub(super) fn members(before: &Resolved, after: &Resolved) -> Vec<MemberChange> {
    let nobody = BTreeSet::new();
    named(&before.groups, &after.groups)
        .filter_map(|(name, old, new)| {
            let [old, new] = [old, new].map(|group| group.map_or(&nobody, |group| &group.members));
            if old == new {
                return None;
            }
            let only = |one: &BTreeSet<_>, other: &BTreeSet<_>| {
                let peers = [false, true].map(|ipv6| {
                    let addresses = one.difference(other).copied();
                    Peers::of_addresses(
                        ipv6,
                        addresses.filter(|address: &std::net::IpAddr| address.is_ipv6() == ipv6),
                    )
                });
                (peers, one.difference(other).count())
            };
            let ((joined, joined_count), (left, left_count)) = (only(new, old), only(old, new));
            Some(MemberChange {
                group: name.name.clone(),
                joined,
                joined_count,
                left,
                left_count,
            })
        })
        .collect()
}
