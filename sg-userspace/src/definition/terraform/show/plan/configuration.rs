//! What a plan tells of the configuration it was made from: which resources an expression refers to.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap, HashSet};

use super::super::super::super::document::{Node, Value};
use super::super::super::Resource;

/// Variables and outputs that a reference may lead through.
const STEPS: usize = 16;
/// References in one expression.
const MAX_REFERENCES: usize = 1000;
/// References that are followed in all.
const BUDGET: usize = 1_000_000;

/// Kinds whose id others refer to, and the attribute that it is.
const IDS: [(&str, &str); 5] = [
    ("aws_security_group", "id"),
    ("aws_default_security_group", "id"),
    ("aws_ec2_managed_prefix_list", "id"),
    ("aws_network_interface", "id"),
    ("aws_instance", "primary_network_interface_id"),
];

pub(super) struct Configuration<'d, 's> {
    /// Modules by their names from the root, such as `a.b`; the root is empty.
    modules: HashMap<String, &'d Node<'s>>,
    /// Expressions of resources by the names of their module, kind and name.
    resources: HashMap<(String, &'d str, &'d str), &'d Node<'s>>,
    /// Resources of the plan.
    planned: HashSet<String>,
    /// References that may still be followed.
    budget: Cell<usize>,
}

impl<'d, 's> Configuration<'d, 's> {
    pub(super) fn new(document: &'d Node<'s>, planned: HashSet<String>) -> Self {
        let mut configuration = Self {
            modules: HashMap::new(),
            resources: HashMap::new(),
            planned,
            budget: Cell::new(BUDGET),
        };
        let root = document
            .get("configuration")
            .and_then(|node| node.get("root_module"));
        if let Some(root) = root {
            configuration.add(String::new(), root);
        }
        configuration
    }

    fn add(&mut self, names: String, module: &'d Node<'s>) {
        for resource in module
            .get("resources")
            .and_then(Node::list)
            .unwrap_or_default()
        {
            let text = |key| match resource.get(key).map(|node| &node.value) {
                Some(Value::String(text)) => Some(&**text),
                _ => None,
            };
            let is_managed = text("mode") != Some("data");
            if let (true, Some(kind), Some(name), Some(expressions)) = (
                is_managed,
                text("type"),
                text("name"),
                resource.get("expressions"),
            ) {
                self.resources
                    .insert((names.clone(), kind, name), expressions);
            }
        }
        for (call, node) in module
            .get("module_calls")
            .and_then(Node::map)
            .unwrap_or_default()
        {
            if let Some(module) = node.get("module") {
                let dot = if names.is_empty() { "" } else { "." };
                self.add(format!("{names}{dot}{}", call.value), module);
            }
        }
        self.modules.insert(names, module);
    }

    /// The expressions of a resource in the module of an address.
    pub(super) fn expressions(
        &self,
        module: &str,
        resource: &Resource<'_>,
    ) -> Option<&'d Node<'s>> {
        let key = (
            names(module),
            resource.kind.as_str(),
            resource.name.as_str(),
        );
        self.resources.get(&key).copied()
    }

    /// Addresses of the resources whose ids an expression refers to; `None` if it refers to anything else.
    pub(super) fn ids(&self, module: &str, expression: &Node<'_>) -> Option<Vec<String>> {
        let mut ids = BTreeSet::new();
        self.collect(module, expression, STEPS, &mut ids)?;
        (!ids.is_empty()).then(|| ids.into_iter().collect())
    }

    /// The one resource to whose id all blocks of an expression refer in an attribute.
    pub(super) fn only_id(&self, module: &str, expression: &Node<'_>, key: &str) -> Option<String> {
        let mut ids = BTreeSet::new();
        match &expression.value {
            Value::List(blocks) => {
                for own in blocks.iter().filter_map(|block| block.get(key)) {
                    if own.get("references").is_some() {
                        self.collect(module, own, STEPS, &mut ids)?;
                    }
                }
            }
            _ => {
                self.collect(module, expression, STEPS, &mut ids)?;
                let is_list = |id: &String| id.contains("aws_ec2_managed_prefix_list.");
                ids.retain(|id| is_list(id) == (key == "prefix_list_ids"));
            }
        }
        let mut ids = ids.into_iter();
        ids.next().filter(|_| ids.next().is_none())
    }

