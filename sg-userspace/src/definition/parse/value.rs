//! Values of the parsed tree: wrong types, unknown keys and bad values become findings.

use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::escape::quote;
use super::super::findings::Findings;
use super::super::tree::{At, Located};
use super::located;

/// Likeness (Jaro-Winkler, 0 to 1) from which one word is offered for another.
const ALIKE: f64 = 0.8;

/// Walks one file.
pub(super) struct Parser<'f> {
    pub(super) file: u32,
    pub(super) findings: &'f mut Findings,
    /// Known keys that unknown ones in a table were probably meant to be.
    misspelt: Vec<(At, &'static str)>,
}

/// A value and its key.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    /// Key, or that of the list it stands in.
    pub(super) key: &'a str,
    /// Whether it stands in a list.
    pub(super) in_list: bool,
    pub(super) at: At,
    pub(super) inner: &'a DeValue<'a>,
}

/// A table and what it describes.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    inner: &'a DeTable<'a>,
    /// Its key or opening brace.
    pub(super) at: At,
    what: &'a str,
}

impl Value<'_> {
    /// How findings call it.
    fn subject(&self) -> String {
        match self.in_list {
            true => format!("an entry of `{}`", self.key),
            false => format!("`{}`", self.key),
        }
    }
}

impl<'a> Table<'a> {
    pub(super) fn new(inner: &'a DeTable<'a>, at: At, what: &'a str) -> Self {
        Self { inner, at, what }
    }

    /// Whether it has the key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.inner.contains_key(key)
    }
}

impl<'f> Parser<'f> {
    pub(super) fn new(file: u32, findings: &'f mut Findings) -> Self {
        Self {
            file,
            findings,
            misspelt: Vec::new(),
        }
    }

    /// The values of known keys, as they are sorted; unknown ones are errors.
    pub(super) fn keys<'a>(
        &mut self,
        table: &Table<'a>,
        known: &[&'static str],
    ) -> Vec<(&'static str, Value<'a>)> {
        let mut values = Vec::with_capacity(table.inner.len());
        for (key, value) in table.inner {
            let text: &str = key.get_ref();
            if let Some(known) = known.iter().find(|known| **known == text) {
                values.push((*known, self.value(text, value)));
                continue;
            }
            let at = located(self.file, key.span());
            let message = format!("unknown key {} in {}", quote(text), table.what);
            let elsewhere = super::tables_with(text);
            let near = nearest(text, known.iter().copied()).filter(|_| elsewhere.is_empty());
            self.misspelt.extend(near.map(|key| (table.at, key)));
            let finding = self.findings.error("unknown-key", at, message);
            finding.help(match near {
                Some(known) => format!("did you mean `{known}`?"),
                None if elsewhere.is_empty() => format!("known keys: {}", known.join(", ")),
                None => format!("`{text}` is a key of {}", elsewhere.join(" and ")),
            });
        }
        values
    }

    /// Whether the lack of these keys in a table says more than that one of them is misspelt, or
    /// that the file is not whole. To be asked after [`Self::keys`].
    pub(super) fn lacks(&self, table: At, keys: &[&str]) -> bool {
        let misspelt = |(at, key): &(At, &str)| *at == table && keys.contains(key);
        !self.findings.is_broken() && !self.misspelt.iter().any(misspelt)
    }

    /// Finds fault with a table that lacks a key. To be called after [`Self::keys`].
    pub(super) fn require(&mut self, table: &Table<'_>, key: &str, help: &str) {
        if !table.has(key) && self.lacks(table.at, &[key]) {
            let message = format!("{} has no `{key}`", table.what);
            self.findings
                .error("missing-key", table.at, message)
                .help(help);
        }
    }

    /// The tables of a table, by name.
    pub(super) fn named<'a, T>(
        &mut self,
        value: Value<'a>,
        mut parse: impl FnMut(&mut Self, Located<String>, Table<'a>) -> T,
    ) -> Vec<T> {
        let DeValue::Table(tables) = value.inner else {
            self.wrong_type::<()>(value, &format!("tables `[{}.NAME]`", value.key));
            return Vec::new();
        };
        let tables = Table::new(tables, value.at, value.key);
        let mut parsed = Vec::with_capacity(tables.inner.len());
        for (key, value) in tables.inner {
            let name = Located {
                value: key.get_ref().to_string(),
                at: located(self.file, key.span()),
            };
            self.check_name(tables.what, &name);
            let value = self.value(tables.what, value);
            match value.inner {
                DeValue::Table(table) => {
                    let table = Table::new(table, name.at, singular(tables.what));
                    parsed.push(parse(self, name, table));
                }
                other => {
                    let message = format!(
                        "{} of `{}` must be a table, not {}",
                        quote(&name.value),
                        tables.what,
                        article(other)
                    );
                    self.findings
                        .error("wrong-type", value.at, message)
                        .help(format!("write `[{}.NAME]`", tables.what));
                }
            }
        }
        parsed
    }

