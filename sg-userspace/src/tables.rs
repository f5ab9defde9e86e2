//! Every pinned map, opened and typed.

use std::sync::{Mutex, PoisonError};

use sg_common::{
    abi::map,
    layout::{
        Accounted4, Accounted6, AddressKey, Carried, CarriedKey, Class, Confirmation, Counters,
        CtHost, CtInterface, CtLocal, IndexSet, Interface, Node, Range, Runtime, Slot4, Slot6,
        Tags,
    },
    table::Occupancy,
};

use crate::{
    pin::Pins,
    table::{Table, TableError},
};

/// The maps that the control plane reads or writes.
#[derive(Debug)]
pub struct Tables {
    /// The generation in force.
    pub generation: Table<u32, u32>,
    /// What is fixed while attached.
    pub runtime: Table<u32, Runtime>,
    /// (namespace, ifindex) → interface id.
    pub interface_index: Table<u32, IndexSet>,
    /// Interface records, two banks.
    pub interfaces: Table<u32, Interface>,
    /// Classes, two banks.
    pub classes: Table<u32, Class>,
    /// Port ranges, two banks.
    pub ranges: Table<u32, Range>,
    /// Nodes of search trees, two banks.
    pub trees: Table<u32, Node>,
    /// IPv4 tries, two banks; values are map descriptors when written, map ids when read.
    pub tries4: Table<u32, u32>,
    /// IPv6 tries, two banks.
    pub tries6: Table<u32, u32>,
    /// IPv4 members, one map per bank.
    pub members4: Table<u32, u32>,
    /// IPv6 members, one map per bank.
    pub members6: Table<u32, u32>,
    /// Identities, one map per bank.
    pub identities: Table<u32, u32>,
    /// Addresses of interfaces, one map per bank.
    pub addresses: Table<u32, u32>,
    /// Tags of the conntrack table, IPv4.
    pub tags4: Table<u32, Tags>,
    /// Tags of the conntrack table, IPv6.
    pub tags6: Table<u32, Tags>,
    /// Conntrack without accounts, IPv4.
    pub ct4: Table<u32, Slot4>,
    /// Conntrack without accounts, IPv6.
    pub ct6: Table<u32, Slot6>,
    /// Conntrack with accounts, IPv4.
    pub accounted4: Table<u32, Accounted4>,
    /// Conntrack with accounts, IPv6.
    pub accounted6: Table<u32, Accounted6>,
    /// What accounts of flows have no room for.
    pub carried: Table<CarriedKey, Carried>,
    /// Occupancy per interface.
    pub ct_interfaces: Table<u32, CtInterface>,
    /// Occupancy of the host.
    pub ct_host: Table<u32, CtHost>,
    /// What CPUs keep to themselves of it.
    pub ct_local: Table<u32, CtLocal>,
    /// Counters per interface, per CPU.
    pub counters: Table<u32, Counters>,
    /// Packets by set of rules, two banks, per CPU.
    pub rule_hits: Table<u32, u64>,
    /// The generation that waits to be confirmed; written by `ct_control` only.
    pub confirmation: Table<u32, Confirmation>,
    /// What this process has made of it, by bank.
    made: Mutex<[Option<InBank>; 2]>,
}

/// Inner maps of a bank that change while it is in force.
#[derive(Debug)]
pub(crate) struct InBank {
    /// Members by IPv4 address.
    pub(crate) members4: Table<[u8; 4], u32>,
    /// Members by IPv6 address.
    pub(crate) members6: Table<[u8; 16], u32>,
    /// Addresses of interfaces.
    pub(crate) addresses: Table<AddressKey, u32>,
}

