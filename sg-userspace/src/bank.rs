//! Compiled policy into the bank that is not in force, and the flip that puts it in force.

mod bypass;

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd as _, BorrowedFd, RawFd},
    thread,
};

use aya::Pod;
use ipnet::IpNet;
use sg_common::{
    abi::{MAX_CLASSES, MAX_COUNTED, MAX_INTERFACES, MAX_NODES, MAX_RANGES, MAX_TRIES, map},
    layout::{
        AddressKey, ETHERTYPE, IdentityKey, Interface, NO_TRIE, Policy, Runtime, TIMEOUTS,
        interface_flags, policy_flags,
    },
};

use crate::{
    bpf,
    compile::{Compiled, CompiledInterface, Trie},
    control::padded,
    session,
    shape::{Object, ShapeError},
    table::{Table, TableError},
    tables::{InBank, Tables},
};

/// Why a bank could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BankError {
    /// A map failed.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The object does not say what inner maps look like.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// More of something than a bank holds.
    #[error("{found} {what} do not fit: there is room for {room}")]
    Capacity {
        /// Of what.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many fit.
        room: u32,
    },
    /// Programs that read what is to be written cannot be waited for.
    #[error("cannot wait for the programs that read what is to be written")]
    Readers(#[source] io::Error),
    /// An interface of the policy has no id.
    #[error("interface {name} of the policy has no id")]
    NoId {
        /// The interface.
        name: String,
    },
}

/// A bank that no program reads or counts in, and what it is to hold.
#[derive(Debug)]
pub struct Vacant {
    /// The generation after the one in force; its lowest bit is the bank.
    pub generation: u32,
    membership: Membership,
}

/// Takes the bank that is not in force from the last readers it may have, and makes the maps of members of
/// `compiled` meanwhile, which nobody sees yet.
///
/// # Errors
/// See [`BankError`]; the generation in force stays untouched.
pub fn vacate(
    tables: &Tables,
    object: &Object,
    compiled: &Compiled,
    runtime: &mut Runtime,
) -> Result<Vacant, BankError> {
    check_room(compiled)?;
    let current = tables.generation()?;
    // From here on nobody asks the bank that is written now; after the flip the one in force now can
    // be asked by the next.
    runtime.previous = current;
    tables.runtime.set(&0, runtime)?;
    let membership = thread::scope(|scope| {
        let readers = scope.spawn(|| wait_for_readers(tables, current & 1));
        let made = make_membership(object, compiled);
        readers.join().expect("waiting does not panic")?;
        made
    })?;
    Ok(Vacant {
        generation: current.wrapping_add(1),
        membership,
    })
}

/// Puts `compiled` in force without keeping what was counted for rules, or writing anything down: [`vacate`],
/// [`occupy`] and [`flip`]. `now` is in jiffies.
///
/// # Errors
/// See [`BankError`]; the generation in force stays untouched then.
pub fn put_in_force(
    tables: &Tables,
    object: &Object,
    compiled: &Compiled,
    runtime: &mut Runtime,
    now: u64,
    id_of: impl Fn(&str) -> Option<u32>,
) -> Result<u32, BankError> {
    let vacant = vacate(tables, object, compiled, runtime)?;
    let generation = occupy(tables, object, compiled, vacant, runtime.hz, id_of)?;
    flip(tables, runtime, generation, now)?;
    Ok(generation)
}

/// Puts the generation in force that [`occupy`] has written, with the limits in `runtime`; `now` is in jiffies.
///
/// # Errors
/// See [`TableError`]; the generation in force stays untouched then.
pub fn flip(
    tables: &Tables,
    runtime: &mut Runtime,
    generation: u32,
    now: u64,
) -> Result<(), TableError> {
    runtime.changed = now;
    tables.runtime.set(&0, runtime)?;
    tables.generation.set(&0, &generation)
}

