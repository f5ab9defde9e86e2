//! Values of the language while they are evaluated: cheap to copy, and bounded, however they are put together.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::Rc;

use super::super::super::document::{MAX_DEPTH, Node, Value};
use super::super::super::tree::{At, Located};

/// Values that one value may consist of, sixteen bytes of text counting as one.
pub(super) const MAX_SIZE: usize = 1_000_000;
/// Bytes that one string may have.
pub(super) const MAX_STRING: usize = 1 << 20;
/// Bytes of what an unknown value is called.
const MAX_NAME: usize = 200;

/// A value and where it stands: where it is written if that is known, else where it is computed.
#[derive(Clone, Debug)]
pub(super) struct Val {
    pub(super) at: At,
    pub(super) data: Data,
}

#[derive(Clone, Debug)]
pub(super) enum Data {
    Null,
    Bool(bool),
    Number(f64),
    String(Rc<str>),
    /// The id of a resource that has none yet, or another attribute that stands for it: one value for each
    /// resource, never null or empty, and nothing else is known of it.
    Reference(Rc<str>),
    List(Rc<Items>),
    /// Sorted, nothing twice.
    Set(Rc<Items>),
    Map(Rc<Entries>),
    /// An instance of a resource, by its number.
    Instance(usize),
    /// What the text does not say: how it calls it.
    Unknown(Rc<str>),
}

#[derive(Debug)]
pub(super) struct Items {
    pub(super) items: Vec<Val>,
    size: usize,
    depth: usize,
}

#[derive(Debug)]
pub(super) struct Entries {
    /// By key, with the place of the key.
    pub(super) entries: BTreeMap<Rc<str>, (At, Val)>,
    size: usize,
    depth: usize,
}

/// Why an expression has no value.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) at: At,
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) help: Option<&'static str>,
    /// Whether nothing more is to be evaluated.
    pub(super) fatal: bool,
}

pub(super) type Eval<T = Val> = Result<T, Box<Fault>>;

impl Fault {
    pub(super) fn new(at: At, code: &'static str, message: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            at,
            code,
            message: message.into(),
            help: None,
            fatal: false,
        })
    }

    /// Says that something has grown beyond its bound.
    pub(super) fn too_large(at: At, message: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            help: Some(
                "bounds keep a file from taking all time and memory; `terraform show -json` prints what Terraform evaluates it to",
            ),
            fatal: true,
            ..*Self::new(at, "too-large", message)
        })
    }

    pub(super) fn help(mut self: Box<Self>, help: &'static str) -> Box<Self> {
        self.help = Some(help);
        self
    }
}

impl Val {
    pub(super) fn null(at: At) -> Self {
        let data = Data::Null;
        Self { at, data }
    }

    pub(super) fn bool(value: bool, at: At) -> Self {
        let data = Data::Bool(value);
        Self { at, data }
    }

    /// A number; what is none (division by zero) is refused by who computes it.
    pub(super) fn number(value: f64, at: At) -> Self {
        // Zero has no sign in the language.
        let data = Data::Number(value + 0.0);
        Self { at, data }
    }

    pub(super) fn string(text: impl Into<Rc<str>>, at: At) -> Eval {
        let text = text.into();
        if text.len() > MAX_STRING {
            return Err(Fault::too_large(
                at,
                format!("a string of more than {MAX_STRING} bytes"),
            ));
        }
        let data = Data::String(text);
        Ok(Self { at, data })
    }

    pub(super) fn unknown(what: &str, at: At) -> Self {
        let cut = what.floor_char_boundary(MAX_NAME);
        let data = Data::Unknown(what[..cut].into());
        Self { at, data }
    }

    pub(super) fn list(items: Vec<Self>, at: At) -> Eval {
        let data = Data::List(Rc::new(Items::new(items, at)?));
        Ok(Self { at, data })
    }

    /// A set of values in any order, of which some may be the same.
    pub(super) fn set(mut items: Vec<Self>, at: At) -> Eval {
        if items.iter().all(|item| item.scalar_order().is_some()) {
            items.sort_by(|a, b| a.compare_scalars(b));
            items.dedup_by(|a, b| a.compare_scalars(b) == Ordering::Equal);
        } else {
            let mut keyed: Vec<(String, Self)> = items
                .into_iter()
                .map(|item| (item.canonical(), item))
                .collect();
            keyed.sort_by(|a, b| a.0.cmp(&b.0));
            keyed.dedup_by(|a, b| a.0 == b.0);
            items = keyed.into_iter().map(|(_, item)| item).collect();
        }
        let data = Data::Set(Rc::new(Items::new(items, at)?));
        Ok(Self { at, data })
    }

