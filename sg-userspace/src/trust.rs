//! Paths that nobody can lead elsewhere but those who may: followed step by step, each step checked.
//!
//! A path is only as trustworthy as every directory on its way: whoever may write one of them can put
//! something else in place of what stands in it. So each component is opened by itself, without following
//! it, and what was opened is what is examined, gone on from and, at the end, returned: there is no moment
//! between look and use. Symbolic links are followed where they stand in such directories.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsString,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStringExt as _},
    path::{Component, Path, PathBuf},
};

use rustix::fs::{FileType, Mode, OFlags, Stat};

/// Symbolic links followed on one way, as the kernel's own limit (path_resolution(7)).
const MAX_SYMLINKS: u32 = 40;

/// Whose files may say what is enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Theirs, where nobody else can write to them or put others in their place.
    Owners(Owners),
    /// Everybody's.
    Everybody,
}

/// User ids whose files and directories are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owners(BTreeSet<u32>);

/// What a path leads to.
#[derive(Debug)]
pub struct Place {
    /// Opened with `O_PATH`: good for `fstat`, `openat` and `/proc/self/fd`.
    pub fd: OwnedFd,
    /// What it is.
    pub stat: Stat,
    /// Where it is, without symbolic links.
    pub path: PathBuf,
}

/// Why a path is not trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// A step of it cannot be made.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Others could put something in the place of what lies there.
    #[error("{} belongs to somebody else, or is writable by others without the sticky bit, so nothing below it can be trusted", path.display())]
    OpenDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// Somebody else owns it.
    #[error("{} belongs to uid {uid}", path.display())]
    Owner {
        /// What.
        path: PathBuf,
        /// Who.
        uid: u32,
    },
    /// Others may write to it.
    #[error("{} is writable by its group or by others (mode {mode:04o})", path.display())]
    Writable {
        /// What.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

impl Owners {
    /// Root, and whoever this process runs as.
    pub fn of_this_process() -> Self {
        Self([0, rustix::process::geteuid().as_raw()].into())
    }

    /// These, and the user who called sudo, if this is root. Only who is root already can say so.
    #[must_use]
    pub fn with_user_behind_sudo(mut self) -> Self {
        let behind = env::var("SUDO_UID").ok();
        let behind = behind.and_then(|uid| uid.parse::<u32>().ok());
        if rustix::process::geteuid().is_root() {
            self.0.extend(behind);
        }
        self
    }

    fn include(&self, stat: &Stat) -> bool {
        self.0.contains(&stat.st_uid)
    }
}

impl Place {
    /// Follows an absolute path to what it leads to. What that is, the caller has to look at.
    ///
    /// # Errors
    /// See [`TrustError`].
    pub fn find(path: &Path, owners: &Owners) -> Result<Self, TrustError> {
        let root = Self::root()?;
        root.go(names(path), owners)
    }

    /// What an entry of this directory leads to.
    ///
    /// # Errors
    /// See [`TrustError`].
    pub fn entry(&self, name: OsString, owners: &Owners) -> Result<Self, TrustError> {
        let here = Self {
            fd: open(&self.fd, ".", &self.path)?,
            stat: self.stat,
            path: self.path.clone(),
        };
        here.go(vec![name], owners)
    }

    /// Whether others than the owners can change what this is: a file's content, a directory's entries.
    ///
    /// # Errors
    /// [`TrustError::Owner`], [`TrustError::Writable`].
    pub fn check_unchangeable(&self, owners: &Owners) -> Result<(), TrustError> {
        if !owners.include(&self.stat) {
            return Err(TrustError::Owner {
                path: self.path.clone(),
                uid: self.stat.st_uid,
            });
        }
        let mode = self.stat.st_mode & 0o7777;
        if mode & 0o022 != 0 {
            return Err(TrustError::Writable {
                path: self.path.clone(),
                mode,
            });
        }
        Ok(())
    }

    fn root() -> Result<Self, TrustError> {
        let path = PathBuf::from("/");
        let failed = |source| failed("open", &path, source);
        let fd = rustix::fs::open("/", STEP, Mode::empty()).map_err(failed)?;
        let stat = rustix::fs::fstat(&fd).map_err(failed)?;
        Ok(Self { fd, stat, path })
    }

    /// Goes on from here by these names, the last one first.
    fn go(mut self, mut ahead: Vec<OsString>, owners: &Owners) -> Result<Self, TrustError> {
        let mut followed = 0;
        while let Some(name) = ahead.pop() {
            let sticky = self.check_on_the_way(owners)?;
            if name == ".." {
                self.fd = open(&self.fd, "..", &self.path)?;
                self.path.pop();
                self.stat = rustix::fs::fstat(&self.fd)
                    .map_err(|source| failed("examine", &self.path, source))?;
                continue;
            }
            let path = self.path.join(&name);
            let fd = rustix::fs::openat(&self.fd, &name, STEP, Mode::empty())
                .map_err(|source| failed("open", &path, source))?;
            let stat = rustix::fs::fstat(&fd).map_err(|source| failed("examine", &path, source))?;
            // Where all may write, an entry's owner may put another in its place.
            if sticky && !owners.include(&stat) {
                let uid = stat.st_uid;
                return Err(TrustError::Owner { path, uid });
            }
            if !FileType::from_raw_mode(stat.st_mode).is_symlink() {
                self = Self { fd, stat, path };
                continue;
            }
            followed += 1;
            if followed > MAX_SYMLINKS {
                return Err(failed("follow", &path, rustix::io::Errno::LOOP));
            }
            let target = rustix::fs::readlinkat(&fd, "", Vec::new())
                .map_err(|source| failed("follow", &path, source))?;
            let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
            if target.is_absolute() {
                self = Self::root()?;
            }
            ahead.extend(names(&target));
        }
        Ok(self)
    }

    /// Whether entries of this directory are safe from others. Answers whether that is for the sticky bit only.
    ///
    /// # Errors
    /// [`TrustError::OpenDirectory`].
    pub(crate) fn check_on_the_way(&self, owners: &Owners) -> Result<bool, TrustError> {
        let open = self.stat.st_mode & 0o022 != 0;
        let sticky = self.stat.st_mode & 0o1000 != 0;
        if !owners.include(&self.stat) || (open && !sticky) {
            // A file in the way is told of by the kernel.
            if FileType::from_raw_mode(self.stat.st_mode).is_dir() {
                let path = self.path.clone();
                return Err(TrustError::OpenDirectory { path });
            }
        }
        Ok(open)
    }
}

/// One step: what stands there itself, whatever it is, without opening it for anything.
const STEP: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn open(directory: &OwnedFd, name: &str, path: &Path) -> Result<OwnedFd, TrustError> {
    let flags = STEP.union(OFlags::DIRECTORY);
    rustix::fs::openat(directory, name, flags, Mode::empty())
        .map_err(|source| failed("open", path, source))
}

fn failed(operation: &'static str, path: &Path, source: rustix::io::Errno) -> TrustError {
    TrustError::Io {
        operation,
        path: path.to_owned(),
        source: source.into(),
    }
}

/// The names of a path, the last one first.
pub(crate) fn names(path: &Path) -> Vec<OsString> {
    let mut names: Vec<OsString> = path
        .components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect();
    names.reverse();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::{self, Permissions},
        os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    };

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = env::temp_dir().join(format!("sg-trust-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(path.join("a/b")).unwrap();
            for directory in ["", "a", "a/b"] {
                mode(&path.join(directory), 0o755);
            }
            fs::write(path.join("a/b/file"), "text").unwrap();
            mode(&path.join("a/b/file"), 0o644);
            Self(path.canonicalize().unwrap())
        }

        fn at(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn find(path: &Path) -> Result<Place, TrustError> {
        Place::find(path, &Owners::of_this_process())
    }

    #[test]
    fn the_way_is_the_kernels() {
        let scratch = Scratch::new("way");
        symlink("../b/../b", scratch.at("a/b/relative")).unwrap();
        symlink(scratch.at("a"), scratch.at("absolute")).unwrap();
        symlink("loop", scratch.at("loop")).unwrap();
        let file = fs::metadata(scratch.at("a/b/file")).unwrap();
        for path in [
            "a/b/file",
            "a/../a/./b/file",
            "absolute/b/file",
            "a/b/relative/file",
            "absolute/b/relative/../b/file",
        ] {
            let place = find(&scratch.at(path)).unwrap();
            assert_eq!(
                (place.stat.st_dev, place.stat.st_ino),
                (file.dev(), file.ino())
            );
            assert_eq!(place.path, scratch.at("a/b/file"), "{path}");
        }
        for (path, errno) in [
            ("a/missing", libc::ENOENT),
            ("a/b/file/below", libc::ENOTDIR),
            ("loop", libc::ELOOP),
        ] {
            let error = find(&scratch.at(path)).unwrap_err();
            let TrustError::Io { source, .. } = &error else {
                panic!("{path}: {error}");
            };
            assert_eq!(source.raw_os_error(), Some(errno), "{path}: {error}");
        }
    }

    #[test]
    fn directories_that_others_may_write_lead_nowhere() {
        let scratch = Scratch::new("open");
        symlink(scratch.at("a/b/file"), scratch.at("link")).unwrap();
        for open in [0o775, 0o757, 0o777] {
            mode(&scratch.at("a"), open);
            // By whatever way it is come to.
            for path in ["a/b/file", "link"] {
                let error = find(&scratch.at(path)).unwrap_err();
                let TrustError::OpenDirectory { path } = &error else {
                    panic!("{error}");
                };
                assert_eq!(*path, scratch.at("a"));
            }
        }
        // The sticky bit keeps others from replacing what is not theirs.
        mode(&scratch.at("a"), 0o1777);
        find(&scratch.at("a/b/file")).unwrap();
    }

    #[test]
    fn what_others_may_write_is_not_taken() {
        let scratch = Scratch::new("file");
        let owners = Owners::of_this_process();
        let file = scratch.at("a/b/file");
        let check = || find(&file).unwrap().check_unchangeable(&owners);
        check().unwrap();
        for open in [0o664, 0o646] {
            mode(&file, open);
            assert!(matches!(check(), Err(TrustError::Writable { mode, .. }) if mode == open));
        }
        let nobody = Owners(BTreeSet::new());
        mode(&file, 0o644);
        let place = find(&file).unwrap();
        let refused = place.check_unchangeable(&nobody);
        assert!(matches!(refused, Err(TrustError::Owner { .. })));
    }
}
