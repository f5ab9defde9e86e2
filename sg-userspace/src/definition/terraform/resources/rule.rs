//! Rules, in blocks of a group and as resources of their own (facts 7.10–7.17).

use sg_common::verdict::Direction;

use super::super::super::document::{Node, Value, fields};
use super::super::super::escape::quote;
use super::super::super::findings::Findings;
use super::super::super::permission::Permission;
use super::super::super::text;
use super::super::super::tree::{At, Entry, Located};
use super::super::{Meaning, Resource};
use super::Reader;
use crate::model::{Peer, RuleId, Traffic};

pub(super) const KINDS: [&str; 3] = [
    CLASSIC,
    "aws_vpc_security_group_ingress_rule",
    "aws_vpc_security_group_egress_rule",
];
const CLASSIC: &str = "aws_security_group_rule";

impl Reader<'_> {
    /// A rule in a block of the group that has the word `own`.
    pub(super) fn block(&mut self, block: &Node<'_>, own: &str) -> Option<Entry> {
        if block.map().is_none() {
            let message = match &block.value {
                Value::Unknown(what) => {
                    format!("a rule is not known from this file: {}", quote(what))
                }
                _ => format!("a rule must be an object, not {}", block.kind()),
            };
            let code = match &block.value {
                Value::Unknown(_) => "unknown-value",
                _ => "wrong-type",
            };
            self.findings.error(code, block.at, message);
            return None;
        }
        let traffic = self.traffic(block, "protocol", block.at);
        if self.meaning != Meaning::State
            && let Some(Traffic::All) = traffic.map(|traffic| traffic.value)
        {
            self.demand_zero(block);
        }
        let mut peers = self.many_peers(block, own);
        for group in fields::texts(block, "security_groups", self.findings) {
            peers.push(self.group_peer(group));
        }
        self.entry(block, block.at, traffic, peers)
    }

    /// A rule as a resource of its own: the word for its group, and what it allows if that is clear.
    pub(super) fn separate_rule(
        &mut self,
        resource: &Resource<'_>,
    ) -> Option<(Located<String>, Direction, Option<Entry>)> {
        let attributes = &resource.attributes;
        let direction = match resource.kind.as_str() {
            CLASSIC => {
                let Some(direction) = fields::text(attributes, "type", self.findings) else {
                    self.need(resource, "type");
                    return None;
                };
                match direction.value {
                    "ingress" => Direction::Ingress,
                    "egress" => Direction::Egress,
                    other => {
                        let message = format!("{} is no direction", quote(other));
                        self.findings
                            .error("InvalidParameterValue", direction.at, message)
                            .help("`ingress` or `egress`");
                        return None;
                    }
                }
            }
            "aws_vpc_security_group_ingress_rule" => Direction::Ingress,
            "aws_vpc_security_group_egress_rule" => Direction::Egress,
            _ => return None,
        };
        let Some(group) = fields::text(attributes, "security_group_id", self.findings) else {
            self.need(resource, "security_group_id");
            return None;
        };
        let word = Located {
            value: without_account(group.value).to_owned(),
            at: group.at,
        };
        let own = self.groups.get(&word.value).unwrap_or(&word.value).clone();
        let entry = match resource.kind.as_str() {
            CLASSIC => self.classic_rule(resource, &own),
            _ => self.single_rule(resource),
        };
        Some((word, direction, entry))
    }

    fn classic_rule(&mut self, resource: &Resource<'_>, own: &str) -> Option<Entry> {
        let attributes = &resource.attributes;
        let traffic = self.traffic(attributes, "protocol", resource.at);
        let mut peers = self.many_peers(attributes, own);
        let source = fields::text(attributes, "source_security_group_id", self.findings);
        // Of `self` a state has the group's id here as well.
        if let Some(source) = source.filter(|source| !source.value.is_empty()) {
            let peer = self.group_peer(source);
            let canonical = |word: &Peer| match word {
                Peer::Group(word) => self.groups.get(word).unwrap_or(word).clone(),
                _ => String::new(),
            };
            let same = canonical(&peer.value);
            if !peers.iter().any(|known| canonical(&known.value) == same) {
                peers.push(peer);
            }
        }
        self.entry(attributes, resource.at, traffic, peers)
    }

    fn single_rule(&mut self, resource: &Resource<'_>) -> Option<Entry> {
        let attributes = &resource.attributes;
        let traffic = self.traffic(attributes, "ip_protocol", resource.at);
        let mut peers = Vec::new();
        for (key, of_family) in [("cidr_ipv4", Family::V4), ("cidr_ipv6", Family::V6)] {
            let cidr = fields::text(attributes, key, self.findings);
            peers.extend(cidr.and_then(|cidr| peer_of_cidr(self.findings, cidr, of_family)));
        }
        let list = fields::text(attributes, "prefix_list_id", self.findings);
        peers.extend(list.map(list_peer));
        let group = fields::text(attributes, "referenced_security_group_id", self.findings);
        if let Some(group) = group {
            let peer = self.group_peer(group);
            peers.push(peer);
        }
        let unknown = [
            "cidr_ipv4",
            "cidr_ipv6",
            "prefix_list_id",
            "referenced_security_group_id",
        ]
        .iter()
        .any(|key| is_unknown(attributes, key));
        if peers.len() > 1 || (peers.is_empty() && !unknown && !self.has_cidr(attributes)) {
            let message = format!(
                "{} must have one source or destination, not {}",
                quote(&resource.address),
                peers.len()
            );
            self.findings
                .error("InvalidParameterValue", resource.at, message)
                .help(
                    "one of cidr_ipv4, cidr_ipv6, prefix_list_id and referenced_security_group_id",
                );
            return None;
        }
        self.entry(attributes, resource.at, traffic, peers)
    }

    /// Whether there is a prefix, good or bad.
    fn has_cidr(&self, attributes: &Node<'_>) -> bool {
        attributes.get("cidr_ipv4").is_some() || attributes.get("cidr_ipv6").is_some()
    }

    /// Prefixes, lists and `self`, which blocks and classic rules write in the same way.
    fn many_peers(&mut self, node: &Node<'_>, own: &str) -> Vec<Located<Peer>> {
        let mut peers = Vec::new();
        for (key, family) in [
            ("cidr_blocks", Family::V4),
            ("ipv6_cidr_blocks", Family::V6),
        ] {
            for cidr in fields::texts(node, key, self.findings) {
                peers.extend(peer_of_cidr(self.findings, cidr, family));
            }
        }
        let lists = fields::texts(node, "prefix_list_ids", self.findings);
        peers.extend(lists.into_iter().map(list_peer));
        let own_too = fields::boolean(node, "self", self.findings);
        if let Some(own_too) = own_too.filter(|own_too| own_too.value) {
            peers.push(Located {
                value: Peer::Group(own.to_owned()),
                at: own_too.at,
            });
        }
        peers
    }

    fn group_peer(&mut self, group: Located<&str>) -> Located<Peer> {
        Located {
            value: Peer::Group(without_account(group.value).to_owned()),
            at: group.at,
        }
    }

    fn traffic(&mut self, node: &Node<'_>, key: &str, at: At) -> Option<Located<Traffic>> {
        let protocol = fields::text(node, key, self.findings);
        let from = fields::integer(node, "from_port", self.findings);
        let to = fields::integer(node, "to_port", self.findings);
        let Some(protocol) = protocol else {
            if !is_unknown(node, key) {
                let message = format!("{} is missing", quote(key));
                self.findings.error("missing-key", at, message);
            }
            return None;
        };
        let is_wrong =
            |key, value: Option<Located<i64>>| node.get(key).is_some() && value.is_none();
        if is_wrong("from_port", from) || is_wrong("to_port", to) {
            return None;
        }
        let permission = Permission {
            protocol,
            from,
            to,
            at,
        };
        let value = permission.traffic(self.findings)?;
        Some(Located {
            value,
            at: protocol.at,
        })
    }

    /// Fact 7.11.
    fn demand_zero(&mut self, block: &Node<'_>) {
        for key in ["from_port", "to_port"] {
            let Some(node) = block.get(key) else { continue };
            let mut quiet = Findings::default();
            let port = fields::integer(block, key, &mut quiet);
            if let Some(port) = port.filter(|port| port.value != 0) {
                let message = format!("with protocol \"-1\" `{key}` must be 0, not {}", port.value);
                self.findings
                    .error("InvalidParameterValue", node.at, message)
                    .help("\"-1\" is every protocol and port; for some ports name the protocol");
            }
        }
    }

    fn entry(
        &mut self,
        node: &Node<'_>,
        at: At,
        traffic: Option<Located<Traffic>>,
        peers: Vec<Located<Peer>>,
    ) -> Option<Entry> {
        let description = fields::text(node, "description", self.findings)
            .filter(|text| !text.value.is_empty())
            .map(|text| text::carried_rule_description(self.findings, text));
        let traffic = traffic?;
        if peers.is_empty() {
            if !SOURCES.iter().any(|key| is_in_doubt(node, key)) {
                self.findings
                    .warning(
                        "no-effect",
                        at,
                        "this names no source or destination: it is no rule",
                    )
                    .help(
                        "everywhere is `cidr_blocks = [\"0.0.0.0/0\"]` and `ipv6_cidr_blocks = [\"::/0\"]`",
                    );
            }
            return None;
        }
        let id = (peers.len() == 1).then(|| rule_id(node)).flatten();
        Some(Entry {
            at,
            id,
            traffic: vec![traffic],
            peers,
            description,
        })
    }

    /// Says that an attribute is missing, unless it is not known, which has been said.
    fn need(&mut self, resource: &Resource<'_>, key: &str) {
        if resource.attributes.get(key).is_none() {
            let message = format!("{} has no `{key}`", quote(&resource.address));
            self.findings.error("missing-key", resource.at, message);
        }
    }
}

