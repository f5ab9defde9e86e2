//! A root module: what the files of a directory declare, by name.

use std::collections::{BTreeMap, HashMap};

use hcl_edit::Span as _;
use hcl_edit::expr::{Expression, TraversalOperator};
use hcl_edit::structure::{Attribute, Block, Body, Structure};

use super::super::super::escape::quote;
use super::super::super::findings::{Findings, SYNTAX};
use super::super::super::tree::At;
use super::evaluator::Place;
use super::instances::type_of;
use super::value::Val;

/// What is declared, and the values of variables that files give.
#[derive(Default)]
pub(super) struct Module<'a> {
    pub(super) variables: HashMap<&'a str, Variable<'a>>,
    /// Values of variables; of a variable that several files set, the last.
    pub(super) values: HashMap<String, Assigned<'a>>,
    pub(super) locals: HashMap<&'a str, (Place, &'a Attribute)>,
    pub(super) resources: Vec<Declaration<'a>>,
    by_name: HashMap<(bool, &'a str, &'a str), usize>,
    /// `import` blocks.
    imports: Vec<(Place, &'a Block)>,
}

/// A `variable` block.
pub(super) struct Variable<'a> {
    pub(super) place: Place,
    pub(super) default: Option<&'a Expression>,
    pub(super) kind: Option<&'a Expression>,
    /// Whether null is a value of it.
    pub(super) nullable: bool,
    at: At,
}

/// A value that a file gives a variable.
pub(super) enum Assigned<'a> {
    Expression(Place, &'a Attribute),
    /// From JSON.
    Value(Val),
}

/// A `resource` or `data` block.
pub(super) struct Declaration<'a> {
    /// Whether it is a `data` block.
    pub(super) data: bool,
    pub(super) kind: &'a str,
    pub(super) name: &'a str,
    pub(super) place: Place,
    /// From its type to its last label.
    pub(super) at: At,
    pub(super) block: &'a Block,
    pub(super) attributes: BTreeMap<&'a str, &'a Attribute>,
    /// By type, those that `dynamic` stands for included.
    pub(super) blocks: BTreeMap<&'a str, Vec<&'a Block>>,
}

/// Blocks that say nothing of groups.
const WITHOUT_EFFECT: [&str; 7] = [
    "output",
    "provider",
    "terraform",
    "moved",
    "removed",
    "check",
    "ephemeral",
];

impl Declaration<'_> {
    /// Without the key of an instance.
    pub(super) fn address(&self) -> String {
        let data = if self.data { "data." } else { "" };
        format!("{data}{}.{}", self.kind, self.name)
    }

    /// Whether it is a rule of a group.
    pub(super) fn is_rule(&self) -> bool {
        const RULES: [&str; 3] = [
            "aws_security_group_rule",
            "aws_vpc_security_group_ingress_rule",
            "aws_vpc_security_group_egress_rule",
        ];
        RULES.contains(&self.kind)
    }
}

impl<'a> Module<'a> {
    pub(super) fn resource(&self, data: bool, kind: &str, name: &str) -> Option<usize> {
        self.by_name.get(&(data, kind, name)).copied()
    }

    /// Adds what a file of the module declares.
    pub(super) fn declare(&mut self, body: &'a Body, place: Place, findings: &mut Findings) {
        for structure in body {
            let block = match structure {
                Structure::Block(block) => block,
                Structure::Attribute(attribute) => {
                    let at = place.at(attribute.key.span());
                    let name = quote(attribute.key.as_str());
                    findings
                        .error(SYNTAX, at, format!("{name} stands outside of all blocks"))
                        .help("values of variables stand in a *.tfvars file");
                    continue;
                }
            };
            let labels: Vec<&str> = block.labels.iter().map(|label| label.as_str()).collect();
            let at = header(block, place);
            match (block.ident.as_str(), &labels[..]) {
                ("resource", [kind, name]) => {
                    self.resource_block(false, kind, name, block, place, findings);
                }
                ("data", [kind, name]) => {
                    self.resource_block(true, kind, name, block, place, findings);
                }
                ("variable", [name]) => self.variable_block(name, block, place, findings),
                ("locals", []) => {
                    for attribute in block.body.attributes() {
                        let name = attribute.key.as_str();
                        let earlier = self.locals.insert(name, (place, attribute));
                        if let Some((earlier, attribute)) = earlier {
                            let own = place.at(block
                                .body
                                .get_attribute(name)
                                .and_then(|own| own.key.span()));
                            let first = earlier.at(attribute.key.span());
                            twice(&format!("local.{name}"), own, first, findings);
                        }
                    }
                }
                ("import", []) => self.imports.push((place, block)),
                ("module", [name]) => {
                    findings
                        .warning("not-carried-over", at, format!("the module {} is not read: groups, rules and interfaces in it are not seen", quote(name)))
                        .help(super::super::SHOW);
                }
                (kind, _) if WITHOUT_EFFECT.contains(&kind) => {}
                (kind @ ("resource" | "data" | "variable" | "locals" | "module"), labels) => {
                    let message =
                        format!("a {} block has not {} labels", quote(kind), labels.len());
                    findings.error(SYNTAX, at, message);
                }
                (kind, _) => {
                    let message = format!("there are no {} blocks", quote(kind));
                    findings.error("unknown-key", at, message);
                }
            }
        }
    }

