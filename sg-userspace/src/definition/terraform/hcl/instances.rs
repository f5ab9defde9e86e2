//! Resources: how many there are, what their attributes are, and the blocks that `dynamic` stands for.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use hcl_edit::Span as _;
use hcl_edit::expr::Expression;
use hcl_edit::structure::{Block, Structure};

use super::super::super::tree::At;
use super::comment;
use super::convert;
use super::evaluator::{Binding, Env, Evaluator, Name};
use super::module::Declaration;
use super::value::{Data, Eval, Fault, Val};

/// Instances of resources that a module may have.
pub(super) const MAX_INSTANCES: usize = 100_000;

/// Arguments and blocks that say how a resource is made, not what it is; and some that are long and say nothing
/// of groups.
const META: [&str; 12] = [
    "count",
    "for_each",
    "provider",
    "depends_on",
    "lifecycle",
    "provisioner",
    "connection",
    "timeouts",
    "user_data",
    "user_data_base64",
    "ebs_block_device",
    "metadata_options",
];

/// Attributes that are what others call a resource of the kind by: its address stands for them.
const IDENTITIES: [(&str, &str); 6] = [
    ("aws_security_group", "id"),
    ("aws_default_security_group", "id"),
    ("aws_ec2_managed_prefix_list", "id"),
    ("aws_network_interface", "id"),
    ("aws_instance", "id"),
    ("aws_instance", "primary_network_interface_id"),
];

/// What a resource stands for.
#[derive(Debug)]
pub(super) struct Expansion {
    /// An instance, a list or a map of instances; unknown if it is not known how many there are.
    pub(super) value: Val,
    pub(super) instances: Range<usize>,
}

/// One of the instances of a resource.
#[derive(Debug)]
pub(super) struct Instance {
    /// The resource.
    pub(super) resource: usize,
    /// `["a"]`, `[0]`, or nothing.
    suffix: String,
    /// `each` or `count`.
    binding: Option<(&'static str, Val)>,
}

impl<'a> Evaluator<'a, '_> {
    /// The instances of a resource.
    pub(super) fn expand(&mut self, resource: usize, at: At) -> Eval<Rc<Expansion>> {
        match self.expansions.get(&resource) {
            Some(Some(expansion)) => return expansion.clone(),
            Some(None) => {
                let name = self.module.resources[resource].address();
                let message = format!("how many of `{name}` there are depends on itself");
                return Err(Fault::new(at, "cycle", message));
            }
            None => {}
        }
        self.expansions.insert(resource, None);
        let expansion = self.instances_of(resource).map(Rc::new);
        self.expansions.insert(resource, Some(expansion.clone()));
        expansion
    }

    fn instances_of(&mut self, resource: usize) -> Eval<Expansion> {
        let declaration = &self.module.resources[resource];
        let env = Env::new(declaration.place);
        let at = declaration.at;
        let argument = |name: &str| {
            let attribute = declaration.attributes.get(name);
            attribute.map(|attribute| &attribute.value)
        };
        let first = self.instances.len();
        let value = match (argument("count"), argument("for_each")) {
            (None, None) => self.instance(resource, String::new(), None, at)?,
            (Some(count), None) => self.counted(resource, count, &env)?,
            (None, Some(each)) => self.for_each(resource, each, &env)?,
            (Some(_), Some(each)) => {
                let at = env.place.at(each.span());
                let message = "`count` and `for_each` exclude each other";
                return Err(Fault::new(at, "evaluation", message));
            }
        };
        let instances = first..self.instances.len();
        Ok(Expansion { value, instances })
    }

