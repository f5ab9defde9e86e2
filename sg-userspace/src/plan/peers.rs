//! Sets of addresses of one family, as ranges.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use serde::{Serialize, Serializer, ser::SerializeSeq as _};

/// Disjoint ranges of addresses in ascending order, both ends included.
pub(super) type Ranges = Vec<(u128, u128)>;

/// Addresses of one family: disjoint ranges in ascending order, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peers {
    ipv6: bool,
    /// Shared by those who gain or lose something else from the same.
    ranges: Arc<Ranges>,
}

/// Addresses that follow each other. Shown as a prefix if they are one, else as first and last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    ipv6: bool,
    low: u128,
    high: u128,
}

impl Peers {
    /// Addresses of ranges made by [`push`].
    pub(super) fn new(ipv6: bool, ranges: Arc<Ranges>) -> Self {
        Self { ipv6, ranges }
    }

    /// The same addresses in ranges; they ascend, and none comes twice.
    pub(super) fn of_addresses(ipv6: bool, addresses: impl Iterator<Item = IpAddr>) -> Self {
        let mut ranges = Vec::new();
        for address in addresses {
            push(&mut ranges, number(address), number(address));
        }
        Self::new(ipv6, Arc::new(ranges))
    }

    /// Whether an address of the family is among them.
    pub fn contains(&self, address: IpAddr) -> bool {
        let wanted = number(address);
        let at = self.ranges.partition_point(|(_, high)| *high < wanted);
        address.is_ipv6() == self.ipv6 && self.ranges.get(at).is_some_and(|(low, _)| *low <= wanted)
    }

    /// How many ranges.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Them, range by range.
    pub fn spans(&self) -> impl Iterator<Item = Span> + '_ {
        let ipv6 = self.ipv6;
        let span = move |(low, high): &(u128, u128)| Span {
            ipv6,
            low: *low,
            high: *high,
        };
        self.ranges.iter().map(span)
    }

    /// The smallest prefix that holds them all, and what of it is not among them.
    pub fn within(&self) -> Option<(Span, Peers)> {
        let ((low, _), (_, high)) = (*self.ranges.first()?, *self.ranges.last()?);
        let free = u128::BITS - (low ^ high).leading_zeros();
        let mask = u128::MAX.checked_shr(u128::BITS - free).unwrap_or(0);
        let around = Span {
            ipv6: self.ipv6,
            low: low & !mask,
            high: low | mask,
        };
        let mut holes = Vec::new();
        let mut next = Some(around.low);
        for (low, high) in &*self.ranges {
            if let Some(next) = next.filter(|next| next < low) {
                push(&mut holes, next, low - 1);
            }
            next = high.checked_add(1);
        }
        if let Some(next) = next.filter(|next| *next <= around.high) {
            push(&mut holes, next, around.high);
        }
        Some((around, Self::new(self.ipv6, Arc::new(holes))))
    }

    /// One of them that a packet can have. `None` if there is no such: rules may speak of addresses that
    /// are dropped whatever they say, and then any will do.
    pub fn example(&self) -> Option<IpAddr> {
        let known = if self.ipv6 {
            IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))
        } else {
            IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1))
        };
        if self.contains(known) {
            return Some(known);
        }
        let possible = self.ranges.iter().find_map(|(low, high)| {
            // The first address of a network is seldom a host's.
            [low + u128::from(high - low > 2), *low, *high]
                .into_iter()
                .map(|one| address(one, self.ipv6))
                .find(is_possible)
        });
        possible.or_else(|| Some(address(self.ranges.first()?.0, self.ipv6)))
    }
}

/// Adds addresses above all that are there.
pub(super) fn push(ranges: &mut Ranges, low: u128, high: u128) {
    match ranges.last_mut() {
        Some(last) if last.1 + 1 == low => last.1 = high,
        _ => ranges.push((low, high)),
    }
}

/// Whether packets may come from an address (`docs/semantics.md`, section 4).
fn is_possible(address: &IpAddr) -> bool {
    let mapped = match address {
        IpAddr::V4(address) => address.octets()[0] == 0 || address.is_broadcast(),
        IpAddr::V6(address) => address.to_ipv4_mapped().is_some(),
    };
    !(mapped || address.is_loopback() || address.is_multicast() || address.is_unspecified())
}

