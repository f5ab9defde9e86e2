//! The interface index: (namespace, ifindex) → interface id, four to a set.

use sg_common::layout::{IndexEntry, IndexSet, index_set};

use crate::table::{Table, TableError};

/// Why an interface cannot be indexed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The map failed.
    #[error(transparent)]
    Table(#[from] TableError),
    /// All ways of its set are taken.
    #[error(
        "ifindex {ifindex} of namespace {namespace} shares its index set with too many others; make the device anew to give it another ifindex"
    )]
    Full {
        /// Number of the namespace.
        namespace: u32,
        /// The device.
        ifindex: u32,
    },
}

/// Enters an interface, replacing the id it had. Its links must not be attached yet, or carry the
/// same id: readers see an entry while it is being written.
///
/// # Errors
/// See [`IndexError`].
pub fn insert(
    table: &Table<u32, IndexSet>,
    namespace: u32,
    ifindex: u32,
    id: u32,
) -> Result<(), IndexError> {
    let number = index_set(namespace, ifindex);
    let mut set = table.get(&number)?.unwrap_or(IndexSet::ZERO);
    let place = set
        .ways
        .iter()
        .position(|way| way.id != 0 && (way.namespace, way.ifindex) == (namespace, ifindex))
        .or_else(|| set.ways.iter().position(|way| way.id == 0))
        .ok_or(IndexError::Full { namespace, ifindex })?;
    set.ways[place] = IndexEntry {
        namespace,
        ifindex,
        id,
        ..IndexEntry::ZERO
    };
    Ok(table.set(&number, &set)?)
}

/// Removes an interface; its links must be detached by now, or run programs of another namespace's. One that
/// is missing, or has another id, is fine.
///
/// # Errors
/// [`IndexError::Table`].
pub fn remove(
    table: &Table<u32, IndexSet>,
    namespace: u32,
    ifindex: u32,
    id: u32,
) -> Result<(), IndexError> {
    let number = index_set(namespace, ifindex);
    let mut set = table.get(&number)?.unwrap_or(IndexSet::ZERO);
    for way in &mut set.ways {
        if (way.namespace, way.ifindex, way.id) == (namespace, ifindex, id) {
            *way = IndexEntry::ZERO;
        }
    }
    Ok(table.set(&number, &set)?)
}
