//! Addresses of the internet: public ones that nothing in the definition singles out.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::station::nets;
use crate::model::Model;

/// Addresses of IPv4 that cannot be met on the internet (the IANA special-purpose registry, RFC 6890).
const SPECIAL_V4: &[(Ipv4Addr, u8)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    // Multicast, and what is reserved.
    (Ipv4Addr::new(224, 0, 0, 0), 3),
];

/// Those of IPv6: all but global unicast, and documentation (RFC 3849, RFC 9637).
const SPECIAL_V6: &[(Ipv6Addr, u8)] = &[
    (Ipv6Addr::UNSPECIFIED, 3),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
    (Ipv6Addr::new(0x4000, 0, 0, 0, 0, 0, 0, 0), 2),
    (Ipv6Addr::new(0x8000, 0, 0, 0, 0, 0, 0, 0), 1),
];

/// Prefix lengths of IPv4 and IPv6 from which a prefix may be somebody in particular: organisations that were given a
/// whole /8 are there; wider ones are parts of the world.
const PARTICULAR: [u8; 2] = [8, 16];

/// Whether a prefix of public addresses is too wide to be somebody in particular.
pub(in super::super) fn is_wide(net: &IpNet) -> bool {
    let public = match net {
        IpNet::V4(_) => true,
        // Not the unique local addresses fc00::/7 (RFC 4193), say.
        IpNet::V6(net) => !SPECIAL_V6.iter().any(|(address, len)| {
            net.prefix_len() >= *len && prefix(*address, *len).contains(&IpAddr::V6(net.network()))
        }),
    };
    public && !is_particular(net)
}

fn is_particular(net: &IpNet) -> bool {
    net.prefix_len() >= PARTICULAR[usize::from(matches!(net, IpNet::V6(_)))]
}

fn prefix(address: impl Into<IpAddr>, len: u8) -> IpNet {
    IpNet::new_assert(address.into(), len)
}

/// One address of each part of the internet that wide prefixes of rules and lists tell apart, where it has one that is
/// not special, no member, no interface and in no prefix that singles somebody out.
pub(super) fn internet(model: &Model) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for ipv6 in [false, true] {
        let of_family = |net: &IpNet| matches!(net, IpNet::V6(_)) == ipv6;
        let special: Vec<IpNet> = if ipv6 {
            let special = SPECIAL_V6.iter();
            special
                .map(|(address, len)| prefix(*address, *len))
                .collect()
        } else {
            let special = SPECIAL_V4.iter();
            special
                .map(|(address, len)| prefix(*address, *len))
                .collect()
        };
        let here = model
            .interfaces
            .values()
            .flat_map(|interface| interface.addresses.iter().flatten())
            .chain(model.members.values().flatten())
            .map(|address| IpNet::from(*address));
        let mut taken: Vec<(u128, u128)> = nets(model)
            .filter(is_particular)
            .chain(here)
            .filter(of_family)
            .chain(special)
            .map(|net| ends(&net))
            .collect();
        taken.sort_unstable();
        let last = if ipv6 { u128::MAX } else { u32::MAX.into() };
        let mut starts = BTreeSet::from([0]);
        for net in nets(model).filter(|net| of_family(net) && !is_particular(net)) {
            let (first, end) = ends(&net);
            starts.insert(first);
            starts.extend(end.checked_add(1).filter(|next| *next <= last));
        }
        let free = first_free(&starts, &taken, last);
        addresses.extend(free.into_iter().map(|bits| match u32::try_from(bits) {
            Ok(bits) if !ipv6 => IpAddr::V4(Ipv4Addr::from(bits)),
            _ => IpAddr::V6(Ipv6Addr::from(bits)),
        }));
    }
    addresses
}

/// The first value that is not taken of each part, as far as there is one. Parts go from one start to the next, the last
/// one to `last`; ranges taken are sorted, and may overlap.
fn first_free(starts: &BTreeSet<u128>, taken: &[(u128, u128)], last: u128) -> Vec<u128> {
    let (mut free, mut taken) = (Vec::new(), taken.iter().peekable());
    // First value that no range so far takes; `None`: they reach the end.
    let mut reached = Some(0);
    for start in starts {
        let end = starts
            .range((
                std::ops::Bound::Excluded(*start),
                std::ops::Bound::Unbounded,
            ))
            .next()
            .map_or(last, |next| next - 1);
        let mut cursor = reached.map(|reached| (*start).max(reached));
        while let Some(at) = cursor
            && let Some((_, to)) = taken.next_if(|(from, _)| *from <= at)
        {
            reached = reached.and_then(|reached| Some(reached.max(to.checked_add(1)?)));
            cursor = reached.map(|reached| at.max(reached));
        }
        free.extend(cursor.filter(|at| *at <= end));
    }
    free
}

/// First and last address, as numbers.
fn ends(net: &IpNet) -> (u128, u128) {
    let bits = |address| match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    };
    (bits(net.network()), bits(net.broadcast()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_free_value_of_each_part_is_found() {
        let taken = [(0, 9), (5, 6), (20, 29), (25, 40), (50, 50), (90, 100)];
        let starts = BTreeSet::from([0, 8, 21, 30, 45, 50, 60, 90]);
        assert_eq!(first_free(&starts, &taken, 100), [10, 41, 45, 51, 60]);
        assert_eq!(
            first_free(&BTreeSet::from([0]), &[(0, u128::MAX)], u128::MAX),
            []
        );
    }
}
