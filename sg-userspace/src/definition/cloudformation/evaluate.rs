//! Functions in a template, as far as it tells what they answer.

use std::borrow::Cow;
use std::collections::HashMap;

use super::super::document::{Node, Value};

/// Values that functions may yield, with those they are looked for among: a template may have a MB.
const MAX_VALUES: usize = 1_000_000;
/// Bytes that functions may put together.
const MAX_BYTES: usize = 64 << 20;
/// Values, functions and conditions that may be evaluated for one another: a stack has room for them.
const MAX_DEPTH: usize = 200;

/// Evaluates what stands in one template.
pub(super) struct Evaluator<'t, 's> {
    template: &'t Node<'s>,
    /// Logical names of resources, and the words that stand for their ids.
    words: &'t HashMap<String, String>,
    /// By name.
    parameters: HashMap<&'t str, &'t Node<'s>>,
    /// By name.
    pub(super) definitions: HashMap<&'t str, &'t Node<'s>>,
    /// Conditions that are evaluated; `None`: one that is being evaluated.
    pub(super) conditions: HashMap<String, Option<Result<bool, String>>>,
    nodes: usize,
    bytes: usize,
    /// Of values, functions and conditions alike: each may lead to each.
    depth: usize,
}

/// What is not known: how the template calls it.
pub(super) type Unknown = String;

impl<'t, 's> Evaluator<'t, 's> {
    pub(super) fn new(template: &'t Node<'s>, words: &'t HashMap<String, String>) -> Self {
        let section = |key| {
            let entries = template.get(key).and_then(Node::map).unwrap_or_default();
            entries.iter().map(|(name, node)| (&*name.value, node))
        };
        Self {
            template,
            words,
            parameters: section("Parameters").collect(),
            definitions: section("Conditions").collect(),
            conditions: HashMap::new(),
            nodes: 0,
            bytes: 0,
            depth: 0,
        }
    }

    /// Goes one level deeper, if there is one.
    pub(super) fn deeper<T>(&mut self, evaluate: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.depth == MAX_DEPTH {
            return None;
        }
        self.depth += 1;
        let result = evaluate(self);
        self.depth -= 1;
        Some(result)
    }

