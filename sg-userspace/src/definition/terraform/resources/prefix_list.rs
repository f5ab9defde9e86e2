//! Prefix lists: managed by the configuration, or looked up by it.

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;

use super::super::super::document::{Node, Value, fields};
use super::super::super::escape::quote;
use super::super::super::text;
use super::super::super::tree::{Located, PrefixList};
use super::super::Resource;
use super::Reader;

pub(super) const KINDS: [&str; 4] = [MANAGED, ENTRY, FOUND, OF_SERVICE];
const MANAGED: &str = "aws_ec2_managed_prefix_list";
const ENTRY: &str = "aws_ec2_managed_prefix_list_entry";
const FOUND: &str = "data.aws_ec2_managed_prefix_list";
const OF_SERVICE: &str = "data.aws_prefix_list";

impl Reader<'_> {
    /// All lists.
    pub(super) fn prefix_lists(&mut self, resources: &[Resource<'_>]) -> Vec<PrefixList> {
        let mut lists: Vec<(PrefixList, Option<bool>)> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for resource in resources {
            if ![MANAGED, FOUND, OF_SERVICE].contains(&resource.kind.as_str()) {
                continue;
            }
            let list = self.list(resource);
            // What is managed may be looked up as well, and lists that many need are looked up often.
            let known = list
                .0
                .ids
                .iter()
                .find_map(|id| places.get(&id.value).copied());
            let place = known.unwrap_or(lists.len());
            for id in &list.0.ids {
                places.entry(id.value.clone()).or_insert(place);
            }
            if known.is_none() {
                lists.push(list);
                continue;
            }
            let own = &mut lists[place].0;
            for id in list.0.ids {
                if !own.ids.iter().any(|known| known.value == id.value) {
                    own.ids.push(id);
                }
            }
        }
        let mut known: HashMap<usize, HashSet<IpNet>> = HashMap::new();
        for resource in resources.iter().filter(|resource| resource.kind == ENTRY) {
            let Some(word) = self.required(resource, "prefix_list_id") else {
                continue;
            };
            let cidr = self.required(resource, "cidr");
            let Some(&place) = places.get(word.value) else {
                let message = format!(
                    "is an entry of the prefix list {}, which is not here",
                    quote(word.value)
                );
                self.not_carried_over(resource, &message, "give the files that define it as well");
                continue;
            };
            let (list, ipv4) = &mut lists[place];
            let ipv4 = *ipv4;
            if let Some(net) = cidr.and_then(|cidr| self.list_entry(cidr, ipv4))
                // A state lists in a list the entries of other resources as well.
                && known
                    .entry(place)
                    .or_insert_with(|| list.entries.iter().map(|known| known.value).collect())
                    .insert(net.value)
            {
                list.entries.push(net);
            }
        }
        lists.into_iter().map(|(list, _)| list).collect()
    }

    fn list(&mut self, resource: &Resource<'_>) -> (PrefixList, Option<bool>) {
        let attributes = &resource.attributes;
        let ids = self.ids(resource, "id", "pl-");
        let label = resource.address.rsplit('.').next().unwrap_or_default();
        let label = text::name_of(&label.replace('"', ""));
        let name = match attributes.get("name").map(|node| (&node.value, node.at)) {
            Some((Value::String(name), at)) => {
                text::carried_name(self.findings, Located { value: name, at })
            }
            _ => Located {
                value: label,
                at: resource.at,
            },
        };
        let family = fields::text(attributes, "address_family", self.findings);
        let ipv4 = match family.map(|family| family.value) {
            Some("IPv4") => Some(true),
            Some("IPv6") => Some(false),
            _ => None,
        };
        let mut entries = Vec::new();
        if resource.kind == OF_SERVICE {
            for cidr in fields::texts(attributes, "cidr_blocks", self.findings) {
                entries.extend(self.list_entry(cidr, ipv4));
            }
        } else {
            let key = match resource.kind.as_str() {
                MANAGED => "entry",
                _ => "entries",
            };
            for entry in fields::list(attributes, key, self.findings) {
                entries.extend(self.block_entry(entry, ipv4));
            }
        }
        let list = PrefixList { name, ids, entries };
        (list, ipv4)
    }

    fn block_entry(&mut self, entry: &Node<'_>, ipv4: Option<bool>) -> Option<Located<IpNet>> {
        if let Value::Unknown(what) = &entry.value {
            let message = format!("an entry is not known from this file: {}", quote(what));
            self.findings.error("unknown-value", entry.at, message);
            return None;
        }
        if entry.get("cidr").is_none() {
            fields::missing(entry, "cidr", self.findings);
        }
        let cidr = fields::text(entry, "cidr", self.findings)?;
        self.list_entry(cidr, ipv4)
    }

    /// An entry, which is of the list's family (fact 1.29).
    fn list_entry(&mut self, cidr: Located<&str>, ipv4: Option<bool>) -> Option<Located<IpNet>> {
        let net = text::cidr(self.findings, cidr)?;
        if ipv4.is_some_and(|ipv4| net.value.addr().is_ipv4() != ipv4) {
            let message = format!("{} is not of the list's address family", quote(cidr.value));
            self.findings
                .error("InvalidParameterValue", cidr.at, message)
                .help("a list holds prefixes of one family");
            return None;
        }
        Some(net)
    }

    /// A text that a resource cannot do without.
    pub(super) fn required<'n>(
        &mut self,
        resource: &'n Resource<'_>,
        key: &str,
    ) -> Option<Located<&'n str>> {
        if resource.attributes.get(key).is_none() {
            let message = format!("{} has no `{key}`", quote(&resource.address));
            self.findings.error("missing-key", resource.at, message);
        }
        fields::text(&resource.attributes, key, self.findings)
    }
}
