//! Source files: the only place of the definition that touches the file system.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FileType;

use super::format::{EXTENSIONS, Format};
use crate::trust::{Owners, Place, Trust, TrustError};

/// Bytes that all files of a definition may have together. Parsing takes up to forty times as much
/// memory; a thousand rules with a list of a thousand prefixes of each family each take 43 MB.
pub const MAX_BYTES: u64 = 64 << 20;

/// A file of a definition.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file as it was named to us.
    pub name: Arc<str>,
    /// Its text; not beyond `invalid_at` what the file holds.
    pub text: String,
    /// Byte at which the file stops being UTF-8.
    pub invalid_at: Option<usize>,
    /// Whether it seems to be UTF-16, by its first two bytes.
    pub utf16: bool,
    /// What it is written in, where that was said and is not to be recognised.
    pub format: Option<Format>,
    /// Whether it was found in a directory, where files of other kinds may lie.
    pub found: bool,
    /// Byte at which each line begins.
    lines: Vec<usize>,
}

/// A place in a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position<'a> {
    /// Line, from 1.
    pub line: usize,
    /// Byte within the line, from 0.
    pub offset: usize,
    /// The line without its end.
    pub text: &'a str,
}

/// Why files could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The system refused.
    #[error("cannot {op} {}", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A directory without a definition.
    #[error("{} holds no definition file (*.{}); an empty definition is an empty file", path.display(), EXTENSIONS.join(", *."))]
    Empty {
        /// The directory.
        path: PathBuf,
    },
    /// Files beyond [`MAX_BYTES`].
    #[error(
        "{} does not fit: the files of a definition may have {MAX_BYTES} bytes together",
        path.display()
    )]
    TooLarge {
        /// The file that goes beyond.
        path: PathBuf,
    },
    /// What may never end, or wait for somebody.
    #[error("{} is {kind}; a definition is a regular file or a directory of them", path.display())]
    NotRegular {
        /// The path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// Others could decide what it says.
    #[error("{} is not taken for a definition: {}", path.display(), TRUST_HELP)]
    Untrusted {
        /// The path as it was named to us.
        path: PathBuf,
        /// Why.
        source: TrustError,
    },
}

/// What to do about a file that others could write.
const TRUST_HELP: &str = "whoever can change it decides what is enforced, so it and the directories on its way must belong to root, or to the user behind sudo, and be writable by nobody else (`--trust-files` takes it as it is)";

/// Reads files, and of directories every file directly in them that may be one by the ending of its name, in the order of their names.
///
/// # Errors
/// See [`SourceError`].
pub fn read(paths: &[PathBuf]) -> Result<Vec<Source>, SourceError> {
    let mut sources = Vec::new();
    let mut room = MAX_BYTES;
    for path in paths {
        if path.is_dir() {
            for file in files_of(path)? {
                sources.push(Source {
                    found: true,
                    ..read_file(&file, &mut room)?
                });
            }
        } else {
            sources.push(read_file(path, &mut room)?);
        }
    }
    Ok(sources)
}

/// The same, where trust has its limits from files that nobody else could have put there or written: every
/// directory and symbolic link on the way is looked at, and what was looked at is what is read.
/// `format` is what they are all written in, where that is not to be recognised.
///
/// # Errors
/// See [`SourceError`].
pub fn read_trusted(
    paths: &[PathBuf],
    trust: &Trust,
    format: Option<Format>,
) -> Result<Vec<Source>, SourceError> {
    let mut sources = match trust {
        Trust::Owners(owners) => read_owned(paths, owners)?,
        Trust::Everybody => read(paths)?,
    };
    for source in &mut sources {
        source.format = format;
    }
    Ok(sources)
}

fn read_owned(paths: &[PathBuf], owners: &Owners) -> Result<Vec<Source>, SourceError> {
    let mut sources = Vec::new();
    let mut room = MAX_BYTES;
    for path in paths {
        let untrusted = |source| untrusted(path, source);
        let whole = std::path::absolute(path).map_err(|source| failed("read", path, source))?;
        let place = Place::find(&whole, owners).map_err(untrusted)?;
        if !FileType::from_raw_mode(place.stat.st_mode).is_dir() {
            sources.push(read_place(path, &place, owners, &mut room)?);
            continue;
        }
        place.check_unchangeable(owners).map_err(untrusted)?;
        // By the directory that was looked at; what is shown is how it was named.
        let reached = PathBuf::from(format!("/proc/self/fd/{}", place.fd.as_raw_fd()));
        for file in files_of(&reached).map_err(|error| error.at(path))? {
            let name = file.file_name().unwrap_or_default().to_owned();
            let shown = path.join(&name);
            let entry = place.entry(name, owners);
            let entry = entry.map_err(|source| self::untrusted(&shown, source))?;
            sources.push(Source {
                found: true,
                ..read_place(&shown, &entry, owners, &mut room)?
            });
        }
    }
    Ok(sources)
}

fn untrusted(path: &Path, source: TrustError) -> SourceError {
    match source {
        // Nothing to do with trust: it is not there, for one.
        TrustError::Io { source, .. } => SourceError::Io {
            op: "read",
            path: path.into(),
            source,
        },
        source => SourceError::Untrusted {
            path: path.into(),
            source,
        },
    }
}

