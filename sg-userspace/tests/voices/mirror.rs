//! The host's tables, filled from the same compiled policy as the kernel's.

use std::net::IpAddr;

use ipnet::IpNet;
use sg_common::{
    family::{V4, V6},
    host::{Bank, Host, INTERFACES},
    layout::{ETHERTYPE, Interface, interface_flags},
    pipeline::Arrival,
    table,
    verdict::Verdict,
    wire::Frame,
};
use sg_userspace::compile::Compiled;

/// An IPv4 address as a native word.
fn word(bytes: [u8; 4]) -> u32 {
    u32::from_ne_bytes(bytes)
}

/// An IPv6 address as native words.
fn words(bytes: [u8; 16]) -> [u32; 4] {
    std::array::from_fn(|at| word(std::array::from_fn(|byte| bytes[4 * at + byte])))
}

fn padded(address: IpAddr) -> (u32, [u8; 16]) {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            (4, [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        }
        IpAddr::V6(address) => (6, address.octets()),
    }
}

/// Which flows are asked again (semantics 11).
fn reevaluate_from(flags: u32, before: Option<&Interface>, generation: u32) -> u32 {
    let (said, from) = match before {
        Some(before) if before.flags & interface_flags::PRESENT != 0 => {
            (flags | before.flags, before.reevaluate_from)
        }
        _ => (flags, 0),
    };
    if said & interface_flags::REEVALUATE == 0 {
        from
    } else {
        generation
    }
}

/// The bank of a compiled policy. Tries are by their own index: a host has one set per bank.
pub(crate) fn bank(
    compiled: &Compiled,
    hz: u32,
    id_of: impl Fn(&str) -> u32,
    before: &[Interface],
    generation: u32,
) -> Bank {
    let mut interfaces = vec![Interface::ZERO; INTERFACES as usize];
    let mut addresses = Vec::new();
    addresses.extend(compiled.services.iter().map(|one| (0, padded(*one))));
    for one in &compiled.interfaces {
        let id = id_of(&one.name);
        interfaces[id as usize] = Interface {
            flags: one.flags,
            allowance: one.allowance,
            reserve: one.reserve,
            timeouts: one.timeouts.map(|seconds| seconds * hz),
            policy: one.policy,
            reevaluate_from: reevaluate_from(one.flags, before.get(id as usize), generation),
            ..Interface::ZERO
        };
        addresses.extend(one.addresses.iter().map(|own| (id, padded(*own))));
        let listed = one.ethertypes.iter();
        addresses.extend(listed.map(|kind| (id, (ETHERTYPE | u32::from(*kind), [0; 16]))));
    }
    let tries4 = compiled.tries4.iter().map(|trie| {
        let entries = trie.entries.iter();
        entries
            .map(|(prefix, class)| match prefix {
                IpNet::V4(net) => (
                    word(net.network().octets()),
                    net.prefix_len().into(),
                    *class,
                ),
                IpNet::V6(_) => panic!("an IPv6 prefix in an IPv4 trie"),
            })
            .collect()
    });
    let tries6 = compiled.tries6.iter().map(|trie| {
        let entries = trie.entries.iter();
        entries
            .map(|(prefix, class)| match prefix {
                IpNet::V6(net) => (
                    words(net.network().octets()),
                    net.prefix_len().into(),
                    *class,
                ),
                IpNet::V4(_) => panic!("an IPv4 prefix in an IPv6 trie"),
            })
            .collect()
    });
    let members4 = compiled.members4.iter();
    let members6 = compiled.members6.iter();
    let identities = compiled.identities.iter();
    Bank {
        interfaces,
        classes: compiled.classes.clone(),
        ranges: compiled.ranges.clone(),
        nodes: compiled.nodes.clone(),
        tries4: tries4.collect(),
        tries6: tries6.collect(),
        members4: members4
            .map(|(address, identity)| (word(address.octets()), *identity))
            .collect(),
        members6: members6
            .map(|(address, identity)| (words(address.octets()), *identity))
            .collect(),
        identities: identities
            .map(|(key, class)| ((key.scope, key.identity), *class))
            .collect(),
        addresses: addresses
            .into_iter()
            .map(|(id, (family, address))| (id, family, address))
            .collect(),
    }
}

/// A frame that the kernel merged of several.
struct Merged<'a>(&'a [u8]);

impl<'a> Frame for Merged<'a> {
    type Window = &'a [u8];

    fn len(&self) -> u32 {
        self.0.len() as u32
    }

    fn merged(&self) -> bool {
        true
    }

    fn tagged(&self) -> bool {
        false
    }

    fn window<const LEN: usize>(&self, offset: usize) -> Option<&'a [u8]> {
        self.0.get(offset..offset.checked_add(LEN)?)
    }
}

/// Judges a frame that stands for `segments` packets; 1: it is none that was merged.
pub(crate) fn judge(
    host: &Host,
    frame: &[u8],
    id: u32,
    hook_ingress: bool,
    segments: u32,
) -> Verdict {
    if segments == 1 {
        return host.judge(frame, id, hook_ingress);
    }
    let arrival = Arrival {
        id,
        hook_ingress,
        packets: segments,
        bytes: frame.len() as u32,
    };
    host.judge_frame(&Merged(frame), &arrival)
}

/// Ends all flows of an interface, as the kernel's command does.
pub(crate) fn flush(host: &Host, id: u32) {
    for (ipv6, buckets) in [false, true].into_iter().zip(host.runtime.buckets) {
        for index in 0..table::with_stash(buckets) {
            let host = &host.context();
            if ipv6 {
                table::flush::<Host, V6>(host, false, index, id);
            } else {
                table::flush::<Host, V4>(host, false, index, id);
            }
        }
    }
}
