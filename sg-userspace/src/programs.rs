//! Program sets: one per network namespace, because an ifindex means something only within one.

use std::path::{Path, PathBuf};

use aya::{
    EbpfError, EbpfLoader,
    programs::{Program, ProgramError, ProgramInfo, SchedClassifier, Xdp},
};
use aya_obj::programs::XdpAttachType;
use sg_common::abi::{
    GLOBAL_NAMESPACE, PROGRAM_CT_CONTROL, PROGRAM_TC_EGRESS, PROGRAM_TC_INGRESS,
    PROGRAM_XDP_INGRESS, map,
};

use crate::{
    directory::{self, DirectoryError},
    pin::{PinError, Pins},
    shape::{Object, Sizes},
};

/// The loaded programs of one network namespace.
#[derive(Debug)]
pub struct ProgramSet {
    /// Ingress by XDP.
    pub xdp_ingress: Xdp,
    /// Ingress by TC.
    pub tc_ingress: SchedClassifier,
    /// Egress by TC.
    pub tc_egress: SchedClassifier,
}

/// Why programs are not there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramsError {
    /// The object cannot be loaded: maps or BTF.
    #[error("cannot load the eBPF object")]
    Object(#[source] Box<EbpfError>),
    /// The object lacks a program.
    #[error("the embedded eBPF object has no program {name}")]
    Missing {
        /// The program.
        name: &'static str,
    },
    /// The kernel refused a program; the end of the verifier's log is kept.
    #[error("the kernel refuses program {name}: {reason}")]
    Refused {
        /// The program.
        name: &'static str,
        /// The kernel's answer and the last lines of its log.
        reason: String,
    },
    /// A program cannot be pinned or opened.
    #[error("cannot {operation} program {name}")]
    Pin {
        /// What was tried.
        operation: &'static str,
        /// The program.
        name: &'static str,
        /// aya's answer.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The directory of pins is not usable.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Old pins cannot be removed.
    #[error(transparent)]
    Pins(#[from] PinError),
}

/// Loads the object for namespace `number` and pins its programs in a directory of their own,
/// leaving those in use alone until [`publish`]. Maps are made and pinned if they are not yet.
///
/// # Errors
/// See [`ProgramsError`].
pub fn load(
    pins: &Pins,
    object: &Object,
    sizes: Sizes,
    number: u32,
) -> Result<ProgramSet, ProgramsError> {
    let staging = staging(pins, number);
    Pins::remove_programs(&staging)?;
    directory::private(&staging)?;
    let entries = sizes.entries();
    let mut loader = EbpfLoader::new();
    loader.override_global(GLOBAL_NAMESPACE, &number, true);
    for name in map::ALL {
        loader.map_pin_path(name, pins.map(name));
    }
    for (name, entries) in &entries {
        loader.map_max_entries(name, *entries);
    }
    let mut ebpf = loader
        .load(object.bytes)
        .map_err(|source| ProgramsError::Object(Box::new(source)))?;
    for name in PROGRAMS {
        let program = ebpf
            .program_mut(name)
            .ok_or(ProgramsError::Missing { name })?;
        let loaded = match program {
            Program::Xdp(program) => program.load(),
            Program::SchedClassifier(program) => program.load(),
            _ => return Err(ProgramsError::Missing { name }),
        };
        loaded.map_err(|error| ProgramsError::Refused {
            name,
            reason: refusal(&error),
        })?;
        program
            .pin(staging.join(name))
            .map_err(|source| ProgramsError::Pin {
                operation: "pin",
                name,
                source: Box::new(source),
            })?;
    }
    open_in(&staging)
}

/// Puts freshly loaded programs where [`open`] finds them. Links must run them by now.
///
/// # Errors
/// See [`ProgramsError`].
pub fn publish(pins: &Pins, number: u32) -> Result<(), ProgramsError> {
    let (staging, place) = (staging(pins, number), pins.programs(number));
    Pins::remove_programs(&place)?;
    std::fs::rename(&staging, &place).map_err(|source| {
        ProgramsError::Pins(PinError::Io {
            operation: "rename",
            path: staging,
            source,
        })
    })
}

/// Opens the pinned programs of a namespace.
///
/// # Errors
/// [`ProgramsError::Pin`].
pub fn open(pins: &Pins, number: u32) -> Result<ProgramSet, ProgramsError> {
    open_in(&pins.programs(number))
}

impl ProgramSet {
    /// Kernel id of the XDP program.
    ///
    /// # Errors
    /// [`ProgramsError::Pin`].
    pub fn xdp_id(&self) -> Result<u32, ProgramsError> {
        id(PROGRAM_XDP_INGRESS, self.xdp_ingress.info())
    }

    /// Kernel id of the TC ingress program.
    ///
    /// # Errors
    /// [`ProgramsError::Pin`].
    pub fn ingress_id(&self) -> Result<u32, ProgramsError> {
        id(PROGRAM_TC_INGRESS, self.tc_ingress.info())
    }

    /// Kernel id of the TC egress program.
    ///
    /// # Errors
    /// [`ProgramsError::Pin`].
    pub fn egress_id(&self) -> Result<u32, ProgramsError> {
        id(PROGRAM_TC_EGRESS, self.tc_egress.info())
    }
}

const PROGRAMS: [&str; 4] = [
    PROGRAM_XDP_INGRESS,
    PROGRAM_TC_INGRESS,
    PROGRAM_TC_EGRESS,
    PROGRAM_CT_CONTROL,
];

/// Lines of the verifier's log worth showing: the end says what it stumbled over.
const LOG_LINES: usize = 12;

fn staging(pins: &Pins, number: u32) -> PathBuf {
    let mut place = pins.programs(number).into_os_string();
    place.push("-new");
    place.into()
}

fn open_in(directory: &Path) -> Result<ProgramSet, ProgramsError> {
    let failed = |name| {
        move |source: ProgramError| ProgramsError::Pin {
            operation: "open",
            name,
            source: Box::new(source),
        }
    };
    let classifier =
        |name: &'static str| SchedClassifier::from_pin(directory.join(name)).map_err(failed(name));
    Ok(ProgramSet {
        xdp_ingress: Xdp::from_pin(
            directory.join(PROGRAM_XDP_INGRESS),
            XdpAttachType::Interface,
        )
        .map_err(failed(PROGRAM_XDP_INGRESS))?,
        tc_ingress: classifier(PROGRAM_TC_INGRESS)?,
        tc_egress: classifier(PROGRAM_TC_EGRESS)?,
    })
}

fn id(name: &'static str, info: Result<ProgramInfo, ProgramError>) -> Result<u32, ProgramsError> {
    match info {
        Ok(info) => Ok(info.id()),
        Err(source) => Err(ProgramsError::Pin {
            operation: "examine",
            name,
            source: Box::new(source),
        }),
    }
}

fn refusal(error: &ProgramError) -> String {
    let ProgramError::LoadError {
        io_error,
        verifier_log,
    } = error
    else {
        return error.to_string();
    };
    let log = verifier_log.to_string();
    let lines: Vec<&str> = log.lines().filter(|line| !line.is_empty()).collect();
    let tail = &lines[lines.len().saturating_sub(LOG_LINES)..];
    format!("{io_error}\n{}", tail.join("\n"))
}
