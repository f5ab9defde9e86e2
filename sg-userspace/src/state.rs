//! What the control plane remembers between commands, and the lock that keeps writers apart.
//!
//! The maps are the truth about enforcement; this file says which interface got which id, so that
//! the next command finds its way. It is replaced by rename, never written in place.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufWriter, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sg_common::abi::MAX_INTERFACES;

use crate::{
    adopt::Adopted,
    attach::Place,
    directory::{self, DirectoryError},
    model::{Hook, Orientation},
    netns::NetnsIdentity,
    rcu,
    resolve::{Name, ResolvedInterface},
};

mod changing;
mod expedited;
mod history;
mod policy;
mod rules;
mod upgrade;

pub use changing::Changing;
pub use policy::{Learnt, Policy};
pub use rules::RuleSets;

/// Where state lives unless `--state-dir` says otherwise.
pub const DEFAULT: &str = "/run/sgctl";

/// Version of the file's form.
const VERSION: u32 = 2;
pub(crate) const FILE: &str = "state.json";
const LOCK: &str = "lock";

/// Everything remembered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    version: u32,
    /// Kernel id of the map `RUNTIME` this state belongs to: tells a fresh set of maps from ours.
    pub runtime: u32,
    /// Generation last put in force.
    pub generation: u32,
    /// Ids below this were given before.
    next_id: u32,
    /// SHA-256 of the object the conntrack commands were loaded from, hexadecimal.
    pub control: String,
    /// Namespaces that have a program set.
    pub namespaces: Vec<Namespace>,
    /// Attached interfaces.
    pub interfaces: Vec<Attached>,
    /// Interfaces of the policy in force, by name.
    pub resolved: BTreeMap<String, ResolvedInterface>,
    /// Number of the file with the rest of that policy; 0: none was put in force.
    pub policy: u32,
    /// How members of its groups differ from that file by now: what was learnt since.
    #[serde(default)]
    pub learnt: BTreeMap<Name, Learnt>,
    /// The change that led here, as long as it is not known to have come into force for good.
    #[serde(default)]
    pub changing: Option<Box<Changing>>,
}

/// A network namespace and the programs loaded for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    /// The `NAMESPACE` constant of its programs; from 1.
    pub number: u32,
    /// Which namespace.
    pub identity: NetnsIdentity,
    /// SHA-256 of the object its programs were loaded from, hexadecimal.
    pub object: String,
}

/// An attached interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attached {
    /// Our id: index of its records and counters.
    pub id: u32,
    /// Its name in the definition.
    pub name: String,
    /// Device name when it was attached.
    pub device: String,
    /// Index of the device in its namespace.
    pub ifindex: u32,
    /// Its Ethernet address, which tells it from one that is made anew under its index.
    #[serde(default)]
    pub mac: Option<[u8; 6]>,
    /// [`Namespace::number`].
    pub namespace: u32,
    /// Which side it is.
    pub orientation: Orientation,
    /// Ingress hook in force.
    pub hook: HookInForce,
    /// Why this hook, where the choice was ours.
    pub why: String,
    /// What became of the flows that there were when it was attached; `None`: nobody looked.
    #[serde(default)]
    pub adopted: Option<Adopted>,
}

/// How ingress of an interface is enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HookInForce {
    /// XDP in the driver.
    Xdp,
    /// XDP after the driver.
    XdpGeneric,
    /// tcx.
    Tc,
}

impl HookInForce {
    /// As the definition spells it.
    pub fn name(self) -> &'static str {
        match self {
            HookInForce::Xdp => "xdp",
            HookInForce::XdpGeneric => "xdp-generic",
            HookInForce::Tc => "tc",
        }
    }

    /// The wish that brings this hook about.
    pub fn asked(self) -> Hook {
        match self {
            HookInForce::Xdp => Hook::Xdp,
            HookInForce::XdpGeneric => Hook::XdpGeneric,
            HookInForce::Tc => Hook::Tc,
        }
    }
}

