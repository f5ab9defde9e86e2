//! Functions of addresses and prefixes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::super::value::Val;
use super::{Answer, Arguments};

pub(super) fn call(arguments: &Arguments<'_>) -> Option<Answer> {
    Some(match arguments.name {
        "cidrsubnet" => subnet(arguments),
        "cidrsubnets" => subnets(arguments),
        "cidrhost" => host(arguments),
        "cidrnetmask" => netmask(arguments),
        _ => return None,
    })
}

/// The bits of a prefix, shifted so that both families begin at the top, its length and that of its addresses.
struct Prefix {
    bits: u128,
    len: u32,
    longest: u32,
}

impl Prefix {
    fn read(arguments: &Arguments<'_>, value: &Val) -> Answer<Self> {
        let text = arguments.text(value)?;
        let net: IpNet = text
            .parse()
            .map_err(|_| arguments.fault(format!("{text:?} is not a prefix such as 10.0.0.0/8")))?;
        let (bits, longest) = match net.trunc().addr() {
            IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
            IpAddr::V6(address) => (address.to_bits(), 128),
        };
        Ok(Self {
            bits,
            len: net.prefix_len().into(),
            longest,
        })
    }

    fn address(&self, bits: u128) -> IpAddr {
        match self.longest {
            32 => Ipv4Addr::from_bits((bits >> 96) as u32).into(),
            _ => Ipv6Addr::from_bits(bits).into(),
        }
    }

    /// The subnet with a number among those that are so many bits longer.
    fn subnet(&self, arguments: &Arguments<'_>, more: i64, number: u128) -> Answer<Self> {
        let len = i64::from(self.len).saturating_add(more);
        let len = u32::try_from(len)
            .ok()
            .filter(|len| *len <= self.longest && more >= 0);
        let Some(len) = len else {
            return Err(arguments.fault(format!(
                "a /{} has no subnets of {more} bits more",
                self.len
            )));
        };
        if more < 128 && number >> more != 0 {
            return Err(arguments.fault(format!("{more} bits do not hold the number {number}")));
        }
        let shifted = if len == 0 { 0 } else { number << (128 - len) };
        Ok(Self {
            bits: self.bits | shifted,
            len,
            longest: self.longest,
        })
    }

    fn text(&self) -> String {
        format!("{}/{}", self.address(self.bits), self.len)
    }
}

fn subnet(arguments: &Arguments<'_>) -> Answer {
    let [prefix, more, number] = arguments.exactly()?;
    let prefix = Prefix::read(arguments, prefix)?;
    let (more, number) = (arguments.whole(more)?, arguments.whole(number)?);
    let number = u128::try_from(number)
        .map_err(|_| arguments.fault("the number of a subnet must not be negative"))?;
    arguments.string(prefix.subnet(arguments, more, number)?.text())
}

/// Subnets one behind the other, each where it fits next.
fn subnets(arguments: &Arguments<'_>) -> Answer {
    let prefix = Prefix::read(arguments, arguments.get(0)?)?;
    // The top bit of a whole family does not fit beside the others: count from the prefix's start.
    let mut next: u128 = 0;
    let mut full = false;
    let mut found = Vec::new();
    for more in &arguments.values[1..] {
        let more = arguments.whole(more)?;
        let own = prefix.subnet(arguments, more, 0)?;
        let size = 1_u128.checked_shl(128 - own.len).unwrap_or(0);
        if size == 0 {
            if next != 0 || full {
                return Err(arguments.fault("there is not enough room for all subnets"));
            }
            full = true;
        } else {
            let start = next.checked_next_multiple_of(size);
            let room = 1_u128.checked_shl(128 - prefix.len);
            let start = start.filter(|start| !full && room.is_none_or(|room| *start < room));
            let Some(start) = start else {
                return Err(arguments.fault("there is not enough room for all subnets"));
            };
            let text = Prefix {
                bits: prefix.bits | start,
                ..own
            };
            found.push(arguments.string(text.text())?);
            match start.checked_add(size) {
                Some(end) => next = end,
                None => full = true,
            }
            continue;
        }
        found.push(arguments.string(own.text())?);
    }
    arguments.list(found)
}

fn host(arguments: &Arguments<'_>) -> Answer {
    let [prefix, number] = arguments.exactly()?;
    let prefix = Prefix::read(arguments, prefix)?;
    let number = arguments.whole(number)?;
    let free = prefix.longest - prefix.len;
    let hosts = 1_u128.checked_shl(free);
    let offset = u128::from(number.unsigned_abs());
    let fits = match hosts {
        Some(hosts) if number < 0 => offset <= hosts,
        Some(hosts) => offset < hosts,
        None => true,
    };
    if !fits {
        return Err(arguments.fault(format!("a /{} has no host {number}", prefix.len)));
    }
    let unit = 128 - prefix.longest;
    let bits = if number < 0 {
        // From the end; that of all addresses is 0 once round.
        let end = hosts.unwrap_or(0);
        end.wrapping_sub(offset) << unit
    } else {
        offset << unit
    };
    arguments.string(prefix.address(prefix.bits | bits).to_string())
}

fn netmask(arguments: &Arguments<'_>) -> Answer {
    let [prefix] = arguments.exactly()?;
    let prefix = Prefix::read(arguments, prefix)?;
    if prefix.longest != 32 {
        return Err(arguments.fault("only prefixes of IPv4 have a mask"));
    }
    let mask = u32::MAX.checked_shl(32 - prefix.len).unwrap_or(0);
    arguments.string(Ipv4Addr::from_bits(mask).to_string())
}
