//! Prefix lists, and interfaces with their groups.

use std::collections::HashSet;
use std::net::IpAddr;

use sg_common::layout::{TIMEOUTS, Timeout};

use super::super::document::{Node, Value, fields};
use super::super::escape::quote;
use super::super::text;
use super::super::tree::{Located, PrefixList, RemoteInterface};
use super::{Reader, Resource};
use crate::model::timeout_range;

pub(super) const KINDS: [&str; 3] = [LIST, INTERFACE, INSTANCE];
const LIST: &str = "AWS::EC2::PrefixList";
const INTERFACE: &str = "AWS::EC2::NetworkInterface";
const INSTANCE: &str = "AWS::EC2::Instance";

impl Reader<'_> {
    /// All lists.
    pub(super) fn prefix_lists(&mut self, resources: &[Resource<'_>]) -> Vec<PrefixList> {
        let of_kind = resources.iter().filter(|resource| resource.kind == LIST);
        of_kind.map(|resource| self.prefix_list(resource)).collect()
    }

    fn prefix_list(&mut self, resource: &Resource<'_>) -> PrefixList {
        let properties = &resource.properties;
        let name = match properties.get("PrefixListName").map(|node| &node.value) {
            Some(Value::Unknown(_)) => None,
            _ => fields::text(properties, "PrefixListName", self.findings),
        };
        let name = name.unwrap_or(Located {
            value: &resource.logical,
            at: resource.at,
        });
        let family = fields::text(properties, "AddressFamily", self.findings);
        let ipv4 = family.map(|family| family.value == "IPv4");
        let mut entries = Vec::new();
        for entry in fields::list(properties, "Entries", self.findings) {
            if let Value::Unknown(what) = &entry.value {
                let message = format!("an entry is not known from this file: {}", quote(what));
                self.findings
                    .error("unknown-value", entry.at, message)
                    .help(super::HELP);
                continue;
            }
            if entry.get("Cidr").is_none() {
                fields::missing(entry, "Cidr", self.findings);
            }
            let cidr = fields::text(entry, "Cidr", self.findings);
            let Some(net) = cidr.and_then(|cidr| text::cidr(self.findings, cidr)) else {
                continue;
            };
            if ipv4.is_some_and(|ipv4| net.value.addr().is_ipv4() != ipv4) {
                let message = format!("{} is not of the list's address family", net.value);
                self.findings
                    .error("InvalidParameterValue", net.at, message)
                    .help("a list holds prefixes of one family");
                continue;
            }
            entries.push(net);
        }
        PrefixList {
            name: text::carried_name(self.findings, name),
            ids: vec![Located {
                value: resource.word.clone(),
                at: resource.at,
            }],
            entries,
        }
    }

    /// All interfaces that name groups.
    pub(super) fn interfaces(&mut self, resources: &[Resource<'_>]) -> Vec<RemoteInterface> {
        let mut interfaces = Vec::new();
        for resource in resources {
            let properties = &resource.properties;
            if resource.kind == INTERFACE {
                interfaces.extend(self.interface(resource, properties, &["GroupSet"]));
            }
            if resource.kind != INSTANCE {
                continue;
            }
            let own = fields::list(properties, "NetworkInterfaces", self.findings);
            for interface in own {
                interfaces.extend(self.interface(resource, interface, &["GroupSet"]));
            }
            if own.is_empty() {
                const KEYS: [&str; 2] = ["SecurityGroupIds", "SecurityGroups"];
                interfaces.extend(self.interface(resource, properties, &KEYS));
            }
        }
        interfaces
    }

    fn interface(
        &mut self,
        resource: &Resource<'_>,
        node: &Node<'_>,
        keys: &[&str],
    ) -> Option<RemoteInterface> {
        let mut groups = Vec::new();
        for key in keys {
            // `SecurityGroups` are those of the default VPC, by name.
            let is_name = *key == "SecurityGroups";
            for group in fields::texts(node, key, self.findings) {
                let word = match is_name {
                    true => self.group_named(group),
                    false => self.group_of_id(group),
                };
                groups.extend(word.map(|value| Located {
                    value,
                    at: group.at,
                }));
            }
        }
        if groups.is_empty() {
            return None;
        }
        let check = match node.get("SourceDestCheck").map(|node| &node.value) {
            Some(Value::Bool(check)) => Some(*check),
            Some(Value::String(text)) => text.to_ascii_lowercase().parse().ok(),
            _ => None,
        };
        Some(RemoteInterface {
            id: Located {
                value: resource.shown.clone(),
                at: resource.at,
            },
            mac: None,
            addresses: self.addresses(node),
            groups: Located {
                value: groups,
                at: resource.at,
            },
            source_dest_check: check,
            timeouts: self.timeouts(node),
        })
    }

    /// Addresses that the template gives; most are given by AWS.
    fn addresses(&mut self, node: &Node<'_>) -> Vec<Located<IpAddr>> {
        let mut given = vec![node.get("PrivateIpAddress")];
        for (list, key) in [
            ("PrivateIpAddresses", "PrivateIpAddress"),
            ("Ipv6Addresses", "Ipv6Address"),
        ] {
            let nodes = node.get(list).and_then(Node::list).unwrap_or_default();
            given.extend(nodes.iter().map(|node| node.get(key)));
        }
        let mut addresses: Vec<Located<IpAddr>> = Vec::new();
        let mut seen = HashSet::new();
        for node in given.into_iter().flatten() {
            let Value::String(value) = &node.value else {
                continue;
            };
            let text = Located {
                value: &**value,
                at: node.at,
            };
            let address = text::unicast_address(self.findings, text);
            addresses.extend(address.filter(|address| seen.insert(address.value)));
        }
        addresses
    }

    fn timeouts(&mut self, node: &Node<'_>) -> [Option<u32>; TIMEOUTS] {
        const KEYS: [(&str, Timeout); 3] = [
            ("TcpEstablishedTimeout", Timeout::TcpEstablished),
            ("UdpStreamTimeout", Timeout::UdpStream),
            ("UdpTimeout", Timeout::Udp),
        ];
        let mut timeouts = [None; TIMEOUTS];
        let Some(tracking) = node.get("ConnectionTrackingSpecification") else {
            return timeouts;
        };
        for (key, timeout) in KEYS {
            let Some(seconds) = fields::integer(tracking, key, self.findings) else {
                continue;
            };
            let range = timeout_range(timeout as usize);
            match u32::try_from(seconds.value) {
                Ok(value) if range.contains(&value) => timeouts[timeout as usize] = Some(value),
                _ => {
                    let message = format!("{} is no value of `{key}`", seconds.value);
                    self.findings
                        .error("InvalidParameterValue", seconds.at, message)
                        .help(format!("{} to {} seconds", range.start(), range.end()));
                }
            }
        }
        timeouts
    }
}
