//! What an earlier layout's maps hold, read as its [`Form`] says.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd as _,
};

use aya::{
    maps::{MapData, MapError},
    util::nr_cpus,
};
use sg_common::{
    abi::{MAX_INTERFACES, map},
    conntrack::Meta,
    layout::{CtLocal, CtRecord, ct_op, known},
    verdict::{DROP_REASONS, PASS_KINDS},
};

use super::form::{Entry, Form};
use crate::{bpf, control::Restored, pin::Pins};

/// The maps of an earlier layout cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PredecessorError {
    /// A pin is missing or is not a map.
    #[error("cannot open map {name} of the layout before")]
    Open {
        /// The map.
        name: &'static str,
        /// aya's answer.
        source: Box<MapError>,
    },
    /// It is not what that layout has there.
    #[error("map {name} of the layout before has values of {found} bytes instead of {expected}")]
    Shape {
        /// The map.
        name: &'static str,
        /// In the kernel.
        found: u32,
        /// As written down.
        expected: u32,
    },
    /// A bpf(2) call failed.
    #[error("cannot read map {name} of the layout before")]
    Read {
        /// The map.
        name: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// What has outgrown accounts.
const CARRIED: &str = "CT_CARRIED";

/// Counted packets or events, and bytes, by interface id, by counter as [`ct_op::ADD`] names it.
pub(super) type Figures = BTreeMap<u32, BTreeMap<u32, (u64, u64)>>;

/// What was told of which entries, by table and index: the word, packets and bytes by direction.
pub(super) type Known = Vec<BTreeMap<u32, [u64; 5]>>;

/// The maps of an earlier layout.
#[derive(Debug)]
pub(super) struct Predecessor {
    pub(super) form: &'static Form,
    interfaces: Raw,
    counters: Raw,
    events: Raw,
    hits: Raw,
    tables: Vec<(Entry, Raw)>,
    carried: Option<MapData>,
    /// Kernel id of its `RUNTIME`.
    pub(super) id: u32,
    /// The generation in force.
    pub(super) generation: u32,
    /// Packets and bytes are kept per flow.
    pub(super) accounting: bool,
    /// Tracked flows of the host.
    pub(super) allowance: u32,
    /// Entries of an IPv4 table.
    pub(super) slots: u32,
}

impl Predecessor {
    /// Opens the maps.
    pub(super) fn open(pins: &Pins, form: &'static Form) -> Result<Self, PredecessorError> {
        let raw = |name, size| Raw::open(pins, name, size);
        let runtime = raw(map::RUNTIME, form.runtime.size)?;
        let fixed = runtime.get(0)?;
        let generation = raw(map::GENERATION, 4)?.get(0)?;
        let mut tables = Vec::new();
        for (name, entry) in form.tables {
            tables.push((*entry, raw(name, entry.size)?));
        }
        let carries = |entry: &Entry| entry.account.is_some_and(|one| one.bytes_high.is_some());
        let mut carried = None;
        if form.tables.iter().any(|(_, entry)| carries(entry)) {
            let open = || -> Result<MapData, MapError> { MapData::from_pin(pins.map(CARRIED)) };
            let failed = |source| PredecessorError::Open {
                name: CARRIED,
                source: Box::new(source),
            };
            let map = open().map_err(failed)?;
            let info = map.info().map_err(failed)?;
            if (info.key_size(), info.value_size()) != (8, 16) {
                return Err(PredecessorError::Shape {
                    name: CARRIED,
                    found: info.value_size(),
                    expected: 16,
                });
            }
            carried = Some(map);
        }
        let counts = (form.passes + form.drops) * 2 * 16;
        Ok(Self {
            interfaces: raw(map::INTERFACES, form.interface.size)?,
            counters: raw(map::COUNTERS, counts as u32)?,
            events: raw(map::CT_LOCAL, form.events.size)?,
            hits: raw(map::RULE_HITS, 8)?,
            slots: tables.iter().map(|(_, one)| one.entries).max().unwrap_or(0),
            tables,
            carried,
            id: runtime.id,
            generation: u32_at(&generation, 0),
            accounting: u32_at(&fixed, form.runtime.accounting) != 0,
            allowance: u32_at(&fixed, form.runtime.allowance),
            form,
        })
    }

    /// Since which generation the flows of an interface are asked again.
    pub(super) fn reevaluate_from(&self, interface: u32) -> Result<u32, PredecessorError> {
        let bank = (self.generation & 1) * self.form.interfaces;
        let record = self.interfaces.get(bank + interface)?;
        Ok(u32_at(&record, self.form.interface.reevaluate_from))
    }

    /// Packets by set of rules of the generation in force (0) and of the one before it (1).
    pub(super) fn hits(&self, before: u32) -> Result<Vec<u64>, PredecessorError> {
        let bank = self.generation.wrapping_sub(before) & 1;
        let start = bank * self.form.counted;
        let mut sums = vec![0; self.form.counted as usize];
        self.hits.each(start, self.form.counted, |index, value| {
            sums[(index - start) as usize] = words(value).fold(0, u64::wrapping_add);
        })?;
        Ok(sums)
    }

    /// What interfaces have counted; interface 0 is nobody.
    pub(super) fn figures(
        &self,
        interfaces: impl Iterator<Item = u32>,
    ) -> Result<Figures, PredecessorError> {
        let mut figures = Figures::new();
        for id in interfaces.filter(|id| *id < self.form.interfaces.min(MAX_INTERFACES)) {
            let mut counted = BTreeMap::new();
            for counters in self.counters.per_cpu(id)? {
                self.add_counters(&counters, &mut counted);
            }
            for events in self.events.per_cpu(id)? {
                self.add_events(&events, &mut counted);
            }
            counted.retain(|_, what| *what != (0, 0));
            figures.insert(id, counted);
        }
        Ok(figures)
    }

    fn add_counters(&self, value: &[u8], counted: &mut BTreeMap<u32, (u64, u64)>) {
        let outcomes = self.form.passes + self.form.drops;
        for (place, count) in value.chunks_exact(16).enumerate() {
            let (direction, outcome) = (place / outcomes, place % outcomes);
            let outcome = match outcome.checked_sub(self.form.passes) {
                None if outcome < PASS_KINDS => outcome,
                Some(reason) if reason < DROP_REASONS => PASS_KINDS + reason,
                _ => continue,
            };
            let counter = (direction as u32) << 16 | outcome as u32;
            let sum: &mut (u64, u64) = counted.entry(counter).or_default();
            sum.0 = sum.0.wrapping_add(u64_at(count, 0));
            sum.1 = sum.1.wrapping_add(u64_at(count, 8));
        }
    }

    fn add_events(&self, value: &[u8], counted: &mut BTreeMap<u32, (u64, u64)>) {
        let events = &self.form.events;
        for (from, to) in [
            (events.refused, std::mem::offset_of!(CtLocal, refused)),
            (events.created, std::mem::offset_of!(CtLocal, created)),
            (events.expired, std::mem::offset_of!(CtLocal, expired)),
            (events.replaced, std::mem::offset_of!(CtLocal, replaced)),
            (events.removed, std::mem::offset_of!(CtLocal, removed)),
        ] {
            let counter = ct_op::EVENT | (to / 8) as u32;
            let sum: &mut (u64, u64) = counted.entry(counter).or_default();
            sum.0 = sum.0.wrapping_add(u64_at(value, from));
        }
        let counter = PEAK;
        let peak: &mut (u64, u64) = counted.entry(counter).or_default();
        peak.0 = peak.0.max(u64_at(value, events.peak));
    }

    /// Entries in use, and some more for those that come meanwhile.
    pub(super) fn tracked(&self) -> Result<u32, PredecessorError> {
        let mut tracked = 0_u32;
        for (entry, table) in &self.tables {
            table.each(0, table.entries, |_, value| {
                tracked += u32::from(Meta(u64_at(value, entry.meta)).tracked());
            })?;
        }
        Ok(tracked.saturating_add(tracked / 8))
    }

    /// What an account had no room for: packets and bytes by direction.
    fn carried(&self, index: u32, entry: &Entry, meta: Meta) -> Result<[u32; 4], PredecessorError> {
        let Some(map) = &self.carried else {
            return Ok([0; 4]);
        };
        let which = u32::from(entry.address == 16) | u32::from(meta.version()) << 16;
        let mut key = [0; 8];
        key[..4].copy_from_slice(&index.to_ne_bytes());
        key[4..].copy_from_slice(&which.to_ne_bytes());
        let mut value = [0; 16];
        // SAFETY: key and value have the map's sizes, which were looked at when it was opened.
        match unsafe { bpf::lookup(map.fd().as_fd(), &key, &mut value) } {
            Ok(_) => Ok([0, 4, 8, 12].map(|place| u32_at(&value, place))),
            Err(source) => Err(PredecessorError::Read {
                name: CARRIED,
                source,
            }),
        }
    }

    /// Calls `each` with every tracked flow that `known` does not know as it is now, and remembers it there.
    /// What it carried is what came since. `again`: they may have been read before and not remembered.
    pub(super) fn flows<E: From<PredecessorError>>(
        &self,
        known: &mut Known,
        again: bool,
        mut each: impl FnMut(&Restored) -> Result<(), E>,
    ) -> Result<(), E> {
        known.resize_with(self.tables.len(), BTreeMap::new);
        for ((entry, table), known) in self.tables.iter().zip(known) {
            let mut done = Ok(());
            table.each(0, table.entries, |index, value| {
                let meta = Meta(u64_at(value, entry.meta));
                if !meta.tracked() || done.is_err() {
                    return;
                }
                let mut carried = [0; 4];
                if has_more(entry, value) {
                    match self.carried(index, entry, meta) {
                        Ok(found) => carried = found,
                        Err(error) => done = Err(error.into()),
                    }
                }
                let told = told(entry, value, carried);
                let before = known.insert(index, told);
                if before == Some(told) {
                    return;
                }
                done = each(&decode(entry, value, told, before, again));
            })?;
            done?;
        }
        Ok(())
    }
}

/// The highest number of flows: a maximum, not a sum.
pub(super) const PEAK: u32 = ct_op::EVENT | (std::mem::offset_of!(CtLocal, peak) / 8) as u32;

/// The word of an entry, packets and bytes by direction.
fn told(entry: &Entry, value: &[u8], carried: [u32; 4]) -> [u64; 5] {
    let meta = u64_at(value, entry.meta);
    let Some(account) = &entry.account else {
        return [meta, 0, 0, 0, 0];
    };
    let half = |place: Option<usize>, direction: usize| {
        u64::from(place.map_or(0, |place| u16_at(value, place + direction * 2)))
    };
    let packets = |direction: usize| {
        let low = u32_at(value, account.packets + direction * 4);
        half(account.packets_high, direction) << 32
            | u64::from(carried[direction]) << 32
            | u64::from(low)
    };
    let bytes = |direction: usize| {
        let (place, size) = account.bytes;
        if size == 8 {
            return u64_at(value, place + direction * 8);
        }
        u64::from(carried[direction + 2]) << 47
            | (half(account.bytes_high, direction) & 0x7fff) << 32
            | u64::from(u32_at(value, place + direction * 4))
    };
    [meta, packets(0), packets(1), bytes(0), bytes(1)]
}

/// Whether `CT_CARRIED` knows more of an entry.
fn has_more(entry: &Entry, value: &[u8]) -> bool {
    let place = entry
        .account
        .as_ref()
        .and_then(|account| account.bytes_high);
    place.is_some_and(|place| u32_at(value, place) & 0x8000_8000 != 0)
}

fn decode(
    entry: &Entry,
    value: &[u8],
    now: [u64; 5],
    before: Option<[u64; 5]>,
    again: bool,
) -> Restored {
    let meta = Meta(now[0]);
    // Another version is another flow in the same place.
    let before = before.filter(|before| Meta(before[0]).version() == meta.version());
    let since = |place: usize| now[place].wrapping_sub(before.map_or(0, |before| before[place]));
    let pair = |at: usize| [u32_at(value, at), u32_at(value, at + 4)];
    Restored {
        owner: u32_at(value, entry.owner),
        ports: u32_at(value, entry.ports),
        local: address(entry, value, entry.local),
        remote: address(entry, value, entry.remote),
        record: CtRecord {
            generation: meta.generation(),
            state: meta.state(),
            flags: meta.flags(),
            known: match before {
                Some(_) => known::BEFORE,
                None if again => known::PERHAPS,
                None => 0,
            },
            seen: u32_at(value, entry.seen),
            ack: pair(entry.ack),
            fin: pair(entry.fin),
            packets: [since(1), since(2)],
            bytes: [since(3), since(4)],
            ..CtRecord::ZERO
        },
    }
}

fn address(entry: &Entry, value: &[u8], at: usize) -> IpAddr {
    let bytes = &value[at..at + entry.address];
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Ipv4Addr::from(bytes).into();
    }
    Ipv6Addr::from(<[u8; 16]>::try_from(bytes).expect("an address has four bytes or sixteen"))
        .into()
}