    /// The value without functions; what is not known is [`Value::Unknown`]. What a function leaves out is gone.
    pub(super) fn evaluate(&mut self, node: &Node<'s>) -> Node<'s> {
        self.nodes += 1;
        if self.nodes > MAX_VALUES {
            return unknown(node, "more than is evaluated");
        }
        let evaluated = self.deeper(|evaluator| evaluator.evaluate_node(node));
        evaluated.unwrap_or_else(|| unknown(node, "values in one another without end"))
    }

    fn evaluate_node(&mut self, node: &Node<'s>) -> Node<'s> {
        match &node.value {
            Value::Map(entries) => {
                if let Some((name, argument)) = function(node) {
                    let value = stored(self.call(name, argument));
                    return Node { at: node.at, value };
                }
                // A transform adds what this file does not tell.
                let function = entries
                    .iter()
                    .find(|(key, _)| key.value.starts_with("Fn::"));
                if let Some((function, _)) = function {
                    let what = format!("{} beside other keys", function.value);
                    let value = Value::Unknown(what.into());
                    return Node { at: node.at, value };
                }
                let mut evaluated = Vec::with_capacity(entries.len());
                for (key, value) in entries {
                    let value = self.evaluate(value);
                    if value.value != Value::Null {
                        evaluated.push((key.clone(), value));
                    }
                }
                Node {
                    at: node.at,
                    value: Value::Map(evaluated),
                }
            }
            Value::List(nodes) => {
                let evaluated = nodes.iter().map(|node| self.evaluate(node));
                let given = evaluated.filter(|node| node.value != Value::Null);
                Node {
                    at: node.at,
                    value: Value::List(given.collect()),
                }
            }
            // CloudFormation refuses it; what is not given is `AWS::NoValue`.
            Value::Null => unknown(node, "null"),
            value => Node {
                at: node.at,
                value: stored(value.clone()),
            },
        }
    }

    fn call(&mut self, name: &str, argument: &Node<'s>) -> Value<'s> {
        let value = match name {
            "Ref" => self.reference(argument),
            "Fn::GetAtt" => self.attribute(argument),
            "Fn::Sub" => self.substitute(argument),
            "Fn::Join" => self.join(argument),
            "Fn::If" => self.choose(argument),
            "Fn::FindInMap" => self.find(argument),
            "Fn::Select" => self.select(argument),
            "Fn::Split" => self.split(argument),
            other => Err(other.to_owned()),
        };
        value.unwrap_or_else(|what| Value::Unknown(what.into()))
    }

    fn reference(&mut self, argument: &Node<'s>) -> Result<Value<'s>, Unknown> {
        let Value::String(name) = &argument.value else {
            return Err("Ref".into());
        };
        match &**name {
            "AWS::NoValue" => Ok(Value::Null),
            pseudo if pseudo.starts_with("AWS::") => Err(pseudo.into()),
            name => self.named(name),
        }
    }

    /// A parameter's value, or what stands for a resource's id.
    fn named(&mut self, name: &str) -> Result<Value<'s>, Unknown> {
        if let Some(word) = self.words.get(name) {
            return Ok(Value::String(word.clone().into()));
        }
        let Some(&parameter) = self.parameters.get(name) else {
            return Err(format!("{name}, which is no parameter and no resource"));
        };
        let kind = match parameter.get("Type").map(|node| &node.value) {
            Some(Value::String(kind)) => kind,
            _ => "String",
        };
        let Some(default) = parameter.get("Default") else {
            return Err(format!("the parameter {name}, which has no default"));
        };
        if kind.starts_with("AWS::SSM::") {
            return Err(format!("the parameter {name}, which is kept in SSM"));
        }
        let text = text_of(default)?;
        self.spend(text.len())?;
        if !kind.starts_with("List<") && kind != "CommaDelimitedList" {
            return Ok(match &default.value {
                Value::Number(number) => Value::Number(number.clone()),
                _ => Value::String(text.into()),
            });
        }
        let part = |part: &str| Node {
            at: default.at,
            value: Value::String(part.trim().to_owned().into()),
        };
        let parts: Vec<Node<'s>> = text.split(',').map(part).collect();
        self.nodes += parts.len();
        Ok(Value::List(parts))
    }

    fn attribute(&mut self, argument: &Node<'s>) -> Result<Value<'s>, Unknown> {
        let path = match &argument.value {
            Value::String(path) => path.clone().into_owned(),
            Value::List(parts) => {
                let parts: Vec<String> = parts
                    .iter()
                    .map(|part| text_of(&self.evaluate(part)))
                    .collect::<Result<_, _>>()?;
                parts.join(".")
            }
            _ => return Err("Fn::GetAtt".into()),
        };
        self.attribute_at(&path)
    }

    fn attribute_at(&mut self, path: &str) -> Result<Value<'s>, Unknown> {
        let known = path.split_once('.').and_then(|(name, attribute)| {
            let word = self.words.get(name)?;
            ["GroupId", "PrefixListId", "Id"]
                .contains(&attribute)
                .then_some(word)
        });
        match known {
            Some(word) => Ok(Value::String(word.clone().into())),
            None => Err(path.to_owned()),
        }
    }

    /// `${Name}`, `${Name.Attribute}` and `${!not replaced}` in a text.
    fn substitute(&mut self, argument: &Node<'s>) -> Result<Value<'s>, Unknown> {
        let (text, own) = match &argument.value {
            Value::String(text) => (text, None),
            Value::List(nodes) => match &nodes[..] {
                [
                    Node {
                        value: Value::String(text),
                        ..
                    },
                    own,
                ] => (text, Some(own)),
                _ => return Err("Fn::Sub".into()),
            },
            _ => return Err("Fn::Sub".into()),
        };
        let mut result = String::with_capacity(text.len());
        let mut rest = &**text;
        while let Some((before, behind)) = rest.split_once("${") {
            let Some((name, after)) = behind.split_once('}') else {
                break;
            };
            result.push_str(before);
            if let Some(literal) = name.strip_prefix('!') {
                result.push_str("${");
                result.push_str(literal);
                result.push('}');
            } else {
                let value = match own.and_then(|own| own.get(name)) {
                    Some(value) => self.evaluate(value),
                    None => {
                        let value = match name {
                            _ if name.starts_with("AWS::") => return Err(name.into()),
                            _ if name.contains('.') => self.attribute_at(name)?,
                            _ => self.named(name)?,
                        };
                        Node {
                            at: argument.at,
                            value,
                        }
                    }
                };
                let text = text_of(&value)?;
                self.spend(text.len())?;
                result.push_str(&text);
            }
            rest = after;
        }
        result.push_str(rest);
        self.spend(result.len())?;
        Ok(Value::String(result.into()))
    }

    fn join(&mut self, argument: &Node<'s>) -> Result<Value<'s>, Unknown> {
        let [delimiter, list] = self.arguments(argument, "Fn::Join")?;
        let (delimiter, list) = (text_of(&delimiter)?, self.list(list, "Fn::Join")?);
        let parts: Vec<String> = list.iter().map(text_of).collect::<Result<_, _>>()?;
        let length: usize = parts.iter().map(String::len).sum();
        self.spend(length.saturating_add(delimiter.len().saturating_mul(parts.len())))?;
        Ok(Value::String(parts.join(&delimiter).into()))
    }

    fn choose(&mut self, argument: &Node<'s>) -> Result<Value<'s>, Unknown> {
        let Some([condition, yes, no]) = argument.list() else {
            return Err("Fn::If".into());
        };
        let Value::String(name) = &condition.value else {
            return Err("Fn::If".into());
        };
        let chosen = if self.condition(name)? { yes } else { no };
        Ok(self.evaluate(chosen).value)
    }

    fn find(&mut self, argument: &Node<'s>) -> Result<Value<'s>, Unknown> {
        let Some([map, first, second, ..]) = argument.list() else {
            return Err("Fn::FindInMap".into());
        };
        let mut key = |node| text_of(&self.evaluate(node));
        let (map, first, second) = (key(map)?, key(first)?, key(second)?);
        let mappings = self.template.get("Mappings");
        let found = mappings.and_then(|mappings| self.entry(mappings, &map));
        let found = found.and_then(|found| self.entry(found, &first));
        let found = found.and_then(|found| self.entry(found, &second));
        let missing = || format!("{first}, {second} of the mapping {map}");
        let found = found.ok_or_else(missing)?;
        // Mappings hold no functions, which could lead back to them.
        let is_text = |node: &Node<'_>| {
            matches!(
                node.value,
                Value::String(_) | Value::Number(_) | Value::Bool(_)
            )
        };
        if !is_text(found) && !found.list().is_some_and(|nodes| nodes.iter().all(is_text)) {
            return Err(format!(
                "{}, which is neither text nor a list of it",
                missing()
            ));
        }
        Ok(self.evaluate(found).value)
    }

    /// An entry of a map, among others.
    fn entry(&mut self, map: &'t Node<'s>, key: &str) -> Option<&'t Node<'s>> {
        self.nodes += map.map().map_or(0, <[_]>::len);
        (self.nodes <= MAX_VALUES).then(|| map.get(key)).flatten()
    }

    fn select(&mut self, argument: &Node<'s>) -> Result<Value<'s>, Unknown> {
        let [index, list] = self.arguments(argument, "Fn::Select")?;
        let index: usize = text_of(&index)?.parse().map_err(|_| "Fn::Select")?;
        let mut list = self.list(list, "Fn::Select")?;
        if index >= list.len() {
            return Err("Fn::Select".into());
        }
        Ok(list.swap_remove(index).value)
    }

    fn split(&mut self, argument: &Node<'s>) -> Result<Value<'s>, Unknown> {
        let [delimiter, text] = self.arguments(argument, "Fn::Split")?;
        let (delimiter, text) = (text_of(&delimiter)?, text_of(&text)?);
        if delimiter.is_empty() {
            return Err("Fn::Split".into());
        }
        let part = |part: &str| Node {
            at: argument.at,
            value: Value::String(part.to_owned().into()),
        };
        let parts: Vec<Node<'s>> = text.split(&*delimiter).map(part).collect();
        self.nodes += parts.len();
        Ok(Value::List(parts))
    }

    /// As many arguments as are expected, evaluated.
    pub(super) fn arguments<const N: usize>(
        &mut self,
        argument: &Node<'s>,
        name: &str,
    ) -> Result<[Node<'s>; N], Unknown> {
        let given = argument.list().unwrap_or_default();
        if given.len() != N {
            return Err(name.into());
        }
        let evaluated: Vec<Node<'s>> = given.iter().map(|node| self.evaluate(node)).collect();
        evaluated.try_into().map_err(|_| name.into())
    }

    fn list(&self, node: Node<'s>, name: &str) -> Result<Vec<Node<'s>>, Unknown> {
        match node.value {
            Value::List(nodes) => Ok(nodes),
            Value::Unknown(what) => Err(what.into_owned()),
            _ => Err(name.into()),
        }
    }

    /// Counts bytes that are put together.
    fn spend(&mut self, bytes: usize) -> Result<(), Unknown> {
        self.bytes = self.bytes.saturating_add(bytes);
        match self.bytes > MAX_BYTES {
            true => Err("more text than is put together".into()),
            false => Ok(()),
        }
    }
}

/// Name and argument, if the node calls a function.
pub(super) fn function<'n, 's>(node: &'n Node<'s>) -> Option<(&'n str, &'n Node<'s>)> {
    match node.map()? {
        [(key, argument)] if key.value == "Ref" || key.value.starts_with("Fn::") => {
            Some((&key.value, argument))
        }
        _ => None,
    }
}

/// A value as text, as CloudFormation compares and joins values.
pub(super) fn text_of(node: &Node<'_>) -> Result<String, Unknown> {
    match &node.value {
        Value::String(text) | Value::Number(text) => Ok(text.clone().into_owned()),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Unknown(what) => Err(what.clone().into_owned()),
        _ => Err(format!("{} where text must be", node.kind())),
    }
}

/// A text that refers to what is kept elsewhere is not known: `{{resolve:ssm:…}}`.
fn stored(value: Value<'_>) -> Value<'_> {
    match value {
        Value::String(text) if text.contains("{{resolve:") => Value::Unknown(text),
        value => value,
    }
}

fn unknown<'s>(node: &Node<'_>, what: &'static str) -> Node<'s> {
    Node {
        at: node.at,
        value: Value::Unknown(Cow::Borrowed(what)),
    }
}