    fn collect(
        &self,
        module: &str,
        expression: &Node<'_>,
        steps: usize,
        ids: &mut BTreeSet<String>,
    ) -> Option<()> {
        let steps = steps.checked_sub(1)?;
        let references = expression.get("references")?.list()?;
        if references.len() > MAX_REFERENCES {
            return None;
        }
        self.budget
            .set(self.budget.get().checked_sub(references.len() + 1)?);
        let text = |node: &'_ Node<'_>| match &node.value {
            Value::String(text) => Some(text.clone().into_owned()),
            _ => None,
        };
        let references: Vec<String> = references.iter().map(text).collect::<Option<_>>()?;
        for reference in &references {
            // Beside `aws_security_group.web.id` stand the resource and what it is in.
            let is_part = |other: &String| {
                let rest = other.strip_prefix(reference.as_str());
                rest.is_some_and(|rest| rest.starts_with(['.', '[']))
            };
            if !references.iter().any(is_part) {
                self.follow(module, reference, steps, ids)?;
            }
        }
        Some(())
    }

    fn follow(
        &self,
        module: &str,
        reference: &str,
        steps: usize,
        ids: &mut BTreeSet<String>,
    ) -> Option<()> {
        if let Some(variable) = reference.strip_prefix("var.") {
            let (parent, call) = split_module(module)?;
            let call = self.call(parent, call)?;
            let expression = call.get("expressions")?.get(variable)?;
            return self.collect(parent, expression, steps, ids);
        }
        let (base, attribute) = reference.rsplit_once('.')?;
        if base.starts_with("module.") {
            let child = within(module, base);
            let config = self.modules.get(&names(&child))?;
            let expression = config.get("outputs")?.get(attribute)?.get("expression")?;
            return self.collect(&child, expression, steps, ids);
        }
        let address = within(module, base);
        let is_id = IDS.iter().any(|(kind, id)| {
            let rest = base.strip_prefix(kind);
            rest.is_some_and(|rest| rest.starts_with('.')) && attribute == *id
        });
        if !is_id || !self.planned.contains(&address) {
            return None;
        }
        ids.insert(address);
        Some(())
    }

    fn call(&self, parent: &str, call: &str) -> Option<&'d Node<'s>> {
        let module = self.modules.get(&names(parent))?;
        module.get("module_calls")?.get(call)
    }
}

/// An address in a module.
fn within(module: &str, address: &str) -> String {
    match module {
        "" => address.to_owned(),
        _ => format!("{module}.{address}"),
    }
}

/// The steps of `module.a["x.y"].module.b[0]`: their names, and where each begins.
fn steps_of(module: &str) -> Vec<(usize, &str)> {
    let mut steps = Vec::new();
    let mut rest = module;
    while let Some(step) = rest.strip_prefix("module.") {
        let begin = module.len() - rest.len();
        let end = step.find(['.', '[']).unwrap_or(step.len());
        let (name, mut behind) = step.split_at(end);
        if behind.starts_with('[') {
            behind = behind_index(behind);
        }
        steps.push((begin, name));
        rest = behind.strip_prefix('.').unwrap_or(behind);
    }
    steps
}

/// What stands behind an index, in which a key may hold any character.
fn behind_index(text: &str) -> &str {
    let mut quoted = false;
    let mut escaped = false;
    for (place, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b']' if !quoted => return &text[place + 1..],
            _ => {}
        }
    }
    ""
}

/// The names of modules without their indices.
fn names(module: &str) -> String {
    let names: Vec<&str> = steps_of(module).into_iter().map(|(_, name)| name).collect();
    names.join(".")
}

/// The module around one, and the name by which that calls it.
fn split_module(module: &str) -> Option<(&str, &str)> {
    let (begin, name) = *steps_of(module).last()?;
    Some((module[..begin].trim_end_matches('.'), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_told_apart_whatever_their_keys_hold() {
        let address = "module.a[\"x].module.\\\"z\"].module.b[0].module.c";
        assert_eq!(names(address), "a.b.c");
        let (parent, name) = split_module(address).unwrap();
        assert_eq!(parent, "module.a[\"x].module.\\\"z\"].module.b[0]");
        assert_eq!(name, "c");
        assert_eq!(split_module("module.a"), Some(("", "a")));
        assert_eq!(split_module(""), None);
        assert_eq!(names("module.a[\"unclosed"), "a");
    }
}
