//! Plans: what is known only after they are carried out is not known, but where the configuration in the plan says
//! that it is the id of a resource of the plan, that resource is meant.

use std::collections::{HashMap, HashSet};

use sg_common::verdict::Direction;

use super::super::super::document::{Node, Value, fields};
use super::super::super::findings::Findings;
use super::super::Resource;
use super::modules;
use configuration::Configuration;

mod configuration;

/// How a plan calls what it does not tell.
const UNKNOWN: &str = "known after apply";

/// Attributes that hold the id of one resource.
const SINGLE: [&str; 5] = [
    "security_group_id",
    "source_security_group_id",
    "referenced_security_group_id",
    "prefix_list_id",
    "network_interface_id",
];
/// Attributes that hold ids of several.
const SEVERAL: [&str; 3] = [
    "vpc_security_group_ids",
    "security_groups",
    "prefix_list_ids",
];

pub(super) fn read<'s>(
    document: &Node<'s>,
    planned: &Node<'s>,
    findings: &mut Findings,
) -> Vec<Resource<'s>> {
    let changes = Changes::new(document, findings);
    let mut resources: Vec<(String, Resource<'s>)> = Vec::new();
    modules(planned, findings, &mut |module, resource| {
        resources.push((module.to_owned(), resource));
    });
    let addresses: HashSet<String> = resources
        .iter()
        .map(|(_, resource)| resource.address.clone())
        .collect();
    let configuration = Configuration::new(document, addresses);
    for (module, resource) in &mut resources {
        if let Some(unknown) = changes.unknown.get(resource.address.as_str()) {
            overlay(&mut resource.attributes, unknown);
        }
        resolve(module, resource, &configuration, findings);
    }
    let targets = targets(&resources, &changes);
    for (module, resource) in &mut resources {
        let given = configuration.expressions(module, resource);
        if let Some(given) = given.filter(|_| resource.kind == "aws_security_group") {
            forget_computed(resource, given, &targets);
        }
    }
    let mut resources: Vec<Resource<'s>> = resources
        .into_iter()
        .map(|(_, resource)| resource)
        .collect();
    // What is looked up before the plan is made stands in the state before it.
    let before = document
        .get("prior_state")
        .and_then(|state| state.get("values"));
    if let Some(before) = before {
        modules(before, findings, &mut |_, resource| {
            if resource.kind.starts_with("data.") {
                resources.push(resource);
            }
        });
    }
    resources
}

/// `resource_changes`.
struct Changes<'d, 's> {
    /// `after_unknown` by address.
    unknown: HashMap<&'d str, &'d Node<'s>>,
    /// Kinds and attributes of rules that are deleted.
    deleted: Vec<(&'d str, &'d Node<'s>)>,
}

impl<'d, 's> Changes<'d, 's> {
    fn new(document: &'d Node<'s>, findings: &mut Findings) -> Self {
        let mut changes = Self {
            unknown: HashMap::new(),
            deleted: Vec::new(),
        };
        for resource in fields::list(document, "resource_changes", findings) {
            let text = |key| match resource.get(key).map(|node| &node.value) {
                Some(Value::String(text)) => Some(&**text),
                _ => None,
            };
            let Some(change) = resource.get("change") else {
                continue;
            };
            if let (Some(address), Some(unknown)) = (text("address"), change.get("after_unknown")) {
                changes.unknown.insert(address, unknown);
            }
            let is_deleted = change.get("actions").is_some_and(|actions| {
                let actions = actions.list().unwrap_or_default();
                let delete = Value::String("delete".into());
                actions.iter().any(|action| action.value == delete)
            });
            if let (true, Some(kind), Some(before)) =
                (is_deleted, text("type"), change.get("before"))
            {
                changes.deleted.push((kind, before));
            }
        }
        changes
    }
}

/// Puts what is unknown into values that lack it: `true` stands for it, in the form of the values.
fn overlay<'s>(values: &mut Node<'s>, unknown: &Node<'_>) {
    let at = values.at;
    let unknown_node = || Node {
        at,
        value: Value::Unknown(UNKNOWN.into()),
    };
    match (&mut values.value, &unknown.value) {
        (_, Value::Bool(true)) => *values = unknown_node(),
        (Value::Map(entries), Value::Map(unknown)) => {
            let keys = entries.iter().enumerate();
            let places: HashMap<String, usize> = keys
                .map(|(place, (key, _))| (key.value.to_string(), place))
                .collect();
            for (key, unknown) in unknown {
                match places.get(&*key.value) {
                    Some(&place) => overlay(&mut entries[place].1, unknown),
                    None if unknown.value == Value::Bool(true) => {
                        let mut key = key.clone();
                        key.at = at;
                        entries.push((owned(key), unknown_node()));
                    }
                    None => {}
                }
            }
        }
        (Value::List(nodes), Value::List(unknown)) => {
            for (node, unknown) in nodes.iter_mut().zip(unknown) {
                overlay(node, unknown);
            }
        }
        _ => {}
    }
}

type Key<'s> = super::super::super::tree::Located<std::borrow::Cow<'s, str>>;

