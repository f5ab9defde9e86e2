//! Members that come and go while a generation is in force: into its maps, one address at a time.
//!
//! A bank in force is never written but for whole values of members, and this is where. An address that
//! joins is one new element, which appears whole; one that leaves is an element less; one whose set of
//! groups becomes another gets another value. What the sets of groups may reach does not change: a set
//! that the generation does not know takes a new generation, and so does whatever else has changed.
//!
//! The kernel gives the memory of a removed element to the next one at once, while a program that has just
//! found the removed one may still be reading it: it would judge a packet by the groups of another address.
//! So nothing is added after something was removed, before all readers are gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use sg_common::layout::AddressKey;

use crate::{
    bank::{self, BankError},
    compile::Membership,
    model::Model,
    resolve::{Name, Resolved, ResolvedInterface, reaches_beyond_its_link},
    session::Session,
    state::{Lock, State, StateError},
    table::{Table, TableError},
    tables::{InBank, Tables},
};

/// A generation in force, as far as its members can be changed.
#[derive(Debug)]
pub struct InForce {
    tables: Tables,
    generation: u32,
    members4: Table<[u8; 4], u32>,
    members6: Table<[u8; 16], u32>,
    addresses: Table<AddressKey, u32>,
    membership: Membership,
    /// Members of the groups that rules refer to.
    groups: BTreeMap<Name, BTreeSet<IpAddr>>,
    state: State,
}

/// What became of addresses that came and went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// They are in force.
    InForce {
        /// Addresses that are members of more groups than before, or of other ones.
        joined: usize,
        /// Addresses that are members of fewer groups than before.
        left: usize,
    },
    /// It takes a new generation; nothing that was not true has been written.
    NeedsGeneration(&'static str),
}

/// Why members cannot be changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MembersError {
    /// A map failed.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Readers cannot be waited for.
    #[error(transparent)]
    Bank(#[from] BankError),
    /// What is in force cannot be written down.
    #[error(transparent)]
    State(#[from] StateError),
}

/// What is to be written for one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Move {
    address: IpAddr,
    before: u32,
    after: u32,
    leaves: bool,
}

impl InForce {
    /// What a session has put in force.
    ///
    /// # Errors
    /// See [`TableError`].
    pub(crate) fn new(
        session: Session,
        mut resolved: Resolved,
        membership: Membership,
    ) -> Result<Self, TableError> {
        let tables = session.tables;
        let generation = tables.generation()?;
        let bank = generation & 1;
        let referred = membership.groups().iter();
        // A rule may refer to a group that is gone.
        let groups = referred
            .map(|name| {
                let group = resolved.groups.remove(name).unwrap_or_default();
                (name.clone(), group.members)
            })
            .collect();
        let InBank {
            members4,
            members6,
            addresses,
        } = tables.in_bank(bank)?;
        Ok(Self {
            generation,
            members4,
            members6,
            addresses,
            tables,
            membership,
            groups,
            state: session.state,
        })
    }

    /// Puts the addresses in force that interfaces have now; `model` is the definition in force. Interfaces
    /// whose addresses the definition lists are passed over.
    ///
    /// # Errors
    /// See [`MembersError`]; a new generation puts right what was left undone.
    pub fn follow(
        &mut self,
        lock: &Lock,
        model: &Model,
        now: &BTreeMap<String, Vec<IpAddr>>,
    ) -> Result<Outcome, MembersError> {
        if self.tables.generation()? != self.generation {
            return Ok(Outcome::NeedsGeneration("another generation is in force"));
        }
        let mut changed: BTreeMap<&String, ResolvedInterface> = BTreeMap::new();
        for (name, addresses) in now {
            let listed = model
                .interfaces
                .get(name)
                .map(|one| one.addresses.is_some());
            let (Some(listed), Some(before)) = (listed, self.state.resolved.get(name)) else {
                return Ok(Outcome::NeedsGeneration("an interface is new"));
            };
            // Behind a `host` interface nobody knows them.
            if listed || before.addresses.is_none() {
                continue;
            }
            let mut addresses = addresses.clone();
            addresses.sort_unstable();
            addresses.dedup();
            if before.addresses.as_ref() != Some(&addresses) {
                let after = ResolvedInterface {
                    addresses: Some(addresses),
                    ..before.clone()
                };
                changed.insert(name, after);
            }
        }

        let memberships = self.memberships(model, &changed);
        let moves = match self.moves(&memberships) {
            Ok(moves) => moves,
            Err(why) => return Ok(Outcome::NeedsGeneration(why)),
        };
        let (own_new, own_gone) = self.own_addresses(&changed);
        if let Err(error) = self.add(&own_new, &moves) {
            // E2BIG: there is no room for more.
            if let TableError::Call { source, .. } = &error
                && source.raw_os_error() == Some(libc::E2BIG)
            {
                return Ok(Outcome::NeedsGeneration("the member map is full"));
            }
            return Err(error.into());
        }
        let removed = self.change_and_remove(&own_gone, &moves)?;

        for (name, after) in changed {
            self.state.resolved.insert(name.clone(), after);
        }
        for (address, name, joins) in memberships {
            let members = self.groups.entry(name.clone()).or_default();
            let learnt = self.state.learnt.entry(name).or_default();
            if joins {
                members.insert(address);
                learnt.join(address);
            } else {
                members.remove(&address);
                learnt.leave(address);
            }
        }
        lock.write(&self.state)?;
        if removed {
            bank::wait_for_readers(&self.tables, self.generation & 1)?;
        }
        Ok(Outcome::InForce {
            joined: moves.iter().filter(|one| !one.leaves).count(),
            left: moves.iter().filter(|one| one.leaves).count(),
        })
    }