    pub(super) fn map(entries: BTreeMap<Rc<str>, (At, Self)>, at: At) -> Eval {
        let of_entry = |(key, (_, value)): (&Rc<str>, &(At, Self))| key.len() / 16 + value.size();
        let size = 1 + entries.iter().map(of_entry).sum::<usize>();
        let depth = entries.values().map(|(_, value)| value.depth()).max();
        let depth = check(size, depth, at)?;
        let data = Data::Map(Rc::new(Entries {
            entries,
            size,
            depth,
        }));
        Ok(Self { at, data })
    }

    /// The same, standing elsewhere.
    pub(super) fn moved(mut self, at: At) -> Self {
        self.at = at;
        self
    }

    /// Values that it consists of.
    pub(super) fn size(&self) -> usize {
        match &self.data {
            Data::List(items) | Data::Set(items) => items.size,
            Data::Map(entries) => entries.size,
            Data::String(text) => 1 + text.len() / 16,
            _ => 1,
        }
    }

    fn depth(&self) -> usize {
        match &self.data {
            Data::List(items) | Data::Set(items) => items.depth,
            Data::Map(entries) => entries.depth,
            _ => 0,
        }
    }

    /// Elements directly in it.
    pub(super) fn width(&self) -> usize {
        match &self.data {
            Data::List(items) | Data::Set(items) => items.items.len(),
            Data::Map(entries) => entries.entries.len(),
            Data::String(text) => text.len() / 16,
            _ => 1,
        }
    }

