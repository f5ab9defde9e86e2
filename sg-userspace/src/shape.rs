//! The object's maps as it declares them, and whether what is pinned has the same form.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    thread,
};

use aya::maps::{MapError, MapInfo};
use sg_common::abi::{CT_SLOTS_PER_FLOW, map};
use sg_common::layout::WAYS;
use sg_common::table::with_stash;
use sha2::{Digest as _, Sha256};

use crate::{object, pin::Pins};

/// The embedded object, parsed.
#[derive(Clone, Debug)]
pub struct Object {
    /// The ELF file.
    pub bytes: &'static [u8],
    /// SHA-256 of it, hexadecimal.
    pub digest: String,
    maps: HashMap<String, aya_obj::Map>,
}

/// What decides how large the connection tracking maps are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Buckets of each family's table.
    pub buckets: u32,
    /// Packets and bytes are kept per flow.
    pub accounting: bool,
}

/// Why the object or the pins cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// The program was built without the object.
    #[error(
        "this sgctl was built without its eBPF programs and cannot enforce anything; build it with `cargo xtask build`"
    )]
    NoObject,
    /// The object cannot be parsed.
    #[error("the embedded eBPF object cannot be read")]
    Object(#[source] Box<aya_obj::ParseError>),
    /// The object lacks a map.
    #[error("the embedded eBPF object has no map {name}")]
    Undeclared {
        /// The map.
        name: &'static str,
    },
    /// A pinned map cannot be examined.
    #[error("cannot examine pinned map {name}; `sgctl detach --all` removes what is pinned")]
    Pinned {
        /// The map.
        name: &'static str,
        /// aya's answer.
        source: Box<MapError>,
    },
    /// A pinned map has another form than the object declares.
    #[error(
        "pinned map {name} has {field} {found} where {expected} is expected: it is not this version's. `sgctl detach --all` removes what is pinned"
    )]
    Foreign {
        /// The map.
        name: &'static str,
        /// What differs.
        field: &'static str,
        /// Its value in the kernel.
        found: u32,
        /// Its value in the object.
        expected: u32,
    },
}

/// Form of the inner maps of a map of maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    /// `enum bpf_map_type`.
    pub map_type: u32,
    /// Creation flags.
    pub flags: u32,
}

impl Sizes {
    /// Sizes for an allowance.
    pub fn new(allowance: u32, accounting: bool) -> Self {
        let (slots, flows) = CT_SLOTS_PER_FLOW;
        let slots = (u64::from(allowance) * u64::from(slots)).div_ceil(u64::from(flows));
        let buckets = slots.div_ceil(WAYS as u64).max(1);
        Self {
            buckets: u32::try_from(buckets).unwrap_or(u32::MAX),
            accounting,
        }
    }

    /// The largest allowance these tables serve.
    pub fn capacity(self) -> u32 {
        let (slots, flows) = CT_SLOTS_PER_FLOW;
        let capacity = u64::from(self.buckets) * WAYS as u64 * u64::from(flows) / u64::from(slots);
        u32::try_from(capacity).unwrap_or(u32::MAX)
    }

    /// Elements of the maps whose size the object does not decide.
    pub fn entries(self) -> [(&'static str, u32); 12] {
        let buckets = with_stash(self.buckets);
        let slots = buckets * WAYS as u32;
        let (plain, accounted) = if self.accounting {
            (1, slots)
        } else {
            (slots, 1)
        };
        [
            (map::TAGS4, buckets),
            (map::TAGS6, buckets),
            (map::CT4, plain),
            (map::CT6, plain),
            (map::ACCOUNTED4, accounted),
            (map::ACCOUNTED6, accounted),
            (map::TAGS4_OLD, 1),
            (map::TAGS6_OLD, 1),
            (map::CT4_OLD, 1),
            (map::CT6_OLD, 1),
            (map::ACCOUNTED4_OLD, 1),
            (map::ACCOUNTED6_OLD, 1),
        ]
    }
}

impl Object {
    /// The embedded object, which is parsed once.
    ///
    /// # Errors
    /// [`ShapeError::NoObject`], [`ShapeError::Object`], [`ShapeError::Undeclared`].
    pub fn embedded() -> Result<Self, ShapeError> {
        static EMBEDDED: Mutex<Option<Object>> = Mutex::new(None);
        let mut known = EMBEDDED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*known {
            return Ok(known.clone());
        }
        let parsed = Self::parse(object::bytes().ok_or(ShapeError::NoObject)?)?;
        Ok(known.insert(parsed).clone())
    }