    pub(super) fn table<'a>(&mut self, value: Value<'a>) -> Option<Table<'a>> {
        match value.inner {
            DeValue::Table(table) => Some(Table::new(table, value.at, value.key)),
            _ => self.wrong_type(value, "a table"),
        }
    }

    /// The elements of an array.
    pub(super) fn array<'a>(&mut self, value: Value<'a>) -> Option<Vec<Value<'a>>> {
        let DeValue::Array(array) = value.inner else {
            return self.wrong_type(value, "an array");
        };
        let elements = array.iter();
        let elements = elements.map(|element| Value {
            in_list: true,
            ..self.value(value.key, element)
        });
        Some(elements.collect())
    }

    /// The elements of an array, or the value itself.
    pub(super) fn one_or_many<'a>(&mut self, value: Value<'a>) -> Vec<Value<'a>> {
        match value.inner {
            DeValue::Array(_) => self.array(value).unwrap_or_default(),
            _ => vec![value],
        }
    }

    pub(super) fn string<'a>(&mut self, value: Value<'a>) -> Option<Located<&'a str>> {
        match value.inner {
            DeValue::String(text) => Some(Located {
                value: text,
                at: value.at,
            }),
            _ => self.wrong_type(value, "a string"),
        }
    }

    pub(super) fn boolean(&mut self, value: Value<'_>) -> Option<Located<bool>> {
        match value.inner {
            DeValue::Boolean(boolean) => Some(Located {
                value: *boolean,
                at: value.at,
            }),
            _ => self.wrong_type(value, "true or false"),
        }
    }

    pub(super) fn integer(
        &mut self,
        value: Value<'_>,
        range: RangeInclusive<i64>,
    ) -> Option<Located<i64>> {
        let words = format!("from {} to {}", range.start(), range.end());
        self.integer_within(value, range, words)
    }

    /// An integer of a range that findings write as `words`.
    pub(super) fn integer_within(
        &mut self,
        value: Value<'_>,
        range: RangeInclusive<i64>,
        words: String,
    ) -> Option<Located<i64>> {
        let DeValue::Integer(integer) = value.inner else {
            return self.wrong_type(value, &format!("an integer {words}"));
        };
        // What does not fit 64 bits is out of every range.
        match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if range.contains(&number) => Some(Located {
                value: number,
                at: value.at,
            }),
            _ => {
                let message = format!(
                    "{} is out of range: {}",
                    value.subject(),
                    quote(&integer.to_string())
                );
                self.invalid(value.at, message).help(words);
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        value: Value<'_>,
        choices: &[(&str, T)],
    ) -> Option<Located<T>> {
        let text = self.string(value)?;
        if let Some((_, choice)) = choices.iter().find(|(word, _)| *word == text.value) {
            return Some(Located {
                value: *choice,
                at: text.at,
            });
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let message = format!("{} cannot be {}", value.subject(), quote(text.value));
        let help = match nearest(text.value, words.iter().copied()) {
            Some(word) => format!("did you mean \"{word}\"?"),
            None => format!("one of \"{}\"", words.join("\", \"")),
        };
        self.invalid(text.at, message).help(help);
        None
    }

    /// A value that is out of range or malformed.
    pub(super) fn invalid(
        &mut self,
        at: At,
        message: impl Into<String>,
    ) -> &mut super::super::findings::Finding {
        self.findings.error("InvalidParameterValue", at, message)
    }

    pub(super) fn wrong_type<T>(&mut self, value: Value<'_>, expected: &str) -> Option<T> {
        let message = format!(
            "{} must be {expected}, not {}",
            value.subject(),
            article(value.inner)
        );
        self.findings.error("wrong-type", value.at, message);
        None
    }

    fn value<'a>(&self, key: &'a str, value: &'a Spanned<DeValue<'a>>) -> Value<'a> {
        Value {
            key,
            in_list: false,
            at: located(self.file, value.span()),
            inner: value.get_ref(),
        }
    }
}

/// The word that was probably meant.
pub(in super::super) fn nearest<'w>(
    text: &str,
    words: impl IntoIterator<Item = &'w str>,
) -> Option<&'w str> {
    words
        .into_iter()
        .map(|word| (strsim::jaro_winkler(text, word), word))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, word)| word)
}

/// What one table of `groups` and the like describes.
fn singular(tables: &str) -> &'static str {
    match tables {
        "groups" => "the group",
        "prefix_lists" => "the prefix list",
        "interfaces" => "the interface",
        _ => "the members table",
    }
}

fn article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
