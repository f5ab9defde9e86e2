//! The common functions of the language. What others answer is not known; `try` and `can` are with expressions.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::convert::{self, Text};
use super::value::{Data, Entries, Eval, Fault, Val};
use crate::definition::escape::quote;
use crate::definition::tree::At;

mod collection;
mod encoding;
mod format;
mod network;
mod number;
mod sets;
#[cfg(test)]
mod tests;
mod text;

/// The arguments of a call.
pub(super) struct Arguments<'v> {
    name: &'v str,
    values: &'v [Val],
    at: At,
}

/// Why a function has no known answer.
pub(super) enum Stop {
    /// Something that is not known decides it.
    Unknown(Rc<str>),
    Fault(Box<Fault>),
}

type Answer<T = Val> = Result<T, Stop>;

impl From<Box<Fault>> for Stop {
    fn from(fault: Box<Fault>) -> Self {
        Self::Fault(fault)
    }
}

/// Functions that look at their arguments one by one, so that what is not known need not decide.
const PATIENT: [&str; 4] = ["coalesce", "coalescelist", "lookup", "contains"];

/// What a call costs beyond its answer: elements that are looked at.
pub(super) fn cost(name: &str, values: &[Val]) -> usize {
    let of: fn(&Val) -> usize = match name {
        "length" | "lookup" | "element" | "one" | "coalesce" | "coalescelist" => |_| 1,
        "concat" | "merge" | "keys" | "values" | "slice" | "reverse" => Val::width,
        _ => Val::size,
    };
    values.iter().map(of).sum()
}

/// Calls a function.
pub(super) fn call(name: &str, values: &[Val], at: At) -> Eval {
    if !PATIENT.contains(&name)
        && let Some(what) = values.iter().find_map(Val::unknown_name)
    {
        return Ok(Val::unknown(what, at));
    }
    let arguments = Arguments { name, values, at };
    let answer = collection::call(&arguments)
        .or_else(|| sets::call(&arguments))
        .or_else(|| text::call(&arguments))
        .or_else(|| number::call(&arguments))
        .or_else(|| network::call(&arguments))
        .or_else(|| encoding::call(&arguments));
    match answer {
        None => Ok(Val::unknown(&format!("{name}(…)"), at)),
        Some(Ok(value)) => Ok(value),
        Some(Err(Stop::Unknown(what))) => Ok(Val::unknown(&what, at)),
        Some(Err(Stop::Fault(fault))) => Err(fault),
    }
}

impl<'v> Arguments<'v> {
    fn fault(&self, message: impl Into<String>) -> Stop {
        let message = format!("`{}`: {}", self.name, message.into());
        Stop::Fault(Fault::new(self.at, "evaluation", message))
    }

    fn wrong(&self, value: &Val, expected: &str) -> Stop {
        if let Data::Unknown(what) | Data::Reference(what) = &value.data {
            return Stop::Unknown(what.clone());
        }
        if let Data::Instance(_) = value.data {
            return Stop::Unknown(format!("{}(…)", self.name).into());
        }
        let message = format!(
            "an argument of {} must be {expected}, not {}",
            quote(self.name),
            value.kind()
        );
        Stop::Fault(Fault::new(value.at, "wrong-type", message))
    }

    /// All of them, of which there are as many as expected.
    fn exactly<const N: usize>(&self) -> Answer<&'v [Val; N]> {
        let missing = || {
            self.fault(format!(
                "{N} arguments are needed, not {}",
                self.values.len()
            ))
        };
        self.values.try_into().map_err(|_| missing())
    }

    fn get(&self, index: usize) -> Answer<&'v Val> {
        let missing = || self.fault(format!("argument {} is missing", index + 1));
        self.values.get(index).ok_or_else(missing)
    }

    /// The elements of a list or set.
    fn items(&self, value: &'v Val) -> Answer<&'v [Val]> {
        match &value.data {
            Data::List(items) | Data::Set(items) => Ok(&items.items),
            _ => Err(self.wrong(value, "a list")),
        }
    }

    fn entries(&self, value: &'v Val) -> Answer<&'v Entries> {
        match &value.data {
            Data::Map(entries) => Ok(entries),
            _ => Err(self.wrong(value, "a map")),
        }
    }

    fn text(&self, value: &Val) -> Answer<Rc<str>> {
        match &value.data {
            Data::String(_) | Data::Number(_) | Data::Bool(_) => {
                match convert::text(value, "an argument", value.at)? {
                    Text::Known(text) => Ok(text),
                    Text::Unknown(what) => Err(Stop::Unknown(what)),
                }
            }
            _ => Err(self.wrong(value, "a string")),
        }
    }

    fn texts(&self, value: &'v Val) -> Answer<Vec<Rc<str>>> {
        self.items(value)?
            .iter()
            .map(|item| self.text(item))
            .collect()
    }

    fn number(&self, value: &Val) -> Answer<f64> {
        match &value.data {
            Data::Number(number) => Ok(*number),
            Data::String(text) => {
                convert::parse_number(text).ok_or_else(|| self.wrong(value, "a number"))
            }
            _ => Err(self.wrong(value, "a number")),
        }
    }

    /// A whole number that fits.
    fn whole(&self, value: &Val) -> Answer<i64> {
        let number = self.number(value)?;
        if number.fract() != 0.0 || number.abs() > 9e15 {
            return Err(self.fault(format!("{number} is not a whole number")));
        }
        Ok(number as i64)
    }

    fn bool(&self, value: &Val) -> Answer<bool> {
        if let Data::Unknown(what) | Data::Reference(what) = &value.data {
            return Err(Stop::Unknown(what.clone()));
        }
        Ok(convert::boolean(value, "an argument", value.at)?)
    }

    fn list(&self, items: Vec<Val>) -> Answer {
        Ok(Val::list(items, self.at)?)
    }

    fn string(&self, text: impl Into<Rc<str>>) -> Answer {
        Ok(Val::string(text, self.at)?)
    }

    /// A number that is one.
    fn finite(&self, number: f64) -> Answer {
        if !number.is_finite() {
            return Err(self.fault("the answer is not finite"));
        }
        Ok(Val::number(number, self.at))
    }

    fn map(&self, entries: BTreeMap<Rc<str>, (At, Val)>) -> Answer {
        Ok(Val::map(entries, self.at)?)
    }

    /// Refuses what would have too many elements.
    fn bounded(&self, size: usize) -> Answer<()> {
        Ok(convert::bounded(size, self.at)?)
    }

    fn push(&self, text: &mut String, more: &str) -> Answer<()> {
        Ok(convert::push(text, more, self.at)?)
    }
}