/// A map whose values are bytes.
#[derive(Debug)]
pub(super) struct Raw {
    name: &'static str,
    map: MapData,
    id: u32,
    entries: u32,
    size: usize,
    /// Values per index.
    cpus: usize,
}

impl Raw {
    pub(super) fn open(
        pins: &Pins,
        name: &'static str,
        size: u32,
    ) -> Result<Self, PredecessorError> {
        let failed = |source| PredecessorError::Open {
            name,
            source: Box::new(source),
        };
        let map = MapData::from_pin(pins.map(name)).map_err(failed)?;
        let info = map.info().map_err(failed)?;
        if info.value_size() != size || info.key_size() != 4 {
            return Err(PredecessorError::Shape {
                name,
                found: info.value_size(),
                expected: size,
            });
        }
        let per_cpu = matches!(info.map_type(), Ok(aya::maps::MapType::PerCpuArray));
        let cpus = match nr_cpus() {
            Ok(cpus) if per_cpu => cpus,
            Err((_, source)) if per_cpu => return Err(PredecessorError::Read { name, source }),
            _ => 1,
        };
        Ok(Self {
            name,
            id: info.id(),
            entries: info.max_entries(),
            size: if per_cpu {
                (size as usize).next_multiple_of(8)
            } else {
                size as usize
            },
            cpus,
            map,
        })
    }