impl Tables {
    /// Opens all pins.
    ///
    /// # Errors
    /// See [`TableError`].
    pub fn open(pins: &Pins) -> Result<Self, TableError> {
        Ok(Self {
            generation: Table::open(&pins.map(map::GENERATION))?,
            runtime: Table::open(&pins.map(map::RUNTIME))?,
            interface_index: Table::open(&pins.map(map::INTERFACE_INDEX))?,
            interfaces: Table::open(&pins.map(map::INTERFACES))?,
            classes: Table::open(&pins.map(map::CLASSES))?,
            ranges: Table::open(&pins.map(map::RANGES))?,
            trees: Table::open(&pins.map(map::TREES))?,
            tries4: Table::open(&pins.map(map::TRIES4))?,
            tries6: Table::open(&pins.map(map::TRIES6))?,
            members4: Table::open(&pins.map(map::MEMBERS4))?,
            members6: Table::open(&pins.map(map::MEMBERS6))?,
            identities: Table::open(&pins.map(map::IDENTITIES))?,
            addresses: Table::open(&pins.map(map::ADDRESSES))?,
            tags4: Table::open(&pins.map(map::TAGS4))?,
            tags6: Table::open(&pins.map(map::TAGS6))?,
            ct4: Table::open(&pins.map(map::CT4))?,
            ct6: Table::open(&pins.map(map::CT6))?,
            accounted4: Table::open(&pins.map(map::ACCOUNTED4))?,
            accounted6: Table::open(&pins.map(map::ACCOUNTED6))?,
            carried: Table::open(&pins.map(map::CT_CARRIED))?,
            ct_interfaces: Table::open(&pins.map(map::CT_INTERFACES))?,
            ct_host: Table::open(&pins.map(map::CT_HOST))?,
            ct_local: Table::open(&pins.map(map::CT_LOCAL))?,
            counters: Table::open(&pins.map(map::COUNTERS))?,
            rule_hits: Table::open(&pins.map(map::RULE_HITS))?,
            confirmation: Table::open(&pins.map(map::CONFIRMATION))?,
            made: Default::default(),
        })
    }

    /// Keeps the inner maps of a bank that were just made.
    pub(crate) fn keep(&self, bank: u32, made: InBank) {
        let mut kept = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        kept[bank as usize & 1] = Some(made);
    }

    /// The inner maps of a bank: those that were kept, or by their ids, which takes `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    /// [`TableError::Open`], [`TableError::Shape`].
    pub(crate) fn in_bank(&self, bank: u32) -> Result<InBank, TableError> {
        let mut kept = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = kept[bank as usize & 1].take() {
            return Ok(made);
        }
        Ok(InBank {
            members4: Table::inner(&self.members4, bank)?,
            members6: Table::inner(&self.members6, bank)?,
            addresses: Table::inner(&self.addresses, bank)?,
        })
    }

    /// The record of what is fixed; its `hz` is 0 until the first load is complete.
    ///
    /// # Errors
    /// See [`TableError`].
    pub fn runtime(&self) -> Result<Runtime, TableError> {
        Ok(self.runtime.get(&0)?.unwrap_or(Runtime::ZERO))
    }

    /// The generation in force.
    ///
    /// # Errors
    /// See [`TableError`].
    pub fn generation(&self) -> Result<u32, TableError> {
        Ok(self.generation.get(&0)?.unwrap_or_default())
    }

    /// Occupancy of an interface.
    ///
    /// # Errors
    /// See [`TableError`].
    pub fn occupancy(&self, interface: u32) -> Result<Occupancy, TableError> {
        let shared = self.ct_interfaces.get(&interface)?;
        let locals = self.ct_local.get_per_cpu(&interface)?;
        let shared = shared.unwrap_or(CtInterface::ZERO);
        Ok(Occupancy::of_interface(&shared, &locals))
    }

    /// Occupancy of the host; events are counted by interface.
    ///
    /// # Errors
    /// See [`TableError`].
    pub fn host_occupancy(&self) -> Result<Occupancy, TableError> {
        let shared = self.ct_host.get(&0)?.unwrap_or(CtHost::ZERO);
        let locals = self.ct_local.get_per_cpu(&0)?;
        Ok(Occupancy::of_host(&shared, &locals))
    }
}
