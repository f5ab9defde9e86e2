//! JSON to [`Node`]s.
//!
//! serde_json says of no value where it stands, but hands out slices of its input: a level of the document is
//! parsed into slices, whose addresses are their places, and each slice is parsed in turn. A document is thus
//! read once for each of its levels, of which there are few.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::super::tree::{At, Located};
use super::{MAX_DEPTH, MAX_NODES, Node, SyntaxError, Value};

/// Parses a document.
///
/// # Errors
/// What is not JSON, a key that stands twice, and what is nested or holds more than is read.
pub(in super::super) fn parse(file: u32, text: &str) -> Result<Node<'_>, SyntaxError> {
    // A byte order mark is no JSON, but some editors write one.
    let body = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader {
        file,
        start: text.as_ptr() as usize,
        nodes: 0,
    };
    if let Err(error) = serde_json::from_str::<IgnoredAny>(body) {
        return Err(reader.syntax(text, body, &error));
    }
    reader.node(body.trim_matches(WHITESPACE), 0)
}

/// RFC 8259, section 2.
const WHITESPACE: [char; 4] = [' ', '\t', '\n', '\r'];

struct Reader {
    file: u32,
    /// Address of the text.
    start: usize,
    nodes: usize,
}

impl Reader {
    fn at(&self, slice: &str) -> At {
        let start = slice.as_ptr() as usize - self.start;
        At {
            file: self.file,
            start: start as u32,
            end: (start + slice.len()) as u32,
        }
    }

    fn error(&self, slice: &str, message: impl Into<String>) -> SyntaxError {
        let at = self.at(slice);
        SyntaxError {
            // Of what is long its beginning.
            at: At {
                end: at.end.min(at.start + 1),
                ..at
            },
            message: message.into(),
        }
    }

    /// `text` is JSON.
    fn node<'s>(&mut self, text: &'s str, depth: usize) -> Result<Node<'s>, SyntaxError> {
        if depth > MAX_DEPTH {
            return Err(self.error(text, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(self.error(text, format!("more than {MAX_NODES} values")));
        }
        let refused = |error: serde_json::Error| self.error(text, error.to_string());
        let value = match text.as_bytes().first() {
            Some(b'n') => Value::Null,
            Some(b't') => Value::Bool(true),
            Some(b'f') => Value::Bool(false),
            Some(b'"') => Value::String(string(text).map_err(refused)?),
            Some(b'[') => {
                let slices: Vec<&RawValue> = serde_json::from_str(text).map_err(refused)?;
                let nodes = slices
                    .into_iter()
                    .map(|slice| self.node(slice.get(), depth + 1));
                Value::List(nodes.collect::<Result<_, _>>()?)
            }
            Some(b'{') => {
                let Slices(slices) = serde_json::from_str(text).map_err(refused)?;
                let mut seen = HashSet::with_capacity(slices.len());
                let mut entries = Vec::with_capacity(slices.len());
                for (key, slice) in slices {
                    let name = string(key.get())
                        .map_err(|error| self.error(key.get(), error.to_string()))?;
                    if !seen.insert(name.clone()) {
                        return Err(
                            self.error(key.get(), format!("the key {} stands twice", key.get()))
                        );
                    }
                    let at = self.at(key.get());
                    entries.push((
                        Located { value: name, at },
                        self.node(slice.get(), depth + 1)?,
                    ));
                }
                Value::Map(entries)
            }
            _ => Value::Number(Cow::Borrowed(text)),
        };
        Ok(Node {
            at: self.at(text),
            value,
        })
    }

    fn syntax(&self, text: &str, body: &str, error: &serde_json::Error) -> SyntaxError {
        let lines = body
            .split_inclusive('\n')
            .take(error.line().saturating_sub(1));
        let before: usize = lines.map(str::len).sum();
        // Columns are bytes, and 0 stands behind the line's end before.
        let place = (before + error.column().saturating_sub(1)).min(body.len());
        let place = body.floor_char_boundary(place) + (text.len() - body.len());
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        SyntaxError {
            at: At {
                file: self.file,
                start: place as u32,
                end: (place as u32 + 1).min(text.len() as u32),
            },
            message: format!("this is not JSON: {message}"),
        }
    }
}

/// The string of a literal; borrowed if nothing in it is escaped.
fn string(literal: &str) -> serde_json::Result<Cow<'_, str>> {
    match literal.get(1..literal.len() - 1) {
        Some(plain) if !plain.contains('\\') => Ok(Cow::Borrowed(plain)),
        _ => serde_json::from_str(literal).map(Cow::Owned),
    }
}

/// Keys and values of an object as they stand in the text.
struct Slices<'s>(Vec<(&'s RawValue, &'s RawValue)>);

impl<'de> Deserialize<'de> for Slices<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Slices<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut slices = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    slices.push(entry);
                }
                Ok(Slices(slices))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, node: &Node<'_>) -> String {
        let own = &text[node.at.start as usize..node.at.end as usize];
        match &node.value {
            Value::List(nodes) => nodes
                .iter()
                .map(|node| shown(text, node))
                .collect::<Vec<_>>()
                .join("|"),
            Value::Map(entries) => {
                let entry = |(key, node): &(Located<Cow<'_, str>>, Node<'_>)| {
                    format!("{}@{}={}", key.value, key.at.start, shown(text, node))
                };
                entries.iter().map(entry).collect::<Vec<_>>().join(",")
            }
            _ => format!("{own}@{}", node.at.start),
        }
    }

    #[test]
    fn values_know_where_they_stand() {
        let text =
            "\u{feff}{ \"a\" : [1, -2.5e3 ,\"x\\u0041\" , null],\n \"\\u0062\":{\"c\":true} }";
        let node = parse(0, text).unwrap();
        assert_eq!(
            shown(text, &node),
            "a@5=1@12|-2.5e3@15|\"x\\u0041\"@23|null@35,b@43=c@53=true@57"
        );
        assert_eq!(
            node.get("a").unwrap().list().unwrap()[2].value,
            Value::String("xA".into())
        );
        assert_eq!(node.get("zz"), None);
    }

    #[test]
    fn what_is_no_json_is_located() {
        for (text, start, message) in [
            ("", 0, "EOF"),
            ("{\"a\": 1,\n \"b\" 2}", 14, "expected `:`"),
            ("{\"a\": 1, \"a\": 2}", 9, "stands twice"),
            ("[1] x", 4, "trailing"),
            ("{\"ü\": tru }", 10, "expected ident"),
        ] {
            let error = parse(0, text).unwrap_err();
            assert!(error.message.contains(message), "{text}: {}", error.message);
            assert_eq!(error.at.start, start, "{text}");
        }
    }

    #[test]
    fn deep_nesting_ends_in_an_error() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        let error = parse(0, &deep).unwrap_err();
        assert!(error.message.contains("nested deeper"), "{}", error.message);
        let open = "[".repeat(1_000_000);
        assert!(parse(0, &open).unwrap_err().message.contains("EOF"));
    }
}