impl Span {
    /// Whether it is one prefix.
    pub fn is_prefix(&self) -> bool {
        let size = self.high - self.low;
        size & size.wrapping_add(1) == 0 && self.low & size == 0
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let low = address(self.low, self.ipv6);
        if !self.is_prefix() {
            return write!(f, "{low}-{}", address(self.high, self.ipv6));
        }
        let bits = if self.ipv6 { 128 } else { 32 };
        // Of 2^128 addresses the size does not fit, that of the last one does.
        write!(f, "{low}/{}", bits - (self.high - self.low).count_ones())
    }
}

impl Serialize for Peers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut array = serializer.serialize_seq(Some(self.ranges.len()))?;
        for span in self.spans() {
            array.serialize_element(&format_args!("{span}"))?;
        }
        array.end()
    }
}

/// An address as a number, host byte order.
pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn address(number: u128, ipv6: bool) -> IpAddr {
    if ipv6 {
        Ipv6Addr::from_bits(number).into()
    } else {
        // Numbers of IPv4 addresses have 32 bits.
        Ipv4Addr::from_bits(number as u32).into()
    }
}

/// The last address of a family.
pub(super) fn last(ipv6: bool) -> u128 {
    if ipv6 { u128::MAX } else { u32::MAX.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(spans: &[(&str, &str)]) -> Peers {
        let parse = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut ranges = Vec::new();
        for (low, high) in spans {
            push(&mut ranges, number(parse(low)), number(parse(high)));
        }
        Peers::new(parse(spans[0].0).is_ipv6(), Arc::new(ranges))
    }

    fn shown(peers: &Peers) -> Vec<String> {
        peers.spans().map(|span| span.to_string()).collect()
    }

    #[test]
    fn ranges_are_shown_as_prefixes_where_they_are() {
        let some = peers(&[
            ("0.0.0.0", "9.255.255.255"),
            ("10.0.0.0", "10.0.0.0"),
            ("11.0.0.0", "11.0.0.255"),
        ]);
        assert_eq!(shown(&some), ["0.0.0.0-10.0.0.0", "11.0.0.0/24"]);
        assert_eq!(
            shown(&peers(&[("0.0.0.0", "255.255.255.255")])),
            ["0.0.0.0/0"]
        );
        let all = peers(&[("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")]);
        assert_eq!(shown(&all), ["::/0"]);
        assert_eq!(shown(&peers(&[("::1", "::2")])), ["::1-::2"]);
        assert_eq!(shown(&peers(&[("::1", "::1")])), ["::1/128"]);
    }

    #[test]
    fn what_is_missing_of_a_prefix_is_found() {
        let some = peers(&[
            ("0.0.0.0", "9.255.255.255"),
            ("11.0.0.0", "255.255.255.255"),
        ]);
        let (around, holes) = some.within().unwrap();
        assert_eq!(
            (around.to_string().as_str(), shown(&holes)),
            ("0.0.0.0/0", vec!["10.0.0.0/8".to_owned()])
        );
        let end = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe";
        let (around, holes) = peers(&[("::1", end)]).within().unwrap();
        assert_eq!(around.to_string(), "::/0");
        assert_eq!(holes.len(), 2);
        let one = peers(&[("10.0.0.1", "10.0.0.1")]);
        assert_eq!(one.within().unwrap().0.to_string(), "10.0.0.1/32");
        assert!(one.within().unwrap().1.is_empty());
    }

    #[test]
    fn an_example_can_be_on_a_wire_if_any_can() {
        for (low, high, expected) in [
            ("0.0.0.0", "255.255.255.255", "198.51.100.1"),
            ("10.0.0.0", "10.255.255.255", "10.0.0.1"),
            ("10.0.0.4", "10.0.0.4", "10.0.0.4"),
            ("0.0.0.0", "1.0.0.0", "1.0.0.0"),
            ("127.0.0.0", "127.0.0.0", "127.0.0.0"),
            ("::", "::1:0", "::1:0"),
        ] {
            let example = peers(&[(low, high)]).example().unwrap();
            assert_eq!(example.to_string(), expected);
        }
    }
}
