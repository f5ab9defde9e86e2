//! Records of aya-log, which debug builds of the object write.

use std::{collections::BTreeMap, path::Path};

use aya::programs::ProgramInfo;
use aya_log::EbpfLogger;
use log::{Log, debug};
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::JoinHandle,
};

use crate::pin::Pins;

/// The programs whose records are read. Each has its own ring, whoever loaded it.
#[derive(Debug, Default)]
pub(super) struct KernelLog {
    /// By kernel id; `None`: the program writes no records.
    readers: BTreeMap<u32, Option<JoinHandle<()>>>,
}

type Logger = EbpfLogger<&'static dyn Log>;

impl KernelLog {
    /// Reads the records of all programs pinned now, and of no others.
    pub(super) fn follow(&mut self, bpffs: &Path) {
        let pinned = pinned(&Pins::new(bpffs));
        self.readers.retain(|id, reader| {
            let stays = pinned.contains_key(id);
            if let (false, Some(reader)) = (stays, reader) {
                reader.abort();
            }
            stays
        });
        for (id, name) in pinned {
            self.readers.entry(id).or_insert_with(|| {
                let reader = read(id);
                let found = if reader.is_some() { "reading" } else { "no" };
                debug!("{found} log records of program {name} ({id})");
                reader
            });
        }
    }
}

impl Drop for KernelLog {
    fn drop(&mut self) {
        for reader in self.readers.values().flatten() {
            reader.abort();
        }
    }
}

/// Pinned programs by kernel id.
fn pinned(pins: &Pins) -> BTreeMap<u32, String> {
    let sets = pins.program_sets().unwrap_or_default();
    let programs = sets.iter().filter_map(|set| set.read_dir().ok());
    programs
        .flatten()
        .flatten()
        .filter_map(|program| {
            let info = ProgramInfo::from_pin(program.path()).ok()?;
            Some((
                info.id(),
                program.file_name().to_string_lossy().into_owned(),
            ))
        })
        .collect()
}

fn read(program: u32) -> Option<JoinHandle<()>> {
    let logger: Logger = EbpfLogger::init_from_id(program).ok()?;
    // SAFETY: the logger owns the map's file descriptor and keeps it until it is dropped.
    let mut logger = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) }.ok()?;
    Some(tokio::spawn(async move {
        while let Ok(mut ready) = logger.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    }))
}
