//! What `terraform show -json` prints of a state or a plan (fact 7.21).

use super::super::document::{Node, Value, fields};
use super::super::escape::quote;
use super::super::findings::Findings;
use super::super::read::Input;
use super::super::tree::{At, File};
use super::{Meaning, Resource, resources};

mod plan;

/// Major versions of the format; those before 1.0 had the same form.
const VERSIONS: [&str; 2] = ["0", "1"];

pub(super) fn read(inputs: &[Input<'_>], findings: &mut Findings) -> File {
    let (mut of_states, mut of_plans) = (Vec::new(), Vec::new());
    for input in inputs {
        let Some(document) = &input.document else {
            let at = At {
                file: input.file,
                start: 0,
                end: 0,
            };
            findings
                .error("syntax", at, "this is not JSON")
                .help("give what `terraform show -json` prints");
            continue;
        };
        if !is_supported(document, findings) {
            continue;
        }
        if let Some(planned) = document.get("planned_values") {
            if is_whole(document, findings) {
                of_plans.extend(plan::read(document, planned, findings));
            }
        } else if let Some(values) = document.get("values") {
            modules(values, findings, &mut |_, resource| {
                of_states.push(resource)
            });
        } else if document.get("resource_changes").is_some() {
            findings
                .error(
                    "missing-key",
                    beginning(document),
                    "this has changes, but no `planned_values`",
                )
                .help("give all that `terraform show -json PLANFILE` prints");
        } else {
            findings.warning(
                "no-effect",
                beginning(document),
                "this is an empty state: it holds no resource",
            );
        }
    }
    let mark = findings.mark();
    let mut file = resources::tree(of_plans, Meaning::Plan, findings);
    findings.help_since(
        mark,
        "unknown-value",
        "carry the plan out, then give the state: `terraform show -json`",
    );
    let of_states = resources::tree(of_states, Meaning::State, findings);
    file.groups.extend(of_states.groups);
    file.prefix_lists.extend(of_states.prefix_lists);
    file.remote_interfaces.extend(of_states.remote_interfaces);
    file
}

/// Of a whole document its beginning.
fn beginning(document: &Node<'_>) -> At {
    At {
        end: document.at.end.min(document.at.start + 1),
        ..document.at
    }
}

/// Whether the format is one that is known.
fn is_supported(document: &Node<'_>, findings: &mut Findings) -> bool {
    let Some(version) = fields::text(document, "format_version", findings) else {
        let (message, help) = match document.get("lineage") {
            Some(_) => (
                "this is Terraform's own state file, whose form may change at any time",
                "give what Terraform tells of it: `terraform show -json > state.json`",
            ),
            None => (
                "`format_version` is missing",
                "give what `terraform show -json` prints",
            ),
        };
        findings
            .error("not-a-definition", beginning(document), message)
            .help(help);
        return false;
    };
    let major = version.value.split('.').next().unwrap_or_default();
    if VERSIONS.contains(&major) {
        return true;
    }
    let message = format!(
        "version {} of the format is not known",
        quote(version.value)
    );
    findings
        .error("unsupported-version", version.at, message)
        .help("versions 1.x are read, and those before");
    false
}

/// Whether the plan came to its end.
fn is_whole(document: &Node<'_>, findings: &mut Findings) -> bool {
    let is = |key: &str, value| {
        let found = document
            .get(key)
            .filter(|node| node.value == Value::Bool(value));
        found.map(|node| node.at)
    };
    if let Some(at) = is("errored", true) {
        findings
            .error("incomplete-plan", at, "this plan ended in an error")
            .help("mend what `terraform plan` complains of, and plan again");
        return false;
    }
    if let Some(at) = is("complete", false) {
        findings
            .warning(
                "incomplete-plan",
                at,
                "this plan leaves something to a later one",
            )
            .help("what it leaves is not here: apply it, plan again");
    }
    true
}

/// Hands on every resource of a module and of those in it, with the address of its module. Their depth is
/// bounded by that of documents.
fn modules<'s>(
    values: &Node<'s>,
    findings: &mut Findings,
    each: &mut dyn FnMut(&str, Resource<'s>),
) {
    if let Some(root) = values.get("root_module") {
        module(root, findings, each);
    }
}

fn module<'s>(node: &Node<'s>, findings: &mut Findings, each: &mut dyn FnMut(&str, Resource<'s>)) {
    let address = match node.get("address").map(|node| &node.value) {
        Some(Value::String(address)) => address,
        _ => "",
    };
    for own in fields::list(node, "resources", findings) {
        if let Some(resource) = resource(own, findings) {
            each(address, resource);
        }
    }
    for child in fields::list(node, "child_modules", findings) {
        module(child, findings, each);
    }
}

fn resource<'s>(node: &Node<'s>, findings: &mut Findings) -> Option<Resource<'s>> {
    if node.get("deposed_key").is_some() {
        // What has been replaced and is still to be destroyed.
        return None;
    }
    let mut required = |key: &str| {
        if node.get(key).is_none() {
            fields::missing(node, key, findings);
        }
        fields::text(node, key, findings)
    };
    let (address, kind, name) = (required("address")?, required("type")?, required("name")?);
    let is_data = node
        .get("mode")
        .is_some_and(|mode| mode.value == Value::String("data".into()));
    let prefix = if is_data { "data." } else { "" };
    let attributes = match node.get("values") {
        Some(values) if values.map().is_some() => values.clone(),
        _ => Node {
            at: address.at,
            value: Value::Map(Vec::new()),
        },
    };
    Some(Resource {
        address: address.value.to_owned(),
        kind: format!("{prefix}{}", kind.value),
        name: name.value.to_owned(),
        at: address.at,
        attributes,
    })
}

#[cfg(test)]
mod tests;
