//! The definitions that were in force last: their text, where it came from, who put it in force, and what became
//! of it.
//!
//! The text is kept, not what was compiled from it: it is checked and applied anew like any other, so that going
//! back is an ordinary change, and works whatever has changed about the host or about sgctl.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    definition::{Format, Source},
    state::{Lock, State, StateError},
};

/// Definitions that are kept.
pub const KEPT: usize = 10;

/// What is kept, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Definitions.
    pub entries: Vec<Entry>,
    /// How many generations were taken back because nobody confirmed them, or because somebody asked for it.
    #[serde(default)]
    pub taken_back: u64,
    /// The last of them: kernel id of the map `RUNTIME`, and the generation. It is counted once.
    #[serde(default)]
    counted: Option<(u32, u32)>,
}

/// A definition that was put in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Generation as which it was last put in force.
    pub generation: u32,
    /// Generation as which it was put in force first; an agent applies a definition again when devices change.
    pub first: u32,
    /// When that was, in seconds since 1970.
    pub seconds: u64,
    /// Files it was read from.
    pub files: Vec<String>,
    /// Who did it.
    pub who: String,
    /// The command.
    pub how: String,
    /// `--netns`.
    pub netns: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
    /// SHA-256 of names and texts, hexadecimal.
    digest: String,
    /// Number of the file with the text.
    number: u32,
}

/// What became of a definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It came into force.
    Applied,
    /// It waits to be confirmed.
    Unconfirmed,
    /// It was taken back.
    RolledBack,
}

/// Where a definition that is put in force comes from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Its text.
    pub sources: &'a [Source],
    /// The command.
    pub how: &'a str,
    /// `--netns`.
    pub netns: Option<&'a str>,
}

/// A file of a definition that is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Text {
    name: String,
    text: String,
    /// What it is written in, where that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    format: Option<Format>,
}

impl Entry {
    /// Whether it was taken back.
    pub fn rolled_back(&self) -> bool {
        self.outcome == Outcome::RolledBack
    }

    fn says_the_same(&self, other: &Self) -> bool {
        self.digest == other.digest && self.netns == other.netns
    }

    fn was(&self, generation: u32) -> bool {
        (self.first..=self.generation).contains(&generation)
    }
}

impl History {
    /// Reads what is kept, without the lock.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn read(state_dir: &Path) -> Result<Self, StateError> {
        Ok(State::read_history(state_dir)?.unwrap_or_default())
    }

    /// Whether a generation of the maps with this `RUNTIME` is among [`Self::taken_back`].
    pub fn has_counted(&self, runtime: u32, generation: u32) -> bool {
        self.counted == Some((runtime, generation))
    }

    /// The definition of a generation.
    pub fn of(&self, generation: u32) -> Option<&Entry> {
        self.entries.iter().rfind(|one| one.was(generation))
    }

    /// The last definition that is not taken back: the one in force, if nothing was detached.
    pub fn current(&self) -> Option<&Entry> {
        self.entries.iter().rfind(|one| !one.rolled_back())
    }

    /// The last definition before that which says something else.
    pub fn previous(&self) -> Option<&Entry> {
        let current = self.current()?;
        let mut before = self.entries.iter().rev().skip_while(|one| *one != current);
        before.find(|one| !one.rolled_back() && !one.says_the_same(current))
    }

    /// The text of a definition.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn sources(state_dir: &Path, entry: &Entry) -> Result<Vec<Source>, StateError> {
        let texts = State::read_definition(state_dir, entry.number)?;
        let source = |text: Text| {
            let mut source = Source::new(&text.name, text.text.into_bytes());
            source.format = text.format;
            source
        };
        Ok(texts.into_iter().map(source).collect())
    }
}

/// The definition that was put in force last.
///
/// # Errors
/// See [`StateError`].
pub fn last(state_dir: &Path) -> Result<Option<Entry>, StateError> {
    Ok(History::read(state_dir)?.entries.pop())
}

