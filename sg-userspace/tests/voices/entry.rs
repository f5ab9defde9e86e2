//! Tracked flows as they stand in the tables of either side.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use sg_common::{
    conntrack::{Meta, State, flag},
    family::{Family, V4, V6},
    host::Host,
    layout::{Account, AccountBucket, Bucket4, Bucket6, Live, WAYS},
    tables::Tables as _,
};
use sg_oracle::Flow;
use sg_userspace::tables::Tables;

/// One tracked flow: all of it but when it was last seen, and when its opener was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Family, bucket, way.
    place: (u8, u32, usize),
    /// `interface << 8 | protocol`.
    owner: u32,
    /// As in the slot.
    ports: u32,
    /// Tag, state, flags, version.
    meta: u64,
    /// Generation, then acknowledgement and FIN numbers of both sides.
    live: [u32; 5],
    /// Local and remote address.
    addresses: [[u32; 4]; 2],
    /// Packets and bytes of both directions.
    account: [u64; 4],
}

impl Entry {
    /// `None` if the way is empty.
    fn new(
        place: (u8, u32, usize),
        (owner, ports): (u32, u32),
        meta: u64,
        live: &Live,
        addresses: [[u32; 4]; 2],
        account: &Account,
    ) -> Option<Self> {
        // Of anything but TCP the second pair is a time.
        let times = owner & 0xff != 6;
        let fin = if times { [0; 2] } else { live.fin };
        Meta(meta).tracked().then(|| Self {
            place,
            owner,
            ports,
            meta,
            live: [live.generation, live.ack[0], live.ack[1], fin[0], fin[1]],
            addresses,
            account: [
                account.packets[0],
                account.packets[1],
                account.bytes[0],
                account.bytes[1],
            ],
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

fn of_bucket4(index: u32, bucket: &Bucket4, accounts: &AccountBucket) -> Vec<Entry> {
    let entry = |way: usize| {
        let slot = &bucket.slots[way];
        Entry::new(
            (4, index, way),
            (slot.owner, slot.ports),
            bucket.meta[way],
            &slot.live,
            [[slot.local, 0, 0, 0], [slot.remote, 0, 0, 0]],
            &accounts.accounts[way],
        )
    };
    (0..WAYS).filter_map(entry).collect()
}

fn of_bucket6(index: u32, bucket: &Bucket6, accounts: &AccountBucket) -> Vec<Entry> {
    let entry = |way: usize| {
        let slot = &bucket.slots[way];
        Entry::new(
            (6, index, way),
            (slot.owner, slot.ports),
            bucket.meta[way],
            &slot.live,
            [slot.local, slot.remote],
            &accounts.accounts[way],
        )
    };
    (0..WAYS).filter_map(entry).collect()
}

/// Every tracked flow in the kernel.
pub(crate) fn in_kernel(tables: &Tables) -> Vec<Entry> {
    let (mut accounts, mut found) = (Vec::new(), Vec::new());
    let read = tables.account4.for_each(|_, bucket| accounts.push(*bucket));
    read.unwrap();
    let read = tables.ct4.for_each(|index, bucket| {
        found.extend(of_bucket4(index, bucket, &accounts[index as usize]));
    });
    read.unwrap();
    let mut accounts = Vec::new();
    let read = tables.account6.for_each(|_, bucket| accounts.push(*bucket));
    read.unwrap();
    let read = tables.ct6.for_each(|index, bucket| {
        found.extend(of_bucket6(index, bucket, &accounts[index as usize]));
    });
    read.unwrap();
    found
}

/// Every tracked flow of the host's tables.
pub(crate) fn on_host(host: &Host) -> Vec<Entry> {
    let accounts = |ipv6: bool, index: u32| AccountBucket {
        accounts: std::array::from_fn(|way| {
            let account = host.account(ipv6, false, index, way).unwrap();
            // SAFETY: a valid account, and nothing runs on it now.
            unsafe { *account }
        }),
    };
    let mut found = Vec::new();
    for index in 0..host.runtime.buckets[usize::from(V4::IPV6)] {
        // SAFETY: as above.
        let bucket = unsafe { *host.bucket4(false, index).unwrap() };
        found.extend(of_bucket4(index, &bucket, &accounts(false, index)));
    }
    for index in 0..host.runtime.buckets[usize::from(V6::IPV6)] {
        // SAFETY: as above.
        let bucket = unsafe { *host.bucket6(false, index).unwrap() };
        found.extend(of_bucket6(index, &bucket, &accounts(true, index)));
    }
    found
}
