//! Network namespaces: named, opened, told apart, entered for one closure.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, RawFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, fstatfs},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use serde::{Deserialize, Serialize};

/// An open network namespace.
#[derive(Debug)]
pub struct Netns {
    file: File,
    identity: NetnsIdentity,
}

/// What tells network namespaces apart. A number of a namespace that is gone may come back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetnsIdentity {
    /// Device number of the namespace file system.
    pub device: u64,
    /// Inode number in it.
    pub inode: u64,
    /// Where it was found; absent for the namespace sgctl ran in.
    pub path: Option<PathBuf>,
}

impl NetnsIdentity {
    /// That of a namespace that is somewhere: never the same as another.
    pub fn unknown() -> Self {
        Self {
            device: 0,
            inode: 0,
            path: None,
        }
    }

    /// Whether both are the same namespace, however they were reached.
    pub fn is(&self, other: &Self) -> bool {
        self.inode != 0 && (self.device, self.inode) == (other.device, other.inode)
    }
}

/// Why a namespace cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetnsError {
    /// There is no such namespace.
    #[error("cannot open network namespace {} (`ip netns list` shows the named ones)", path.display())]
    Open {
        /// Where it was looked for.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Something else is there: a name whose namespace is not mounted yet, or a file.
    #[error("{} is not a network namespace", path.display())]
    NotNamespace {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// It cannot be entered.
    #[error("cannot enter network namespace {}", path.display())]
    Enter {
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A device has moved there, and nobody has said where that is.
    #[error("the network namespace that its device has moved to is not known")]
    Unknown,
    /// It was the namespace sgctl ran in, and this one runs in another.
    #[error("this is another network namespace than the one sgctl ran in then; run it there")]
    Elsewhere,
    /// It is not the namespace it was.
    #[error("network namespace {} is not the one it was: it was removed and made again", path.display())]
    Replaced {
        /// Which.
        path: PathBuf,
    },
}

impl Netns {
    /// Opens a namespace by name (below `/run/netns`) or path; `None` is the one sgctl runs in.
    ///
    /// # Errors
    /// [`NetnsError::Open`].
    pub fn open(name: Option<&str>) -> Result<Self, NetnsError> {
        Self::at(name.map(Self::place))
    }

    /// Where a namespace is looked for by its name or path.
    pub fn place(name: &str) -> PathBuf {
        if name.contains('/') {
            PathBuf::from(name)
        } else {
            Path::new("/run/netns").join(name)
        }
    }

    /// Opens a namespace again that was seen before.
    ///
    /// # Errors
    /// [`NetnsError::Open`] if it is gone, [`NetnsError::Replaced`] if another took its place,
    /// [`NetnsError::Unknown`] if it was never known.
    pub fn reopen(identity: &NetnsIdentity) -> Result<Self, NetnsError> {
        if identity.inode == 0 {
            return Err(NetnsError::Unknown);
        }
        let found = Self::at(identity.path.clone())?;
        if found.identity.is(identity) {
            return Ok(found);
        }
        Err(match &identity.path {
            Some(path) => NetnsError::Replaced { path: path.clone() },
            None => NetnsError::Elsewhere,
        })
    }

    fn at(path: Option<PathBuf>) -> Result<Self, NetnsError> {
        let place = path.as_deref().unwrap_or(Path::new(OWN));
        let failed = |source| NetnsError::Open {
            path: place.to_owned(),
            source,
        };
        // Looked at before it is opened: a FIFO would wait, and a name whose namespace is not mounted yet is a
        // file that may be read by nobody.
        let entry = rustix::fs::open(place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let entry = entry.map_err(|source| failed(source.into()))?;
        let system = fstatfs(&entry).map_err(|source| failed(source.into()))?;
        if system.f_type != NSFS_MAGIC {
            return Err(NetnsError::NotNamespace {
                path: place.to_owned(),
            });
        }
        let reached = format!("/proc/self/fd/{}", entry.as_raw_fd());
        let file = File::open(reached).map_err(failed)?;
        let found = file.metadata().map_err(failed)?;
        let (device, inode) = (found.dev(), found.ino());
        Ok(Self {
            file,
            identity: NetnsIdentity {
                device,
                inode,
                path,
            },
        })
    }

    /// What tells it apart.
    pub fn identity(&self) -> &NetnsIdentity {
        &self.identity
    }

    /// Runs `task` inside the namespace. Where that is another than the caller's, `task` has a thread of its
    /// own: the caller's stays where it is. Where it is the same, nothing is entered: that would need
    /// `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    /// [`NetnsError::Enter`].
    ///
    /// # Panics
    /// If `task` does.
    pub fn run<T: Send>(&self, task: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        let here = fs::metadata(OWN);
        if here.is_ok_and(|here| (here.dev(), here.ino()) == self.key()) {
            return Ok(task());
        }
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(task())
            });
            match inside.join() {
                Ok(answer) => answer.map_err(|source: rustix::io::Errno| NetnsError::Enter {
                    path: self.path().to_owned(),
                    source: source.into(),
                }),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Its file descriptor, for requests about it.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    fn key(&self) -> (u64, u64) {
        (self.identity.device, self.identity.inode)
    }

    fn path(&self) -> &Path {
        self.identity.path.as_deref().unwrap_or(Path::new(OWN))
    }
}

/// `NSFS_MAGIC` of `include/uapi/linux/magic.h`.
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// The calling thread's network namespace.
const OWN: &str = "/proc/thread-self/ns/net";