fn owned(key: Key<'_>) -> Key<'static> {
    Key {
        value: key.value.into_owned().into(),
        at: key.at,
    }
}

/// Replaces unknown ids by the addresses of the resources that will have them.
fn resolve(
    module: &str,
    resource: &mut Resource<'_>,
    configuration: &Configuration<'_, '_>,
    findings: &mut Findings,
) {
    let Some(expressions) = configuration.expressions(module, resource) else {
        return;
    };
    let Value::Map(attributes) = &mut resource.attributes.value else {
        return;
    };
    for (key, node) in attributes {
        let key = &*key.value;
        let is_direction = Direction::ALL.iter().any(|own| own.name() == key);
        if !is_direction && !SINGLE.contains(&key) && !SEVERAL.contains(&key) {
            continue;
        }
        let Some(expression) = expressions.get(key) else {
            continue;
        };
        if SINGLE.contains(&key) && is_unknown(node) {
            if let Some([one]) = configuration.ids(module, expression).as_deref() {
                node.value = Value::String(one.clone().into());
            }
        } else if SEVERAL.contains(&key) {
            if let Some(ids) = configuration.ids(module, expression) {
                fill(key, node, &ids, findings);
            }
        } else if is_direction {
            let blocks = match &mut node.value {
                Value::List(blocks) => blocks,
                _ => continue,
            };
            for key in ["security_groups", "prefix_list_ids"] {
                // Blocks are a set, in no order: which one an expression belongs to is clear only if all name
                // the same.
                let Some(one) = configuration.only_id(module, expression, key) else {
                    continue;
                };
                for block in blocks.iter_mut() {
                    let Value::Map(entries) = &mut block.value else {
                        continue;
                    };
                    let entry = entries.iter_mut().find(|(own, _)| own.value == key);
                    if let Some((_, node)) = entry {
                        fill(key, node, std::slice::from_ref(&one), findings);
                    }
                }
            }
        }
    }
}

fn is_unknown(node: &Node<'_>) -> bool {
    matches!(node.value, Value::Unknown(_))
}

/// Puts ids in the places of a list that are unknown.
fn fill(key: &str, node: &mut Node<'_>, ids: &[String], findings: &mut Findings) {
    let value = |id: &String| Value::String(id.clone().into());
    match &mut node.value {
        Value::Unknown(_) => {
            let message = format!(
                "`{key}` is known after apply only; the configuration refers to {}",
                ids.join(", ")
            );
            findings
                .warning("from-configuration", node.at, message)
                .help("that is taken; ids that stand there as text are not seen in a plan");
            let at = node.at;
            let nodes = ids.iter().map(|id| Node {
                at,
                value: value(id),
            });
            node.value = Value::List(nodes.collect());
        }
        Value::List(nodes) => {
            let unknown: Vec<&mut Node<'_>> =
                nodes.iter_mut().filter(|node| is_unknown(node)).collect();
            if unknown.len() == ids.len() {
                for (node, id) in unknown.into_iter().zip(ids) {
                    node.value = value(id);
                }
            }
        }
        _ => {}
    }
}

/// Groups that have rules of their own resources, planned or about to go.
type Targets = HashSet<(String, Direction)>;

fn targets(resources: &[(String, Resource<'_>)], changes: &Changes<'_, '_>) -> Targets {
    let planned = resources
        .iter()
        .map(|(_, resource)| (resource.kind.as_str(), &resource.attributes));
    let text = |node: &Node<'_>, key| match node.get(key).map(|node| &node.value) {
        Some(Value::String(text)) => Some(text.clone().into_owned()),
        _ => None,
    };
    let target = |(kind, attributes): (&str, &Node<'_>)| {
        let direction = match kind {
            "aws_vpc_security_group_ingress_rule" => Direction::Ingress,
            "aws_vpc_security_group_egress_rule" => Direction::Egress,
            "aws_security_group_rule" => match text(attributes, "type")?.as_str() {
                "ingress" => Direction::Ingress,
                _ => Direction::Egress,
            },
            _ => return None,
        };
        Some((text(attributes, "security_group_id")?, direction))
    };
    planned
        .chain(changes.deleted.iter().copied())
        .filter_map(target)
        .collect()
}

/// Takes from a group the rules that its configuration does not give: those that are not known, and those of the
/// state before where resources of their own have them.
fn forget_computed(resource: &mut Resource<'_>, given: &Node<'_>, targets: &Targets) {
    let mut words = vec![resource.address.clone()];
    if let Some(Value::String(id)) = resource.attributes.get("id").map(|node| &node.value) {
        words.push(id.clone().into_owned());
    }
    let Value::Map(attributes) = &mut resource.attributes.value else {
        return;
    };
    attributes.retain(|(key, node)| {
        let direction = Direction::ALL.iter().find(|own| own.name() == key.value);
        let Some(direction) = direction.filter(|_| given.get(&key.value).is_none()) else {
            return true;
        };
        let separate = words
            .iter()
            .any(|word| targets.contains(&(word.clone(), *direction)));
        !is_unknown(node) && !separate
    });
}