    /// What kind of value it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match &self.data {
            Data::Null => "null",
            Data::Bool(_) => "true or false",
            Data::Number(_) => "a number",
            Data::String(_) | Data::Reference(_) => "a string",
            Data::List(_) => "a list",
            Data::Set(_) => "a set",
            Data::Map(_) => "a map",
            Data::Instance(_) => "a resource",
            Data::Unknown(_) => "not known",
        }
    }

    /// What is not known of it, if it is not known as a whole.
    pub(super) fn unknown_name(&self) -> Option<&Rc<str>> {
        match &self.data {
            Data::Unknown(what) => Some(what),
            _ => None,
        }
    }

    /// Whether two values are the same; `None`: that is not known.
    pub(super) fn equals(&self, other: &Self) -> Option<bool> {
        let all = |pairs: &mut dyn Iterator<Item = Option<bool>>| {
            let mut known = true;
            for equal in pairs {
                match equal {
                    Some(false) => return Some(false),
                    Some(true) => {}
                    None => known = false,
                }
            }
            known.then_some(true)
        };
        match (&self.data, &other.data) {
            (Data::Unknown(_), _) | (_, Data::Unknown(_)) => None,
            (Data::Null, Data::Null) => Some(true),
            (Data::Bool(a), Data::Bool(b)) => Some(a == b),
            (Data::Number(a), Data::Number(b)) => Some(a == b),
            (Data::String(a), Data::String(b)) | (Data::Reference(a), Data::Reference(b)) => {
                Some(a == b)
            }
            (Data::Reference(_), Data::String(text)) | (Data::String(text), Data::Reference(_)) => {
                if text.is_empty() {
                    Some(false)
                } else {
                    None
                }
            }
            (Data::List(a), Data::List(b)) | (Data::Set(a), Data::Set(b)) => {
                if a.items.len() != b.items.len() {
                    return Some(false);
                }
                all(&mut a.items.iter().zip(&b.items).map(|(a, b)| a.equals(b)))
            }
            (Data::Map(a), Data::Map(b)) => {
                if !a.entries.keys().eq(b.entries.keys()) {
                    return Some(false);
                }
                let values = a.entries.values().zip(b.entries.values());
                all(&mut values.map(|((_, a), (_, b))| a.equals(b)))
            }
            (Data::Instance(a), Data::Instance(b)) if a == b => Some(true),
            (Data::Instance(_), Data::Instance(_) | Data::Map(_))
            | (Data::Map(_), Data::Instance(_)) => None,
            _ => Some(false),
        }
    }

    /// A text that is the same for the same values only.
    pub(super) fn canonical(&self) -> String {
        let mut text = String::new();
        self.write_canonical(&mut text);
        text
    }

    fn write_canonical(&self, out: &mut String) {
        let mut quoted = |mark: char, text: &str| {
            let _ = write!(out, "{mark}{}:{text}", text.len());
        };
        match &self.data {
            Data::Null => out.push('n'),
            Data::Bool(value) => out.push(if *value { 't' } else { 'f' }),
            Data::Number(value) => quoted('d', &number_text(*value)),
            Data::String(text) => quoted('s', text),
            Data::Reference(text) => quoted('r', text),
            Data::Unknown(text) => quoted('u', text),
            Data::Instance(number) => quoted('i', &number.to_string()),
            Data::List(items) | Data::Set(items) => {
                out.push('[');
                items
                    .items
                    .iter()
                    .for_each(|item| item.write_canonical(out));
                out.push(']');
            }
            Data::Map(entries) => {
                out.push('{');
                for (key, (_, value)) in &entries.entries {
                    let _ = write!(out, "{}:{key}", key.len());
                    value.write_canonical(out);
                }
                out.push('}');
            }
        }
    }

    /// Where its kind stands among those that have an order.
    fn scalar_order(&self) -> Option<u8> {
        match self.data {
            Data::Bool(_) => Some(0),
            Data::Number(_) => Some(1),
            Data::String(_) => Some(2),
            _ => None,
        }
    }

    fn compare_scalars(&self, other: &Self) -> Ordering {
        match (&self.data, &other.data) {
            (Data::Bool(a), Data::Bool(b)) => a.cmp(b),
            (Data::Number(a), Data::Number(b)) => a.total_cmp(b),
            (Data::String(a), Data::String(b)) => a.cmp(b),
            _ => self.scalar_order().cmp(&other.scalar_order()),
        }
    }

    /// What readers of documents see; `address` names instances.
    pub(super) fn into_node(self, address: &dyn Fn(usize) -> String) -> Node<'static> {
        let node = |value: &Self| value.clone().into_node(address);
        let value = match &self.data {
            Data::Null => Value::Null,
            Data::Bool(value) => Value::Bool(*value),
            Data::Number(value) => Value::Number(Cow::Owned(number_text(*value))),
            Data::String(text) | Data::Reference(text) => {
                Value::String(Cow::Owned(text.to_string()))
            }
            Data::List(items) | Data::Set(items) => {
                Value::List(items.items.iter().map(node).collect())
            }
            Data::Map(entries) => {
                let entry = |(key, (at, value)): (&Rc<str>, &(At, Self))| {
                    let key = Located {
                        value: Cow::Owned(key.to_string()),
                        at: *at,
                    };
                    (key, node(value))
                };
                Value::Map(entries.entries.iter().map(entry).collect())
            }
            Data::Instance(number) => Value::Unknown(Cow::Owned(address(*number))),
            Data::Unknown(what) => Value::Unknown(Cow::Owned(what.to_string())),
        };
        Node { at: self.at, value }
    }
}

impl Items {
    fn new(items: Vec<Val>, at: At) -> Eval<Self> {
        let size = 1 + items.iter().map(Val::size).sum::<usize>();
        let depth = check(size, items.iter().map(Val::depth).max(), at)?;
        Ok(Self { items, size, depth })
    }
}

/// Levels of a value with such elements, unless it is beyond the bounds.
fn check(size: usize, below: Option<usize>, at: At) -> Eval<usize> {
    if size > MAX_SIZE {
        return Err(Fault::too_large(
            at,
            format!("a value that consists of more than {MAX_SIZE} values"),
        ));
    }
    let depth = 1 + below.unwrap_or(0);
    // The attributes of a resource are two levels more.
    if depth > MAX_DEPTH - 2 {
        return Err(Fault::too_large(
            at,
            format!("values nested deeper than {} levels", MAX_DEPTH - 2),
        ));
    }
    Ok(depth)
}

/// A number as the language writes it in text.
pub(super) fn number_text(value: f64) -> String {
    format!("{value}")
}
