//! An array map seen through memory: read without a system call per element.

use std::{ffi::c_void, io, marker::PhantomData, ptr::NonNull};

use aya::Pod;
use rustix::mm::{MapFlags, ProtFlags};

use crate::table::Table;

/// A read-only mapping of a `BPF_F_MMAPABLE` array.
#[derive(Debug)]
pub struct Mapping<V> {
    start: NonNull<u64>,
    bytes: usize,
    entries: u32,
    marker: PhantomData<V>,
}

/// The map cannot be mapped.
#[derive(Debug, thiserror::Error)]
#[error("cannot map the conntrack table into memory")]
pub struct MappingError(#[source] io::Error);

impl<V: Pod> Mapping<V> {
    /// Maps a table.
    ///
    /// # Errors
    /// See [`MappingError`].
    pub fn new(table: &Table<u32, V>) -> Result<Self, MappingError> {
        const {
            assert!(
                size_of::<V>().is_multiple_of(8),
                "the kernel lays elements out by eight bytes"
            )
        };
        let bytes = table.entries() as usize * size_of::<V>();
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing of ours.
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ,
                MapFlags::SHARED,
                table.fd(),
                0,
            )
        };
        let start = start.map_err(|error| MappingError(error.into()))?;
        Ok(Self {
            start: NonNull::new(start.cast())
                .ok_or_else(|| MappingError(io::ErrorKind::Other.into()))?,
            bytes,
            entries: table.entries(),
            marker: PhantomData,
        })
    }

    /// Number of elements.
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Copies an element word by word. The kernel may write meanwhile, so words may be of
    /// different moments.
    ///
    /// # Panics
    /// If `index` is out of range.
    pub fn get(&self, index: u32) -> V {
        let mut value = std::mem::MaybeUninit::<V>::uninit();
        let words = size_of::<V>() / 8;
        for word in 0..words {
            let found = self.word(index, word);
            // SAFETY: `word` is below the size of `V`; no alignment is assumed.
            unsafe {
                value
                    .as_mut_ptr()
                    .cast::<u64>()
                    .add(word)
                    .write_unaligned(found)
            };
        }
        // SAFETY: every byte was written, and `V` is Pod.
        unsafe { value.assume_init() }
    }

    /// One word of an element, as it is now.
    ///
    /// # Panics
    /// If `index` or `word` is out of range.
    pub fn word(&self, index: u32, word: usize) -> u64 {
        let words = size_of::<V>() / 8;
        assert!(index < self.entries && word < words, "inside the table");
        // SAFETY: inside the mapping, which is page-aligned; volatile, as the kernel writes it.
        unsafe {
            self.start
                .as_ptr()
                .add(index as usize * words + word)
                .read_volatile()
        }
    }
}

impl<V> Drop for Mapping<V> {
    fn drop(&mut self) {
        let start = self.start.as_ptr().cast::<c_void>();
        // SAFETY: mapped by `new` with this length, and nothing borrows from it.
        let unmapped = unsafe { rustix::mm::munmap(start, self.bytes) };
        debug_assert!(unmapped.is_ok(), "munmap(2) fails only for wrong arguments");
    }
}
