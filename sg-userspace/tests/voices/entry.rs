//! Tracked flows as they stand in the tables of either side.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use sg_common::{
    conntrack::{Meta, State, flag},
    host::Host,
    layout::{Account, Accounted4, Accounted6, Carried, Live, WAYS},
    table::with_stash,
    tables::Tables as _,
};
use sg_oracle::Flow;
use sg_userspace::tables::Tables;

/// One tracked flow: all of it but when it was last seen, and when its opener was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Family, and index of the slot.
    place: (u8, u32),
    /// `interface << 8 | protocol`.
    owner: u32,
    /// As in the slot.
    ports: u32,
    /// Generation, state, flags, version.
    meta: u64,
    /// Acknowledgement and FIN numbers of both sides.
    live: [u32; 4],
    /// Local and remote address.
    addresses: [[u32; 4]; 2],
    /// Packets and bytes of both directions.
    account: [u64; 4],
}

impl Entry {
    /// `None` if the way is empty.
    fn new(
        place: (u8, u32),
        (owner, ports): (u32, u32),
        meta: u64,
        live: &Live,
        addresses: [[u32; 4]; 2],
        account: &Account,
    ) -> Option<Self> {
        // Of anything but TCP the second pair is a time.
        let times = owner & 0xff != 6;
        let fin = if times { [0; 2] } else { live.fin };
        // Nothing that is compared lives long enough for more.
        let [ingress, egress] = account.totals(live.bytes_high, &Carried::ZERO);
        Meta(meta).tracked().then(|| Self {
            place,
            owner,
            ports,
            meta,
            live: [live.ack[0], live.ack[1], fin[0], fin[1]],
            addresses,
            account: [ingress.0, egress.0, ingress.1, egress.1],
        })
    }

    /// Its interface.
    pub(crate) fn interface(&self) -> u32 {
        self.owner >> 8
    }

    /// Its state.
    pub(crate) fn state(&self) -> State {
        State::from_raw(Meta(self.meta).state()).expect("a state")
    }

    /// As the oracle knows it; interfaces have names.
    pub(crate) fn flow(&self, names: &BTreeMap<u32, String>) -> Flow {
        let flags = Meta(self.meta).flags();
        let (local_port, remote_port) = ((self.ports >> 16) as u16, self.ports as u16);
        let [local, remote] = self.addresses.map(|words| self.address(words));
        let [ingress, egress, bytes_in, bytes_out] = self.account;
        Flow {
            interface: names[&self.interface()].clone(),
            protocol: self.owner as u8,
            local,
            remote,
            local_port,
            // Of an echo it says who asks.
            remote_port: if self.state() == State::Icmp {
                0
            } else {
                remote_port
            },
            opened_by_local: flags & flag::OPENER_LOCAL != 0,
            state: self.state().name(),
            assured: flags & flag::ASSURED != 0,
            packets: [ingress, egress],
            bytes: [bytes_in, bytes_out],
        }
    }

    fn address(&self, words: [u32; 4]) -> IpAddr {
        let mut bytes = [0; 16];
        for (bytes, word) in bytes.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        let [a, b, c, d, ..] = bytes;
        if self.place.0 == 4 {
            Ipv4Addr::new(a, b, c, d).into()
        } else {
            Ipv6Addr::from(bytes).into()
        }
    }
}

fn of_slot4(index: u32, Accounted4 { slot, account }: &Accounted4) -> Option<Entry> {
    Entry::new(
        (4, index),
        (slot.owner, slot.ports),
        slot.meta,
        &slot.live,
        [[slot.local, 0, 0, 0], [slot.remote, 0, 0, 0]],
        account,
    )
}

fn of_slot6(index: u32, Accounted6 { slot, account }: &Accounted6) -> Option<Entry> {
    Entry::new(
        (6, index),
        (slot.owner, slot.ports),
        slot.meta,
        &slot.live,
        [slot.local, slot.remote],
        account,
    )
}

/// Every tracked flow in the kernel, whose tables have accounts.
pub(crate) fn in_kernel(tables: &Tables) -> Vec<Entry> {
    let mut found = Vec::new();
    let read = tables
        .accounted4
        .for_each(|index, one| found.extend(of_slot4(index, one)));
    read.unwrap();
    let read = tables
        .accounted6
        .for_each(|index, one| found.extend(of_slot6(index, one)));
    read.unwrap();
    found
}

/// Every tracked flow of the host's tables.
pub(crate) fn on_host(host: &Host) -> Vec<Entry> {
    let mut found = Vec::new();
    let [slots4, slots6] = host
        .runtime
        .buckets
        .map(|buckets| with_stash(buckets) * WAYS as u32);
    for index in 0..slots4 {
        let slot = host.slot4(false, index).unwrap();
        // SAFETY: the host's slots have accounts, and nothing runs on them now.
        found.extend(of_slot4(index, unsafe { &*slot.cast::<Accounted4>() }));
    }
    for index in 0..slots6 {
        let slot = host.slot6(false, index).unwrap();
        // SAFETY: as above.
        found.extend(of_slot6(index, unsafe { &*slot.cast::<Accounted6>() }));
    }
    found
}
