//! Program sets: one per network namespace, because an ifindex means something only within one.
//!
//! A program is loaded when it is first needed: the verifier takes most of a second for each.

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Map, MapData, MapError, ProgramArray},
    programs::{Program, ProgramError, ProgramFd, ProgramInfo, SchedClassifier, Xdp},
};
use aya_obj::programs::XdpAttachType;
use sg_common::abi::{
    GLOBAL_ACCOUNTING, GLOBAL_NAMESPACE, PROGRAM_CT_CONTROL, PROGRAM_CT_RESTORE, PROGRAM_TC_EGRESS,
    PROGRAM_TC_INGRESS, PROGRAM_XDP_INGRESS, PROGRAMS_LATER, map,
};

use crate::{
    directory::{self, DirectoryError},
    pin::{PinError, Pins},
    shape::{Object, Sizes},
};

/// The programs of one network namespace, pinned in a directory of their own.
#[derive(Clone, Debug)]
pub struct ProgramSet<'a> {
    pins: &'a Pins,
    object: &'a Object,
    sizes: Sizes,
    number: u32,
    directory: PathBuf,
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

impl<'a> ProgramSet<'a> {
    /// The programs in use in namespace `number`.
    pub fn new(pins: &'a Pins, object: &'a Object, sizes: Sizes, number: u32) -> Self {
        Self {
            directory: pins.programs(number),
            pins,
            object,
            sizes,
            number,
        }
    }

    /// A set that is to replace the one in use, with the same programs loaded anew. Nobody finds it
    /// before it is [published](Self::publish).
    ///
    /// # Errors
    /// See [`ProgramsError`].
    pub fn renewed(&self) -> Result<Self, ProgramsError> {
        let mut directory = self.directory.clone().into_os_string();
        directory.push("-new");
        let new = Self {
            directory: directory.into(),
            ..self.clone()
        };
        if new.directory.exists() && !self.directory.exists() {
            // A renewal that was cut short when it was all but done.
            rename(&new.directory, &self.directory)?;
        }
        if new.directory.exists() {
            // One that was cut short earlier. Links may run it, and it needs its pins as long as they do.
            rename(&new.directory, &self.stale()?)?;
        }
        directory::private(&new.directory)?;
        for name in [
            PROGRAM_XDP_INGRESS,
            PROGRAM_TC_INGRESS,
            PROGRAM_TC_EGRESS,
            PROGRAM_CT_CONTROL,
        ] {
            // The commands belong to set 0, whatever has become of its pins.
            let control = self.number == 0 && name == PROGRAM_CT_CONTROL;
            if control || self.directory.join(name).exists() {
                new.load(name)?;
            }
        }
        Ok(new)
    }

    /// Puts a renewed set in the place of the one it replaces. Links must run it by now.
    ///
    /// # Errors
    /// [`ProgramsError::Pins`].
    pub fn publish(self) -> Result<(), ProgramsError> {
        let place = self.pins.programs(self.number);
        if place.exists() {
            rename(&place, &self.stale()?)?;
        }
        rename(&self.directory, &place)?;
        for number in 0..STALE {
            Pins::remove_programs(&self.stale_place(number))?;
        }
        Ok(())
    }

    /// A place for a set that links may still run.
    fn stale(&self) -> Result<PathBuf, ProgramsError> {
        let places = (0..STALE).map(|number| self.stale_place(number));
        let mut free = places.filter(|place| !place.exists());
        free.next().ok_or_else(|| {
            ProgramsError::Pins(PinError::Io {
                operation: "keep",
                path: self.directory.clone(),
                source: std::io::ErrorKind::AlreadyExists.into(),
            })
        })
    }

    fn stale_place(&self, number: u32) -> PathBuf {
        let mut place = self.pins.programs(self.number).into_os_string();
        place.push(format!("-stale{number}"));
        place.into()
    }

