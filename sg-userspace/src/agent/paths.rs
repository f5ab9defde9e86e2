//! Notice that what stands at a path may have changed, however it was changed.
//!
//! Editors replace files by rename, deployment tools switch symlinks or whole directories. So what
//! is watched is every directory on the way to a path, through every symlink, for the one name in
//! it that the way goes by.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
};

use notify::{
    Config, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use tokio::sync::Notify;

use crate::trust::names;

/// Symlinks followed on the way to one path, as the kernel's own limit (path_resolution(7)).
const MAX_SYMLINKS: u32 = 40;

/// Watches a set of paths.
#[derive(Debug)]
pub(super) struct Paths {
    paths: Vec<PathBuf>,
    changed: Arc<Notify>,
    _watcher: Option<RecommendedWatcher>,
}

impl Paths {
    /// Watches `paths`, which need not exist; of directories, what is directly in them too.
    ///
    /// # Errors
    /// inotify is not to be had.
    pub(super) fn watch(paths: Vec<PathBuf>) -> notify::Result<Self> {
        let mut watch = Self {
            paths,
            changed: Arc::new(Notify::new()),
            _watcher: None,
        };
        watch.renew()?;
        Ok(watch)
    }

    /// Watches these paths instead of those before, and returns whether they are others.
    ///
    /// # Errors
    /// inotify is not to be had.
    pub(super) fn follow(&mut self, paths: Vec<PathBuf>) -> notify::Result<bool> {
        if self.paths == paths {
            return Ok(false);
        }
        self.paths = paths;
        self.renew()?;
        Ok(true)
    }

    /// Finds the ways anew. To be called after a change and before what changed is read, so that no
    /// later change goes unnoticed.
    ///
    /// # Errors
    /// inotify is not to be had.
    pub(super) fn renew(&mut self) -> notify::Result<()> {
        let mut ways = Ways::default();
        for path in &self.paths {
            ways.add(path);
        }
        let directories = ways.directories.clone();
        let changed = Arc::clone(&self.changed);
        let handler = move |event: notify::Result<Event>| {
            if event.map_or(true, |event| ways.concern(&event)) {
                changed.notify_one();
            }
        };
        let mut watcher = RecommendedWatcher::new(handler, Config::default())?;
        for directory in &directories {
            match watcher.watch(directory, RecursiveMode::NonRecursive) {
                Ok(()) => {}
                // It vanished meanwhile: what stands above it is watched and tells when it is back.
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        self._watcher = Some(watcher);
        Ok(())
    }

    /// Waits for a change.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

fn is_gone(error: &notify::Error) -> bool {
    match &error.kind {
        notify::ErrorKind::PathNotFound => true,
        notify::ErrorKind::Io(error) => matches!(
            error.kind(),
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
        ),
        _ => false,
    }
}

/// The directories on the way to some paths, and the entries of them that matter.
#[derive(Debug, Default)]
struct Ways {
    directories: BTreeSet<PathBuf>,
    entries: BTreeSet<PathBuf>,
    /// Directories of which every entry matters.
    whole: BTreeSet<PathBuf>,
}

impl Ways {
    fn add(&mut self, path: &Path) {
        let found = self.walk(path);
        let Ok(entries) = found.read_dir() else {
            return;
        };
        self.directories.insert(found.clone());
        self.whole.insert(found);
        // A file of a directory may be a symlink to elsewhere.
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
                self.walk(&entry.path());
            }
        }
    }

    /// Goes the way to `path`, as far as it exists, and returns its end without symlinks.
    fn walk(&mut self, path: &Path) -> PathBuf {
        let mut ahead: Vec<OsString> = names(path);
        let mut here = PathBuf::from("/");
        let mut followed = 0;
        while let Some(name) = ahead.pop() {
            if name == ".." {
                here.pop();
                continue;
            }
            self.directories.insert(here.clone());
            here.push(&name);
            self.entries.insert(here.clone());
            let Ok(target) = here.read_link() else {
                continue;
            };
            followed += 1;
            if followed > MAX_SYMLINKS {
                break;
            }
            if target.is_absolute() {
                here = PathBuf::from("/");
            } else {
                here.pop();
            }
            ahead.extend(names(&target));
        }
        // What does not exist cannot be watched; the last directory that does tells of the next.
        self.directories.retain(|directory| directory.is_dir());
        here
    }

    fn concern(&self, event: &Event) -> bool {
        let matters = match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
            EventKind::Access(_) => false,
            _ => true,
        };
        let known = |path: &PathBuf| {
            self.entries.contains(path)
                || path
                    .parent()
                    .is_some_and(|parent| self.whole.contains(parent))
        };
        event.need_rescan() || matters && event.paths.iter().any(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink, time::Duration};

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("sg-paths-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).unwrap();
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

    async fn notices(paths: &mut Paths, what: &str, change: impl FnOnce()) {
        change();
        let noticed = tokio::time::timeout(Duration::from_secs(5), paths.changed()).await;
        assert!(noticed.is_ok(), "{what} went unnoticed");
        // One change makes several events; a new watch does not see those still on their way.
        paths.changed = Arc::new(Notify::new());
        paths.renew().unwrap();
    }

    #[tokio::test]
    async fn a_file_is_followed_through_writing_rename_removal_and_return() {
        let scratch = Scratch::new("file");
        let file = scratch.at("sg.toml");
        fs::write(&file, "a").unwrap();
        let mut paths = Paths::watch(vec![file.clone()]).unwrap();
        notices(&mut paths, "writing", || fs::write(&file, "b").unwrap()).await;
        let other = scratch.at("other");
        fs::write(&other, "c").unwrap();
        notices(&mut paths, "renaming", || {
            fs::rename(&other, &file).unwrap();
        })
        .await;
        notices(&mut paths, "removal", || fs::remove_file(&file).unwrap()).await;
        notices(&mut paths, "return", || fs::write(&file, "d").unwrap()).await;
    }

    #[tokio::test]
    async fn symlinks_and_directories_are_followed_when_they_switch() {
        let scratch = Scratch::new("switch");
        for version in ["1", "2"] {
            fs::create_dir(scratch.at(version)).unwrap();
            fs::write(scratch.at(version).join("sg.toml"), version).unwrap();
        }
        let (data, file) = (scratch.at("data"), scratch.at("sg.toml"));
        symlink("1", &data).unwrap();
        symlink("data/sg.toml", &file).unwrap();
        let mut paths = Paths::watch(vec![file]).unwrap();
        notices(&mut paths, "a switch", || {
            symlink("2", scratch.at("new")).unwrap();
            fs::rename(scratch.at("new"), &data).unwrap();
        })
        .await;
        notices(&mut paths, "a change behind it", || {
            fs::write(scratch.at("2").join("sg.toml"), "3").unwrap();
        })
        .await;
        notices(&mut paths, "another directory", || {
            fs::rename(scratch.at("2"), scratch.at("3")).unwrap();
        })
        .await;
    }

    #[tokio::test]
    async fn a_directory_is_followed_with_what_is_in_it_and_before_it_exists() {
        let scratch = Scratch::new("directory");
        let directory = scratch.at("sg.d");
        let mut paths = Paths::watch(vec![directory.clone()]).unwrap();
        notices(&mut paths, "coming", || fs::create_dir(&directory).unwrap()).await;
        notices(&mut paths, "a file", || {
            fs::write(directory.join("a.toml"), "").unwrap();
        })
        .await;
    }

    #[tokio::test]
    async fn neighbours_and_reading_are_no_changes() {
        let scratch = Scratch::new("neighbours");
        let file = scratch.at("sg.toml");
        fs::write(&file, "a").unwrap();
        let paths = Paths::watch(vec![file.clone()]).unwrap();
        fs::write(scratch.at("neighbour"), "b").unwrap();
        fs::read(&file).unwrap();
        // Events keep their order: had those before been noticed, they would be by now.
        let last = Paths::watch(vec![scratch.at("last")]).unwrap();
        fs::write(scratch.at("last"), "").unwrap();
        tokio::time::timeout(Duration::from_secs(5), last.changed())
            .await
            .unwrap();
        let noticed = tokio::time::timeout(Duration::from_millis(300), paths.changed()).await;
        assert!(noticed.is_err(), "nothing of its own has changed");
    }
}