    fn counted(&mut self, resource: usize, count: &'a Expression, env: &Env<'_>) -> Eval {
        let at = env.place.at(count.span());
        let count = self.evaluate(count, env)?;
        let count = match convert::number(&count, "`count`", at)? {
            Ok(count) if count.fract() == 0.0 && count >= 0.0 => count as usize,
            Ok(count) => {
                let message = format!("`count` must be a whole number from 0, not {count}");
                return Err(Fault::new(at, "wrong-type", message));
            }
            Err(what) => return Ok(Val::unknown(&what, at)),
        };
        self.check_instances(count, at)?;
        let mut items = Vec::with_capacity(count);
        for index in 0..count {
            let number = Val::number(index as f64, at);
            let entries = BTreeMap::from([("index".into(), (at, number))]);
            let binding = ("count", Val::map(entries, at)?);
            items.push(self.instance(resource, format!("[{index}]"), Some(binding), at)?);
        }
        Val::list(items, at)
    }

    fn for_each(&mut self, resource: usize, each: &'a Expression, env: &Env<'_>) -> Eval {
        let at = env.place.at(each.span());
        let each = self.evaluate(each, env)?;
        let unknown_key = match &each.data {
            Data::Unknown(what) => Some(what),
            Data::Set(items) => items.items.iter().find_map(|item| match &item.data {
                Data::Unknown(what) | Data::Reference(what) => Some(what),
                _ => None,
            }),
            Data::Map(_) => None,
            _ => {
                let message = format!(
                    "`for_each` must be a map or a set of strings, not {}",
                    each.kind()
                );
                let help = "`toset(…)` makes a set of a list";
                return Err(Fault::new(at, "wrong-type", message).help(help));
            }
        };
        if let Some(what) = unknown_key {
            return Ok(Val::unknown(what, at));
        }
        let Ok(pairs) = convert::pairs(&each, "`for_each`")? else {
            unreachable!("it is known");
        };
        self.check_instances(pairs.len(), at)?;
        let mut entries = BTreeMap::new();
        for (key, value) in pairs {
            let Data::String(name) = &key.data else {
                let message = format!("`for_each` goes through strings, not {}", key.kind());
                return Err(Fault::new(at, "wrong-type", message));
            };
            let name = name.clone();
            let key_at = key.at;
            let pair = BTreeMap::from([
                ("key".into(), (key_at, key)),
                ("value".into(), (key_at, value)),
            ]);
            let binding = ("each", Val::map(pair, key_at)?);
            let instance = self.instance(resource, format!("[{name:?}]"), Some(binding), at)?;
            entries.insert(name, (key_at, instance));
        }
        Val::map(entries, at)
    }

    fn check_instances(&mut self, more: usize, at: At) -> Eval<()> {
        if more > MAX_INSTANCES - self.instances.len().min(MAX_INSTANCES) {
            let message = format!("more than {MAX_INSTANCES} instances of resources");
            return Err(Fault::too_large(at, message));
        }
        self.charge(more, at)
    }