    /// Ingress by XDP.
    ///
    /// # Errors
    /// See [`ProgramsError`].
    pub fn xdp_ingress(&self) -> Result<Xdp, ProgramsError> {
        let pin = self.pinned(PROGRAM_XDP_INGRESS)?;
        Xdp::from_pin(pin, XdpAttachType::Interface)
            .map_err(|source| failed("open", PROGRAM_XDP_INGRESS, source))
    }

    /// Ingress by TC.
    ///
    /// # Errors
    /// See [`ProgramsError`].
    pub fn tc_ingress(&self) -> Result<SchedClassifier, ProgramsError> {
        self.classifier(PROGRAM_TC_INGRESS)
    }

    /// Egress by TC.
    ///
    /// # Errors
    /// See [`ProgramsError`].
    pub fn tc_egress(&self) -> Result<SchedClassifier, ProgramsError> {
        self.classifier(PROGRAM_TC_EGRESS)
    }

    /// Loads the conntrack commands, which are the same for all namespaces, and with them, the first
    /// time, all maps.
    ///
    /// # Errors
    /// See [`ProgramsError`].
    pub fn ct_control(&self) -> Result<SchedClassifier, ProgramsError> {
        self.classifier(PROGRAM_CT_CONTROL)
    }

    /// Says who judges what this set would drop, while flows of the layout before move over: its programs at XDP,
    /// and at TC for egress and ingress; `None`: nobody. The programs must be loaded.
    ///
    /// # Errors
    /// See [`ProgramsError`].
    pub fn set_predecessor(
        &self,
        name: &'static str,
        index: u32,
        program: Option<&ProgramFd>,
    ) -> Result<(), ProgramsError> {
        let pin = self.directory.join(name);
        if !pin.exists() {
            return Ok(());
        }
        let change = || -> Result<(), MapError> {
            let mut array = ProgramArray::try_from(Map::ProgramArray(MapData::from_pin(&pin)?))?;
            match program {
                Some(program) => array.set(index, program, 0),
                None => match array.clear_index(&index) {
                    Err(MapError::SyscallError(error))
                        if error.io_error.kind() == io::ErrorKind::NotFound =>
                    {
                        Ok(())
                    }
                    cleared => cleared,
                },
            }
        };
        change().map_err(|source| failed("set", name, source))
    }

    /// Loads the commands that a change of layouts needs.
    ///
    /// # Errors
    /// See [`ProgramsError`].
    pub fn ct_restore(&self) -> Result<PathBuf, ProgramsError> {
        self.pinned(PROGRAM_CT_RESTORE)
    }

    /// The same without a pin: they are gone with the process. The maps must be there.
    ///
    /// # Errors
    /// See [`ProgramsError`].
    pub fn transient_restore(&self) -> Result<(Ebpf, &'static str), ProgramsError> {
        let mut ebpf = self.object_with_maps()?;
        self.load_from(&mut ebpf, PROGRAM_CT_RESTORE)?;
        Ok((ebpf, PROGRAM_CT_RESTORE))
    }

    fn classifier(&self, name: &'static str) -> Result<SchedClassifier, ProgramsError> {
        let pin = self.pinned(name)?;
        SchedClassifier::from_pin(pin).map_err(|source| failed("open", name, source))
    }

    /// The pin of a program, which is loaded if it is not yet.
    fn pinned(&self, name: &'static str) -> Result<PathBuf, ProgramsError> {
        let pin = self.directory.join(name);
        let emptied = match name {
            PROGRAM_XDP_INGRESS => !self.directory.join(map::STAGES_XDP).exists(),
            PROGRAM_TC_INGRESS | PROGRAM_TC_EGRESS => !self.directory.join(map::STAGES_TC).exists(),
            _ => false,
        };
        if emptied && pin.exists() {
            // An array of programs is emptied when its last pin goes.
            Pins::remove_programs(&self.directory)?;
        }
        if !pin.exists() {
            directory::private(&self.directory)?;
            self.load(name)?;
        }
        Ok(pin)
    }

