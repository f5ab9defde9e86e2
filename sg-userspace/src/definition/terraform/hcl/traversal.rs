//! References: names, and the way from them to what they stand for.

use hcl_edit::expr::{Expression, Traversal, TraversalOperator};
use hcl_edit::{Decorated, Span as _};

use super::super::super::escape::quote;
use super::super::super::tree::At;
use super::convert;
use super::evaluator::{Env, Evaluator};
use super::value::{Data, Eval, Fault, Val};

type Operators<'a> = &'a [Decorated<TraversalOperator>];

impl<'a> Evaluator<'a, '_> {
    /// A name without anything behind it.
    pub(super) fn name(&mut self, name: &'a str, at: At, env: &Env<'_>) -> Eval {
        if let Some(value) = env.get(name) {
            return Ok(value.clone());
        }
        if ROOTS.contains(&name) {
            return Ok(Val::unknown(name, at));
        }
        let message = format!("{} is no name that is known here", quote(name));
        Err(Fault::new(at, "unknown-name", message).help("text stands in quotes"))
    }

    /// A name or another expression, and what is taken of it.
    pub(super) fn traversal(&mut self, traversal: &'a Traversal, at: At, env: &Env<'_>) -> Eval {
        let operators = &traversal.operators[..];
        let (value, rest) = match &traversal.expr {
            Expression::Variable(name) if env.get(name.as_str()).is_none() => {
                self.root(name.as_str(), operators, at)?
            }
            expression => (self.evaluate(expression, env)?, operators),
        };
        let value = self.follow(value, rest, at, env)?;
        Ok(match value.data {
            // Where it is used says more than where that is which has no value.
            Data::Unknown(_) | Data::Reference(_) | Data::Instance(_) => value.moved(at),
            _ => value,
        })
    }

    /// What the first names of a reference stand for, and what comes behind them.
    fn root(
        &mut self,
        root: &'a str,
        operators: Operators<'a>,
        at: At,
    ) -> Eval<(Val, Operators<'a>)> {
        let name = |index: usize| match operators.get(index).map(|operator| operator.value()) {
            Some(TraversalOperator::GetAttr(name)) => Some(name.as_str()),
            _ => None,
        };
        match (root, name(0), name(1)) {
            ("var", Some(variable), _) => Ok((self.variable(variable, at)?, &operators[1..])),
            ("local", Some(local), _) => Ok((self.local(local, at)?, &operators[1..])),
            ("data", Some(kind), Some(name)) => {
                Ok((self.resource(true, kind, name, at)?, &operators[2..]))
            }
            _ if ROOTS.contains(&root) => Ok((Val::unknown(root, at), operators)),
            (kind, Some(name), _) => Ok((self.resource(false, kind, name, at)?, &operators[1..])),
            _ => {
                let message = format!("{} is no name that is known here", quote(root));
                Err(Fault::new(at, "unknown-name", message))
            }
        }
    }

    fn local(&mut self, name: &'a str, at: At) -> Eval {
        let Some((place, attribute)) = self.module.locals.get(name).copied() else {
            return Ok(Val::unknown(&format!("local.{name}"), at));
        };
        self.once(super::evaluator::Name::Local(name), at, |evaluator| {
            evaluator.evaluate(&attribute.value, &Env::new(place))
        })
    }

    fn resource(&mut self, data: bool, kind: &str, name: &str, at: At) -> Eval {
        match self.module.resource(data, kind, name) {
            Some(resource) => Ok(self.expand(resource, at)?.value.clone().moved(at)),
            None => {
                let prefix = if data { "data." } else { "" };
                Ok(Val::unknown(&format!("{prefix}{kind}.{name}"), at))
            }
        }
    }

    /// Applies one operator after the other.
    fn follow(&mut self, mut value: Val, operators: Operators<'a>, at: At, env: &Env<'_>) -> Eval {
        for (index, operator) in operators.iter().enumerate() {
            let own = operator.value();
            let splat = match own {
                TraversalOperator::FullSplat(_) => operators.len(),
                // `.*` goes through its list for the attributes behind it only.
                TraversalOperator::AttrSplat(_) => {
                    let is_attribute = |operator: &&Decorated<TraversalOperator>| {
                        matches!(operator.value(), TraversalOperator::GetAttr(_))
                    };
                    let behind = operators[index + 1..].iter().take_while(is_attribute);
                    index + 1 + behind.count()
                }
                _ => {
                    let operator_at = env.place.at(operator.span());
                    value = self.step(value, own, at, operator_at, env)?;
                    continue;
                }
            };
            let value = self.splat(&value, &operators[index + 1..splat], at, env)?;
            return self.follow(value, &operators[splat..], at, env);
        }
        Ok(value)
    }

    /// Applies operators to each element.
    fn splat(&mut self, value: &Val, operators: Operators<'a>, at: At, env: &Env<'_>) -> Eval {
        let elements = match &value.data {
            Data::Unknown(what) => return Ok(Val::unknown(&format!("{what}[*]"), at)),
            Data::Null => Vec::new(),
            Data::List(items) | Data::Set(items) => items.items.clone(),
            _ => vec![value.clone()],
        };
        self.charge(elements.len() * (1 + operators.len()), at)?;
        let each = elements
            .into_iter()
            .map(|element| self.follow(element, operators, at, env));
        Val::list(each.collect::<Eval<_>>()?, at)
    }

    fn step(
        &mut self,
        value: Val,
        operator: &'a TraversalOperator,
        at: At,
        operator_at: At,
        env: &Env<'_>,
    ) -> Eval {
        match operator {
            TraversalOperator::GetAttr(name) => self.attribute_of(&value, name.as_str(), at),
            TraversalOperator::LegacyIndex(index) => {
                let key = Val::number(*index.value() as f64, operator_at);
                self.element(&value, &key, at)
            }
            TraversalOperator::Index(expression) => {
                let key = self.evaluate(expression, env)?;
                self.element(&value, &key, at)
            }
            TraversalOperator::AttrSplat(_) | TraversalOperator::FullSplat(_) => {
                unreachable!("who calls looks at these")
            }
        }
    }

    fn attribute_of(&mut self, value: &Val, name: &str, at: At) -> Eval {
        match &value.data {
            Data::Unknown(what) | Data::Reference(what) => {
                Ok(Val::unknown(&format!("{what}.{name}"), at))
            }
            Data::Instance(instance) => self.member(*instance, name, at),
            Data::Map(entries) => match entries.entries.get(name) {
                Some((_, value)) => Ok(value.clone()),
                None => {
                    let known = entries.entries.keys().map(|key| &**key);
                    let message = format!("there is no {} here", quote(name));
                    let message = match near(name, known) {
                        Some(near) => format!("{message}; did you mean {}?", quote(near)),
                        None => message,
                    };
                    Err(Fault::new(at, "unknown-name", message))
                }
            },
            Data::List(_) | Data::Set(_) => {
                let message = format!("{} is taken of {}", quote(name), value.kind());
                let help = "`[*]` takes it of every element, `[0]` of the first";
                Err(Fault::new(at, "wrong-type", message).help(help))
            }
            _ => {
                let message = format!("{} has no {}", value.kind(), quote(name));
                Err(Fault::new(at, "wrong-type", message))
            }
        }
    }

    /// `value[key]`.
    pub(super) fn element(&mut self, value: &Val, key: &Val, at: At) -> Eval {
        if let Data::Unknown(what) = &value.data {
            let key = match &key.data {
                Data::String(text) => format!("{text:?}"),
                Data::Number(number) => number.to_string(),
                _ => "…".into(),
            };
            return Ok(Val::unknown(&format!("{what}[{key}]"), at));
        }
        if let Data::Unknown(what) | Data::Reference(what) = &key.data {
            return Ok(Val::unknown(what, at));
        }
        match &value.data {
            Data::List(items) => {
                let index = match convert::number(key, "an index", at)? {
                    Ok(index) => index,
                    Err(what) => return Ok(Val::unknown(&what, at)),
                };
                let count = items.items.len();
                let whole = index.fract() == 0.0 && index >= 0.0;
                match items.items.get(index as usize) {
                    Some(item) if whole => Ok(item.clone()),
                    _ => {
                        let message = format!("there is no element {index} in a list of {count}");
                        Err(Fault::new(at, "evaluation", message))
                    }
                }
            }
            Data::Map(_) | Data::Instance(_) => match convert::text(key, "a key", at)? {
                convert::Text::Known(key) => self.attribute_of(value, &key, at),
                convert::Text::Unknown(what) => Ok(Val::unknown(&what, at)),
            },
            Data::Set(_) => {
                let help = "`tolist(…)` makes a list of it; `one(…)` takes the only element";
                Err(Fault::new(at, "wrong-type", "elements of a set have no index").help(help))
            }
            _ => {
                let message = format!("{} has no elements", value.kind());
                Err(Fault::new(at, "wrong-type", message))
            }
        }
    }
}

/// The name that was meant, if one is near.
fn near<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    known
        .take(100)
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(similar, _)| *similar > 0.85)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

/// First names of references to what no text says, or what is not known here.
const ROOTS: [&str; 11] = [
    "var",
    "local",
    "data",
    "module",
    "path",
    "terraform",
    "each",
    "count",
    "self",
    "ephemeral",
    "provider",
];