    /// Parses the embedded object beside what the caller does until it is needed.
    pub(crate) fn prepare() {
        // A mistake is told to whoever asks for it.
        thread::spawn(Self::embedded);
    }

    /// Parses an object that was read at run time.
    ///
    /// # Errors
    /// [`ShapeError::Object`], [`ShapeError::Undeclared`].
    pub fn parse(bytes: &'static [u8]) -> Result<Self, ShapeError> {
        let parsed =
            aya_obj::Object::parse(bytes).map_err(|error| ShapeError::Object(Box::new(error)))?;
        for name in map::ALL {
            if !parsed.maps.contains_key(*name) {
                return Err(ShapeError::Undeclared { name });
            }
        }
        let digest = Sha256::digest(bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(Self {
            bytes,
            digest,
            maps: parsed.maps,
        })
    }

    /// Form of the inner maps of `name`.
    ///
    /// # Errors
    /// [`ShapeError::Undeclared`] if `name` is no map of maps.
    pub fn inner(&self, name: &'static str) -> Result<Inner, ShapeError> {
        let inner = self
            .maps
            .get(name)
            .and_then(aya_obj::Map::inner)
            .ok_or(ShapeError::Undeclared { name })?;
        Ok(Inner {
            map_type: inner.map_type(),
            flags: inner.map_flags(),
        })
    }

    /// Checks every pinned map against the object, for tables of `sizes`. A map that is not pinned
    /// is an error too: the set is pinned as a whole.
    ///
    /// # Errors
    /// [`ShapeError::Pinned`], [`ShapeError::Foreign`].
    pub fn check_pinned(&self, pins: &Pins, sizes: Sizes) -> Result<(), ShapeError> {
        for name in map::ALL {
            let declared = self
                .maps
                .get(*name)
                .ok_or(ShapeError::Undeclared { name })?;
            let found = MapInfo::from_pin(pins.map(name)).map_err(|source| ShapeError::Pinned {
                name,
                source: Box::new(source),
            })?;
            let kind = found.map_type().map_err(|source| ShapeError::Pinned {
                name,
                source: Box::new(source),
            })?;
            let entries = sizes
                .entries()
                .into_iter()
                .find_map(|(sized, entries)| (sized == *name).then_some(entries))
                .unwrap_or_else(|| declared.max_entries());
            let fields = [
                ("type", kind as u32, declared.map_type()),
                ("key size", found.key_size(), declared.key_size()),
                ("value size", found.value_size(), declared.value_size()),
                ("entries", found.max_entries(), entries),
                ("flags", found.map_flags(), declared.map_flags()),
            ];
            for (field, found, expected) in fields {
                if found != expected {
                    return Err(ShapeError::Foreign {
                        name,
                        field,
                        found,
                        expected,
                    });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k12_tables_hold_their_allowance_and_no_more_buckets_than_that_takes() {
        let (slots, flows) = CT_SLOTS_PER_FLOW;
        for allowance in [1, 6, 7, 1000, 262_144, 4_000_000] {
            let sizes = Sizes::new(allowance, true);
            assert!(sizes.capacity() >= allowance);
            assert!(Sizes::new(sizes.capacity(), true).buckets <= sizes.buckets);
            let provided = (u64::from(sizes.buckets) - 1) * WAYS as u64 * u64::from(flows);
            assert!(provided < u64::from(allowance) * u64::from(slots));
        }
    }

    #[test]
    fn without_accounting_accounts_take_no_memory() {
        let sizes = Sizes::new(6000, false);
        let slots = with_stash(sizes.buckets) * WAYS as u32;
        assert!(sizes.entries().contains(&(map::CT4, slots)));
        assert!(sizes.entries().contains(&(map::ACCOUNTED4, 1)));
    }
}