    /// Gives resources the ids under which `import` blocks of their file say that they exist already.
    pub(super) fn bind_imports(&mut self) {
        for (place, block) in std::mem::take(&mut self.imports) {
            let [Some(to), Some(id)] = ["to", "id"].map(|key| block.body.get_attribute(key)) else {
                continue;
            };
            let Some((kind, name)) = address(&to.value) else {
                continue;
            };
            let Some(resource) = self.resource(false, kind, name) else {
                continue;
            };
            let resource = &mut self.resources[resource];
            if resource.place.file == place.file {
                resource.attributes.entry("id").or_insert(id);
            }
        }
    }

    fn resource_block(
        &mut self,
        data: bool,
        kind: &'a str,
        name: &'a str,
        block: &'a Block,
        place: Place,
        findings: &mut Findings,
    ) {
        let mut declaration = Declaration {
            data,
            kind,
            name,
            place,
            at: header(block, place),
            block,
            attributes: BTreeMap::new(),
            blocks: BTreeMap::new(),
        };
        for structure in &block.body {
            match structure {
                Structure::Attribute(attribute) => {
                    let key = attribute.key.as_str();
                    declaration.attributes.insert(key, attribute);
                }
                Structure::Block(block) => {
                    let blocks = declaration.blocks.entry(type_of(block)).or_default();
                    blocks.push(block);
                }
            }
        }
        let key = (data, kind, name);
        if let Some(first) = self.by_name.get(&key) {
            let first = self.resources[*first].at;
            twice(&declaration.address(), declaration.at, first, findings);
            return;
        }
        self.by_name.insert(key, self.resources.len());
        self.resources.push(declaration);
    }

    fn variable_block(
        &mut self,
        name: &'a str,
        block: &'a Block,
        place: Place,
        findings: &mut Findings,
    ) {
        let argument = |name| block.body.get_attribute(name).map(|own| &own.value);
        let refuses_null = argument("nullable").and_then(Expression::as_bool) == Some(false);
        let variable = Variable {
            place,
            default: argument("default"),
            kind: argument("type"),
            nullable: !refuses_null,
            at: header(block, place),
        };
        let at = variable.at;
        if let Some(first) = self.variables.insert(name, variable) {
            twice(&format!("var.{name}"), at, first.at, findings);
        }
    }

    /// Adds the values that a file gives variables.
    pub(super) fn assign(&mut self, body: &'a Body, place: Place, findings: &mut Findings) {
        for structure in body {
            match structure {
                Structure::Attribute(attribute) => {
                    let name = attribute.key.as_str();
                    let at = place.at(attribute.key.span());
                    self.assign_value(name, Assigned::Expression(place, attribute), at, findings);
                }
                Structure::Block(block) => {
                    let message = "a file of variables has no blocks";
                    findings.error(SYNTAX, header(block, place), message);
                }
            }
        }
    }

    pub(super) fn assign_value(
        &mut self,
        name: &str,
        value: Assigned<'a>,
        at: At,
        findings: &mut Findings,
    ) {
        // A module may be given in part; a name that is wrong leaves another variable without its value.
        if !self.variables.is_empty() && !self.variables.contains_key(name) {
            let message = format!("no variable {} is declared", quote(name));
            findings
                .warning("unknown-variable", at, message)
                .help("the value has no effect unless something refers to it");
        }
        self.values.insert(name.into(), value);
    }
}

fn twice(name: &str, at: At, first: At, findings: &mut Findings) {
    findings
        .error(
            "duplicate-name",
            at,
            format!("{} is declared twice", quote(name)),
        )
        .related(first, "first here")
        .help("all *.tf files of a directory are one module; override files are not merged");
}

/// A block's type and labels.
fn header(block: &Block, place: Place) -> At {
    let start = place.at(block.ident.span());
    match block.labels.last() {
        Some(label) => At {
            end: place.at(label.span()).end.max(start.end),
            ..start
        },
        None => start,
    }
}

/// `kind.name`, without the key of an instance.
fn address(expression: &Expression) -> Option<(&str, &str)> {
    let Expression::Traversal(traversal) = expression else {
        return None;
    };
    match (&traversal.expr, &traversal.operators[..]) {
        (Expression::Variable(kind), [operator]) => match operator.value() {
            TraversalOperator::GetAttr(name) => Some((kind.as_str(), name.as_str())),
            _ => None,
        },
        _ => None,
    }
}