/// Why state cannot be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The directory is not to be trusted.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Another writer is at work.
    #[error("another sgctl ({holder}) is at work on {}; wait for it, or stop it", path.display())]
    Locked {
        /// The state directory.
        path: PathBuf,
        /// Its process id, as far as it is known.
        holder: String,
    },
    /// The file cannot be read or written.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The file is not what this program writes.
    #[error("{} cannot be read; `sgctl detach --all` starts anew", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// Another version of sgctl wrote it.
    #[error("{} is of version {found}, this sgctl writes {VERSION}; use the sgctl that wrote it, or `sgctl detach --all`", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// All interface ids are taken.
    #[error("{} interfaces are attached or have live flows; no id is left", MAX_INTERFACES - 1)]
    NoId,
}

impl State {
    /// The state of a fresh set of maps, and of the object that made them.
    pub fn new(runtime: u32, object: &str) -> Self {
        Self {
            version: VERSION,
            runtime,
            generation: 0,
            next_id: 1,
            control: object.to_owned(),
            namespaces: Vec::new(),
            interfaces: Vec::new(),
            resolved: BTreeMap::new(),
            policy: 0,
            learnt: BTreeMap::new(),
            changing: None,
        }
    }

    /// Reads the state without locking it; `None` if there is none.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn read(directory: &Path) -> Result<Option<Self>, StateError> {
        if std::fs::symlink_metadata(directory).is_err() {
            return Ok(None);
        }
        let opened = directory::private(directory)?;
        read(directory, &opened)
    }

    /// The attached interface called `name` in the definition, else the only one whose device is;
    /// within one namespace if one is given.
    pub fn find(&self, name: &str, within: Option<&NetnsIdentity>) -> Option<&Attached> {
        let inside = |one: &&Attached| {
            within.is_none_or(|within| {
                self.namespace(one.namespace)
                    .is_some_and(|namespace| namespace.identity.is(within))
            })
        };
        let mut by_name = self.interfaces.iter().filter(inside);
        let mut by_device = self
            .interfaces
            .iter()
            .filter(inside)
            .filter(|one| one.device == name);
        by_name.find(|one| one.name == name).or_else(|| {
            match (by_device.next(), by_device.next()) {
                (Some(one), None) => Some(one),
                _ => None,
            }
        })
    }

    /// The namespace with a number.
    pub fn namespace(&self, number: u32) -> Option<&Namespace> {
        self.namespaces.iter().find(|one| one.number == number)
    }

    /// The interface whose link or filter a pin is.
    pub fn of_pin(&self, pin: &Path) -> Option<&Attached> {
        let id = pin.file_name()?.to_str()?.split('-').next()?;
        let id: u32 = id.parse().ok()?;
        self.interfaces.iter().find(|one| one.id == id)
    }

    /// Where the device of an attached interface is.
    pub fn place(&self, one: &Attached) -> Option<Place<'_>> {
        let namespace = self.namespace(one.namespace)?;
        Some(Place::within(&namespace.identity, one.ifindex))
    }

    /// Gives out an id: ids grow until none is left, then the lowest free one that `is_idle`
    /// confirms to own no flow comes back.
    ///
    /// # Errors
    /// [`StateError::NoId`], and what `is_idle` returns.
    pub fn give_id<E: From<StateError>>(
        &mut self,
        mut is_idle: impl FnMut(u32) -> Result<bool, E>,
    ) -> Result<u32, E> {
        if self.next_id < MAX_INTERFACES {
            self.next_id += 1;
            return Ok(self.next_id - 1);
        }
        for id in 1..MAX_INTERFACES {
            if self.interfaces.iter().all(|one| one.id != id) && is_idle(id)? {
                return Ok(id);
            }
        }
        Err(StateError::NoId.into())
    }

    /// The lowest number no namespace has.
    pub fn give_namespace(&self) -> u32 {
        (1..)
            .find(|number| self.namespace(*number).is_none())
            .expect("there are fewer namespaces than numbers")
    }
}

