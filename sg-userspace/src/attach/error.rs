//! Why an interface is not attached, in words.

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::programs::ProgramError;

use crate::{link::Link, netns::NetnsError, pin::PinError, programs::ProgramsError};

/// Why an interface is not attached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// No tcx before Linux 6.6.
    #[error("needs Linux 6.6 (tcx); this is Linux {release}")]
    Tcx {
        /// Release of the running kernel.
        release: String,
    },
    /// The kernel refused a hook.
    #[error("cannot attach {direction} of {device} by {hook}: {}", advice(answer))]
    Refused {
        /// `ingress` or `egress`.
        direction: &'static str,
        /// The device.
        device: String,
        /// What was tried.
        hook: &'static str,
        /// The kernel's answer.
        answer: io::Error,
    },
    /// aya failed before or after the kernel's answer.
    #[error("cannot attach {direction} of {device}")]
    Program {
        /// `ingress` or `egress`.
        direction: &'static str,
        /// The device.
        device: String,
        /// aya's answer.
        source: Box<ProgramError>,
    },
    /// A link cannot be pinned, opened or examined.
    #[error("cannot {operation} link {}", path.display())]
    Link {
        /// What was tried.
        operation: &'static str,
        /// Its pin.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The device was replaced while it was being attached.
    #[error("{device} was replaced by another device meanwhile; try again")]
    Replaced {
        /// The device.
        device: String,
    },
    /// Ours is not first in the tcx chain although it was attached so.
    #[error("{direction} of {device} does not run first in its tcx chain")]
    NotFirst {
        /// `ingress` or `egress`.
        direction: &'static str,
        /// The device.
        device: String,
    },
    /// The link follows its device into another namespace, and another device has its index.
    #[error(
        "our program is not in the {direction} chain of {device}: the device that was attached has moved to another network namespace. `sgctl detach` opens that one; then apply again"
    )]
    Elsewhere {
        /// `ingress` or `egress`.
        direction: &'static str,
        /// The device.
        device: String,
    },
    /// The namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// Programs cannot be examined.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    /// A pin cannot be removed.
    #[error(transparent)]
    Pins(#[from] PinError),
}

pub(super) fn link_failed(
    operation: &'static str,
    pin: &Path,
    source: impl std::error::Error + Send + Sync + 'static,
) -> AttachError {
    AttachError::Link {
        operation,
        path: pin.to_owned(),
        source: Box::new(source),
    }
}

pub(super) fn attach_failed(
    direction: &'static str,
    link: &Link,
    hook: &'static str,
    error: ProgramError,
) -> AttachError {
    let device = link.name.clone();
    match error {
        ProgramError::SyscallError(error) => AttachError::Refused {
            direction,
            device,
            hook,
            answer: error.io_error,
        },
        error => AttachError::Program {
            direction,
            device,
            source: Box::new(error),
        },
    }
}

/// What an error number means here; the kernel has no words for it.
pub(super) fn advice(error: &io::Error) -> String {
    let meaning = match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => "the driver does not support it",
        Some(libc::ERANGE) => "the MTU is too large for XDP on this driver",
        Some(libc::EBUSY) => "another XDP program holds the hook",
        Some(libc::EEXIST) => "another XDP mode is in use on this device",
        Some(libc::EINVAL) => "the driver or kernel does not support it in this configuration",
        Some(libc::ENOSPC) => "the driver has no queues left for it",
        Some(libc::EPERM) => "permission denied; it needs CAP_BPF and CAP_NET_ADMIN",
        _ => return error.to_string(),
    };
    format!("{meaning} (os error {})", error.raw_os_error().unwrap_or(0))
}
