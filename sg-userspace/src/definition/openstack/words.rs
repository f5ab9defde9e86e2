//! What words mean by which things refer to one another: an id is told from a name that looks like one.

use std::collections::HashMap;

use super::super::escape::quote;
use super::super::findings::Findings;
use super::super::tree::Located;
use super::AddressGroup;

/// Things by id and by name; names need not be unique.
pub(super) struct Words<T> {
    ids: HashMap<String, T>,
    /// `None`: several are called so.
    names: HashMap<String, Option<T>>,
}

/// What a word that may be an id or a name means.
pub(super) enum Meaning<'w, T> {
    One(&'w T),
    Several,
    None,
}

impl<T> Default for Words<T> {
    fn default() -> Self {
        Self {
            ids: HashMap::new(),
            names: HashMap::new(),
        }
    }
}

impl<T: Clone> Words<T> {
    pub(super) fn insert(&mut self, id: Option<&str>, name: &str, thing: &T) {
        if let Some(id) = id {
            self.ids
                .entry(id.to_owned())
                .or_insert_with(|| thing.clone());
        }
        self.names
            .entry(name.to_owned())
            .and_modify(|known| *known = None)
            .or_insert_with(|| Some(thing.clone()));
    }

    pub(super) fn by_id(&self, id: &str) -> Option<&T> {
        self.ids.get(id)
    }

    pub(super) fn has_name(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// Ids before names.
    pub(super) fn by_word(&self, word: &str) -> Meaning<'_, T> {
        match self.ids.get(word) {
            Some(thing) => Meaning::One(thing),
            None => match self.names.get(word) {
                Some(Some(thing)) => Meaning::One(thing),
                Some(None) => Meaning::Several,
                None => Meaning::None,
            },
        }
    }
}

/// What words mean.
pub(super) struct Known {
    /// Places of groups, and the words that mean them wherever they stand.
    pub(super) groups: Words<(usize, String)>,
    pub(super) lists: Words<AddressGroup>,
}

impl Known {
    /// The word for a group that a field of Neutron's names by id, or the command line by whatever is unique.
    pub(super) fn group(
        &self,
        word: Located<&str>,
        is_id: bool,
        findings: &mut Findings,
    ) -> Option<Located<String>> {
        let own = Located {
            value: word.value.to_owned(),
            at: word.at,
        };
        if !is_id {
            return match self.groups.by_word(word.value) {
                Meaning::One((_, value)) => Some(Located {
                    value: value.clone(),
                    at: word.at,
                }),
                Meaning::Several => {
                    ambiguous("group", word, findings);
                    None
                }
                Meaning::None => Some(own),
            };
        }
        // Otherwise the name would be found where the id is not.
        if self.groups.by_id(word.value).is_none() && self.groups.has_name(word.value) {
            let message = format!("no group has the id {}", quote(word.value));
            findings
                .error("InvalidGroup.NotFound", word.at, message)
                .help("another group is called so; give the file of the one that is meant as well");
            return None;
        }
        Some(own)
    }
}

pub(super) fn ambiguous(kind: &str, word: Located<&str>, findings: &mut Findings) {
    let message = format!("several {kind}s are called {}", quote(word.value));
    findings
        .error("ambiguous-name", word.at, message)
        .help("use the id");
}