/// The right to change things: held by one process at a time.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    directory: OwnedFd,
    _file: File,
}

impl Lock {
    /// Takes the lock of a state directory, making the directory if needed.
    ///
    /// # Errors
    /// [`StateError::Locked`] at once if another process holds it.
    pub fn take(path: &Path) -> Result<Self, StateError> {
        let directory = directory::private(path)?;
        let file = rustix::fs::openat(
            &directory,
            LOCK,
            OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::RUSR | Mode::WUSR,
        )
        .map_err(|source| io_error("open", &path.join(LOCK), source))?;
        let mut file = File::from(file);
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let holder = io::read_to_string(&file).unwrap_or_default();
                let holder = match holder.trim() {
                    "" => "process unknown".to_owned(),
                    pid => format!("process {pid}"),
                };
                return Err(StateError::Locked {
                    path: path.to_owned(),
                    holder,
                });
            }
            Err(source) => return Err(io_error("lock", &path.join(LOCK), source)),
        }
        let written = file
            .set_len(0)
            .and_then(|()| write!(file, "{}", std::process::id()));
        written.map_err(|source| StateError::Io {
            operation: "write",
            path: path.join(LOCK),
            source,
        })?;
        let lock = Self {
            path: path.to_owned(),
            directory,
            _file: file,
        };
        rcu::settle(&lock);
        Ok(lock)
    }

    /// Reads the state; `None` if there is none.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn read(&self) -> Result<Option<State>, StateError> {
        read(&self.path, &self.directory)
    }

    /// Replaces the state.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn write(&self, state: &State) -> Result<(), StateError> {
        self.replace(FILE, state)
    }

    /// Removes the state and all that belongs to it. The history stays: it is of no one set of maps.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn clear(&self) -> Result<(), StateError> {
        self.remove(FILE)?;
        self.remove_upgrade()?;
        self.remove_policies(&[])?;
        self.remove_rules()
    }

    /// Writes a file beside the one it replaces, which stays whole until the new one is. What could not be written
    /// takes no room.
    fn replace(&self, name: &str, content: &impl Serialize) -> Result<(), StateError> {
        let new = format!("{name}.new");
        let replaced = self.write_anew(&new, content).and_then(|()| {
            rustix::fs::renameat(&self.directory, &*new, &self.directory, name)
                .map_err(|source| io_error("rename", &self.path.join(&new), source))
        });
        if replaced.is_err() {
            let _ = self.remove(&new);
        }
        replaced
    }

    fn write_anew(&self, name: &str, content: &impl Serialize) -> Result<(), StateError> {
        let path = self.path.join(name);
        let file = rustix::fs::openat(
            &self.directory,
            name,
            OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::RUSR | Mode::WUSR,
        )
        .map_err(|source| io_error("write", &path, source))?;
        // Written as it is made: it may be large.
        let mut file = BufWriter::with_capacity(1 << 20, File::from(file));
        let written = serde_json::to_writer(&mut file, content)
            .map_err(io::Error::from)
            .and_then(|()| file.flush())
            .and_then(|()| file.get_ref().sync_all());
        written.map_err(|source| StateError::Io {
            operation: "write",
            path,
            source,
        })
    }

    /// Removes the files of a kind that are numbered, but those of these numbers.
    fn remove_but(&self, kind: &str, kept: &[u32]) -> Result<(), StateError> {
        let kept: Vec<String> = kept.iter().map(|number| numbered(kind, *number)).collect();
        let failed = |source| StateError::Io {
            operation: "list",
            path: self.path.clone(),
            source,
        };
        for entry in self.path.read_dir().map_err(failed)? {
            let found = entry.map_err(failed)?.file_name();
            let Some(found) = found.to_str() else {
                continue;
            };
            if found.starts_with(kind) && kept.iter().all(|kept| kept != found) {
                self.remove(found)?;
            }
        }
        Ok(())
    }

    /// Gives a file a second name; one that has it already is right.
    fn link(&self, from: &str, to: &str) -> Result<(), StateError> {
        let at = &self.directory;
        match rustix::fs::linkat(at, from, at, to, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
            Err(source) => Err(io_error("link", &self.path.join(to), source)),
        }
    }

    fn remove(&self, name: &str) -> Result<(), StateError> {
        match rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(source) => Err(io_error("remove", &self.path.join(name), source)),
        }
    }
}