    fn instance(
        &mut self,
        resource: usize,
        suffix: String,
        binding: Option<(&'static str, Val)>,
        at: At,
    ) -> Eval {
        self.check_instances(1, at)?;
        self.instances.push(Instance {
            resource,
            suffix,
            binding,
        });
        let data = Data::Instance(self.instances.len() - 1);
        Ok(Val { at, data })
    }

    /// `aws_security_group.web["a"]`.
    pub(super) fn address(&self, instance: usize) -> String {
        let instance = &self.instances[instance];
        let address = self.module.resources[instance.resource].address();
        address + &instance.suffix
    }

    fn in_instance(
        &mut self,
        instance: usize,
        evaluate: impl FnOnce(&mut Self, &Env<'_>) -> Eval,
    ) -> Eval {
        let own = &self.instances[instance];
        let env = Env::new(self.module.resources[own.resource].place);
        match own.binding.clone() {
            None => evaluate(self, &env),
            Some((name, value)) => {
                let binding = Binding {
                    name,
                    value,
                    outer: None,
                };
                evaluate(self, &env.with(&binding))
            }
        }
    }

    /// An attribute of an instance, or its blocks of a type; what is not written is unknown, or stands for itself
    /// if it is an id.
    pub(super) fn member(&mut self, instance: usize, name: &str, at: At) -> Eval {
        let module = self.module;
        let declaration = &module.resources[self.instances[instance].resource];
        if let Some(value) = self.written(instance, declaration, name, at)
            && !matches!(
                value,
                Ok(Val {
                    data: Data::Null,
                    ..
                })
            )
        {
            return value;
        }
        let address = self.address(instance);
        let is_identity = IDENTITIES.contains(&(declaration.kind, name)) && !declaration.data;
        let what = match is_identity {
            true => address,
            false => format!("{address}.{name}"),
        };
        let is_id = name == "id" || name == "arn" || name.ends_with("_id");
        if is_id && !declaration.data {
            let data = Data::Reference(what.into());
            return Ok(Val { at, data });
        }
        Ok(Val::unknown(&what, at))
    }

    /// What is written for an attribute, or as blocks.
    fn written(
        &mut self,
        instance: usize,
        declaration: &'a Declaration<'a>,
        name: &str,
        at: At,
    ) -> Option<Eval> {
        if let Some((key, attribute)) = declaration.attributes.get_key_value(name) {
            return Some(self.once(Name::Attribute(instance, key), at, |evaluator| {
                evaluator.in_instance(instance, |evaluator, env| {
                    evaluator.evaluate(&attribute.value, env)
                })
            }));
        }
        let (key, blocks) = declaration.blocks.get_key_value(name)?;
        Some(self.once(Name::Attribute(instance, key), at, |evaluator| {
            evaluator.in_instance(instance, |evaluator, env| evaluator.blocks(blocks, env))
        }))
    }

    /// All that is written in a resource.
    pub(super) fn attributes(&mut self, instance: usize) -> Eval {
        let module = self.module;
        let declaration = &module.resources[self.instances[instance].resource];
        let at = declaration.at;
        let mut entries = BTreeMap::new();
        for (name, attribute) in &declaration.attributes {
            if META.contains(name) {
                continue;
            }
            let key_at = declaration.place.at(attribute.key.span());
            if let Some(value) = self.written(instance, declaration, name, key_at) {
                entries.insert(Rc::from(*name), (key_at, self.settle(value)?));
            }
        }
        for (name, blocks) in &declaration.blocks {
            if META.contains(name) {
                continue;
            }
            let key_at = declaration.place.at(blocks[0].ident.span());
            if entries.contains_key(*name) {
                let message = format!("`{name}` stands here as a block and as an attribute");
                return Err(Fault::new(key_at, "evaluation", message));
            }
            if let Some(value) = self.written(instance, declaration, name, key_at) {
                let value = self.settle(value)?;
                // A `dynamic` block that makes none says nothing, as if it were not written.
                if !matches!(&value.data, Data::List(items) if items.items.is_empty()) {
                    entries.insert(Rc::from(*name), (key_at, value));
                }
            }
        }
        if declaration.is_rule()
            && let Some(text) = comment::of(declaration.block)
        {
            describe(&mut entries, text, at)?;
        }
        Val::map(entries, at)
    }

    /// Blocks of one type.
    fn blocks(&mut self, blocks: &[&'a Block], env: &Env<'_>) -> Eval {
        let mut items = Vec::new();
        let mut unknown = None;
        let at = env.place.at(blocks.first().and_then(|block| block.span()));
        for block in blocks {
            if block.ident.as_str() == DYNAMIC {
                if let Some(what) = self.dynamic(block, env, &mut items)? {
                    unknown.get_or_insert(what);
                }
            } else {
                let block_at = env.place.at(block.span());
                items.push(self.block(block, None, block_at, env)?);
            }
        }
        match unknown {
            Some(unknown) => Ok(unknown),
            None => Val::list(items, at),
        }
    }

    /// Adds the blocks that a `dynamic` block stands for, or answers with what it is that is not known.
    fn dynamic(
        &mut self,
        block: &'a Block,
        env: &Env<'_>,
        items: &mut Vec<Val>,
    ) -> Eval<Option<Val>> {
        let block_at = env.place.at(block.ident.span());
        let label = block.labels.first().map_or("", |label| label.as_str());
        let missing = |what: &str| {
            let message = format!("the `dynamic` block has no `{what}`");
            Fault::new(block_at, "missing-key", message)
        };
        let each = block.body.get_attribute("for_each");
        let each = &each.ok_or_else(|| missing("for_each"))?.value;
        let content = block.body.get_blocks("content").next();
        let content = content.ok_or_else(|| missing("content"))?;
        let iterator = match block.body.get_attribute("iterator").map(|own| &own.value) {
            Some(Expression::Variable(name)) => name.as_str(),
            Some(Expression::String(name)) => name.as_str(),
            _ => label,
        };
        let collection = self.evaluate(each, env)?;
        let pairs = match convert::pairs(&collection, "`for_each`")? {
            Ok(pairs) => pairs,
            Err(what) => return Ok(Some(Val::unknown(&what, env.place.at(each.span())))),
        };
        let content_at = env.place.at(content.span());
        for (key, value) in pairs {
            self.charge(1, content_at)?;
            let pair = BTreeMap::from([
                ("key".into(), (key.at, key)),
                ("value".into(), (value.at, value)),
            ]);
            let binding = Binding {
                name: iterator,
                value: Val::map(pair, content_at)?,
                outer: env.bindings,
            };
            let env = env.with(&binding);
            items.push(self.block(content, Some((label, block)), content_at, &env)?);
            convert::bounded(items.len(), content_at)?;
        }
        Ok(None)
    }

    /// The attributes and blocks of a block. `dynamic`: of what type it is, and the block that it is made by.
    fn block(
        &mut self,
        block: &'a Block,
        dynamic: Option<(&str, &Block)>,
        at: At,
        env: &Env<'_>,
    ) -> Eval {
        let mut entries = BTreeMap::new();
        let mut nested: BTreeMap<&'a str, Vec<&'a Block>> = BTreeMap::new();
        for structure in &block.body {
            match structure {
                Structure::Attribute(attribute) => {
                    let key_at = env.place.at(attribute.key.span());
                    let value = self.evaluate(&attribute.value, env);
                    let value = self.settle(value)?;
                    entries.insert(Rc::from(attribute.key.as_str()), (key_at, value));
                }
                Structure::Block(block) => nested.entry(type_of(block)).or_default().push(block),
            }
        }
        for (name, blocks) in nested {
            let value = self.blocks(&blocks, env);
            let key_at = env.place.at(blocks[0].ident.span());
            entries.insert(Rc::from(name), (key_at, self.settle(value)?));
        }
        let kind = dynamic.map_or(block.ident.as_str(), |(label, _)| label);
        if let "ingress" | "egress" = kind {
            let outer = dynamic.and_then(|(_, block)| comment::of(block));
            if let Some(text) = comment::of(block).or(outer) {
                describe(&mut entries, text, at)?;
            }
        }
        Val::map(entries, at)
    }
}

/// A block that stands for as many of another type as its `for_each` has elements.
pub(super) const DYNAMIC: &str = "dynamic";

/// The type of a block, or of those that it stands for.
pub(super) fn type_of(block: &Block) -> &str {
    match block.labels.first() {
        Some(label) if block.ident.as_str() == DYNAMIC => label.as_str(),
        _ => block.ident.as_str(),
    }
}

/// Makes a comment the description of a rule that has none.
fn describe(entries: &mut BTreeMap<Rc<str>, (At, Val)>, comment: String, at: At) -> Eval<()> {
    let own = entries.get("description").map(|(_, value)| &value.data);
    if let None | Some(Data::Null) = own {
        entries.insert("description".into(), (at, Val::string(comment, at)?));
    }
    Ok(())
}
