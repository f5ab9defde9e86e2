//! Interfaces: on their own, and those of instances.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::super::super::document::{Value, fields};
use super::super::super::escape::quote;
use super::super::super::findings::Findings;
use super::super::super::text;
use super::super::super::tree::{Located, RemoteInterface};
use super::super::{Meaning, Resource};
use super::rule::without_account;
use super::{Reader, group};
use crate::model::MAX_GROUPS_PER_INTERFACE;

pub(super) const KINDS: [&str; 5] = [
    INTERFACE,
    INSTANCE,
    ATTACHMENT,
    "data.aws_network_interface",
    "data.aws_instance",
];
const INTERFACE: &str = "aws_network_interface";
const INSTANCE: &str = "aws_instance";
const ATTACHMENT: &str = "aws_network_interface_sg_attachment";

impl Reader<'_> {
    /// All interfaces that have groups.
    pub(super) fn interfaces(&mut self, resources: &[Resource<'_>]) -> Vec<RemoteInterface> {
        let of = |kind: &'static str| {
            resources
                .iter()
                .filter(move |resource| resource.kind.trim_start_matches("data.") == kind)
        };
        let mut interfaces: Vec<(&Resource<'_>, RemoteInterface)> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for resource in of(INTERFACE).chain(of(INSTANCE)) {
            let ids = match resource.kind.ends_with(INSTANCE) {
                true => self.ids(resource, "primary_network_interface_id", "eni-"),
                false => self.ids(resource, "id", "eni-"),
            };
            // An instance whose interface is a resource of its own has that one's groups.
            if resource.kind.ends_with(INSTANCE)
                && ["network_interface", "primary_network_interface"]
                    .iter()
                    .filter_map(|key| resource.attributes.get(key)?.list())
                    .any(|blocks| !blocks.is_empty())
                && self.meaning != Meaning::State
            {
                continue;
            }
            let known = ids.iter().find_map(|id| places.get(&id.value).copied());
            let place = known.unwrap_or(interfaces.len());
            for id in &ids {
                places.entry(id.value.clone()).or_insert(place);
            }
            if known.is_none() {
                let interface = self.interface(resource, ids);
                interfaces.push((resource, interface));
            }
        }
        for resource in of(ATTACHMENT) {
            let group = self.required(resource, "security_group_id");
            let interface = self.required(resource, "network_interface_id");
            let (Some(group), Some(interface)) = (group, interface) else {
                continue;
            };
            let Some(&place) = places.get(interface.value) else {
                let message = format!(
                    "attaches a group to {}, which is not here",
                    quote(interface.value)
                );
                self.not_carried_over(
                    resource,
                    &message,
                    "give the files that describe the interface as well",
                );
                continue;
            };
            self.add_group(&mut interfaces[place].1, group);
        }
        let defaults: Vec<&Resource<'_>> = resources
            .iter()
            .filter(|resource| resource.kind == group::DEFAULT)
            .collect();
        let vpcs = vpcs(resources);
        let mut carried = Vec::with_capacity(interfaces.len());
        for (resource, mut interface) in interfaces {
            if interface.groups.value.is_empty()
                && !self.default_group(resource, &defaults, &vpcs, &mut interface)
            {
                continue;
            }
            if interface.addresses.is_empty() && interface.mac.is_none() {
                self.not_carried_over(
                    resource,
                    "has no address that is known: it is no member of its groups",
                    "`terraform show -json` tells addresses once they are given; an interface of this host is bound to it by `id` in [interfaces.NAME]",
                );
            }
            carried.push(interface);
        }
        carried
    }

    fn interface(&mut self, resource: &Resource<'_>, ids: Vec<Located<String>>) -> RemoteInterface {
        let attributes = &resource.attributes;
        let id = ids.into_iter().next().unwrap_or(Located {
            value: String::new(),
            at: resource.at,
        });
        let key = match resource.kind.ends_with(INSTANCE) {
            true if Self::is_given(resource, "vpc_security_group_ids") => "vpc_security_group_ids",
            _ => "security_groups",
        };
        let mut interface = RemoteInterface {
            id,
            mac: None,
            addresses: self.addresses(resource),
            groups: Located {
                value: Vec::new(),
                at: attributes.get(key).map_or(resource.at, |node| node.at),
            },
            source_dest_check: None,
            timeouts: Default::default(),
        };
        for group in fields::texts(attributes, key, self.findings) {
            self.add_group(&mut interface, group);
        }
        if let Some(Value::String(_)) = attributes.get("mac_address").map(|node| &node.value) {
            let mac = fields::text(attributes, "mac_address", self.findings);
            interface.mac = mac
                .filter(|mac| !mac.value.is_empty())
                .and_then(|mac| text::mac(self.findings, mac));
        }
        if let Some(Value::Bool(check)) =
            attributes.get("source_dest_check").map(|node| &node.value)
        {
            interface.source_dest_check = Some(*check);
        }
        for key in ["ipv4_prefixes", "ipv6_prefixes"] {
            if matches!(attributes.get(key).map(|node| &node.value), Some(Value::List(nodes)) if !nodes.is_empty())
            {
                let message = format!("has delegated prefixes in `{key}`, which are no members");
                self.not_carried_over(resource, &message, "name them by CIDR in rules");
            }
        }
        interface
    }

    /// Its private addresses as far as they are known: what AWS chooses no configuration tells.
    fn addresses(&mut self, resource: &Resource<'_>) -> Vec<Located<IpAddr>> {
        const KEYS: [&str; 7] = [
            "private_ip",
            "private_ips",
            "private_ip_list",
            "secondary_private_ips",
            "ipv6_address",
            "ipv6_addresses",
            "ipv6_address_list",
        ];
        let mut addresses: Vec<Located<IpAddr>> = Vec::new();
        let mut seen = HashSet::new();
        let mut add = |at, text: &str, findings: &mut Findings| {
            if text.is_empty() {
                return;
            }
            let address = text::unicast_address(findings, Located { value: text, at });
            addresses.extend(address.filter(|address| seen.insert(address.value)));
        };
        for key in KEYS {
            let Some(node) = resource.attributes.get(key) else {
                continue;
            };
            match &node.value {
                Value::String(text) => add(node.at, text, self.findings),
                Value::List(nodes) => {
                    for node in nodes {
                        if let Value::String(text) = &node.value {
                            add(node.at, text, self.findings);
                        }
                    }
                }
                _ => {}
            }
        }
        addresses
    }

    fn add_group(&self, interface: &mut RemoteInterface, group: Located<&str>) {
        let word = without_account(group.value);
        let canonical = |word: &str| {
            self.groups
                .get(word)
                .map_or(word, String::as_str)
                .to_owned()
        };
        let groups = &mut interface.groups.value;
        // More than an interface may have are refused later, whichever they are.
        if groups
            .iter()
            .take(2 * MAX_GROUPS_PER_INTERFACE)
            .any(|known| canonical(&known.value) == canonical(word))
        {
            return;
        }
        groups.push(Located {
            value: word.to_owned(),
            at: group.at,
        });
    }

    /// What names no group has the default group of its VPC (fact 1.34).
    fn default_group(
        &mut self,
        resource: &Resource<'_>,
        defaults: &[&Resource<'_>],
        vpcs: &HashMap<&str, &str>,
        interface: &mut RemoteInterface,
    ) -> bool {
        let unknown = ["vpc_security_group_ids", "security_groups"]
            .iter()
            .any(|key| Self::is_given(resource, key));
        if unknown {
            // It has been said that they are not known.
            return false;
        }
        if let [only] = defaults
            && Self::is_of_vpc(resource, only, vpcs)
            && let Some(word) = self.groups.get(&only.address)
        {
            interface.groups.value.push(Located {
                value: word.clone(),
                at: resource.at,
            });
            return true;
        }
        self.not_carried_over(
            resource,
            "names no group: it has the default group of its VPC, which is not known to be here",
            "name its groups, or define the default group as `aws_default_security_group`",
        );
        false
    }

    /// Whether the default group is that of the interface's VPC: they say the same one, or neither says any.
    fn is_of_vpc(
        resource: &Resource<'_>,
        default: &Resource<'_>,
        vpcs: &HashMap<&str, &str>,
    ) -> bool {
        let of_default = word(default, "vpc_id");
        let of_subnet = word(resource, "subnet_id").and_then(|subnet| vpcs.get(subnet).copied());
        let said = Self::is_given(default, "vpc_id")
            || Self::is_given(resource, "vpc_id")
            || Self::is_given(resource, "subnet_id");
        !said || (of_default.is_some() && of_default == word(resource, "vpc_id").or(of_subnet))
    }
}

/// The VPCs of subnets, by their ids and addresses.
fn vpcs<'r>(resources: &'r [Resource<'_>]) -> HashMap<&'r str, &'r str> {
    let subnets = resources
        .iter()
        .filter(|resource| resource.kind.trim_start_matches("data.") == "aws_subnet");
    let mut vpcs = HashMap::new();
    for subnet in subnets {
        let Some(vpc) = word(subnet, "vpc_id") else {
            continue;
        };
        vpcs.insert(subnet.address.as_str(), vpc);
        vpcs.extend(word(subnet, "id").map(|id| (id, vpc)));
    }
    vpcs
}

/// An attribute that is text and known.
fn word<'r>(resource: &'r Resource<'_>, key: &str) -> Option<&'r str> {
    match &resource.attributes.get(key)?.value {
        Value::String(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}