    fn failed(&self, source: io::Error) -> PredecessorError {
        PredecessorError::Read {
            name: self.name,
            source,
        }
    }

    /// The value, or the values of all CPUs one after the other.
    pub(super) fn get(&self, index: u32) -> Result<Vec<u8>, PredecessorError> {
        let mut value = vec![0; self.size * self.cpus];
        // SAFETY: the map's keys have four bytes, and there is room for a value of each CPU.
        let found = unsafe { bpf::lookup(self.map.fd().as_fd(), &index.to_ne_bytes(), &mut value) };
        match found {
            Ok(true) => Ok(value),
            Ok(false) => Err(self.failed(io::ErrorKind::NotFound.into())),
            Err(source) => Err(self.failed(source)),
        }
    }

    fn per_cpu(&self, index: u32) -> Result<Vec<Vec<u8>>, PredecessorError> {
        let values = self.get(index)?;
        Ok(values.chunks_exact(self.size).map(<[u8]>::to_vec).collect())
    }

    /// Calls `each` with index and value of a run.
    fn each(
        &self,
        start: u32,
        count: u32,
        mut each: impl FnMut(u32, &[u8]),
    ) -> Result<(), PredecessorError> {
        const BATCH: u32 = 4096;
        let size = self.size * self.cpus;
        let mut keys = vec![0; BATCH as usize * 4];
        let mut values = vec![0; BATCH as usize * size];
        // The kernel begins behind the index that the cursor names.
        let mut cursor = start.checked_sub(1);
        let (mut index, end) = (start, start + count.min(self.entries - start));
        while index < end {
            let wanted = BATCH.min(end - index);
            // SAFETY: there is room for so many keys and values, and the map is an array.
            let read = unsafe {
                bpf::lookup_batch(
                    self.map.fd().as_fd(),
                    &mut cursor,
                    &mut keys,
                    &mut values,
                    wanted,
                )
            };
            let (read, _) = read.map_err(|source| self.failed(source))?;
            if read == 0 {
                break;
            }
            for value in values.chunks_exact(size).take(read as usize) {
                each(index, value);
                index += 1;
            }
        }
        Ok(())
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes
        .as_chunks::<8>()
        .0
        .iter()
        .map(|word| u64::from_ne_bytes(*word))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
