//! Tracked flows, read from the conntrack tables.
//!
//! The tables change while they are read. An entry is taken if its version is the same before and
//! after its fields were copied; one that is being written at that moment is missed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aya::Pod;
use serde::Serialize;
use sg_common::{
    abi::MAX_INTERFACES,
    conntrack::{Meta, State, flag},
    layout::{
        Account, Accounted4, Accounted6, CARRIED, Carried, CarriedKey, Live, Slot4, Slot6,
        TIMEOUTS, Tags, WAYS,
    },
};

mod summary;

pub use summary::{Count, InterfaceSummary, Summary, summarize};

use crate::{
    mapping::{Mapping, MappingError},
    session::Context,
    table::{Table, TableError},
    view::{View, ViewError, age},
};

/// A tracked flow. It borrows what is the same for many.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrackedFlow<'a> {
    /// Interface, by its name in the definition.
    pub interface: &'a str,
    /// IP protocol number.
    pub protocol: u8,
    /// State, as listings name it.
    pub state: &'static str,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The workload.
    Local,
    /// The other side.
    Remote,
}

/// What a flow carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
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

impl Traffic {
    fn of(account: &Account, live: &Live, carried: &Carried) -> Self {
        let [ingress, egress] = account.totals(live.bytes_high, carried);
        Self {
            ingress_packets: ingress.0,
            ingress_bytes: ingress.1,
            egress_packets: egress.0,
            egress_bytes: egress.1,
        }
    }
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
    /// A map failed.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Calls `found` with every live flow of all interfaces, or of the one called `interface`.
///
/// # Errors
/// See [`FlowsError`].
pub fn list(
    context: &Context,
    interface: Option<&str>,
    mut found: impl FnMut(&TrackedFlow<'_>),
) -> Result<(), FlowsError> {
    let view = View::open(context)?;
    let mut names = vec![None; MAX_INTERFACES as usize];
    for one in view.interfaces(context, interface)? {
        names[one.id as usize] = Some(one.name.as_str());
    }
    each(&view, |entry| {
        if let Some(name) = names[entry.interface as usize] {
            found(&entry.decode(name, view.runtime.hz));
        }
    })
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
    pub(crate) flags: u8,
    ports: u32,
    local: IpAddr,
    remote: IpAddr,
    generation: u32,
    idle: u32,
    life: u32,
    traffic: Option<Traffic>,
}

/// Calls `found` with every entry of both tables that is not over.
pub(crate) fn each(view: &View, mut found: impl FnMut(Entry)) -> Result<(), FlowsError> {
    let now = view.now().map_err(ViewError::from)?;
    let mut lives = vec![None; MAX_INTERFACES as usize];
    for one in &view.state.interfaces {
        let record = view.record(one.id).map_err(ViewError::from)?;
        lives[one.id as usize] = Some(record.timeouts);
    }
    let tables = &view.tables;
    let walk = Walk {
        now,
        lives,
        carried: &tables.carried,
    };
    if view.runtime.accounting != 0 {
        walk.table(&tables.tags4, &tables.accounted4, &mut found)?;
        walk.table(&tables.tags6, &tables.accounted6, &mut found)
    } else {
        walk.table(&tables.tags4, &tables.ct4, &mut found)?;
        walk.table(&tables.tags6, &tables.ct6, &mut found)
    }
}

/// An element of a table of either family, with or without account. Its first word is the entry's.
trait Element: Pod {
    /// The flow, what changes of it, and what it carried.
    fn slot(&self) -> Slot;
}

/// What an entry is besides its word.
struct Slot {
    owner: u32,
    ports: u32,
    local: IpAddr,
    remote: IpAddr,
    live: Live,
    account: Option<Account>,
}

impl Element for Slot4 {
    fn slot(&self) -> Slot {
        Slot {
            owner: self.owner,
            ports: self.ports,
            local: Ipv4Addr::from(self.local.to_ne_bytes()).into(),
            remote: Ipv4Addr::from(self.remote.to_ne_bytes()).into(),
            live: self.live,
            account: None,
        }
    }
}

impl Element for Slot6 {
    fn slot(&self) -> Slot {
        Slot {
            owner: self.owner,
            ports: self.ports,
            local: address6(self.local).into(),
            remote: address6(self.remote).into(),
            live: self.live,
            account: None,
        }
    }
}

impl Element for Accounted4 {
    fn slot(&self) -> Slot {
        Slot {
            account: Some(self.account),
            ..self.slot.slot()
        }
    }
}

impl Element for Accounted6 {
    fn slot(&self) -> Slot {
        Slot {
            account: Some(self.account),
            ..self.slot.slot()
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
struct Walk<'a> {
    now: u32,
    carried: &'a Table<CarriedKey, Carried>,
    /// By interface id; `None`: not attached.
    lives: Vec<Option<[u32; TIMEOUTS]>>,
}

impl Walk<'_> {
    fn table<E: Element>(
        &self,
        tags: &Table<u32, Tags>,
        table: &Table<u32, E>,
        found: &mut impl FnMut(Entry),
    ) -> Result<(), FlowsError> {
        let (tags, table) = (Mapping::new(tags)?, Mapping::new(table)?);
        for bucket in 0..tags.entries() {
            // An entry per byte that is read here: most of an empty table is never touched.
            let words = tags.get(bucket).words;
            if words == [0; WAYS / 8] {
                continue;
            }
            for way in 0..WAYS as u32 {
                if words[way as usize / 8] >> (way % 8 * 8) & 0xff == 0 {
                    continue;
                }
                let index = bucket * WAYS as u32 + way;
                let meta = Meta(table.word(index, 0));
                if !meta.tracked() {
                    continue;
                }
                let slot = table.get(index).slot();
                // A way that changed hands meanwhile shows by its version.
                let settled = Meta(table.word(index, 0)).version() == meta.version();
                if settled && let Some(entry) = self.entry(meta, index, &slot)? {
                    found(entry);
                }
            }
        }
        Ok(())
    }

    /// The entry, unless it is over or of no attached interface.
    fn entry(&self, meta: Meta, index: u32, slot: &Slot) -> Result<Option<Entry>, FlowsError> {
        let interface = slot.owner >> 8;
        let lives = self.lives.get(interface as usize);
        let life = lives.and_then(Option::as_ref).map(|lives| meta.life(lives));
        let (Some(life), Some(state)) = (life, State::from_raw(meta.state())) else {
            return Ok(None);
        };
        let idle = age(self.now, slot.live.seen);
        if idle >= life {
            return Ok(None);
        }
        let carried = if slot.live.bytes_high.iter().any(|high| high & CARRIED != 0) {
            let key = CarriedKey::new(slot.local.is_ipv6(), false, index, meta.version());
            self.carried.get(&key)?
        } else {
            None
        };
        let carried = carried.unwrap_or(Carried::ZERO);
        Ok(Some(Entry {
            interface,
            protocol: (slot.owner & 0xff) as u8,
            state,
            flags: meta.flags(),
            ports: slot.ports,
            local: slot.local,
            remote: slot.remote,
            generation: meta.generation(),
            idle,
            life,
            traffic: slot
                .account
                .map(|account| Traffic::of(&account, &slot.live, &carried)),
        }))
    }
}

impl Entry {
    pub(crate) fn decode<'a>(&self, interface: &'a str, hz: u32) -> TrackedFlow<'a> {
        let seconds = |jiffies: u32| f64::from(jiffies) / f64::from(hz.max(1));
        let (high, low) = ((self.ports >> 16) as u16, self.ports as u16);
        TrackedFlow {
            interface,
            protocol: self.protocol,
            state: self.state.name(),
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
            traffic: self.traffic,
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
