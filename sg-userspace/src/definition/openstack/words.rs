//! What words mean by which things refer to one another: an id is told from a name that looks like one.

use std::collections::HashMap;

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
