//! Group membership: an address stands for the set of groups it belongs to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sg_common::layout::IdentityKey;

use super::classes::{Classes, NOTHING};
use super::error::{Capacity, CompileError};
use crate::resolve::{Name, Resolved};

/// What members of each group may reach, by scope: one scope per policy that refers to groups.
#[derive(Default)]
pub(super) struct Scopes<'a> {
    scopes: Vec<Vec<(&'a Name, u32)>>,
}

/// Map content of membership.
pub(super) struct Members {
    pub(super) members4: Vec<(Ipv4Addr, u32)>,
    pub(super) members6: Vec<(Ipv6Addr, u32)>,
    pub(super) identities: Vec<(IdentityKey, u32)>,
    pub(super) membership: Membership,
}

/// Numbers of sets of groups; 0 is nobody's.
#[derive(Default)]
struct Numbers {
    by_groups: HashMap<Vec<u32>, u32>,
}

impl Numbers {
    /// The number of a set, given as ascending places.
    fn of(&mut self, set: &[u32]) -> u32 {
        if let Some(number) = self.by_groups.get(set) {
            return *number;
        }
        let next = self.by_groups.len() as u32 + 1;
        self.by_groups.insert(set.to_vec(), next);
        next
    }
}

/// Which identity stands for which set of groups in a generation: what changing its members while it is
/// in force takes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Membership {
    /// Groups that rules refer to, ascending.
    groups: Vec<Name>,
    /// Identities by sets of groups, which are ascending places in `groups`.
    identities: HashMap<Vec<u32>, u32>,
    /// Groups that a rule of an interface refers to whose tracked flows are asked again.
    asked_again: BTreeSet<Name>,
}

impl Membership {
    fn new(resolved: &Resolved, groups: &[&Name], numbers: Numbers) -> Self {
        let asking: BTreeSet<&Name> = resolved
            .interfaces
            .values()
            .filter(|interface| super::reevaluates(resolved, interface))
            .flat_map(|interface| &interface.groups)
            .collect();
        let rules = asking
            .into_iter()
            .filter_map(|name| resolved.groups.get(name))
            .flat_map(|group| group.ingress.iter().chain(&group.egress));
        Self {
            groups: groups.iter().map(|name| (*name).clone()).collect(),
            identities: numbers.by_groups,
            asked_again: rules
                .filter_map(|rule| rule.peer.group().cloned())
                .collect(),
        }
    }

    /// Groups that rules refer to: no other membership makes a difference.
    pub fn groups(&self) -> &[Name] {
        &self.groups
    }

    /// The identity of an address that is in those groups for which `contains` answers true: 0 if it is in
    /// none, `None` if the generation knows no such set.
    pub fn identity(&self, contains: impl Fn(&Name) -> bool) -> Option<u32> {
        let places = (0..).zip(&self.groups).filter(|(_, name)| contains(name));
        let set: Vec<u32> = places.map(|(place, _)| place).collect();
        if set.is_empty() {
            return Some(0);
        }
        self.identities.get(&set).copied()
    }

    /// Whether tracked flows with members of a group are asked again when something changes.
    pub fn is_asked_again(&self, group: &Name) -> bool {
        self.asked_again.contains(group)
    }
}

impl<'a> Scopes<'a> {
    /// The number of a new scope: groups and the class of the rules that refer to each. 0 for none.
    pub(super) fn add(&mut self, groups: Vec<(&'a Name, u32)>) -> u32 {
        if groups.is_empty() {
            return 0;
        }
        self.scopes.push(groups);
        self.scopes.len() as u32
    }

    /// Numbers the distinct sets of groups that addresses belong to, and gives each its class in
    /// every scope. Only groups that a rule refers to make a difference.
    pub(super) fn members(
        &self,
        resolved: &'a Resolved,
        classes: &mut Classes<'_>,
    ) -> Result<Members, CompileError> {
        let all = self.scopes.iter().flatten().map(|(name, _)| *name);
        let referred: Vec<&Name> = all.collect::<BTreeSet<_>>().into_iter().collect();
        let mut groups_of: Vec<(IpAddr, u32)> = Vec::new();
        for (place, name) in (0..).zip(&referred) {
            let group = resolved.groups.get(*name).into_iter();
            let members = group.flat_map(|group| &group.members);
            groups_of.extend(members.map(|address| (*address, place)));
        }
        // Members of one group are sorted, and sorting what is costs nothing.
        groups_of.sort_unstable();

        let mut numbers = Numbers::default();
        // An interface may get its first address at any time.
        for interface in resolved.interfaces.values() {
            let own = interface.groups.iter();
            let mut own: Vec<u32> = own
                .filter_map(|name| referred.binary_search(&name).ok())
                .map(|place| place as u32)
                .collect();
            own.sort_unstable();
            if !own.is_empty() && !interface.orphan {
                numbers.of(&own);
            }
        }
        let mut members4 = Vec::new();
        let mut members6 = Vec::new();
        let mut set = Vec::new();
        for same in groups_of.chunk_by(|(one, _), (other, _)| one == other) {
            set.clear();
            set.extend(same.iter().map(|(_, group)| *group));
            let identity = numbers.of(&set);
            match same[0].0 {
                IpAddr::V4(address) => members4.push((address, identity)),
                IpAddr::V6(address) => members6.push((address, identity)),
            }
        }
        let mut identities_of: HashMap<&Name, Vec<u32>> = HashMap::new();
        for (set, number) in &numbers.by_groups {
            for place in set {
                let name = referred[*place as usize];
                identities_of.entry(name).or_default().push(*number);
            }
        }
        Ok(Members {
            members4,
            members6,
            identities: self.classes_of(&identities_of, classes)?,
            membership: Membership::new(resolved, &referred, numbers),
        })
    }

    fn classes_of(
        &self,
        identities_of: &HashMap<&Name, Vec<u32>>,
        classes: &mut Classes<'_>,
    ) -> Result<Vec<(IdentityKey, u32)>, CompileError> {
        let mut content = Vec::new();
        for (scope, groups) in (1..).zip(&self.scopes) {
            // By identity: the class, and a group that it reaches.
            let mut reach: BTreeMap<u32, (u32, &Name)> = BTreeMap::new();
            for (group, class) in groups {
                let identities = identities_of.get(group).map_or(&[][..], Vec::as_slice);
                let full = |capacity| full(capacity, group);
                classes.spend(identities.len()).map_err(full)?;
                for identity in identities {
                    let (reached, _) = reach.entry(*identity).or_insert((NOTHING, group));
                    *reached = classes.union(*reached, *class).map_err(full)?;
                }
                if content.len() + reach.len() > Capacity::Identities.limit() {
                    return Err(full(Capacity::Identities));
                }
            }
            for (identity, (class, group)) in reach {
                let key = IdentityKey { scope, identity };
                let class = classes
                    .publish(class)
                    .map_err(|capacity| full(capacity, group))?;
                content.push((key, class));
            }
        }
        Ok(content)
    }
}

fn full(capacity: Capacity, group: &Name) -> CompileError {
    CompileError::Members {
        capacity,
        group: group.to_string(),
    }
}
