//! Resources to a tree.

use std::collections::{HashMap, HashSet};

use super::super::document::{Node, Value};
use super::super::escape::quote;
use super::super::findings::Findings;
use super::super::text;
use super::super::tree::{File, Located};
use super::{Meaning, Resource};

mod group;
mod interface;
mod prefix_list;
mod rule;

/// What settles what may leave, in the help of the error that a group does not say it (facts 7.13, 7.14).
const UNSETTLED_EGRESS: &str = "Terraform leaves alone what it does not name: write `egress = []` (nothing but replies) or an egress block with protocol \"-1\", ports 0 and `cidr_blocks = [\"0.0.0.0/0\"]`; or take `terraform show -json` of the state; or settle it for all in a TOML file beside: `[defaults]` with `egress = \"deny\"` or \"allow\"";

/// The groups, rules, lists and interfaces among the resources.
pub(super) fn tree(
    resources: Vec<Resource<'_>>,
    meaning: Meaning,
    findings: &mut Findings,
) -> File {
    let mut reader = Reader {
        meaning,
        shared: shared_addresses(&resources),
        groups: HashMap::new(),
        findings,
    };
    let groups = reader.groups(&resources);
    let prefix_lists = reader.prefix_lists(&resources);
    let remote_interfaces = reader.interfaces(&resources);
    for resource in &resources {
        reader.report(resource);
    }
    File {
        groups,
        prefix_lists,
        remote_interfaces,
        unsettled_egress: Some(UNSETTLED_EGRESS),
        ..File::default()
    }
}

struct Reader<'f> {
    meaning: Meaning,
    /// Addresses that several resources have, each in a state of its own: they tell none of them.
    shared: HashSet<String>,
    /// The first word of each group by all words for it.
    groups: HashMap<String, String>,
    findings: &'f mut Findings,
}

impl Reader<'_> {
    /// The words by which others refer to a resource: its id if it is known, and its address. `prefix` is that of
    /// such ids.
    fn ids(&mut self, resource: &Resource<'_>, id: &str, prefix: &str) -> Vec<Located<String>> {
        let mut ids = Vec::new();
        if let Some(node) = resource.attributes.get(id)
            && let Value::String(text) = &node.value
            && !text.is_empty()
            && **text != *resource.address
        {
            let id = Located {
                value: &**text,
                at: node.at,
            };
            ids.extend(text::id(self.findings, id, prefix));
        }
        if !self.shared.contains(&resource.address) {
            ids.push(Located {
                value: resource.address.clone(),
                at: resource.at,
            });
        }
        ids
    }

    /// Whether an attribute holds something, known or not.
    fn is_given(resource: &Resource<'_>, key: &str) -> bool {
        match resource.attributes.get(key).map(|node| &node.value) {
            None => false,
            Some(Value::List(nodes)) => !nodes.is_empty(),
            Some(Value::String(text)) => !text.is_empty(),
            Some(_) => true,
        }
    }

    fn not_carried_over(&mut self, resource: &Resource<'_>, message: &str, help: &str) {
        let message = format!("{} {message}", quote(&resource.address));
        self.findings
            .warning("not-carried-over", resource.at, message)
            .help(help);
    }

    /// Says of a resource that has to do with groups and is of no kind that is read. All others play no part.
    fn report(&mut self, resource: &Resource<'_>) {
        let kind = resource.kind.as_str();
        if group::KINDS.contains(&kind)
            || rule::KINDS.contains(&kind)
            || prefix_list::KINDS.contains(&kind)
            || interface::KINDS.contains(&kind)
        {
            return;
        }
        if kind.starts_with("data.aws_security_group") {
            self.not_carried_over(
                resource,
                "tells of a group without its rules",
                "take the group's rules from where it is defined, or from `aws ec2 describe-security-group-rules`",
            );
            return;
        }
        if SILENT.contains(&kind) {
            return;
        }
        if ["security_group", "secgroup", "prefix_list"]
            .iter()
            .any(|word| kind.contains(word))
        {
            let message = format!("is of a kind that is not read: {}", quote(kind));
            self.not_carried_over(
                resource,
                &message,
                "write what it says in a TOML file beside",
            );
        } else if !kind.starts_with("data.") && names_groups(&resource.attributes, 0) {
            self.not_carried_over(
                resource,
                "has groups, but the addresses of its interfaces are not known: they are no members",
                "list them in [members.GROUP] of a TOML file beside, or take them from `aws ec2 describe-network-interfaces`",
            );
        }
    }
}

/// Kinds that have "security_group" in their names and say nothing about rules.
const SILENT: [&str; 2] = [
    "aws_vpc_security_group_vpc_association",
    "aws_vpc_security_group_rules_exclusive",
];

/// Whether the attributes of a resource of some other kind, or of its blocks, hold groups.
fn names_groups(node: &Node<'_>, depth: usize) -> bool {
    const KEYS: [&str; 3] = [
        "security_groups",
        "security_group_ids",
        "vpc_security_group_ids",
    ];
    const BLOCKS: usize = 4;
    match &node.value {
        Value::Map(entries) => entries.iter().any(|(key, value)| {
            let holds = match &value.value {
                Value::List(nodes) => !nodes.is_empty(),
                Value::Unknown(_) => true,
                _ => false,
            };
            (holds && KEYS.contains(&&*key.value)) || names_groups(value, depth + 1)
        }),
        Value::List(nodes) if depth < BLOCKS => {
            nodes.iter().any(|node| names_groups(node, depth + 1))
        }
        _ => false,
    }
}

fn shared_addresses(resources: &[Resource<'_>]) -> HashSet<String> {
    let mut seen = HashSet::with_capacity(resources.len());
    let twice = resources
        .iter()
        .filter(|resource| !seen.insert(resource.address.as_str()));
    twice.map(|resource| resource.address.clone()).collect()
}

#[cfg(test)]
mod tests;
