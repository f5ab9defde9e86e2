//! Tracked flows, read from the conntrack tables.
//!
//! The tables change while they are read. An entry is taken if its word is the same before and
//! after its fields were copied; one that is being written at that moment is missed.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use aya::Pod;
use serde::{Deserialize, Serialize};
use sg_common::{
    conntrack::{Meta, State, flag},
    layout::{Account, AccountBucket, Bucket4, Bucket6, Live, TIMEOUTS, WAYS},
};

use crate::{
    mapping::{Mapping, MappingError},
    session::Context,
    table::Table,
    view::{View, ViewError, age},
};

/// A tracked flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrackedFlow {
    /// Interface, by its name in the definition.
    pub interface: String,
    /// IP protocol number.
    pub protocol: u8,
    /// State, as listings name it.
    pub state: String,
    /// The workload's address.
    pub local: IpAddr,
    /// Its port, or the identifier of an echo.
    pub local_port: u16,
    /// The other side's address.
    pub remote: IpAddr,
    /// Its port.
    pub remote_port: u16,
    /// Which side opened it.
    pub opened_by: Side,
    /// Both sides have answered.
    pub assured: bool,
    /// It was taken up in its middle: when the interface was attached, by hand-over or `tcp_loose`.
    pub adopted: bool,
    /// Seconds since the last packet that kept it alive.
    pub idle_seconds: f64,
    /// Seconds until it is over if nothing more comes.
    pub expires_seconds: f64,
    /// Generation that last judged it.
    pub generation: u32,
    /// Packets and bytes towards and from the workload, where accounting is on.
    pub traffic: Option<Traffic>,
}

/// A side of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The workload.
    Local,
    /// The other side.
    Remote,
}

/// What a flow carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets towards the workload.
    pub ingress_packets: u64,
    /// Bytes towards the workload, Ethernet headers included.
    pub ingress_bytes: u64,
    /// Packets from the workload.
    pub egress_packets: u64,
    /// Bytes from the workload.
    pub egress_bytes: u64,
}

/// Why flows cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FlowsError {
    /// What is in force cannot be opened.
    #[error(transparent)]
    View(#[from] ViewError),
    /// A table cannot be mapped.
    #[error(transparent)]
    Mapping(#[from] MappingError),
}

/// Live flows of all interfaces, or of the one called `interface`.
///
/// # Errors
/// See [`FlowsError`].
pub fn list(context: &Context, interface: Option<&str>) -> Result<Vec<TrackedFlow>, FlowsError> {
    let view = View::open(context)?;
    let names: HashMap<u32, &str> = view
        .interfaces(context, interface)?
        .into_iter()
        .map(|one| (one.id, one.name.as_str()))
        .collect();
    let mut flows = Vec::new();
    each(&view, |raw| {
        if let Some(name) = names.get(&raw.interface) {
            flows.push(raw.decode(name, view.runtime.hz));
        }
    })?;
    Ok(flows)
}

/// A live entry as it stands in a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// Interface id.
    pub(crate) interface: u32,
    /// IP protocol number.
    pub(crate) protocol: u8,
    /// Its state.
    pub(crate) state: State,
    flags: u8,
    ports: u32,
    local: IpAddr,
    remote: IpAddr,
    generation: u32,
    idle: u32,
    life: u32,
    account: Option<Account>,
}

/// Calls `found` with every entry of both tables that is not over.
pub(crate) fn each(view: &View, mut found: impl FnMut(Entry)) -> Result<(), FlowsError> {
    let now = view.now().map_err(ViewError::from)?;
    let mut lives: HashMap<u32, [u32; TIMEOUTS]> = HashMap::new();
    for one in &view.state.interfaces {
        let record = view.record(one.id).map_err(ViewError::from)?;
        lives.insert(one.id, record.timeouts);
    }
    let tables = &view.tables;
    let walk = Walk {
        now,
        lives,
        accounting: view.runtime.accounting != 0,
    };
    walk.table(&tables.ct4, &tables.account4, &mut found)?;
    walk.table(&tables.ct6, &tables.account6, &mut found)
}

/// A bucket of either family.
trait Bucket: Pod {
    /// The flow and what changes of it, of one way.
    fn slot(&self, way: usize) -> Slot;
}

/// What stands in a way besides its word.
struct Slot {
    owner: u32,
    ports: u32,
    local: IpAddr,
    remote: IpAddr,
    live: Live,
}

