//! Addresses and prefixes.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::super::escape::quote;
use super::super::tree::{At, Located};
use super::value::{Parser, Value};

/// Where link-local services live (fact 5.2).
const SERVICE_NETS: [IpNet; 3] = [
    IpNet::V4(Ipv4Net::new_assert(
        std::net::Ipv4Addr::new(169, 254, 0, 0),
        16,
    )),
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0),
        10,
    )),
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0),
        32,
    )),
];

impl Parser<'_> {
    /// A prefix; host bits are cut with a warning (fact 1.20).
    pub(super) fn cidr(&mut self, value: Value<'_>) -> Option<Located<IpNet>> {
        let Located { value: text, at } = self.string(value)?;
        let Some((address, len)) = text.split_once('/') else {
            self.not_a_prefix(text, at);
            return None;
        };
        let Ok(address) = address.parse::<IpAddr>() else {
            return self.malformed(at, format!("{} is not an address", quote(address)));
        };
        self.refuse_mapped(address, at)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let digits = !len.is_empty() && len.bytes().all(|byte| byte.is_ascii_digit());
        // What has too many digits for 16 bits is too long as well.
        let net = match len.parse::<u16>() {
            _ if !digits => {
                let message = format!("{} is not a prefix length", quote(len));
                return self.malformed(at, message);
            }
            Ok(len) if len <= longest => IpNet::new(address, len as u8).ok()?,
            _ => {
                let message = format!("prefix length {} is too long", quote(len));
                self.invalid(at, message)
                    .help(format!("at most {longest} for this family"));
                return None;
            }
        };
        let value = net.trunc();
        if value != net {
            self.findings
                .warning(
                    "host-bits",
                    at,
                    format!("{} has bits beyond its prefix", quote(text)),
                )
                .help(format!("it is taken as {value}; write that"));
        }
        Some(Located { value, at })
    }

    /// The address of an interface or member.
    pub(super) fn unicast_address(&mut self, value: Value<'_>) -> Option<Located<IpAddr>> {
        let address = self.address(value)?;
        let kind = match address.value {
            ip if ip.is_unspecified() => "the unspecified address",
            ip if ip.is_loopback() => "a loopback address",
            ip if ip.is_multicast() => "a multicast address",
            IpAddr::V4(ip) if ip.is_broadcast() => "the broadcast address",
            _ => return Some(address),
        };
        self.invalid(address.at, format!("{} is {kind}", address.value))
            .help("give the address that the interface sends from");
        None
    }

    /// `services`.
    pub(super) fn services(&mut self, value: Value<'_>) -> Vec<Located<IpAddr>> {
        let mut services = Vec::new();
        for element in self.array(value).into_iter().flatten() {
            let Some(address) = self.address(element) else {
                continue;
            };
            if SERVICE_NETS.iter().any(|net| net.contains(&address.value)) {
                services.push(address);
                continue;
            }
            let message = format!("{} is not a link-local service", address.value);
            self.invalid(address.at, message).help(
                "services pass without a rule and must lie in 169.254.0.0/16, fe80::/10 or fd00:ec2::/32; allow others by a rule",
            );
        }
        services
    }

    fn address(&mut self, value: Value<'_>) -> Option<Located<IpAddr>> {
        let Located { value: text, at } = self.string(value)?;
        let Ok(address) = text.parse::<IpAddr>() else {
            let message = format!("{} is not an address", quote(text));
            let finding = self.invalid(at, message);
            if text.contains('/') {
                finding.help("addresses stand here without a prefix length");
            }
            return None;
        };
        self.refuse_mapped(address, at)?;
        Some(Located { value: address, at })
    }

    /// `::ffff:a.b.c.d` never stands in a packet of either family.
    fn refuse_mapped(&mut self, address: IpAddr, at: At) -> Option<()> {
        if let IpAddr::V6(mapped) = address
            && let Some(plain) = mapped.to_ipv4_mapped()
        {
            self.invalid(at, format!("{address} is an IPv4 address in IPv6 form"))
                .help(format!("write the IPv4 form: {plain}"));
            return None;
        }
        Some(())
    }

    fn not_a_prefix(&mut self, text: &str, at: At) {
        let message = format!("{} is not in CIDR form", quote(text));
        let finding = self
            .findings
            .error("InvalidPermission.Malformed", at, message);
        finding.help(match text.parse::<IpAddr>() {
            Ok(address) => format!("a single address is written {}", IpNet::from(address)),
            Err(_) => "write an address, `/` and a prefix length: 10.0.0.0/8".into(),
        });
    }

    fn malformed<T>(&mut self, at: At, message: String) -> Option<T> {
        self.findings
            .error("InvalidPermission.Malformed", at, message)
            .help("write an address, `/` and a prefix length: 10.0.0.0/8, 2001:db8::/32");
        None
    }
}
