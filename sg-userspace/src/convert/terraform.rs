//! Resources of Terraform's AWS provider (facts 7.10–7.17): groups, a resource for each rule, prefix lists.

use std::collections::{BTreeMap, BTreeSet};

use hcl_edit::expr::{
    Array, Expression, Object, ObjectKey, ObjectValue, ObjectValueTerminator, Traversal,
    TraversalOperator,
};
use hcl_edit::structure::{Attribute, Block, Body};
use hcl_edit::{Decorate as _, Decorated, Ident};
use ipnet::IpNet;
use sg_common::verdict::Direction;

use super::clouds::{family, has_own_id, portable, rules};
use super::{Converted, ConvertedFile, host, permission};
use crate::model::{Model, OnRevoke, Peer, Rule};

const GROUP: &str = "aws_security_group";
const LIST: &str = "aws_ec2_managed_prefix_list";

pub(super) fn convert(model: &Model) -> Converted {
    let (model, mut left_out) = portable(model);
    let writer = Writer {
        groups: labels(model.groups.keys()),
        lists: labels(model.prefix_lists.keys()),
        model: &model,
    };
    let mut files = vec![ConvertedFile {
        name: "security-groups.tf".into(),
        text: writer.body().to_string(),
        holds: "groups, rules and prefix lists",
    }];
    files.extend(host::file(&model, &mut left_out));
    Converted { files, left_out }
}

/// Labels of resources by the names of what they are, which may hold more.
fn labels<'m>(names: impl Iterator<Item = &'m String>) -> BTreeMap<&'m str, String> {
    let mut taken = BTreeSet::new();
    let mut labels = BTreeMap::new();
    for name in names {
        let plain = |c: char| match c {
            c if c.is_ascii_alphanumeric() || c == '-' => c,
            _ => '_',
        };
        let mut label: String = name.chars().map(plain).collect();
        if !label.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            label.insert(0, '_');
        }
        let base = label.clone();
        let mut number = 2;
        while !taken.insert(label.clone()) {
            label = format!("{base}_{number}");
            number += 1;
        }
        labels.insert(name.as_str(), label);
    }
    labels
}

struct Writer<'m> {
    model: &'m Model,
    groups: BTreeMap<&'m str, String>,
    lists: BTreeMap<&'m str, String>,
}

impl Writer<'_> {
    fn body(&self) -> Body {
        let mut blocks = Vec::new();
        for (name, nets) in &self.model.prefix_lists {
            let label = &self.lists[name.as_str()];
            blocks.push(prefix_list(label, name, nets));
            if let Some(id) = self.model.ids.prefix_lists.get(name) {
                blocks.push(import(LIST, label, id));
            }
        }
        let mut taken = BTreeSet::new();
        for (name, group) in &self.model.groups {
            let label = &self.groups[name.as_str()];
            let mut attributes = vec![("name", name.as_str().into())];
            if let Some(description) = &group.description {
                attributes.push(("description", description.as_str().into()));
            }
            // Where there is no rule resource the list itself has to say that there is nothing, which would not
            // be left alone otherwise (fact 7.14).
            for direction in Direction::ALL {
                if group.rules(direction).is_empty() {
                    attributes.push((direction.name(), Array::new().into()));
                }
            }
            if group.on_revoke == OnRevoke::Reevaluate {
                attributes.push(("tags", tags(&[("sgctl:on_revoke", "reevaluate")])));
            }
            blocks.push(resource(GROUP, label, attributes, Vec::new()));
            if let Some(id) = self.model.ids.groups.get(name) {
                blocks.push(import(GROUP, label, id));
            }
            for (place, (direction, rule)) in rules(group).enumerate() {
                let kind = format!("aws_vpc_security_group_{}_rule", direction.name());
                let mut own = format!("{label}_{}", place + 1);
                while !taken.insert(own.clone()) {
                    own.push('_');
                }
                blocks.push(resource(&kind, &own, self.rule(label, rule), Vec::new()));
                if !has_own_id(name, direction, rule) {
                    blocks.push(import(&kind, &own, &rule.id.to_string()));
                }
            }
        }
        let mut body = Body::new();
        let last = blocks.len();
        for (place, mut block) in blocks.into_iter().enumerate() {
            if place + 1 < last {
                block.decor_mut().set_suffix("\n");
            }
            body.push(block);
        }
        body
    }

    fn rule(&self, group: &str, rule: &Rule) -> Vec<(&'static str, Expression)> {
        let (protocol, ports) = permission(&rule.traffic);
        let mut attributes = vec![
            ("security_group_id", reference(GROUP, group, Some("id"))),
            ("ip_protocol", protocol.into()),
        ];
        if let Some((from, to)) = ports {
            attributes.push(("from_port", number(from)));
            attributes.push(("to_port", number(to)));
        }
        attributes.push(match &rule.peer {
            Peer::Cidr(net @ IpNet::V4(_)) => ("cidr_ipv4", net.to_string().into()),
            Peer::Cidr(net @ IpNet::V6(_)) => ("cidr_ipv6", net.to_string().into()),
            Peer::PrefixList(name) => (
                "prefix_list_id",
                match self.lists.get(name.as_str()) {
                    Some(label) => reference(LIST, label, Some("id")),
                    None => name.as_str().into(),
                },
            ),
            Peer::Group(name) | Peer::GroupOf(name, _) => (
                "referenced_security_group_id",
                match self.groups.get(name.as_str()) {
                    Some(label) => reference(GROUP, label, Some("id")),
                    None => name.as_str().into(),
                },
            ),
        });
        if let Some(description) = &rule.description {
            attributes.push(("description", (&**description).into()));
        }
        attributes
    }
}

