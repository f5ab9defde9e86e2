//! What an enforcer has on disk, in its pin directory and in the kernel; and what it must not leave there.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use aya::maps::MapData;
use sg_common::abi::MAX_TRIES;
use sg_userspace::{
    state::{Policy, State},
    status,
    table::Table,
    tables::Tables,
};

use crate::{bed::Bed, common::netns::eventually_within, scale::patience};

/// What is there whichever generation is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remains {
    /// Paths below the pin directory; links are numbered anew, since ids are not given twice.
    pins: BTreeSet<String>,
    /// Inner maps by outer map: how many places hold one.
    inner: Vec<usize>,
    /// Files of the state directory, without their numbers.
    files: BTreeSet<String>,
}

/// Files of which there are several are kept for the last few generations only.
const FILES: usize = 48;

impl Remains {
    pub(crate) fn of(bed: &Bed) -> Self {
        let root = bed.pins().root().to_owned();
        let mut pins = BTreeSet::new();
        walk(&root, &root, &mut pins);
        let links: Vec<_> = pins
            .extract_if(.., |pin| pin.starts_with("links/"))
            .collect();
        for (number, link) in links.iter().enumerate() {
            let (_, hook) = link.split_once('-').unwrap_or_default();
            pins.insert(format!("links/{}-{hook}", number / 2));
        }
        let tables = Tables::open(&bed.pins()).unwrap();
        let held = |table: &Table<u32, u32>, places: u32| {
            let filled = (0..places).filter(|place| table.get(place).unwrap().is_some());
            filled.count()
        };
        let inner = [
            &tables.members4,
            &tables.members6,
            &tables.identities,
            &tables.addresses,
        ]
        .map(|outer| held(outer, 2))
        .into_iter()
        .chain([&tables.tries4, &tables.tries6].map(|outer| held(outer, MAX_TRIES)))
        .collect();
        let files = files(bed).into_iter();
        let files = files.map(|file| file.replace(|mark: char| mark.is_ascii_digit(), ""));
        Self {
            pins,
            inner,
            files: files.collect(),
        }
    }
}

/// Kernel ids of all its maps, pinned or within one that is.
pub(crate) fn maps(bed: &Bed) -> Vec<u32> {
    let entries = fs::read_dir(bed.pins().root().join("maps")).unwrap();
    let mut ids: Vec<u32> = entries
        .map(|entry| {
            let map = MapData::from_pin(entry.unwrap().path()).unwrap();
            map.info().unwrap().id()
        })
        .collect();
    let tables = Tables::open(&bed.pins()).unwrap();
    for outer in [
        &tables.members4,
        &tables.members6,
        &tables.identities,
        &tables.addresses,
    ] {
        ids.extend((0..2).filter_map(|bank| outer.get(&bank).unwrap()));
    }
    ids
}

/// Waits until the kernel has none of these maps any more.
#[track_caller]
pub(crate) fn gone(ids: &[u32]) {
    let find = || {
        ids.iter()
            .filter(|id| MapData::from_id(**id).is_ok())
            .count()
    };
    eventually_within(
        patience(Duration::from_secs(30)),
        "the end of all maps",
        || find() == 0,
    );
}

fn walk(root: &Path, directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        found.insert(path.strip_prefix(root).unwrap().display().to_string());
        if path.is_dir() {
            walk(root, &path, found);
        }
    }
}

/// Files of the state directory.
fn files(bed: &Bed) -> BTreeSet<String> {
    let entries = fs::read_dir(&bed.enforcer.context.state_dir).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// Whatever has happened: both links of each interface are in place, and what is written down can be read and
/// speaks of the generation in force, or `status` says that it does not.
#[track_caller]
pub(crate) fn enforced(bed: &Bed) {
    let status = status::read(&bed.enforcer.context).unwrap();
    assert!(status.is_enforced(), "{status:#?}");
    assert_eq!(status.interfaces.len(), bed.wires.len());
    let directory = &bed.enforcer.context.state_dir;
    let state = State::read(directory).unwrap().unwrap();
    Policy::read(directory, &state).unwrap();
    let says = |warning: &String| warning.contains("an apply was cut short");
    // One that was to come and has not is written down beside what was before it.
    let before = state.changing.as_ref().map(|one| one.before.generation);
    let agrees = [Some(state.generation), before].contains(&Some(bed.generation()));
    assert_eq!(agrees, !status.warnings.iter().any(says), "{status:#?}");
}

/// After a change that was carried through: state, maps and pins agree, and there is what there was when nothing
/// had gone wrong yet.
#[track_caller]
pub(crate) fn clean(bed: &Bed, expected: &Remains) {
    enforced(bed);
    let generation = bed.generation();
    let state = State::read(&bed.enforcer.context.state_dir)
        .unwrap()
        .unwrap();
    assert_eq!(state.generation, generation);
    assert_eq!(Remains::of(bed), *expected);
    let files = files(bed);
    assert!(files.len() <= FILES, "{files:?}");
}