impl SourceError {
    /// The same of a directory as it was named to us.
    fn at(self, named: &Path) -> Self {
        match self {
            Self::Io { op, source, .. } => Self::Io {
                op,
                path: named.into(),
                source,
            },
            Self::Empty { .. } => Self::Empty { path: named.into() },
            other => other,
        }
    }
}

impl Source {
    /// A source from memory.
    pub fn new(name: &str, bytes: Vec<u8>) -> Self {
        let utf16 = match bytes[..] {
            // A mark, or a character of ASCII.
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
            [first, second, ..] => (first == 0) != (second == 0),
            _ => false,
        };
        let (text, invalid_at) = match String::from_utf8(bytes) {
            Ok(text) => (text, None),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                (String::from_utf8_lossy(error.as_bytes()).into(), Some(at))
            }
        };
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let lines = std::iter::once(0)
            .chain(ends.map(|(end, _)| end + 1))
            .collect();
        Self {
            name: name.into(),
            text,
            invalid_at,
            utf16,
            format: None,
            found: false,
            lines,
        }
    }

    /// Line and offset of a byte.
    pub fn position(&self, byte: usize) -> Position<'_> {
        let byte = self.text.floor_char_boundary(byte);
        let line = self.lines.partition_point(|start| *start <= byte);
        let start = self.lines[line - 1];
        let end = self
            .lines
            .get(line)
            .map_or(self.text.len(), |next| next - 1);
        let text = &self.text[start..end];
        Position {
            line,
            offset: byte - start,
            text: text.strip_suffix('\r').unwrap_or(text),
        }
    }

    /// The bytes of a line by its number, from 1, without indent and end.
    pub fn line(&self, number: usize) -> Option<Range<usize>> {
        let start = *self.lines.get(number.checked_sub(1)?)?;
        let text = self.position(start).text;
        let start = start + text.len() - text.trim_start().len();
        Some(start..start + text.trim().len())
    }
}

fn files_of(directory: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let failed = |source| SourceError::Io {
        op: "read directory",
        path: directory.into(),
        source,
    };
    let mut files = Vec::new();
    for entry in directory.read_dir().map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        let is_definition = extension.is_some_and(|extension| EXTENSIONS.contains(&extension));
        if is_definition && path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(SourceError::Empty {
            path: directory.into(),
        });
    }
    files.sort_unstable();
    Ok(files)
}

/// Reads a file that leaves this much room, and takes what it has from it.
fn read_file(path: &Path, room: &mut u64) -> Result<Source, SourceError> {
    // Asked before it is opened, which may wait for a writer or move a device.
    let found = path
        .metadata()
        .map_err(|source| failed("read", path, source))?;
    check_regular(path, found.file_type())?;
    read_open(path, path, room)
}

/// The same of a file that was looked at before.
fn read_place(
    path: &Path,
    place: &Place,
    owners: &Owners,
    room: &mut u64,
) -> Result<Source, SourceError> {
    let reached = PathBuf::from(format!("/proc/self/fd/{}", place.fd.as_raw_fd()));
    let found = reached
        .metadata()
        .map_err(|source| failed("read", path, source))?;
    check_regular(path, found.file_type())?;
    let checked = place.check_unchangeable(owners);
    checked.map_err(|source| untrusted(path, source))?;
    read_open(path, &reached, room)
}

fn read_open(path: &Path, reached: &Path, room: &mut u64) -> Result<Source, SourceError> {
    let file = open(reached).map_err(|source| failed("open", path, source))?;
    let found = file
        .metadata()
        .map_err(|source| failed("read", path, source))?;
    check_regular(path, found.file_type())?;
    let mut bytes = Vec::new();
    file.take(*room + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| failed("read", path, source))?;
    let Some(left) = room.checked_sub(bytes.len() as u64) else {
        return Err(SourceError::TooLarge { path: path.into() });
    };
    *room = left;
    Ok(Source::new(&path.to_string_lossy(), bytes))
}

fn failed(op: &'static str, path: &Path, source: io::Error) -> SourceError {
    SourceError::Io {
        op,
        path: path.into(),
        source,
    }
}

/// Opens without waiting, should somebody have put something else there meanwhile.
fn open(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
}

fn check_regular(path: &Path, kind: std::fs::FileType) -> Result<(), SourceError> {
    let kind = match kind {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_fifo() => "a FIFO or pipe",
        kind if kind.is_socket() => "a socket",
        kind if kind.is_dir() => "a directory",
        _ => "a device",
    };
    Err(SourceError::NotRegular {
        path: path.into(),
        kind,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_lines_and_offsets() {
        let source = Source::new("f", "ab\r\ncü\n".into());
        let position = |byte| {
            let position = source.position(byte);
            (position.line, position.offset, position.text)
        };
        assert_eq!(position(0), (1, 0, "ab"));
        assert_eq!(position(4), (2, 0, "cü"));
        assert_eq!(position(6), (2, 1, "cü"), "inside a character");
        assert_eq!(position(8), (3, 0, ""));
        assert_eq!(position(99), (3, 0, ""));
        assert_eq!((source.line(1), source.line(2)), (Some(0..2), Some(4..7)));
        assert_eq!((source.line(0), source.line(4)), (None, None));
    }

    #[test]
    fn bytes_that_are_no_text_are_located() {
        let source = Source::new("f", b"ok\n\xff".to_vec());
        assert_eq!(source.invalid_at, Some(3));
        assert_eq!(source.position(3).line, 2);
    }
}
