//! Variables: the values that files give them, and the types that these must have.

use std::collections::BTreeMap;
use std::rc::Rc;

use hcl_edit::expr::{Expression, FuncCall, ObjectKey};

use super::super::super::escape::quote;
use super::super::super::tree::At;
use super::convert::{self, Text};
use super::evaluator::{Env, Evaluator, Name, Place};
use super::module::Assigned;
use super::value::{Data, Eval, Fault, Val};

/// A type that a variable is declared with.
enum Type<'a> {
    Any,
    String,
    Number,
    Bool,
    List(Box<Self>),
    Set(Box<Self>),
    Map(Box<Self>),
    Tuple(Vec<Self>),
    Object(Vec<Attribute<'a>>),
}

struct Attribute<'a> {
    name: &'a str,
    kind: Type<'a>,
    optional: bool,
    default: Option<&'a Expression>,
}

impl<'a> Evaluator<'a, '_> {
    /// `var.NAME`.
    pub(super) fn variable(&mut self, name: &'a str, at: At) -> Eval {
        self.once(Name::Variable(name), at, |evaluator| {
            let value = evaluator.variable_value(name, at);
            // Wrong once, wrong wherever it is used: said where it is written.
            value.or_else(|fault| evaluator.settle(Err(fault)))
        })
    }

    fn variable_value(&mut self, name: &'a str, at: At) -> Eval {
        let module = self.module;
        let variable = module.variables.get(name);
        let assigned = match module.values.get(name) {
            Some(Assigned::Expression(place, attribute)) => {
                Some(self.evaluate(&attribute.value, &Env::new(*place))?)
            }
            Some(Assigned::Value(value)) => Some(value.clone()),
            None => None,
        };
        let Some(variable) = variable else {
            return Ok(assigned.unwrap_or_else(|| Val::unknown(&format!("var.{name}"), at)));
        };
        let is_null = |value: &Val| matches!(value.data, Data::Null);
        let value = match (assigned, variable.default) {
            (Some(value), None) => value,
            (Some(value), Some(_)) if variable.nullable || !is_null(&value) => value,
            (_, Some(default)) => self.evaluate(default, &Env::new(variable.place))?,
            (None, None) => return Ok(Val::unknown(&format!("var.{name}"), at)),
        };
        let Some(kind) = variable.kind else {
            return Ok(value);
        };
        let kind = Type::read(kind);
        self.convert(value, &kind, &format!("var.{name}"), variable.place)
    }

    /// A value of the type, if there is one that means the same.
    fn convert(&mut self, value: Val, kind: &Type<'a>, path: &str, place: Place) -> Eval {
        let at = value.at;
        self.charge(1, at)?;
        if let Data::Null | Data::Unknown(_) = value.data {
            return Ok(value);
        }
        let what = quote(path);
        let refused = |expected: &str| {
            let message = format!("{what} must be {expected}, not {}", value.kind());
            Fault::new(at, "wrong-type", message)
        };
        match kind {
            Type::Any => Ok(value),
            Type::String => match convert::text(&value, &what, at)? {
                Text::Known(text) => Val::string(text, at),
                Text::Unknown(_) => Ok(value),
            },
            Type::Number => Ok(match convert::number(&value, &what, at)? {
                Ok(number) => Val::number(number, at),
                Err(_) => value,
            }),
            Type::Bool => Ok(Val::bool(convert::boolean(&value, &what, at)?, at)),
            Type::List(element) | Type::Set(element) => {
                let (Data::List(items) | Data::Set(items)) = &value.data else {
                    return Err(refused("a list"));
                };
                let mut converted = Vec::with_capacity(items.items.len());
                for (index, item) in items.items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    converted.push(self.convert(item.clone(), element, &path, place)?);
                }
                match kind {
                    Type::Set(_) => Val::set(converted, at),
                    _ => Val::list(converted, at),
                }
            }
            Type::Tuple(kinds) => {
                let (Data::List(items) | Data::Set(items)) = &value.data else {
                    return Err(refused("a list"));
                };
                if items.items.len() != kinds.len() {
                    return Err(refused(&format!("a list of {}", kinds.len())));
                }
                let mut converted = Vec::with_capacity(kinds.len());
                for ((index, item), kind) in items.items.iter().enumerate().zip(kinds) {
                    let path = format!("{path}[{index}]");
                    converted.push(self.convert(item.clone(), kind, &path, place)?);
                }
                Val::list(converted, at)
            }
            Type::Map(element) => {
                let Data::Map(entries) = &value.data else {
                    return Err(refused("a map"));
                };
                let mut converted = BTreeMap::new();
                for (key, (key_at, item)) in &entries.entries {
                    let path = format!("{path}[{key:?}]");
                    let item = self.convert(item.clone(), element, &path, place)?;
                    converted.insert(key.clone(), (*key_at, item));
                }
                Val::map(converted, at)
            }
            Type::Object(attributes) => self.object_of(value, attributes, path, place),
        }
    }

    fn object_of(
        &mut self,
        value: Val,
        attributes: &[Attribute<'a>],
        path: &str,
        place: Place,
    ) -> Eval {
        let at = value.at;
        let Data::Map(entries) = &value.data else {
            let message = format!("{} must be an object, not {}", quote(path), value.kind());
            return Err(Fault::new(at, "wrong-type", message));
        };
        let mut converted = BTreeMap::new();
        for attribute in attributes {
            let path = format!("{path}.{}", attribute.name);
            let own = entries.entries.get(attribute.name);
            let given = own.filter(|(_, own)| {
                let null = matches!(own.data, Data::Null);
                !(null && attribute.default.is_some())
            });
            let (key_at, item) = match (given, attribute.default) {
                (Some((key_at, item)), _) => (*key_at, item.clone()),
                (None, Some(default)) => (at, self.evaluate(default, &Env::new(place))?),
                (None, None) if attribute.optional => (at, Val::null(at)),
                (None, None) => {
                    let message = format!("{} is missing", quote(&path));
                    return Err(Fault::new(at, "missing-key", message));
                }
            };
            let item = self.convert(item, &attribute.kind, &path, place)?;
            converted.insert(Rc::from(attribute.name), (key_at, item));
        }
        Val::map(converted, at)
    }
}