fn prefix_list(label: &str, name: &str, nets: &[IpNet]) -> Block {
    let attributes = vec![
        ("name", name.into()),
        ("address_family", family(nets).into()),
        ("max_entries", (nets.len().max(1) as u64).into()),
    ];
    let entries = nets.iter().map(|net| {
        let mut entry = Block::new(ident("entry"));
        for attribute in aligned(vec![("cidr", net.to_string().into())], "    ") {
            entry.body.push(attribute);
        }
        entry.body.decor_mut().set_suffix("  ");
        entry.decorated(("  ", ""))
    });
    resource(LIST, label, attributes, entries.collect())
}

fn resource(
    kind: &str,
    label: &str,
    attributes: Vec<(&str, Expression)>,
    blocks: Vec<Block>,
) -> Block {
    let mut block = Block::builder(ident("resource"))
        .labels([kind, label])
        .build();
    for attribute in aligned(attributes, "  ") {
        block.body.push(attribute);
    }
    for inner in blocks {
        block.body.push(inner);
    }
    block
}

/// Binds a resource to what exists already under an id.
fn import(kind: &str, label: &str, id: &str) -> Block {
    let mut block = Block::new(ident("import"));
    let attributes = vec![("to", reference(kind, label, None)), ("id", id.into())];
    for attribute in aligned(attributes, "  ") {
        block.body.push(attribute);
    }
    block
}

/// Attributes as `terraform fmt` puts them.
fn aligned(attributes: Vec<(&str, Expression)>, indent: &str) -> Vec<Attribute> {
    let longest = attributes.iter().map(|(key, _)| key.len()).max();
    let attributes = attributes.into_iter().map(|(key, value)| {
        let gap = " ".repeat(longest.unwrap_or_default() - key.len() + 1);
        let key = Decorated::new(ident(key)).decorated(("", gap));
        Attribute::new(key, value).decorated((indent, ""))
    });
    attributes.collect()
}

/// `kind.label`, and an attribute of it.
fn reference(kind: &str, label: &str, attribute: Option<&str>) -> Expression {
    let operators = [Some(label), attribute].into_iter().flatten();
    let operators = operators.map(|name| {
        let name = Decorated::new(ident(name));
        TraversalOperator::GetAttr(name).into()
    });
    Traversal::new(ident(kind), operators.collect()).into()
}

fn tags(tags: &[(&str, &str)]) -> Expression {
    let mut object = Object::new();
    for (key, value) in tags {
        // A key is quoted where it is no identifier.
        let key = Expression::from(*key).decorated((" ", " "));
        let value = Expression::from(*value).decorated((" ", " "));
        let mut value = ObjectValue::new(value);
        value.set_terminator(ObjectValueTerminator::None);
        object.insert(ObjectKey::Expression(key), value);
    }
    object.into()
}

fn number(number: i32) -> Expression {
    Expression::from(i64::from(number))
}

/// Words that are identifiers by how they were made.
fn ident(word: &str) -> Ident {
    Ident::new(word)
}