    /// Addresses that join or leave a group that rules refer to.
    fn memberships(
        &self,
        model: &Model,
        changed: &BTreeMap<&String, ResolvedInterface>,
    ) -> Vec<(IpAddr, Name, bool)> {
        let mut asked: BTreeSet<(IpAddr, &Name)> = BTreeSet::new();
        for (name, after) in changed {
            let before = self.state.resolved.get(*name);
            let before = set(before.and_then(|before| before.addresses.as_ref()));
            let after_set = set(after.addresses.as_ref());
            let different = before.symmetric_difference(&after_set);
            let different = different.filter(|address| reaches_beyond_its_link(address));
            for address in different {
                let carried = after.groups.iter();
                let referred = carried.filter(|name| self.groups.contains_key(*name));
                asked.extend(referred.map(|name| (*address, name)));
            }
        }
        let is_member = |address: IpAddr, group: &Name| {
            let by_interface = self.state.resolved.iter().any(|(name, before)| {
                let now = changed.get(name).unwrap_or(before);
                let listed = model.interfaces.get(name);
                let listed = listed.is_some_and(|one| one.addresses.is_some());
                !now.orphan
                    && now.groups.contains(group)
                    && (listed || reaches_beyond_its_link(&address))
                    && now.addresses.iter().flatten().any(|one| *one == address)
            });
            let elsewhere = || {
                let members = model.members.get(&group.name);
                members.is_some_and(|members| members.contains(&address))
            };
            by_interface || elsewhere()
        };
        asked
            .into_iter()
            .map(|(address, group)| (address, group.clone(), is_member(address, group)))
            .filter(|(address, group, now)| self.groups[group].contains(address) != *now)
            .collect()
    }

    /// What these memberships take in the member maps, or why they take a new generation.
    fn moves(&self, memberships: &[(IpAddr, Name, bool)]) -> Result<Vec<Move>, &'static str> {
        let mut moves = Vec::new();
        for same in memberships.chunk_by(|one, other| one.0 == other.0) {
            let address = same[0].0;
            for (_, group, joins) in same {
                if !joins && self.membership.is_asked_again(group) {
                    return Err("tracked flows with the group are to be asked again");
                }
            }
            let is_member = |group: &Name| self.groups[group].contains(&address);
            let before = self.membership.identity(is_member);
            let after = self.membership.identity(|group| {
                let moved = same.iter().find(|(_, name, _)| name == group);
                moved.map_or_else(|| is_member(group), |(_, _, joins)| *joins)
            });
            let (Some(before), Some(after)) = (before, after) else {
                return Err("nobody was in this set of groups");
            };
            moves.push(Move {
                address,
                before,
                after,
                leaves: same.iter().all(|(_, _, joins)| !joins),
            });
        }
        Ok(moves)
    }

    /// Addresses that interfaces have gained, and lost, where a program asks for them.
    fn own_addresses(
        &self,
        changed: &BTreeMap<&String, ResolvedInterface>,
    ) -> (Vec<AddressKey>, Vec<AddressKey>) {
        let (mut new, mut gone) = (Vec::new(), Vec::new());
        for (name, after) in changed {
            let attached = self.state.interfaces.iter().find(|one| one.name == **name);
            let Some(id) = attached
                .map(|one| one.id)
                .filter(|_| after.asks_addresses())
            else {
                continue;
            };
            let before = self.state.resolved.get(*name);
            let before = set(before.and_then(|before| before.addresses.as_ref()));
            let after = set(after.addresses.as_ref());
            new.extend(
                after
                    .difference(&before)
                    .map(|one| bank::address_key(id, *one)),
            );
            gone.extend(
                before
                    .difference(&after)
                    .map(|one| bank::address_key(id, *one)),
            );
        }
        (new, gone)
    }

    fn add(&self, own: &[AddressKey], moves: &[Move]) -> Result<(), TableError> {
        for key in own {
            self.addresses.set(key, &1)?;
        }
        for one in moves.iter().filter(|one| one.before == 0) {
            self.write(one)?;
        }
        Ok(())
    }

    /// Answers whether anything was removed that a program may still be reading.
    fn change_and_remove(&self, own: &[AddressKey], moves: &[Move]) -> Result<bool, MembersError> {
        let changes = |one: &&Move| one.before != 0 && one.after != 0 && one.before != one.after;
        for one in moves.iter().filter(changes) {
            // The element of the value before is the next one to be used.
            self.write(one)?;
            bank::wait_for_readers(&self.tables, self.generation & 1)?;
        }
        let mut removed = false;
        for one in moves.iter().filter(|one| one.after == 0) {
            removed |= match one.address {
                IpAddr::V4(address) => self.members4.remove(&address.octets())?,
                IpAddr::V6(address) => self.members6.remove(&address.octets())?,
            };
        }
        for key in own {
            removed |= self.addresses.remove(key)?;
        }
        Ok(removed)
    }

    fn write(&self, one: &Move) -> Result<(), TableError> {
        match one.address {
            IpAddr::V4(address) => self.members4.set(&address.octets(), &one.after),
            IpAddr::V6(address) => self.members6.set(&address.octets(), &one.after),
        }
    }
}

fn set(addresses: Option<&Vec<IpAddr>>) -> BTreeSet<IpAddr> {
    addresses.into_iter().flatten().copied().collect()
}