impl<'a> Type<'a> {
    /// What is no type is any.
    fn read(expression: &'a Expression) -> Self {
        match expression {
            Expression::Variable(name) => Self::named(name.as_str()),
            // As versions before 0.12 wrote it.
            Expression::String(name) => Self::named(name.as_str()),
            Expression::Parenthesis(inner) => Self::read(inner.inner()),
            Expression::FuncCall(call) => Self::called(call),
            _ => Self::Any,
        }
    }

    fn named(name: &str) -> Self {
        match name {
            "string" => Self::String,
            "number" => Self::Number,
            "bool" => Self::Bool,
            "list" => Self::List(Box::new(Self::Any)),
            "set" => Self::Set(Box::new(Self::Any)),
            "map" => Self::Map(Box::new(Self::Any)),
            _ => Self::Any,
        }
    }

    fn called(call: &'a FuncCall) -> Self {
        let Some(argument) = call.args.get(0) else {
            return Self::Any;
        };
        let element = || Box::new(Self::read(argument));
        match (call.name.name.as_str(), argument) {
            ("list", _) => Self::List(element()),
            ("set", _) => Self::Set(element()),
            ("map", _) => Self::Map(element()),
            ("tuple", Expression::Array(kinds)) => {
                Self::Tuple(kinds.iter().map(Self::read).collect())
            }
            ("object", Expression::Object(object)) => {
                let attribute = |(key, value): (&'a ObjectKey, &'a hcl_edit::expr::ObjectValue)| {
                    let name = match key {
                        ObjectKey::Ident(name) => name.as_str(),
                        ObjectKey::Expression(expression) => expression.as_str()?,
                    };
                    Some(Attribute::read(name, value.expr()))
                };
                Self::Object(object.iter().filter_map(attribute).collect())
            }
            _ => Self::Any,
        }
    }
}

impl<'a> Attribute<'a> {
    fn read(name: &'a str, kind: &'a Expression) -> Self {
        if let Expression::FuncCall(call) = kind
            && call.name.name.as_str() == "optional"
            && let Some(kind) = call.args.get(0)
        {
            return Self {
                name,
                kind: Type::read(kind),
                optional: true,
                default: call.args.get(1),
            };
        }
        Self {
            name,
            kind: Type::read(kind),
            optional: false,
            default: None,
        }
    }
}
