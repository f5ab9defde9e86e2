//! The resources of a module that have to do with groups.

use std::borrow::Cow;

use hcl_edit::Span as _;
use hcl_edit::expr::Expression;
use hcl_edit::structure::{Body, Structure};

use super::super::super::document::{MAX_NODES, Node, Value};
use super::super::super::escape::quote;
use super::super::super::tree::{At, Located};
use super::super::Resource;
use super::evaluator::Evaluator;
use super::module::Declaration;
use super::value::{Data, Eval, Fault};

/// Kinds whose attributes matter.
const KINDS: [&str; 10] = [
    "aws_security_group",
    "aws_default_security_group",
    "aws_security_group_rule",
    "aws_vpc_security_group_ingress_rule",
    "aws_vpc_security_group_egress_rule",
    "aws_ec2_managed_prefix_list",
    "aws_ec2_managed_prefix_list_entry",
    "aws_network_interface",
    "aws_instance",
    "aws_network_interface_sg_attachment",
];

impl<'a> Evaluator<'a, '_> {
    /// Adds all resources of the module.
    ///
    /// # Errors
    /// It is beyond what is evaluated, which is reported.
    pub(super) fn resources(&mut self, resources: &mut Vec<Resource<'static>>) -> Eval<()> {
        let mut room = MAX_NODES;
        let module = self.module;
        for (index, declaration) in module.resources.iter().enumerate() {
            if declaration.data {
                continue;
            }
            if !KINDS.contains(&declaration.kind) {
                resources.extend(other(declaration));
                continue;
            }
            self.resource_instances(index, &mut room, resources)?;
        }
        Ok(())
    }

    fn resource_instances(
        &mut self,
        index: usize,
        room: &mut usize,
        resources: &mut Vec<Resource<'static>>,
    ) -> Eval<()> {
        let module = self.module;
        let declaration = &module.resources[index];
        let expansion = match self.expand(index, declaration.at) {
            Ok(expansion) => expansion,
            Err(fault) => return self.settle(Err(fault)).map(|_| ()),
        };
        if let Data::Unknown(what) = &expansion.value.data {
            if **what == *super::FAULTY {
                return Ok(());
            }
            let message = format!(
                "how many of {} there are is not known from this file: {}",
                quote(&declaration.address()),
                quote(what)
            );
            let fault = Fault::new(expansion.value.at, "unknown-value", message);
            self.report(&fault.help(super::super::SHOW));
            return Ok(());
        }
        for instance in expansion.instances.clone() {
            let attributes = self.attributes(instance);
            let attributes = self.settle(attributes)?;
            if let Data::Unknown(_) = attributes.data {
                continue;
            }
            let Some(left) = room.checked_sub(attributes.size()) else {
                let message = format!("all resources together have more than {MAX_NODES} values");
                return self
                    .settle(Err(Fault::too_large(declaration.at, message)))
                    .map(|_| ());
            };
            *room = left;
            resources.push(Resource {
                address: self.address(instance),
                kind: declaration.kind.into(),
                name: declaration.name.into(),
                at: declaration.at,
                attributes: attributes.into_node(&|instance| self.address(instance)),
            });
        }
        Ok(())
    }
}

/// A resource of another kind, if it has groups: which, and how many of it there are, does not matter.
fn other(declaration: &Declaration<'_>) -> Option<Resource<'static>> {
    let (name, at) = groups_of(&declaration.block.body, declaration, 0)?;
    let unknown = Node {
        at,
        value: Value::Unknown(Cow::Owned(format!("{}.{name}", declaration.address()))),
    };
    let key = Located {
        value: Cow::Owned(name),
        at,
    };
    Some(Resource {
        address: declaration.address(),
        kind: declaration.kind.into(),
        name: declaration.name.into(),
        at: declaration.at,
        attributes: Node {
            at: declaration.at,
            value: Value::Map(vec![(key, unknown)]),
        },
    })
}

/// The attribute of a resource or its blocks that holds groups.
fn groups_of(body: &Body, declaration: &Declaration<'_>, depth: usize) -> Option<(String, At)> {
    const KEYS: [&str; 3] = [
        "security_groups",
        "security_group_ids",
        "vpc_security_group_ids",
    ];
    const BLOCKS: usize = 4;
    body.iter().find_map(|structure| match structure {
        Structure::Attribute(attribute) => {
            let name = attribute.key.as_str();
            let empty = match &attribute.value {
                Expression::Array(array) => array.is_empty(),
                Expression::Null(_) => true,
                _ => false,
            };
            let at = declaration.place.at(attribute.value.span());
            (KEYS.contains(&name) && !empty).then(|| (name.into(), at))
        }
        Structure::Block(block) if depth < BLOCKS => groups_of(&block.body, declaration, depth + 1),
        Structure::Block(_) => None,
    })
}