/// Attributes that name sources.
const SOURCES: [&str; 9] = [
    "cidr_blocks",
    "ipv6_cidr_blocks",
    "prefix_list_ids",
    "security_groups",
    "source_security_group_id",
    "cidr_ipv4",
    "cidr_ipv6",
    "prefix_list_id",
    "referenced_security_group_id",
];

fn is_unknown(node: &Node<'_>, key: &str) -> bool {
    let value = node.get(key).map(|node| &node.value);
    matches!(value, Some(Value::Unknown(_)))
}

/// Whether an attribute holds something that has not become a source, for a reason that has been said.
fn is_in_doubt(node: &Node<'_>, key: &str) -> bool {
    match node.get(key).map(|node| &node.value) {
        None => false,
        Some(Value::List(nodes)) => !nodes.is_empty(),
        Some(Value::String(text)) => !text.is_empty(),
        Some(_) => true,
    }
}

fn rule_id(node: &Node<'_>) -> Option<Located<RuleId>> {
    ["security_group_rule_id", "id"].iter().find_map(|key| {
        let id = node.get(key)?;
        match &id.value {
            Value::String(text) => text.parse().ok().map(|value| Located { value, at: id.at }),
            _ => None,
        }
    })
}

/// The id in `123456789012/sg-…` (fact 7.15). Behind an account, a name is one of that account's, and none here.
pub(super) fn without_account(word: &str) -> &str {
    match word.split_once('/') {
        Some((account, id))
            if account.bytes().all(|byte| byte.is_ascii_digit()) && id.starts_with("sg-") =>
        {
            id
        }
        _ => word,
    }
}

fn list_peer(list: Located<&str>) -> Located<Peer> {
    Located {
        value: Peer::PrefixList(list.value.to_owned()),
        at: list.at,
    }
}

/// Which family an attribute is for.
#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

fn peer_of_cidr(
    findings: &mut Findings,
    cidr: Located<&str>,
    family: Family,
) -> Option<Located<Peer>> {
    let net = text::cidr(findings, cidr)?;
    let (fits, own, other) = match family {
        Family::V4 => (net.value.addr().is_ipv4(), "IPv4", "IPv6"),
        Family::V6 => (net.value.addr().is_ipv6(), "IPv6", "IPv4"),
    };
    if !fits {
        let message = format!("{} is not a prefix of {own}", quote(cidr.value));
        findings
            .error("InvalidParameterValue", cidr.at, message)
            .help(format!(
                "prefixes of {other} have an attribute of their own"
            ));
        return None;
    }
    Some(Located {
        value: Peer::Cidr(net.value),
        at: net.at,
    })
}
