//! Directories that only root may touch, checked before anything in them is trusted.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::fs::{FileType, Mode, OFlags, Stat};

use crate::trust::{Owners, Place, TrustError};

/// Why a directory is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// It cannot be made, opened or examined.
    #[error("cannot {operation} directory {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Somebody else owns it, may write to it, or it is not a directory.
    #[error("{} is {found}; it must be a directory of root with mode 0700. Remove it, or name another place", path.display())]
    Untrusted {
        /// The directory.
        path: PathBuf,
        /// What it is instead.
        found: String,
    },
    /// The way to it does not lead where it should for certain.
    #[error(transparent)]
    Way(#[from] TrustError),
}

/// Makes sure that `path`, which is absolute, is a directory of root with mode 0700, makes it if it is missing,
/// and returns it opened. The directory above it must exist.
///
/// Of the way to it every step is checked ([`Place::find`]). The last component is neither followed as a symlink
/// nor looked up twice, so what was checked is what is returned; and as root owns it, nobody else can replace it
/// afterwards.
///
/// # Errors
/// See [`DirectoryError`].
pub fn private(path: &Path) -> Result<OwnedFd, DirectoryError> {
    let failed = |operation, path: &Path, source: rustix::io::Errno| DirectoryError::Io {
        operation,
        path: path.to_owned(),
        source: source.into(),
    };
    let name = path.file_name().ok_or_else(|| DirectoryError::Untrusted {
        path: path.to_owned(),
        found: "not a name".to_owned(),
    })?;
    let above = path.parent().unwrap_or(Path::new("/"));
    let parent = Place::find(above, &Owners::of_this_process())?;
    parent.check_on_the_way(&Owners::of_this_process())?;
    let (parent, owner) = (parent.fd, rustix::process::geteuid().as_raw());
    match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(source) => return Err(failed("make", path, source)),
    }
    let opened = rustix::fs::openat(&parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
    let directory = match opened {
        Ok(directory) => directory,
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR) => {
            return Err(DirectoryError::Untrusted {
                path: path.to_owned(),
                found: "a symbolic link or a file".to_owned(),
            });
        }
        Err(source) => return Err(failed("open", path, source)),
    };
    let found = rustix::fs::fstat(&directory).map_err(|source| failed("examine", path, source))?;
    if found.st_uid != owner || permissions(&found) != 0o700 {
        return Err(DirectoryError::Untrusted {
            path: path.to_owned(),
            found: format!(
                "a directory of uid {} with mode {:04o}",
                found.st_uid,
                permissions(&found)
            ),
        });
    }
    Ok(directory)
}

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

fn permissions(stat: &Stat) -> u32 {
    debug_assert!(FileType::from_raw_mode(stat.st_mode).is_dir());
    stat.st_mode & 0o7777
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("sg-directory-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        path
    }

    #[test]
    fn makes_what_is_missing_and_accepts_it_again() {
        let scratch = scratch("new");
        let path = scratch.join("state");
        private(&path).unwrap();
        private(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
        std::fs::remove_dir_all(&scratch).unwrap();
    }

    #[test]
    fn refuses_links_and_loose_modes() {
        let scratch = scratch("hostile");
        let link = scratch.join("link");
        symlink("/", &link).unwrap();
        assert!(matches!(
            private(&link),
            Err(DirectoryError::Untrusted { .. })
        ));
        let loose = scratch.join("loose");
        std::fs::create_dir(&loose).unwrap();
        std::fs::set_permissions(&loose, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(
            private(&loose),
            Err(DirectoryError::Untrusted { .. })
        ));
        let open = scratch.join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(
            private(&open.join("state")),
            Err(DirectoryError::Way(TrustError::OpenDirectory { .. }))
        ));
        let above = open.join("above");
        std::fs::create_dir(&above).unwrap();
        std::fs::set_permissions(&above, std::fs::Permissions::from_mode(0o700)).unwrap();
        let refused = private(&above.join("state"));
        assert!(matches!(
            refused,
            Err(DirectoryError::Way(TrustError::OpenDirectory { path })) if path == open.canonicalize().unwrap()
        ));
        std::fs::remove_dir_all(&scratch).unwrap();
    }
}