/// Name of a file of a kind of which there are several.
fn numbered(kind: &str, number: u32) -> String {
    format!("{kind}{number}.json")
}

/// The text of a file of the directory.
fn contents(path: &Path, directory: &OwnedFd, name: &str) -> Result<Option<String>, StateError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(directory.as_fd(), name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(source) => return Err(io_error("open", &path.join(name), source)),
    };
    let text = io::read_to_string(file).map_err(|source| StateError::Io {
        operation: "read",
        path: path.join(name),
        source,
    })?;
    Ok(Some(text))
}

/// A file of the directory, read; `None` if there is none.
fn parsed<T: DeserializeOwned>(
    path: &Path,
    directory: &OwnedFd,
    name: &str,
) -> Result<Option<T>, StateError> {
    let Some(text) = contents(path, directory, name)? else {
        return Ok(None);
    };
    let parsed = serde_json::from_str(&text);
    parsed.map(Some).map_err(|source| StateError::Malformed {
        path: path.join(name),
        source,
    })
}

fn read(path: &Path, directory: &OwnedFd) -> Result<Option<State>, StateError> {
    let Some(text) = contents(path, directory, FILE)? else {
        return Ok(None);
    };
    let path = path.join(FILE);
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let malformed = |source| StateError::Malformed {
        path: path.clone(),
        source,
    };
    let found: Versioned = serde_json::from_str(&text).map_err(malformed)?;
    if found.version != VERSION {
        return Err(StateError::Version {
            path,
            found: found.version,
        });
    }
    serde_json::from_str(&text).map(Some).map_err(malformed)
}

fn io_error(operation: &'static str, path: &Path, source: rustix::io::Errno) -> StateError {
    StateError::Io {
        operation,
        path: path.to_owned(),
        source: source.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_first_and_come_back_only_when_idle() {
        let mut state = State::new(1, "");
        let give = |state: &mut State, idle: u32| state.give_id::<StateError>(|id| Ok(id == idle));
        for expected in 1..MAX_INTERFACES {
            assert_eq!(give(&mut state, 0).unwrap(), expected);
        }
        assert!(matches!(give(&mut state, 0), Err(StateError::NoId)));
        assert_eq!(give(&mut state, 7).unwrap(), 7);
    }

    #[test]
    fn a_second_writer_is_refused_by_name() {
        let path = std::env::temp_dir().join(format!("sg-state-lock-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        let held = Lock::take(&path).unwrap();
        let error = Lock::take(&path).unwrap_err().to_string();
        assert!(
            error.contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        drop(held);
        Lock::take(&path).unwrap();
        std::fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn state_survives_a_round_trip_and_other_versions_are_refused() {
        let path = std::env::temp_dir().join(format!("sg-state-file-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        let lock = Lock::take(&path).unwrap();
        assert!(lock.read().unwrap().is_none());
        let mut state = State::new(42, "");
        state.generation = 3;
        lock.write(&state).unwrap();
        assert_eq!(State::read(&path).unwrap().unwrap().generation, 3);
        state.version = VERSION + 1;
        lock.write(&state).unwrap();
        assert!(matches!(
            lock.read(),
            Err(StateError::Version { found, .. }) if found == VERSION + 1
        ));
        lock.clear().unwrap();
        assert!(lock.read().unwrap().is_none());
        std::fs::remove_dir_all(&path).unwrap();
    }
}
