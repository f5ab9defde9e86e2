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
        let referred: BTreeSet<&Name> = self
            .scopes
            .iter()
            .flatten()
            .map(|(name, _)| *name)
            .collect();
        let mut groups_of: BTreeMap<IpAddr, Vec<&Name>> = BTreeMap::new();
        for name in referred {
            for address in resolved
                .groups
                .get(name)
                .into_iter()
                .flat_map(|group| &group.members)
            {
                groups_of.entry(*address).or_default().push(name);
            }
        }
        let mut members4 = Vec::new();
        let mut members6 = Vec::new();
        let mut numbers: HashMap<Vec<&Name>, u32> = HashMap::new();
        let mut identities_of: HashMap<&Name, Vec<u32>> = HashMap::new();
        for (address, groups) in groups_of {
            // Identity 0 is nobody's.
            let next = numbers.len() as u32 + 1;
            let identity = *numbers.entry(groups).or_insert_with_key(|groups| {
                for group in groups {
                    identities_of.entry(group).or_default().push(next);
                }
                next
            });
            match address {
                IpAddr::V4(address) => members4.push((address, identity)),
                IpAddr::V6(address) => members6.push((address, identity)),
            }
        }
        Ok(Members {
            members4,
            members6,
            identities: self.classes_of(&identities_of, classes)?,
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
