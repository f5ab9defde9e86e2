//! Conversions between types, as the language makes them where another type is needed.

use std::rc::Rc;

use super::super::super::tree::At;
use super::value::{Data, Eval, Fault, MAX_SIZE, MAX_STRING, Val, number_text};

/// Text, or what it is that is not known.
pub(super) enum Text {
    Known(Rc<str>),
    Unknown(Rc<str>),
}

/// A value as text; `what` it is, for messages.
pub(super) fn text(value: &Val, what: &str, at: At) -> Eval<Text> {
    Ok(match &value.data {
        Data::String(text) => Text::Known(text.clone()),
        Data::Number(number) => Text::Known(number_text(*number).into()),
        Data::Bool(value) => Text::Known(if *value { "true" } else { "false" }.into()),
        Data::Unknown(name) | Data::Reference(name) => Text::Unknown(name.clone()),
        _ => return Err(wrong(value, what, "a string", at)),
    })
}

/// A value as a number; the inner error is what it is that is not known.
pub(super) fn number(value: &Val, what: &str, at: At) -> Eval<Result<f64, Rc<str>>> {
    match &value.data {
        Data::Number(number) => Ok(Ok(*number)),
        Data::Unknown(name) | Data::Reference(name) => Ok(Err(name.clone())),
        Data::String(text) => match parse_number(text) {
            Some(number) => Ok(Ok(number)),
            None => Err(wrong(value, what, "a number", at)),
        },
        _ => Err(wrong(value, what, "a number", at)),
    }
}

/// Text that is a number in the language.
pub(super) fn parse_number(text: &str) -> Option<f64> {
    let plain = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
    let number: f64 = text.parse().ok()?;
    (text.chars().all(plain) && number.is_finite()).then_some(number)
}

/// A value that is known as true or false.
pub(super) fn boolean(value: &Val, what: &str, at: At) -> Eval<bool> {
    match &value.data {
        Data::Bool(value) => Ok(*value),
        Data::String(text) if &**text == "true" => Ok(true),
        Data::String(text) if &**text == "false" => Ok(false),
        _ => Err(wrong(value, what, "true or false", at)),
    }
}

/// Keys and values.
type Pairs = Vec<(Val, Val)>;

/// Keys and values of a collection; the inner error is what it is that is not known.
pub(super) fn pairs(value: &Val, what: &str) -> Eval<Result<Pairs, Rc<str>>> {
    Ok(Ok(match &value.data {
        Data::List(items) => {
            let numbered = items.items.iter().enumerate();
            let pair =
                |(index, item): (usize, &Val)| (Val::number(index as f64, item.at), item.clone());
            numbered.map(pair).collect()
        }
        Data::Set(items) => {
            let pair = |item: &Val| (item.clone(), item.clone());
            items.items.iter().map(pair).collect()
        }
        Data::Map(entries) => {
            let mut pairs = Vec::with_capacity(entries.entries.len());
            for (key, (at, value)) in &entries.entries {
                pairs.push((Val::string(key.clone(), *at)?, value.clone()));
            }
            pairs
        }
        Data::Unknown(name) => return Ok(Err(name.clone())),
        _ => return Err(wrong(value, what, "a list, set or map", value.at)),
    }))
}

/// Refuses what would be beyond the bound of a value, before it is made.
pub(super) fn bounded(size: usize, at: At) -> Eval<()> {
    if size > MAX_SIZE {
        return Err(Fault::too_large(
            at,
            format!("a value that consists of more than {MAX_SIZE} values"),
        ));
    }
    Ok(())
}

/// Appends to a string that has a bound.
pub(super) fn push(text: &mut String, more: &str, at: At) -> Eval<()> {
    if text.len() + more.len() > MAX_STRING {
        return Err(Fault::too_large(
            at,
            format!("a string of more than {MAX_STRING} bytes"),
        ));
    }
    text.push_str(more);
    Ok(())
}

fn wrong(value: &Val, what: &str, expected: &str, at: At) -> Box<Fault> {
    let message = format!("{what} must be {expected}, not {}", value.kind());
    Fault::new(at, "wrong-type", message)
}
