//! Names of groups and prefix lists, kept apart by where they come from.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Stands between name and orphan in text. No name of a definition can hold it (fact 1.32).
const SEPARATOR: char = '|';

/// Name of a group or prefix list: of the definition in force, or frozen with an orphan interface.
///
/// The two never meet: a new group that happens to be called as an orphan's old one lends it
/// neither rules nor members.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Name {
    /// The name in its definition.
    pub name: String,
    /// Interface whose orphaned policy it belongs to; `None`: the definition in force.
    pub orphan: Option<String>,
}

impl Name {
    /// A name of the definition in force.
    pub fn of_definition(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            orphan: None,
        }
    }

    /// The same name, frozen with an orphan interface.
    pub fn frozen(&self, interface: &str) -> Self {
        Self {
            name: self.name.clone(),
            orphan: Some(interface.into()),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.orphan {
            None => f.write_str(&self.name),
            Some(interface) => write!(f, "{}{SEPARATOR}{interface}", self.name),
        }
    }
}

impl FromStr for Name {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.split_once(SEPARATOR) {
            None => Self::of_definition(text),
            Some((name, interface)) => Self::of_definition(name).frozen(interface),
        })
    }
}

impl From<String> for Name {
    fn from(text: String) -> Self {
        let Ok(name) = text.parse();
        name
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.to_string()
    }
}