/// Keeps a definition that has come into force as `generation`, and `waits` to be confirmed or does not.
///
/// # Errors
/// See [`StateError`].
pub fn record(
    lock: &Lock,
    generation: u32,
    origin: &Origin<'_>,
    waits: bool,
) -> Result<(), StateError> {
    let mut history = lock.read_history()?.unwrap_or_default();
    let mut entry = Entry {
        generation,
        first: generation,
        seconds: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
        files: origin
            .sources
            .iter()
            .map(|source| source.name.to_string())
            .collect(),
        who: who(),
        how: origin.how.to_owned(),
        netns: origin.netns.map(str::to_owned),
        outcome: if waits {
            Outcome::Unconfirmed
        } else {
            Outcome::Applied
        },
        digest: digest(origin.sources),
        number: 0,
    };
    if let Some(last) = history.entries.last_mut()
        && last.outcome == entry.outcome
        && last.outcome == Outcome::Applied
        && last.says_the_same(&entry)
        && last.generation < generation
    {
        last.generation = generation;
        lock.write_history(&history)?;
        return remove_others(lock, &history);
    }
    // Numbers begin anew with new maps: the last one of a number is meant.
    history.entries.retain(|one| !one.was(generation));
    let numbers = history.entries.iter().map(|one| one.number);
    entry.number = numbers.max().unwrap_or(0).wrapping_add(1);
    let texts: Vec<Text> = origin
        .sources
        .iter()
        .map(|source| Text {
            name: source.name.to_string(),
            text: source.text.clone(),
            format: source.format,
        })
        .collect();
    lock.write_definition(entry.number, &texts)?;
    history.entries.push(entry);
    let surplus = history.entries.len().saturating_sub(KEPT);
    history.entries.drain(..surplus);
    lock.write_history(&history)?;
    remove_others(lock, &history)
}

/// Removes texts of definitions that are not kept, those of a process that was killed while it wrote included.
fn remove_others(lock: &Lock, history: &History) -> Result<(), StateError> {
    let kept: Vec<u32> = history.entries.iter().map(|one| one.number).collect();
    lock.remove_definitions(&kept)
}

/// Writes down what became of a generation that waited to be confirmed; `runtime` is the kernel's id of the map
/// `RUNTIME`.
///
/// # Errors
/// See [`StateError`].
pub(crate) fn settled(
    lock: &Lock,
    runtime: u32,
    generation: u32,
    confirmed: bool,
) -> Result<(), StateError> {
    let mut history = lock.read_history()?.unwrap_or_default();
    let before = history.clone();
    let entry = history
        .entries
        .iter_mut()
        .rfind(|one| one.generation == generation && one.outcome == Outcome::Unconfirmed);
    if let Some(entry) = entry {
        entry.outcome = if confirmed {
            Outcome::Applied
        } else {
            Outcome::RolledBack
        };
    }
    if !confirmed && !history.has_counted(runtime, generation) {
        history.taken_back += 1;
        history.counted = Some((runtime, generation));
    }
    if history == before {
        return Ok(());
    }
    lock.write_history(&history)
}

fn digest(sources: &[Source]) -> String {
    let mut hash = Sha256::new();
    for source in sources {
        for part in [source.name.as_bytes(), source.text.as_bytes()] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    let hash = hash.finalize();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Who runs this: the user behind sudo, or who logged in, or whose process it is.
fn who() -> String {
    let own = rustix::process::getuid().as_raw();
    let login = std::fs::read_to_string("/proc/self/loginuid").ok();
    // 4294967295: nobody logged in.
    let login = login.and_then(|text| text.trim().parse().ok());
    let uid = login.filter(|uid| *uid != u32::MAX).unwrap_or(own);
    if let Ok(user) = std::env::var("SUDO_USER")
        && own == 0
    {
        return user;
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("uid {uid}"))
}
