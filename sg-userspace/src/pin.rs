//! Where maps, links and programs are pinned.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, Mode, OFlags};
use sg_common::abi::{ABI_VERSION, PROGRAM_CT_CONTROL, map};

use crate::directory::{self, DirectoryError};

/// Where pins live unless `--bpffs` says otherwise.
pub const DEFAULT: &str = "/sys/fs/bpf/sgctl";

/// Where a BPF file system is mounted by convention.
const BPFFS: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC` of `include/uapi/linux/magic.h`.
const BPFFS_MAGIC: i64 = 0xcafe_4a11;

/// What a directory of one ABI version holds.
const BELOW: [&str; 3] = ["maps", "links", "progs"];

/// The pin directories of one enforcer.
#[derive(Clone, Debug)]
pub struct Pins {
    base: PathBuf,
    root: PathBuf,
}

/// Why pins cannot be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PinError {
    /// A directory is not to be trusted.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The directory lies on another file system.
    #[error("{} is not on a BPF file system; mount one (`mount -t bpf bpf {BPFFS}`) or name another place with --bpffs", path.display())]
    NotBpffs {
        /// The directory.
        path: PathBuf,
    },
    /// Mounting would help nobody: the mount namespace is private.
    #[error(
        "no BPF file system at {BPFFS}, and this is a private mount namespace (as `ip netns exec` makes it): pins made here would vanish with it. Run sgctl outside and use --netns"
    )]
    PrivateMounts,
    /// Mounting failed.
    #[error("cannot mount a BPF file system at {BPFFS}")]
    Mount {
        /// The kernel's answer.
        source: io::Error,
    },
    /// A pin cannot be listed or removed.
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

impl Pins {
    /// The pins below `base`, in the directory of this ABI version. Touches nothing.
    pub fn new(base: &Path) -> Self {
        Self::of_version(base, ABI_VERSION)
    }

    /// The pins of another ABI version. Touches nothing.
    pub fn of_version(base: &Path, version: u32) -> Self {
        Self {
            base: base.to_owned(),
            root: base.join(format!("v{version}")),
        }
    }

    /// The pins of this ABI version while what they hold moves to maps of another size. Touches nothing.
    pub fn before(base: &Path) -> Self {
        Self {
            base: base.to_owned(),
            root: base.join(format!("v{ABI_VERSION}-before")),
        }
    }

    /// Makes these the pins [`before`](Self::before), in one step.
    ///
    /// # Errors
    /// [`PinError::Io`].
    pub fn set_aside(&self) -> Result<(), PinError> {
        let place = Self::before(&self.base);
        std::fs::rename(&self.root, &place.root).map_err(|source| PinError::Io {
            operation: "rename",
            path: self.root.clone(),
            source,
        })
    }

    /// Undoes [`set_aside`](Self::set_aside).
    ///
    /// # Errors
    /// [`PinError::Io`].
    pub fn put_back(&self) -> Result<(), PinError> {
        let place = Self::before(&self.base);
        std::fs::rename(&place.root, &self.root).map_err(|source| PinError::Io {
            operation: "rename",
            path: place.root,
            source,
        })
    }

    /// Other ABI versions that have pins beside these.
    ///
    /// # Errors
    /// [`PinError::Io`]; a missing directory holds none.
    pub fn others(&self) -> Result<Vec<u32>, PinError> {
        let versions = list(&self.base)?.into_iter().filter_map(|path| {
            let name = path.file_name()?.to_str()?.strip_prefix('v')?;
            name.parse().ok().filter(|version| *version != ABI_VERSION)
        });
        Ok(versions.collect())
    }

    /// Makes the directories, mounting a BPF file system where the default place lacks one, and
    /// checks that only root can reach what is in them.
    ///
    /// # Errors
    /// See [`PinError`].
    pub fn prepare(&self) -> Result<(), PinError> {
        self.reach()?;
        directory::private(&self.base)?;
        directory::private(&self.root)?;
        for name in BELOW {
            directory::private(&self.root.join(name))?;
        }
        Ok(())
    }

    /// Sees to it that there is a BPF file system; the usual one is mounted where it is not.
    ///
    /// # Errors
    /// [`PinError::NotBpffs`], [`PinError::Io`].
    pub fn reach(&self) -> Result<(), PinError> {
        let parent = self.base.parent().unwrap_or(Path::new("/"));
        if !is_bpffs(parent) {
            if parent != Path::new(BPFFS) {
                return Err(PinError::NotBpffs {
                    path: parent.to_owned(),
                });
            }
            mount()?;
        }
        Ok(())
    }

    /// Keeps others from making pins beside this process until it is dropped, whatever state directory they use.
    /// The file system must be [there](Self::reach).
    ///
    /// # Errors
    /// [`PinError::Io`].
    pub fn alone(&self) -> Result<OwnedFd, PinError> {
        let above = self.base.parent().unwrap_or(Path::new("/"));
        let failed = |source: rustix::io::Errno| PinError::Io {
            operation: "lock",
            path: above.to_owned(),
            source: source.into(),
        };
        // A lock on what lies below would be lost with it.
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(above, flags, Mode::empty()).map_err(failed)?;
        rustix::fs::flock(&directory, FlockOperation::LockExclusive).map_err(failed)?;
        Ok(directory)
    }

    /// Whether anything of ours is pinned here.
    pub fn exist(&self) -> bool {
        self.map(map::RUNTIME).exists() || self.links().is_ok_and(|links| !links.is_empty())
    }

    /// Checks the directories that exist, without making any.
    ///
    /// # Errors
    /// See [`PinError`].
    pub fn check(&self) -> Result<(), PinError> {
        let below = BELOW.map(|name| self.root.join(name));
        for path in [&self.base, &self.root].into_iter().chain(&below) {
            match std::fs::symlink_metadata(path) {
                Ok(_) => drop(directory::private(path)?),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => {
                    return Err(PinError::Io {
                        operation: "examine",
                        path: path.to_owned(),
                        source,
                    });
                }
            }
        }
        Ok(())
    }

    /// The directory of this ABI version.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Pin of a map.
    pub fn map(&self, name: &str) -> PathBuf {
        self.root.join("maps").join(name)
    }

    /// Pin of an interface's link; `hook` is `ingress` or `egress`.
    pub fn link(&self, interface: u32, hook: &str) -> PathBuf {
        self.root.join("links").join(format!("{interface}-{hook}"))
    }

    /// Directory of the programs loaded for a network namespace.
    pub fn programs(&self, namespace: u32) -> PathBuf {
        self.root.join("progs").join(format!("ns{namespace}"))
    }

    /// Pin of the conntrack commands, which serve all namespaces: theirs is number 0.
    pub fn control(&self) -> PathBuf {
        self.programs(0).join(PROGRAM_CT_CONTROL)
    }

    /// How names of pins end that are no links, but say that a device's qdisc was made for it.
    pub(crate) const CLSACT: &str = "-clsact";

    /// Every pinned link, and every pinned program that stands for a TC filter.
    ///
    /// # Errors
    /// [`PinError::Io`]; a missing directory holds no links.
    pub fn links(&self) -> Result<Vec<PathBuf>, PinError> {
        let mut links = list(&self.root.join("links"))?;
        links.retain(|link| {
            !link
                .as_os_str()
                .as_encoded_bytes()
                .ends_with(Self::CLSACT.as_bytes())
        });
        Ok(links)
    }

    /// Every directory of programs.
    ///
    /// # Errors
    /// [`PinError::Io`].
    pub fn program_sets(&self) -> Result<Vec<PathBuf>, PinError> {
        list(&self.root.join("progs"))
    }

    /// Removes one pin; a missing one is fine.
    ///
    /// # Errors
    /// [`PinError::Io`].
    pub fn remove(path: &Path) -> Result<(), PinError> {
        match std::fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(PinError::Io {
                operation: "remove",
                path: path.to_owned(),
                source,
            }),
            _ => Ok(()),
        }
    }

    /// Removes a directory of programs with all in it; a missing one is fine.
    ///
    /// # Errors
    /// [`PinError::Io`].
    pub fn remove_programs(directory: &Path) -> Result<(), PinError> {
        // Arrays of programs last: what they hand packets to is gone with their pins.
        for program in list(directory)?.into_iter().rev() {
            Self::remove(&program)?;
        }
        remove_directory(directory)
    }

    /// Removes every map and program and the directories. Links must be gone before.
    ///
    /// # Errors
    /// [`PinError::Io`].
    pub fn remove_all(&self) -> Result<(), PinError> {
        for set in self.program_sets()? {
            Self::remove_programs(&set)?;
        }
        for map in list(&self.root.join("maps"))? {
            Self::remove(&map)?;
        }
        for left in list(&self.root.join("links"))? {
            if left
                .as_os_str()
                .as_encoded_bytes()
                .ends_with(Self::CLSACT.as_bytes())
            {
                Self::remove(&left)?;
            }
        }
        for name in BELOW {
            remove_directory(&self.root.join(name))?;
        }
        remove_directory(&self.root)?;
        // Another ABI version may still live beside us.
        match std::fs::remove_dir(&self.base) {
            Err(error) if error.raw_os_error() == Some(libc::ENOTEMPTY) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(PinError::Io {
                operation: "remove",
                path: self.base.clone(),
                source,
            }),
            Ok(()) => Ok(()),
        }
    }
}

fn list(directory: &Path) -> Result<Vec<PathBuf>, PinError> {
    let failed = |source| PinError::Io {
        operation: "list",
        path: directory.to_owned(),
        source,
    };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed(source)),
    };
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()).map_err(failed))
        .collect::<Result<Vec<_>, _>>()?;
    // By name, which is all in which they differ.
    paths.sort_unstable_by(|one, other| one.as_os_str().cmp(other.as_os_str()));
    Ok(paths)
}

fn remove_directory(path: &Path) -> Result<(), PinError> {
    match std::fs::remove_dir(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(PinError::Io {
            operation: "remove",
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

fn is_bpffs(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type == BPFFS_MAGIC)
}

fn mount() -> Result<(), PinError> {
    let own = std::fs::read_link("/proc/self/ns/mnt");
    let first = std::fs::read_link("/proc/1/ns/mnt");
    if let (Ok(own), Ok(first)) = (own, first)
        && own != first
    {
        return Err(PinError::PrivateMounts);
    }
    let failed = |source: rustix::io::Errno| PinError::Mount {
        source: source.into(),
    };
    // Two processes that mount would hide each other's pins; the directory below serves as lock.
    let below = rustix::fs::open(BPFFS, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed)?;
    rustix::fs::flock(&below, FlockOperation::LockExclusive).map_err(failed)?;
    if is_bpffs(Path::new(BPFFS)) {
        return Ok(());
    }
    rustix::mount::mount(
        "bpf",
        BPFFS,
        "bpf",
        rustix::mount::MountFlags::NOSUID
            | rustix::mount::MountFlags::NODEV
            | rustix::mount::MountFlags::NOEXEC,
        Some(c"mode=0700"),
    )
    .map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_that_cannot_be_looked_for_are_not_taken_for_absent() {
        Pins::new(Path::new("/nowhere/pins")).check().unwrap();
        // As root meets no closed door, a file in the way stands for one.
        let found = Pins::new(Path::new("/dev/null/pins")).check();
        assert!(matches!(found, Err(PinError::Io { .. })), "{found:?}");
    }
}
