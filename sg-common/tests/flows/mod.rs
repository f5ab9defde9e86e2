//! Tables on the host, and flows to fill them with.

#![allow(dead_code, reason = "a test program uses what it needs of it")]

use sg_common::{
    conntrack::{Opening, Segment, Side, flag, open},
    family::{Family, Flow},
    host::Host,
    layout::{Interface, Runtime, TIMEOUTS, interface_flags},
    table::{self, Inserted},
    tables::Tables as _,
};

pub(crate) const SEED: [u32; 12] = [
    0x243f_6a88,
    0x85a3_08d3,
    0x1319_8a2e,
    0x0370_7344,
    0xa409_3822,
    0x299f_31d0,
    0x082e_fa98,
    0xec4e_6c89,
    0x4528_21e6,
    0x38d0_1377,
    0xbe54_66cf,
    0x34e9_0c6c,
];

pub(crate) fn interface(allowance: u32, reserve: u32) -> Interface {
    Interface {
        flags: interface_flags::PRESENT,
        allowance,
        reserve,
        timeouts: [1000; TIMEOUTS],
        ..Interface::ZERO
    }
}

/// Tables for `allowance` flows; interfaces 1 and 2 may hold all of them.
pub(crate) fn host(allowance: u32, unassured: u32) -> Host {
    let buckets = sg_common::abi::buckets(allowance);
    let mut host = Host::new(Runtime {
        hz: 100,
        accounting: 1,
        buckets: [buckets; 2],
        allowance,
        shared: allowance,
        unassured,
        seed: SEED,
        ..Runtime::ZERO
    });
    for bank in &mut host.banks {
        bank.interfaces = vec![Interface::ZERO; 3];
        bank.interfaces[1] = interface(allowance, 0);
        bank.interfaces[2] = interface(allowance, 0);
    }
    host
}

/// The `n`th flow of an interface: tuples as a scan would make them.
pub(crate) fn flow4(id: u32, n: u32) -> Flow<u32> {
    Flow {
        owner: id << 8 | 17,
        ports: 443 << 16 | (n & 0xffff),
        local: 0x0a00_0001_u32.to_be(),
        remote: (0x0b00_0000 + (n >> 16)).to_be(),
    }
}

pub(crate) fn flow6(id: u32, n: u32) -> Flow<[u32; 4]> {
    Flow {
        owner: id << 8 | 17,
        ports: 443 << 16 | (n & 0xffff),
        local: [0x2001_0db8_u32.to_be(), 0, 0, 1_u32.to_be()],
        remote: [0x2001_0db8_u32.to_be(), 1, 0, n >> 16],
    }
}

pub(crate) fn opening() -> Opening {
    let opening = open(17, 1, Side::Local, Side::Local, Segment::default(), 0);
    Opening {
        packets: 1,
        bytes: 100,
        ..opening
    }
}

pub(crate) fn assured() -> Opening {
    let mut opening = opening();
    opening.flags |= flag::ASSURED;
    opening
}

pub(crate) fn insert<F: Family>(
    host: &Host,
    flow: &Flow<F::Address>,
    opening: &Opening,
) -> Inserted {
    let limits = host.banks[0].interfaces[(flow.owner >> 8) as usize];
    let hash = F::hash(flow, &host.runtime.seed);
    if opening.flags & flag::ASSURED == 0 {
        host.make_room(F::IPV6, hash, flow.owner >> 8);
    }
    let attempt = |last| {
        let context = host.context();
        table::insert::<Host, F>(&context, &limits, hash, flow, opening, last)
    };
    match attempt(false) {
        Inserted::Full => {
            host.reclaim_beside(F::IPV6, hash);
            attempt(true)
        }
        made => made,
    }
}

pub(crate) fn find<F: Family>(host: &Host, flow: &Flow<F::Address>) -> Option<table::Entry<F>> {
    let hash = F::hash(flow, &host.runtime.seed);
    table::lookup::<Host, F>(&host.context(), hash, flow)
}