/// Writes `compiled` as the generation after the one in force; answers its number. `id_of` gives the id of an
/// interface by name, `hz` is jiffies per second.
///
/// No packet sees a mixture: everything goes to the other bank, which no program has read since a
/// grace period, and one word decides.
///
/// # Errors
/// See [`BankError`].
pub fn occupy(
    tables: &Tables,
    object: &Object,
    compiled: &Compiled,
    vacant: Vacant,
    hz: u32,
    id_of: impl Fn(&str) -> Option<u32>,
) -> Result<u32, BankError> {
    let Vacant {
        generation,
        membership: (members4, members6, identities),
    } = vacant;
    let bank = generation & 1;

    let counted = counted(compiled.rule_sets.len());
    tables.rule_hits.clear(bank * MAX_COUNTED, counted)?;
    write_region(&tables.classes, bank * MAX_CLASSES, &compiled.classes)?;
    write_region(&tables.ranges, bank * MAX_RANGES, &compiled.ranges)?;
    write_region(&tables.trees, bank * MAX_NODES, &compiled.nodes)?;
    write_tries::<8>(&tables.tries4, object, map::TRIES4, bank, &compiled.tries4)?;
    write_tries::<20>(&tables.tries6, object, map::TRIES6, bank, &compiled.tries6)?;

    let mut records = vec![Interface::ZERO; MAX_INTERFACES as usize];
    let mut addresses: Vec<AddressKey> = compiled
        .services
        .iter()
        .map(|service| address_key(0, *service))
        .collect();
    for interface in &compiled.interfaces {
        let id = id_of(&interface.name).ok_or_else(|| BankError::NoId {
            name: interface.name.clone(),
        })?;
        let in_force = (bank ^ 1) * MAX_INTERFACES + id;
        let before = tables.interfaces.get(&in_force)?;
        records[id as usize] = Interface {
            reevaluate_from: reevaluate_from(interface.flags, before, generation),
            ..record(interface, bank, hz)
        };
        bypass::add(&mut records[id as usize], compiled);
        addresses.extend(interface.addresses.iter().map(|one| address_key(id, *one)));
        addresses.extend(interface.ethertypes.iter().map(|one| AddressKey {
            interface: id,
            family: ETHERTYPE | u32::from(*one),
            ..AddressKey::ZERO
        }));
    }
    addresses.sort_unstable_by_key(|key| (key.interface, key.family, key.address));
    addresses.dedup();
    let addresses = make_inner(
        object,
        map::ADDRESSES,
        addresses.into_iter().map(|address| (address, 1)),
        ROOM_TO_LEARN,
    )?;
    replace_inner(
        bank,
        [
            (&tables.members4, members4.fd()),
            (&tables.members6, members6.fd()),
            (&tables.identities, identities.fd()),
            (&tables.addresses, addresses.fd()),
        ],
    )?;
    let made = InBank {
        members4,
        members6,
        addresses,
    };
    tables.keep(bank, made);
    write_region(&tables.interfaces, bank * MAX_INTERFACES, &records)?;
    Ok(generation)
}

/// Flows judged before this generation are asked again: this one if a group before or after the change
/// says so, else as before it, so that a flow that was silent meanwhile is asked, too.
fn reevaluate_from(flags: u32, before: Option<Interface>, generation: u32) -> u32 {
    let before = before.filter(|before| before.flags & interface_flags::PRESENT != 0);
    let said = flags | before.map_or(0, |before| before.flags);
    if said & interface_flags::REEVALUATE != 0 {
        generation
    } else {
        before.map_or(0, |before| before.reevaluate_from)
    }
}

/// How many of so many sets of rules have a place in `RULE_HITS`.
pub fn counted(sets: usize) -> u32 {
    u32::try_from(sets).unwrap_or(u32::MAX).min(MAX_COUNTED)
}

/// `BPF_MAP_TYPE_LPM_TRIE` and the hashes refuse to be empty.
const SMALLEST: u32 = 1;

/// Checks against the region of a bank: one element more would be the other bank's.
fn check_room(compiled: &Compiled) -> Result<(), BankError> {
    for (what, found, room) in [
        ("classes", compiled.classes.len(), MAX_CLASSES),
        ("port ranges", compiled.ranges.len(), MAX_RANGES),
        ("nodes of search trees", compiled.nodes.len(), MAX_NODES),
        ("IPv4 prefix tries", compiled.tries4.len(), MAX_TRIES / 2),
        ("IPv6 prefix tries", compiled.tries6.len(), MAX_TRIES / 2),
        ("interfaces", compiled.interfaces.len(), MAX_INTERFACES - 1),
    ] {
        if found > room as usize {
            return Err(BankError::Capacity { what, found, room });
        }
    }
    Ok(())
}

/// Waits until no program reads what it found in any map before this call: the bank that was retired by
/// the last flip, or elements that were taken from the one in force, which is `bank`.
///
/// The first generation has no predecessor and waits for nobody.
pub(crate) fn wait_for_readers(tables: &Tables, bank: u32) -> Result<(), BankError> {
    if tables.members4.get(&bank)?.is_none() {
        return Ok(());
    }
    bpf::wait_for_readers().map_err(BankError::Readers)
}

fn write_region<V: Pod>(table: &Table<u32, V>, start: u32, values: &[V]) -> Result<(), BankError> {
    let keys: Vec<u32> = (start..).take(values.len()).collect();
    Ok(table.set_all(&keys, values)?)
}

