//! What the agent says of itself, where `sgctl export` finds it.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::directory::{self, DirectoryError};

const FILE: &str = "agent.json";
const NEW: &str = "agent.json.new";

/// What the agent says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Process id of the agent.
    pub pid: u32,
    /// When that process started, in clock ticks after boot: a process id comes back.
    pub started: u64,
    /// Errors that keep the definition as it is written out of force.
    pub definition_errors: u64,
    /// Whether the definition as it was last read is in force.
    pub reload_successful: bool,
    /// When a definition last came into force, in seconds since 1970; 0: never.
    pub reload_success_seconds: u64,
    /// Interfaces of the definition whose device is not there.
    pub absent: u64,
    /// Links that somebody else removed and the agent made again.
    pub repaired: u64,
}

/// Why the record cannot be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The state directory is not to be trusted.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
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
}

impl Record {
    /// An empty record of this process.
    pub fn of_this_process() -> Self {
        let pid = std::process::id();
        Self {
            pid,
            started: started(pid).unwrap_or_default(),
            ..Self::default()
        }
    }

    /// Reads the record of the agent that runs on a state directory; `None` if none does.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn read(state_dir: &Path) -> Result<Option<Self>, RecordError> {
        if fs::symlink_metadata(state_dir).is_err() {
            return Ok(None);
        }
        let directory = directory::private(state_dir)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&directory, FILE, flags, Mode::empty()) {
            Ok(file) => fs::File::from(file),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(failed("open", state_dir, error.into())),
        };
        let text = io::read_to_string(file).map_err(|error| failed("read", state_dir, error))?;
        // What another version wrote is of no running agent's.
        let record: Option<Self> = serde_json::from_str(&text).ok();
        Ok(record.filter(Self::is_of_a_running_process))
    }

    /// Replaces the record.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn write(&self, state_dir: &Path) -> Result<(), RecordError> {
        let text = serde_json::to_vec(self).expect("numbers and flags serialise");
        let directory = directory::private(state_dir)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&directory, NEW, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| failed("write", state_dir, error.into()))?;
        fs::File::from(file)
            .write_all(&text)
            .map_err(|error| failed("write", state_dir, error))?;
        rustix::fs::renameat(&directory, NEW, &directory, FILE)
            .map_err(|error| failed("replace", state_dir, error.into()))
    }

    /// Removes the record; a missing one is fine.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn remove(state_dir: &Path) -> Result<(), RecordError> {
        let directory = directory::private(state_dir)?;
        match rustix::fs::unlinkat(&directory, FILE, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(failed("remove", state_dir, error.into())),
        }
    }

    fn is_of_a_running_process(&self) -> bool {
        started(self.pid) == Some(self.started)
    }
}

/// Field 22 of `/proc/<pid>/stat` (proc_pid_stat(5)); the second is a name with any characters in
/// it, in parentheses.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19)?.parse().ok()
}

fn failed(operation: &'static str, state_dir: &Path, source: io::Error) -> RecordError {
    RecordError::Io {
        operation,
        path: state_dir.join(FILE),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_speaks_for_a_running_process_only() {
        let path = std::env::temp_dir().join(format!("sg-record-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        assert_eq!(Record::read(&path).unwrap(), None, "no directory");
        let record = Record {
            definition_errors: 2,
            ..Record::of_this_process()
        };
        assert_ne!(record.started, 0);
        record.write(&path).unwrap();
        assert_eq!(Record::read(&path).unwrap(), Some(record.clone()));
        let gone = Record {
            started: record.started - 1,
            ..record
        };
        gone.write(&path).unwrap();
        assert_eq!(Record::read(&path).unwrap(), None, "another process's id");
        Record::remove(&path).unwrap();
        Record::remove(&path).unwrap();
        assert_eq!(Record::read(&path).unwrap(), None);
        fs::remove_dir_all(&path).unwrap();
    }
}