impl Bucket for Bucket4 {
    fn slot(&self, way: usize) -> Slot {
        let slot = &self.slots[way];
        Slot {
            owner: slot.owner,
            ports: slot.ports,
            local: Ipv4Addr::from(slot.local.to_ne_bytes()).into(),
            remote: Ipv4Addr::from(slot.remote.to_ne_bytes()).into(),
            live: slot.live,
        }
    }
}

impl Bucket for Bucket6 {
    fn slot(&self, way: usize) -> Slot {
        let slot = &self.slots[way];
        Slot {
            owner: slot.owner,
            ports: slot.ports,
            local: address6(slot.local).into(),
            remote: address6(slot.remote).into(),
            live: slot.live,
        }
    }
}

fn address6(words: [u32; 4]) -> Ipv6Addr {
    let mut bytes = [0; 16];
    for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    bytes.into()
}

/// What judging an entry takes.
struct Walk {
    now: u32,
    lives: HashMap<u32, [u32; TIMEOUTS]>,
    accounting: bool,
}

impl Walk {
    fn table<B: Bucket>(
        &self,
        table: &Table<u32, B>,
        accounts: &Table<u32, AccountBucket>,
        found: &mut impl FnMut(Entry),
    ) -> Result<(), FlowsError> {
        let table = Mapping::new(table)?;
        let accounts = self
            .accounting
            .then(|| Mapping::new(accounts))
            .transpose()?;
        for index in 0..table.entries() {
            // The words stand first in a bucket, so most buckets cost one cache line.
            let metas: [Meta; WAYS] = std::array::from_fn(|way| Meta(table.word(index, way)));
            if !metas.iter().any(|meta| meta.tracked()) {
                continue;
            }
            let bucket = table.get(index);
            let account = accounts.as_ref().map(|accounts| accounts.get(index));
            for (way, meta) in metas.into_iter().enumerate() {
                // A way that changed hands meanwhile shows by its version.
                let settled =
                    meta.tracked() && Meta(table.word(index, way)).version() == meta.version();
                let account = account.map(|account| account.accounts[way]);
                if settled && let Some(entry) = self.entry(meta, &bucket.slot(way), account) {
                    found(entry);
                }
            }
        }
        Ok(())
    }

    /// The entry, unless it is over or of no attached interface.
    fn entry(&self, meta: Meta, slot: &Slot, account: Option<Account>) -> Option<Entry> {
        let interface = slot.owner >> 8;
        let life = meta.life(self.lives.get(&interface)?);
        let idle = age(self.now, slot.live.seen);
        if idle >= life {
            return None;
        }
        Some(Entry {
            interface,
            protocol: (slot.owner & 0xff) as u8,
            state: State::from_raw(meta.state())?,
            flags: meta.flags(),
            ports: slot.ports,
            local: slot.local,
            remote: slot.remote,
            generation: slot.live.generation,
            idle,
            life,
            account,
        })
    }
}

impl Entry {
    fn decode(&self, interface: &str, hz: u32) -> TrackedFlow {
        let seconds = |jiffies: u32| f64::from(jiffies) / f64::from(hz.max(1));
        let (high, low) = ((self.ports >> 16) as u16, self.ports as u16);
        TrackedFlow {
            interface: interface.to_owned(),
            protocol: self.protocol,
            state: self.state.name().to_owned(),
            local: self.local,
            local_port: high,
            remote: self.remote,
            remote_port: if self.state == State::Icmp { high } else { low },
            opened_by: if self.flags & flag::OPENER_LOCAL != 0 {
                Side::Local
            } else {
                Side::Remote
            },
            assured: self.flags & flag::ASSURED != 0,
            adopted: self.flags & flag::ADOPTED != 0,
            idle_seconds: seconds(self.idle),
            expires_seconds: seconds(self.life - self.idle),
            generation: self.generation,
            traffic: self.account.map(|account| Traffic {
                ingress_packets: account.packets[0],
                ingress_bytes: account.bytes[0],
                egress_packets: account.packets[1],
                egress_bytes: account.bytes[1],
            }),
        }
    }
}

/// Name of a protocol, where listings and statistics have one.
pub fn protocol_name(protocol: u8) -> &'static str {
    match protocol {
        1 => "icmp",
        6 => "tcp",
        17 => "udp",
        58 => "icmpv6",
        _ => "other",
    }
}
