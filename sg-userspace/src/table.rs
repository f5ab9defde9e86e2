//! Typed access to a pinned map: sizes are checked once, at opening.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
};

use aya::{
    Pod,
    maps::{MapData, MapError, MapType},
    util::nr_cpus,
};

use crate::bpf;

/// A map whose keys are `K` and whose values are `V`.
#[derive(Debug)]
pub struct Table<K, V> {
    map: MapData,
    name: String,
    entries: u32,
    id: u32,
    per_cpu: bool,
    marker: PhantomData<fn(K) -> V>,
}

/// Why a map could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The pin is missing or is not a map.
    #[error("cannot open map {name}")]
    Open {
        /// The map.
        name: String,
        /// aya's answer.
        source: Box<MapError>,
    },
    /// The map cannot be made.
    #[error("cannot create map {name}")]
    Create {
        /// The map.
        name: String,
        /// aya's answer.
        source: Box<MapError>,
    },
    /// Key or value size differs from what this program expects.
    #[error("map {name} has {found} where {expected} is expected; it belongs to another version")]
    Shape {
        /// The map.
        name: String,
        /// Sizes of key and value here.
        expected: String,
        /// Sizes of key and value in the kernel.
        found: String,
    },
    /// A bpf(2) call failed.
    #[error("cannot {operation} map {name}")]
    Call {
        /// What was tried.
        operation: &'static str,
        /// The map.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The number of possible CPUs cannot be read.
    #[error("cannot read the number of CPUs from {path}")]
    Cpus {
        /// Where it stands.
        path: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl<K: Pod, V: Pod> Table<K, V> {
    /// Opens the map pinned at `path`.
    ///
    /// # Errors
    /// [`TableError::Open`] and [`TableError::Shape`].
    pub fn open(path: &Path) -> Result<Self, TableError> {
        let name = path
            .file_name()
            .unwrap_or(path.as_os_str())
            .to_string_lossy()
            .into_owned();
        match MapData::from_pin(path) {
            Ok(map) => Self::new(map, name),
            Err(source) => Err(TableError::Open {
                name,
                source: Box::new(source),
            }),
        }
    }

    /// Opens the inner map at `index` of a map of maps.
    ///
    /// # Errors
    /// [`TableError::Open`] if there is none, and [`TableError::Shape`].
    pub fn inner(outer: &Table<u32, u32>, index: u32) -> Result<Self, TableError> {
        let id = outer.get(&index)?.unwrap_or_default();
        let name = format!("{}[{index}]", outer.name);
        match MapData::from_id(id) {
            Ok(map) => Self::new(map, name),
            Err(source) => Err(TableError::Open {
                name,
                source: Box::new(source),
            }),
        }
    }

    /// Makes an unpinned map of the kernel's type `map_type`.
    ///
    /// # Errors
    /// [`TableError::Create`].
    pub fn create(name: &str, map_type: u32, entries: u32, flags: u32) -> Result<Self, TableError> {
        let definition = aya_obj::Map::new_from_params(
            map_type,
            size_of::<K>() as u32,
            size_of::<V>() as u32,
            entries,
            flags,
        );
        match MapData::create(definition, name, None) {
            Ok(map) => Self::new(map, name.to_owned()),
            Err(source) => Err(TableError::Create {
                name: name.to_owned(),
                source: Box::new(source),
            }),
        }
    }

    fn new(map: MapData, name: String) -> Result<Self, TableError> {
        let info = match map.info() {
            Ok(info) => info,
            Err(source) => {
                return Err(TableError::Open {
                    name,
                    source: Box::new(source),
                });
            }
        };
        let sizes = |key, value| format!("keys of {key} and values of {value} bytes");
        let (key, value) = (size_of::<K>() as u32, size_of::<V>() as u32);
        if (info.key_size(), info.value_size()) != (key, value) {
            return Err(TableError::Shape {
                name,
                expected: sizes(key, value),
                found: sizes(info.key_size(), info.value_size()),
            });
        }
        Ok(Self {
            entries: info.max_entries(),
            id: info.id(),
            per_cpu: matches!(
                info.map_type(),
                Ok(MapType::PerCpuArray | MapType::PerCpuHash | MapType::LruPerCpuHash)
            ),
            map,
            name,
            marker: PhantomData,
        })
    }

    /// How many elements fit.
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Kernel id of the map.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The map's file descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.map.fd().as_fd()
    }

    /// Reads one value.
    ///
    /// # Errors
    /// [`TableError::Call`].
    ///
    /// # Panics
    /// On a per-CPU map, which has as many values as CPUs.
    pub fn get(&self, key: &K) -> Result<Option<V>, TableError> {
        assert!(!self.per_cpu, "one value per key");
        let mut value = std::mem::MaybeUninit::<V>::zeroed();
        // SAFETY: `V` is Pod and as long as the map's values (checked at opening).
        let bytes = unsafe {
            std::slice::from_raw_parts_mut(value.as_mut_ptr().cast::<u8>(), size_of::<V>())
        };
        // SAFETY: key and value have the map's sizes.
        match unsafe { bpf::lookup(self.fd(), bytes_of(key), bytes) } {
            // SAFETY: `V` is Pod, and every byte is initialised.
            Ok(true) => Ok(Some(unsafe { value.assume_init() })),
            Ok(false) => Ok(None),
            Err(source) => Err(self.failed("read", source)),
        }
    }

    /// Reads one value of a per-CPU map: one per possible CPU.
    ///
    /// # Errors
    /// [`TableError::Call`] and [`TableError::Cpus`].
    ///
    /// # Panics
    /// On any other map.
    pub fn get_per_cpu(&self, key: &K) -> Result<Vec<V>, TableError> {
        assert!(self.per_cpu, "a value per CPU");
        let cpus = nr_cpus().map_err(|(path, source)| TableError::Cpus { path, source })?;
        let stride = size_of::<V>().next_multiple_of(8);
        let mut bytes = vec![0_u8; stride * cpus];
        // SAFETY: the kernel writes one value, rounded up to eight bytes, per possible CPU.
        match unsafe { bpf::lookup(self.fd(), bytes_of(key), &mut bytes) } {
            Ok(true) => Ok(bytes
                .chunks_exact(stride)
                // SAFETY: `V` is Pod and each chunk is at least as long; no alignment is assumed.
                .map(|chunk| unsafe { chunk.as_ptr().cast::<V>().read_unaligned() })
                .collect()),
            Ok(false) => Ok(Vec::new()),
            Err(source) => Err(self.failed("read", source)),
        }
    }

    /// Sets one value of a per-CPU map to `value` on every CPU.
    ///
    /// # Errors
    /// [`TableError::Call`] and [`TableError::Cpus`].
    ///
    /// # Panics
    /// On any other map.
    pub fn set_per_cpu(&self, key: &K, value: &V) -> Result<(), TableError> {
        assert!(self.per_cpu, "a value per CPU");
        let cpus = nr_cpus().map_err(|(path, source)| TableError::Cpus { path, source })?;
        let stride = size_of::<V>().next_multiple_of(8);
        let mut bytes = vec![0_u8; stride * cpus];
        for chunk in bytes.chunks_exact_mut(stride) {
            chunk[..size_of::<V>()].copy_from_slice(bytes_of(value));
        }
        // SAFETY: the kernel reads one value, rounded up to eight bytes, per possible CPU.
        unsafe { bpf::update(self.fd(), bytes_of(key), &bytes) }
            .map_err(|source| self.failed("write", source))
    }

    /// Sets one value of a per-CPU map to `value` on the first CPU and to `others` on every other.
    ///
    /// # Errors
    /// [`TableError::Call`] and [`TableError::Cpus`].
    ///
    /// # Panics
    /// On any other map.
    pub fn set_first_cpu(&self, key: &K, value: &V, others: &V) -> Result<(), TableError> {
        assert!(self.per_cpu, "a value per CPU");
        let cpus = nr_cpus().map_err(|(path, source)| TableError::Cpus { path, source })?;
        let stride = size_of::<V>().next_multiple_of(8);
        let mut bytes = vec![0_u8; stride * cpus];
        for (cpu, chunk) in bytes.chunks_exact_mut(stride).enumerate() {
            let value = if cpu == 0 { value } else { others };
            chunk[..size_of::<V>()].copy_from_slice(bytes_of(value));
        }
        // SAFETY: the kernel reads one value, rounded up to eight bytes, per possible CPU.
        unsafe { bpf::update(self.fd(), bytes_of(key), &bytes) }
            .map_err(|source| self.failed("write", source))
    }

    /// Writes one value.
    ///
    /// # Errors
    /// [`TableError::Call`].
    ///
    /// # Panics
    /// On a per-CPU map.
    pub fn set(&self, key: &K, value: &V) -> Result<(), TableError> {
        assert!(!self.per_cpu, "one value per key");
        // SAFETY: key and value have the map's sizes.
        unsafe { bpf::update(self.fd(), bytes_of(key), bytes_of(value)) }
            .map_err(|source| self.failed("write", source))
    }

    /// Removes one value; `false` if there is none.
    ///
    /// # Errors
    /// [`TableError::Call`].
    pub fn remove(&self, key: &K) -> Result<bool, TableError> {
        // SAFETY: the key has the map's size.
        unsafe { bpf::delete(self.fd(), bytes_of(key)) }
            .map_err(|source| self.failed("remove from", source))
    }

    /// Writes many values in few calls.
    ///
    /// # Errors
    /// [`TableError::Call`]; what stands before the failing element is written.
    ///
    /// # Panics
    /// If there are more keys than values or the other way round.
    pub fn set_all(&self, keys: &[K], values: &[V]) -> Result<(), TableError> {
        assert_eq!(keys.len(), values.len(), "one value per key");
        assert!(!self.per_cpu, "one value per key");
        for (keys, values) in keys.chunks(BATCH).zip(values.chunks(BATCH)) {
            // SAFETY: `K` and `V` are Pod and have the map's sizes, and there are as many as said.
            unsafe {
                bpf::update_batch(
                    self.fd(),
                    all_bytes(keys),
                    all_bytes(values),
                    keys.len() as u32,
                )
            }
            .map_err(|source| self.failed("write", source))?;
        }
        Ok(())
    }

    fn failed(&self, operation: &'static str, source: io::Error) -> TableError {
        TableError::Call {
            operation,
            name: self.name.clone(),
            source,
        }
    }
}

impl<V: Pod> Table<u32, V> {
    /// Reads a whole array, calling `each` with index and value.
    ///
    /// # Errors
    /// [`TableError::Call`].
    ///
    /// # Panics
    /// On a per-CPU map.
    pub fn for_each(&self, mut each: impl FnMut(u32, &V)) -> Result<(), TableError> {
        assert!(!self.per_cpu, "one value per index");
        let mut keys = vec![0_u8; BATCH * size_of::<u32>()];
        let mut values = vec![0_u8; BATCH * size_of::<V>()];
        let mut cursor = None;
        let mut index = 0;
        while index < self.entries {
            // SAFETY: there is room for BATCH keys and values of the map's sizes, and the map is
            // an array.
            let (count, last) = unsafe {
                bpf::lookup_batch(self.fd(), &mut cursor, &mut keys, &mut values, BATCH as u32)
            }
            .map_err(|source| self.failed("read", source))?;
            for bytes in values.chunks_exact(size_of::<V>()).take(count as usize) {
                // SAFETY: `V` is Pod and the chunk has its size; no alignment is assumed.
                each(index, &unsafe {
                    bytes.as_ptr().cast::<V>().read_unaligned()
                });
                index += 1;
            }
            if last || count == 0 {
                break;
            }
        }
        Ok(())
    }
}

impl Table<u32, u64> {
    /// Reads a run of a per-CPU array of numbers: of each the sum over all CPUs.
    ///
    /// # Errors
    /// [`TableError::Call`] and [`TableError::Cpus`].
    ///
    /// # Panics
    /// On any other map, and if the run leaves the map.
    pub fn sums(&self, start: u32, count: u32) -> Result<Vec<u64>, TableError> {
        let cpus = self.cpus(start, count)?;
        let mut sums = Vec::with_capacity(count as usize);
        let mut keys = vec![0_u8; BATCH * size_of::<u32>()];
        let mut values = vec![0_u8; BATCH * size_of::<u64>() * cpus];
        // The kernel begins behind the index that the cursor names.
        let mut cursor = start.checked_sub(1);
        while sums.len() < count as usize {
            let wanted = (count as usize - sums.len()).min(BATCH);
            // SAFETY: there is room for BATCH keys and a value per CPU of each, and the map is an array.
            let (read, _) = unsafe {
                bpf::lookup_batch(
                    self.fd(),
                    &mut cursor,
                    &mut keys,
                    &mut values,
                    wanted as u32,
                )
            }
            .map_err(|source| self.failed("read", source))?;
            if read == 0 {
                break;
            }
            for values in values
                .chunks_exact(size_of::<u64>() * cpus)
                .take(read as usize)
            {
                let (words, _) = values.as_chunks::<8>();
                let words = words.iter().map(|word| u64::from_ne_bytes(*word));
                sums.push(words.fold(0, u64::wrapping_add));
            }
        }
        Ok(sums)
    }

    /// Sets a run of a per-CPU array of numbers to 0 on every CPU.
    ///
    /// # Errors
    /// [`TableError::Call`] and [`TableError::Cpus`].
    ///
    /// # Panics
    /// On any other map, and if the run leaves the map.
    pub fn clear(&self, start: u32, count: u32) -> Result<(), TableError> {
        let cpus = self.cpus(start, count)?;
        let keys: Vec<u32> = (start..).take(count as usize).collect();
        let zeros = vec![0_u8; BATCH.min(keys.len()) * size_of::<u64>() * cpus];
        for keys in keys.chunks(BATCH) {
            // SAFETY: there are as many keys as said, and a value per CPU of each.
            unsafe { bpf::update_batch(self.fd(), all_bytes(keys), &zeros, keys.len() as u32) }
                .map_err(|source| self.failed("write", source))?;
        }
        Ok(())
    }

    /// The number of CPUs, after a look at the run.
    fn cpus(&self, start: u32, count: u32) -> Result<usize, TableError> {
        assert!(self.per_cpu, "a value per CPU");
        let end = start.checked_add(count);
        assert!(
            end.is_some_and(|end| end <= self.entries),
            "a run of the map"
        );
        nr_cpus().map_err(|(path, source)| TableError::Cpus { path, source })
    }
}

/// Elements per bpf(2) call: few calls, and buffers of at most a few hundred KiB.
const BATCH: usize = 4096;

fn bytes_of<T: Pod>(value: &T) -> &[u8] {
    all_bytes(std::slice::from_ref(value))
}

fn all_bytes<T: Pod>(values: &[T]) -> &[u8] {
    // SAFETY: Pod values have no padding and no invalid bytes.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}
