//! Addresses and prefixes.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::super::text;
use super::super::tree::Located;
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
        let text = self.string(value)?;
        text::cidr(self.findings, text)
    }

    /// The address of an interface or member.
    pub(super) fn unicast_address(&mut self, value: Value<'_>) -> Option<Located<IpAddr>> {
        let text = self.string(value)?;
        text::unicast_address(self.findings, text)
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
        let text = self.string(value)?;
        text::address(self.findings, text)
    }
}