/// Makes and fills the tries of a bank, `KEY` bytes a key, and frees what the bank held beyond.
fn write_tries<const KEY: usize>(
    outer: &Table<u32, u32>,
    object: &Object,
    name: &'static str,
    bank: u32,
    tries: &[Trie],
) -> Result<(), BankError> {
    let form = object.inner(name)?;
    let start = bank * MAX_TRIES / 2;
    for (some, first) in tries
        .chunks(TRIES_AT_A_TIME)
        .zip((start..).step_by(TRIES_AT_A_TIME))
    {
        let made: Vec<Table<[u8; KEY], u32>> = some
            .iter()
            .map(|trie| make_trie(trie, form.map_type, form.flags))
            .collect::<Result<_, _>>()?;
        let keys: Vec<u32> = (first..).take(made.len()).collect();
        let descriptors: Vec<u32> = made
            .iter()
            .map(|inner| raw(inner.fd().as_raw_fd()))
            .collect();
        outer.set_all(&keys, &descriptors)?;
    }

    let mut stale = Vec::new();
    for index in (start..start + MAX_TRIES / 2).skip(tries.len()) {
        if outer.get(&index)?.is_none() {
            break;
        }
        stale.push(index);
    }
    // Deleting waits for a grace period each time; one empty trie in all places waits once.
    let empty = Table::<[u8; KEY], u32>::create("SG_TRIE", form.map_type, SMALLEST, form.flags)?;
    Ok(outer.set_all(&stale, &vec![raw(empty.fd().as_raw_fd()); stale.len()])?)
}

/// Tries that are open at a time: a process may have few descriptors, and each write of some waits for
/// a grace period.
const TRIES_AT_A_TIME: usize = 256;

fn make_trie<const KEY: usize>(
    trie: &Trie,
    map_type: u32,
    flags: u32,
) -> Result<Table<[u8; KEY], u32>, BankError> {
    let entries = u32::try_from(trie.entries.len()).unwrap_or(u32::MAX);
    let inner = Table::create("SG_TRIE", map_type, entries.max(SMALLEST), flags)?;
    let (keys, values): (Vec<_>, Vec<_>) = trie
        .entries
        .iter()
        .map(|(prefix, class)| (prefix_key::<KEY>(prefix), *class))
        .unzip();
    inner.set_all(&keys, &values)?;
    Ok(inner)
}

/// Who is a member, and what members may reach: maps that are not in force yet.
type Membership = (
    Table<[u8; 4], u32>,
    Table<[u8; 16], u32>,
    Table<IdentityKey, u32>,
);

fn make_membership(object: &Object, compiled: &Compiled) -> Result<Membership, BankError> {
    let members4 = compiled.members4.iter();
    let members6 = compiled.members6.iter();
    Ok((
        make_inner(
            object,
            map::MEMBERS4,
            members4.map(|(address, identity)| (address.octets(), *identity)),
            ROOM_TO_LEARN,
        )?,
        make_inner(
            object,
            map::MEMBERS6,
            members6.map(|(address, identity)| (address.octets(), *identity)),
            ROOM_TO_LEARN,
        )?,
        make_inner(
            object,
            map::IDENTITIES,
            compiled.identities.iter().copied(),
            0,
        )?,
    ))
}

/// Elements that a map holds beyond those of its generation, for what is learnt while it is in force.
const ROOM_TO_LEARN: usize = 1024;

/// Makes and fills the one inner map of a bank, with `room` for more.
fn make_inner<K: Pod>(
    object: &Object,
    name: &'static str,
    content: impl Iterator<Item = (K, u32)>,
    room: usize,
) -> Result<Table<K, u32>, BankError> {
    let form = object.inner(name)?;
    let (keys, values): (Vec<K>, Vec<u32>) = content.unzip();
    let entries = u32::try_from(keys.len() + room).unwrap_or(u32::MAX);
    let inner = Table::<K, u32>::create(name, form.map_type, entries.max(SMALLEST), form.flags)?;
    inner.set_all(&keys, &values)?;
    Ok(inner)
}

