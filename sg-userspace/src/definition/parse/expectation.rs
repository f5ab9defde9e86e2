//! `tests`: who is expected to reach whom.

use std::net::IpAddr;

use ipnet::IpNet;

use super::super::escape::quote;
use super::super::text;
use super::super::tree::{Endpoint, Expectation, Expected, Located};
use super::value::{Parser, Table, Value};
use crate::model::{Icmp, Ports, Traffic, protocol};

/// Keys of a test.
const KEYS: &[&str] = &[
    "name", "from", "to", "protocol", "port", "type", "code", "family", "expect",
];

const ENDPOINTS: &str = "\"group:NAME\", \"interface:NAME\", \"prefix_list:NAME\", \"internet\", an address or a prefix";

impl Parser<'_> {
    /// The tests of a file.
    pub(super) fn expectations(&mut self, value: Value<'_>) -> Vec<Expectation> {
        let mut tests = Vec::new();
        for element in self.array(value).into_iter().flatten() {
            match self.entry_table(element, "the test") {
                Some(table) => tests.extend(self.expectation(table)),
                None => {
                    self.wrong_type::<()>(element, "a table");
                }
            }
        }
        tests
    }

    fn expectation(&mut self, table: Table<'_>) -> Option<Expectation> {
        let (mut from, mut to, mut expect, mut name) = (None, None, None, None);
        let (mut kind, mut port, mut icmp_type, mut code, mut ipv6) =
            (None, None, None, None, None);
        for (key, value) in self.keys(&table, KEYS) {
            match key {
                "name" => name = self.string(value).map(|text| text.value.to_owned()),
                "from" => from = self.endpoint(value),
                "to" => to = self.endpoint(value),
                "protocol" => kind = self.protocol(value),
                "port" => {
                    port = self
                        .integer(value, 0..=65535)
                        .map(|port| (port.value as u16, value))
                }
                "type" => {
                    icmp_type = self
                        .integer(value, 0..=255)
                        .map(|number| (number.value as u8, value))
                }
                "code" => {
                    code = self
                        .integer(value, 0..=255)
                        .map(|number| (number.value as u8, value))
                }
                "family" => {
                    let words = [("ipv4", false), ("ipv6", true)];
                    ipv6 = self.choice(value, &words).map(|word| word.value);
                }
                _ => {
                    let words = [("allow", Expected::Allow), ("deny", Expected::Deny)];
                    expect = self.choice(value, &words).map(|word| word.value);
                }
            }
        }
        for key in ["from", "to", "protocol", "expect"] {
            self.require(
                &table,
                key,
                "a test says from whom to whom, what, and \"allow\" or \"deny\"",
            );
        }
        let number = kind?.number();
        let traffic = match number {
            Some(number @ (protocol::TCP | protocol::UDP)) => {
                let Some((port, _)) = port else {
                    self.require(&table, "port", "a test of tcp or udp asks for one port");
                    return None;
                };
                let ports = Ports::single(port);
                if number == protocol::TCP {
                    Traffic::Tcp(ports)
                } else {
                    Traffic::Udp(ports)
                }
            }
            Some(number @ (protocol::ICMP | protocol::ICMPV6)) => {
                let message = match (icmp_type, code) {
                    (Some((kind, _)), Some((code, _))) => Icmp::Code(kind, code),
                    (Some((kind, _)), None) => Icmp::Type(kind),
                    (None, Some(_)) => {
                        self.require(&table, "type", "a code belongs to a type");
                        return None;
                    }
                    // What is commonly meant by letting ICMP through, and by not doing so.
                    (None, None) if expect == Some(Expected::Deny) => Icmp::Any,
                    (None, None) if number == protocol::ICMP => Icmp::Code(8, 0),
                    (None, None) => Icmp::Code(128, 0),
                };
                if number == protocol::ICMP {
                    Traffic::Icmp(message)
                } else {
                    Traffic::Icmpv6(message)
                }
            }
            Some(number) => Traffic::Protocol(number),
            None => Traffic::All,
        };
        let out_of_place = match traffic {
            Traffic::Tcp(_) | Traffic::Udp(_) => icmp_type.or(code).map(|(_, value)| value),
            Traffic::Icmp(_) | Traffic::Icmpv6(_) => port.map(|(_, value)| value),
            _ => {
                let of_icmp = icmp_type.or(code).map(|(_, value)| value);
                port.map(|(_, value)| value).or(of_icmp)
            }
        };
        if let Some(value) = out_of_place {
            self.invalid(
                value.at,
                format!("{} does not belong to this protocol", quote(value.key)),
            );
        }
        Some(Expectation {
            at: table.at,
            name,
            from: from?,
            to: to?,
            traffic,
            ipv6,
            expect: expect?,
        })
    }

    fn endpoint(&mut self, value: Value<'_>) -> Option<Located<Endpoint>> {
        let text = self.string(value)?;
        let named = |name: &str| name.trim().to_owned();
        let endpoint = match text.value.split_once(':') {
            Some(("group", name)) => Endpoint::Group(named(name)),
            Some(("interface", name)) => Endpoint::Interface(named(name)),
            Some(("prefix_list", name)) => Endpoint::PrefixList(named(name)),
            _ if text.value == "internet" => Endpoint::Internet,
            _ if text.value.contains('/') => Endpoint::Net(text::cidr(self.findings, text)?.value),
            _ => {
                let Ok(address) = text.value.parse::<IpAddr>() else {
                    self.invalid(
                        text.at,
                        format!("{} is no side of a test", quote(text.value)),
                    )
                    .help(ENDPOINTS);
                    return None;
                };
                Endpoint::Net(IpNet::from(address))
            }
        };
        Some(Located {
            value: endpoint,
            at: text.at,
        })
    }
}
