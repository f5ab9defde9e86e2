//! A parsed document whose values know where they stand: what JSON, YAML and evaluated HCL have in common.

use std::borrow::Cow;

use super::tree::{At, Located};

pub(super) mod fields;
pub(super) mod json;
pub(super) mod yaml;

/// Levels that a document may be nested.
pub(super) const MAX_DEPTH: usize = 64;
/// Values that a document may hold: half a GB of memory.
pub(super) const MAX_NODES: usize = 4_000_000;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node<'s> {
    pub(super) at: At,
    pub(super) value: Value<'s>,
}

/// A key and its value.
pub(super) type Entry<'s> = (Located<Cow<'s, str>>, Node<'s>);

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'s> {
    Null,
    Bool(bool),
    /// As it is written, so that nothing is lost.
    Number(Cow<'s, str>),
    String(Cow<'s, str>),
    List(Vec<Node<'s>>),
    /// In the order of the file; no key stands twice.
    Map(Vec<Entry<'s>>),
    /// Something that the file does not say: how it calls it.
    Unknown(Cow<'s, str>),
}

/// Why a text is no document.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SyntaxError {
    pub(super) at: At,
    pub(super) message: String,
}

impl<'s> Node<'s> {
    /// The value of a key; `None` also if it is null, which is how much of what is not given is written.
    pub(super) fn get(&self, key: &str) -> Option<&Node<'s>> {
        let (_, node) = self.map()?.iter().find(|(own, _)| own.value == key)?;
        (node.value != Value::Null).then_some(node)
    }

    pub(super) fn map(&self) -> Option<&[Entry<'s>]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            _ => None,
        }
    }

    pub(super) fn list(&self) -> Option<&[Node<'s>]> {
        match &self.value {
            Value::List(nodes) => Some(nodes),
            _ => None,
        }
    }

    /// What kind of value it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "null",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "an object",
            Value::Unknown(_) => "not known",
        }
    }
}