/// Puts inner maps into their places of a bank.
///
/// Each such write waits until nobody reads what it replaces; all of them wait at the same time.
fn replace_inner(
    bank: u32,
    inner: [(&Table<u32, u32>, BorrowedFd<'_>); 4],
) -> Result<(), BankError> {
    thread::scope(|scope| {
        let writers = inner
            .map(|(outer, inner)| scope.spawn(move || outer.set(&bank, &raw(inner.as_raw_fd()))));
        for writer in writers {
            writer.join().expect("writing does not panic")?;
        }
        Ok(())
    })
}

/// Key of an LPM trie: prefix length as a native word, then the address in network order.
fn prefix_key<const KEY: usize>(prefix: &IpNet) -> [u8; KEY] {
    let mut key = [0; KEY];
    key[..4].copy_from_slice(&u32::from(prefix.prefix_len()).to_ne_bytes());
    match prefix.network() {
        IpAddr::V4(address) => key[4..].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => key[4..].copy_from_slice(&address.octets()),
    }
    key
}

pub(crate) fn address_key(interface: u32, address: IpAddr) -> AddressKey {
    AddressKey {
        interface,
        family: if address.is_ipv4() { 4 } else { 6 },
        address: padded(address),
    }
}

fn record(interface: &CompiledInterface, bank: u32, hz: u32) -> Interface {
    Interface {
        flags: interface.flags,
        allowance: interface.allowance,
        reserve: interface.reserve,
        timeouts: jiffies(interface.timeouts, hz),
        credit: session::credit(interface.allowance),
        policy: interface.policy.map(|policy| Policy {
            trie: match policy.trie {
                root if policy.flags & policy_flags::TREE != 0 => root,
                NO_TRIE => NO_TRIE,
                trie => bank * MAX_TRIES / 2 + trie,
            },
            ..policy
        }),
        ..Interface::ZERO
    }
}

/// Stamps are 32-bit and compared with wrap-around: no life may reach half their range.
fn jiffies(seconds: [u32; TIMEOUTS], hz: u32) -> [u32; TIMEOUTS] {
    seconds.map(|seconds| seconds.saturating_mul(hz).min(i32::MAX as u32 / 2))
}

fn raw(fd: RawFd) -> u32 {
    u32::try_from(fd).expect("an open file descriptor is not negative")
}

#[cfg(test)]
mod tests {
    use sg_common::layout::Class;

    use super::*;

    #[test]
    fn prefix_keys_are_as_the_kernel_compares_them() {
        let key: [u8; 8] = prefix_key(&"10.1.0.0/16".parse().unwrap());
        assert_eq!(key[..4], 16_u32.to_ne_bytes());
        assert_eq!(key[4..], [10, 1, 0, 0]);
        let key: [u8; 20] = prefix_key(&"2001:db8::/32".parse().unwrap());
        assert_eq!(key[..4], 32_u32.to_ne_bytes());
        assert_eq!(key[4..8], [0x20, 0x01, 0x0d, 0xb8]);
    }

    #[test]
    fn lives_stay_below_half_the_clock() {
        let lives = jiffies([432_000; TIMEOUTS], 1000);
        assert_eq!(lives[0], 432_000_000);
        let lives = jiffies([u32::MAX; TIMEOUTS], 1000);
        assert!(lives[0] < 1 << 31);
    }

    #[test]
    fn tries_are_found_in_their_bank() {
        let interface = CompiledInterface {
            name: "a".into(),
            flags: 1,
            policy: [
                Policy {
                    trie: 3,
                    ..Policy::ZERO
                },
                Policy {
                    trie: NO_TRIE,
                    ..Policy::ZERO
                },
                Policy {
                    trie: 3,
                    flags: policy_flags::TREE,
                    ..Policy::ZERO
                },
                Policy::ZERO,
            ],
            timeouts: [1; TIMEOUTS],
            allowance: 10,
            reserve: 0,
            addresses: Vec::new(),
            ethertypes: Vec::new(),
        };
        let written = record(&interface, 1, 250);
        assert_eq!(written.policy[0].trie, MAX_TRIES / 2 + 3);
        assert_eq!(written.policy[1].trie, NO_TRIE);
        assert_eq!(
            written.policy[2].trie, 3,
            "the programs know the bank of a tree"
        );
        assert_eq!(written.timeouts, [250; TIMEOUTS]);
    }

    #[test]
    fn a_flow_is_asked_again_even_after_a_later_change() {
        const PRESENT: u32 = interface_flags::PRESENT;
        let asking = PRESENT | interface_flags::REEVALUATE;
        let record = |flags, reevaluate_from| {
            Some(Interface {
                flags,
                reevaluate_from,
                ..Interface::ZERO
            })
        };
        assert_eq!(reevaluate_from(PRESENT, None, 7), 0);
        assert_eq!(reevaluate_from(asking, record(PRESENT, 0), 7), 7);
        assert_eq!(reevaluate_from(PRESENT, record(asking, 3), 8), 8);
        assert_eq!(reevaluate_from(PRESENT, record(PRESENT, 8), 9), 8);
        assert_eq!(reevaluate_from(PRESENT, record(0, 8), 9), 0);
    }

    #[test]
    fn a_policy_too_large_for_its_bank_is_refused() {
        let compiled = Compiled {
            classes: vec![Class::ZERO; MAX_CLASSES as usize + 1],
            ..Compiled::default()
        };
        assert!(matches!(
            check_room(&compiled),
            Err(BankError::Capacity { .. })
        ));
    }
}
