//! Archives in cpio's "newc" format, which the kernel unpacks as its first root file system
//! (`Documentation/driver-api/early-userspace/buffer-format.rst` of Linux).

use std::io::{self, Write};

/// What an entry is; the bits of `st_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    /// Readable and executable by everybody.
    File,
    /// The data is the target.
    Symlink,
}

impl Kind {
    fn mode(self) -> u32 {
        match self {
            Kind::Directory => 0o040_755,
            Kind::File => 0o100_755,
            Kind::Symlink => 0o120_777,
        }
    }
}

/// An archive being written; everything in it belongs to root.
pub(crate) struct Archive<W: Write> {
    to: W,
    /// Of the last entry.
    inode: u32,
}

impl<W: Write> Archive<W> {
    pub(crate) fn new(to: W) -> Self {
        Self { to, inode: 0 }
    }

    /// Adds an entry. Its directory must have come before; `path` is without a slash in front.
    ///
    /// # Errors
    /// If it cannot be written, or `data` is 4 GiB or more.
    pub(crate) fn add(&mut self, path: &str, kind: Kind, data: &[u8]) -> io::Result<()> {
        self.inode += 1;
        self.entry(path, kind.mode(), data)
    }

    /// Ends the archive and returns what it was written to.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn end(mut self) -> io::Result<W> {
        self.inode = 0;
        self.entry("TRAILER!!!", 0, &[])?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn entry(&mut self, path: &str, mode: u32, data: &[u8]) -> io::Result<()> {
        let too_long = |_| io::Error::from(io::ErrorKind::FileTooLarge);
        let size = u32::try_from(data.len()).map_err(too_long)?;
        let name = u32::try_from(path.len() + 1).map_err(too_long)?;
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check.
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name, 0];
        self.to.write_all(b"070701")?;
        for field in fields {
            write!(self.to, "{field:08X}")?;
        }
        self.to.write_all(path.as_bytes())?;
        self.to.write_all(&[0])?;
        self.pad(6 + 13 * 8 + path.len() + 1)?;
        self.to.write_all(data)?;
        self.pad(data.len())
    }

    /// Names and data are padded to multiples of four bytes.
    fn pad(&mut self, length: usize) -> io::Result<()> {
        let padding = length.next_multiple_of(4) - length;
        self.to.write_all(&[0; 3][..padding])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_laid_out_as_the_kernel_reads_them() {
        let mut archive = Archive::new(Vec::new());
        archive.add("etc", Kind::Directory, &[]).unwrap();
        archive.add("etc/name", Kind::File, b"guest").unwrap();
        let bytes = archive.end().unwrap();
        let expected: &[u8] = b"070701\
            00000001000041ED0000000000000000000000010000000000000000\
            00000000000000000000000000000000000000040000000\x30etc\0\0\0\
            070701\
            00000002000081ED0000000000000000000000010000000000000005\
            00000000000000000000000000000000000000090000000\x30etc/name\0\0guest\0\0\0";
        let shown = String::from_utf8_lossy(&bytes[..expected.len()]).into_owned();
        assert_eq!(shown, String::from_utf8_lossy(expected));
        assert!(bytes.len().is_multiple_of(4));
        let trailer = &bytes[expected.len()..];
        assert!(trailer.starts_with(b"070701"));
        assert!(String::from_utf8_lossy(trailer).contains("TRAILER!!!\0"));
    }
}
