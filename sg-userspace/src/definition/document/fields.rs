//! Fields of objects as their readers want them: what is missing or null is not given, what has another type is
//! an error, numbers and booleans may be written as strings (7.53).

use super::super::escape::quote;
use super::super::findings::Findings;
use super::super::tree::Located;
use super::{Node, Value};

/// A string.
pub(in super::super) fn text<'n>(
    node: &'n Node<'_>,
    key: &str,
    findings: &mut Findings,
) -> Option<Located<&'n str>> {
    let value = node.get(key)?;
    match &value.value {
        Value::String(text) => Some(Located {
            value: text,
            at: value.at,
        }),
        // Account numbers and the like lose their quotes in YAML.
        Value::Number(number) => Some(Located {
            value: number,
            at: value.at,
        }),
        _ => wrong(key, value, "a string", findings),
    }
}

/// An integer.
pub(in super::super) fn integer(
    node: &Node<'_>,
    key: &str,
    findings: &mut Findings,
) -> Option<Located<i64>> {
    let value = node.get(key)?;
    let number = match &value.value {
        Value::Number(text) | Value::String(text) => whole(text.trim()),
        _ => return wrong(key, value, "a number", findings),
    };
    let Some(number) = number else {
        return wrong(key, value, "a whole number", findings);
    };
    Some(Located {
        value: number,
        at: value.at,
    })
}

/// `22` and, as some languages write it, `22.0`.
fn whole(text: &str) -> Option<i64> {
    let text = text.strip_suffix(".0").unwrap_or(text);
    text.parse().ok()
}

/// True or false.
pub(in super::super) fn boolean(
    node: &Node<'_>,
    key: &str,
    findings: &mut Findings,
) -> Option<Located<bool>> {
    let value = node.get(key)?;
    let located = |boolean| {
        Some(Located {
            value: boolean,
            at: value.at,
        })
    };
    match &value.value {
        Value::Bool(boolean) => located(*boolean),
        Value::String(text) if text.eq_ignore_ascii_case("true") => located(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => located(false),
        _ => wrong(key, value, "true or false", findings),
    }
}

/// A list; empty if it is not given.
pub(in super::super) fn list<'n, 's>(
    node: &'n Node<'s>,
    key: &str,
    findings: &mut Findings,
) -> &'n [Node<'s>] {
    let Some(value) = node.get(key) else {
        return &[];
    };
    match &value.value {
        Value::List(nodes) => nodes,
        _ => wrong(key, value, "a list", findings).unwrap_or_default(),
    }
}

/// Strings of a list.
pub(in super::super) fn texts<'n>(
    node: &'n Node<'_>,
    key: &str,
    findings: &mut Findings,
) -> Vec<Located<&'n str>> {
    let mut texts = Vec::new();
    for entry in list(node, key, findings) {
        match &entry.value {
            Value::String(text) => texts.push(Located {
                value: &**text,
                at: entry.at,
            }),
            _ => texts.extend(wrong::<Located<&str>>(key, entry, "a string", findings)),
        }
    }
    texts
}

/// Says that a value is missing from what cannot do without.
pub(in super::super) fn missing(node: &Node<'_>, key: &str, findings: &mut Findings) {
    let message = format!("{} is missing", quote(key));
    findings.error("missing-key", node.at, message);
}

fn wrong<T>(key: &str, value: &Node<'_>, expected: &str, findings: &mut Findings) -> Option<T> {
    match &value.value {
        Value::Unknown(what) => {
            let message = format!(
                "{} is not known from this file: {}",
                quote(key),
                quote(what)
            );
            findings.error("unknown-value", value.at, message);
        }
        _ => {
            let message = format!("{} must be {expected}, not {}", quote(key), value.kind());
            findings.error("wrong-type", value.at, message);
        }
    }
    None
}