    /// Reads the object. Maps are made and pinned if they are not yet.
    fn object_with_maps(&self) -> Result<Ebpf, ProgramsError> {
        let entries = self.sizes.entries();
        let mut loader = EbpfLoader::new();
        let accounting = u32::from(self.sizes.accounting);
        loader.override_global(GLOBAL_NAMESPACE, &self.number, true);
        loader.override_global(GLOBAL_ACCOUNTING, &accounting, true);
        for map in map::ALL {
            loader.map_pin_path(map, self.pins.map(map));
        }
        for (map, entries) in &entries {
            loader.map_max_entries(map, *entries);
        }
        for map in map::OF_A_SET {
            loader.map_pin_path(map, self.directory.join(map));
        }
        loader
            .load(self.object.bytes)
            .map_err(|source| ProgramsError::Object(Box::new(source)))
    }

    /// Loads one program and pins it.
    fn load(&self, name: &'static str) -> Result<(), ProgramsError> {
        let mut ebpf = self.object_with_maps()?;
        let (stages, array) = match name {
            PROGRAM_XDP_INGRESS => (&PROGRAMS_LATER[0][..], map::STAGES_XDP),
            PROGRAM_TC_INGRESS | PROGRAM_TC_EGRESS => (&PROGRAMS_LATER[1][..], map::STAGES_TC),
            _ => (&[][..], map::STAGES_TC),
        };
        for (index, stage) in (0..).zip(stages) {
            if self.directory.join(stage).exists() {
                continue;
            }
            self.load_from(&mut ebpf, stage)?;
            let fd = program_fd(&ebpf, stage)?;
            // Before the pin, which says that the slot is filled.
            let map = ebpf
                .map_mut(array)
                .ok_or(ProgramsError::Missing { name: array })?;
            ProgramArray::try_from(map)
                .and_then(|mut array| array.set(index, &fd, 0))
                .map_err(|source| failed("hand packets to", stage, source))?;
            self.pin_from(&mut ebpf, stage)?;
        }
        self.load_from(&mut ebpf, name)?;
        self.pin_from(&mut ebpf, name)
    }

    fn pin_from(&self, ebpf: &mut Ebpf, name: &'static str) -> Result<(), ProgramsError> {
        let program = ebpf
            .program_mut(name)
            .ok_or(ProgramsError::Missing { name })?;
        program
            .pin(self.directory.join(name))
            .map_err(|source| failed("pin", name, source))
    }

    /// Loads one program of an object whose maps are made.
    fn load_from(&self, ebpf: &mut Ebpf, name: &'static str) -> Result<(), ProgramsError> {
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
        })
    }
}

fn program_fd(ebpf: &Ebpf, name: &'static str) -> Result<ProgramFd, ProgramsError> {
    let program = ebpf.program(name).ok_or(ProgramsError::Missing { name })?;
    let fd = program
        .fd()
        .and_then(|fd| fd.try_clone().map_err(ProgramError::from));
    fd.map_err(|source| failed("open", name, source))
}

/// Kernel id of a pinned program.
///
/// # Errors
/// [`ProgramsError::Pin`].
pub fn id(directory: &Path, name: &'static str) -> Result<u32, ProgramsError> {
    let found = ProgramInfo::from_pin(directory.join(name));
    found
        .map(|info| info.id())
        .map_err(|source| failed("examine", name, source))
}

/// Sets that interrupted renewals may leave behind.
const STALE: u32 = 64;

fn rename(from: &Path, to: &Path) -> Result<(), ProgramsError> {
    std::fs::rename(from, to).map_err(|source| {
        ProgramsError::Pins(PinError::Io {
            operation: "rename",
            path: from.to_owned(),
            source,
        })
    })
}

/// Lines of the verifier's log worth showing: the end says what it stumbled over.
const LOG_LINES: usize = 12;

fn failed(
    operation: &'static str,
    name: &'static str,
    source: impl std::error::Error + Send + Sync + 'static,
) -> ProgramsError {
    ProgramsError::Pin {
        operation,
        name,
        source: Box::new(source),
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
