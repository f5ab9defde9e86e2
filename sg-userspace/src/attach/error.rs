//! Why an interface is not attached, in words.

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::programs::{ProgramError, xdp::XdpError};

use crate::{
    link::{Link, vlan::StrippedTags},
    netlink::NetlinkError,
    netns::NetnsError,
    pin::PinError,
    programs::ProgramsError,
};

/// Why an interface is not attached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// A TC filter cannot be made or found.
    #[error("cannot reach the TC filter at {direction} of {device}")]
    Filter {
        /// `ingress` or `egress`.
        direction: &'static str,
        /// The device.
        device: String,
        /// Why.
        source: NetlinkError,
    },
    /// Which device a filter is on is not known any more.
    #[error(
        "{} stands for a TC filter, and the state does not say on which device: remove it there (`tc filter show dev DEVICE {direction}` lists them, as sgctl_{direction}), then this pin",
        path.display()
    )]
    Nowhere {
        /// The pin.
        path: PathBuf,
        /// `ingress` or `egress`.
        direction: &'static str,
    },
    /// The kernel refused a hook.
    #[error("cannot attach {direction} of {device} by {hook}: {}{}", advice(answer), mtu_advice(hook, answer, *mtu))]
    Refused {
        /// `ingress` or `egress`.
        direction: &'static str,
        /// The device.
        device: String,
        /// What was tried.
        hook: &'static str,
        /// Largest packet of the device, in bytes.
        mtu: u32,
        /// The kernel's answer.
        answer: io::Error,
    },
    /// XDP would judge tagged frames as if they had no tag.
    #[error(
        "cannot attach ingress of {device} by {hook}, which would not see the VLAN tags of the device: {stripped}. Run `{}`, or say `hook = \"tc\"`",
        stripped.remedy(device)
    )]
    UnseenTags {
        /// The device.
        device: String,
        /// What was asked for.
        hook: &'static str,
        /// What is known of the tags.
        stripped: StrippedTags,
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
    /// Ours is not first in the chain although it was attached so.
    #[error("{direction} of {device} does not run first in its TC chain")]
    NotFirst {
        /// `ingress` or `egress`.
        direction: &'static str,
        /// The device.
        device: String,
    },
    /// The link follows its device into another namespace, and another device has its index.
    #[error(
        "our program is not in the {direction} chain of {device}: the device that was attached has moved to another network namespace, where it keeps its policy. Apply again"
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

pub(super) fn refused(
    direction: &'static str,
    link: &Link,
    hook: &'static str,
    answer: io::Error,
) -> AttachError {
    AttachError::Refused {
        direction,
        device: link.name.clone(),
        hook,
        mtu: link.mtu,
        answer,
    }
}

pub(super) fn attach_failed(
    direction: &'static str,
    link: &Link,
    hook: &'static str,
    error: ProgramError,
) -> AttachError {
    match error {
        ProgramError::SyscallError(error) => refused(direction, link, hook, error.io_error),
        // After EINVAL, which many drivers answer to an MTU, aya asks by netlink.
        ProgramError::XdpError(XdpError::NetlinkError(error)) if error.raw_os_error().is_some() => {
            let answer = error.raw_os_error().map(io::Error::from_raw_os_error);
            refused(
                direction,
                link,
                hook,
                answer.unwrap_or_else(|| io::ErrorKind::Other.into()),
            )
        }
        error => AttachError::Program {
            direction,
            device: link.name.clone(),
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

/// What else to know where a refusal may be for the MTU, in bytes. The program takes frames of several
/// buffers; not every driver does, and some say so with an error that means anything.
pub(super) fn mtu_advice(hook: &str, error: &io::Error, mtu: u32) -> String {
    let of_mtu = matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::EINVAL | libc::EFAULT | libc::ERANGE)
    );
    if hook == "tc" || !of_mtu || mtu <= ETHERNET_MTU {
        return String::new();
    }
    format!("; the MTU is {mtu}, and some drivers run XDP on frames that fit one page only")
}

/// An MTU that every driver takes, in bytes.
const ETHERNET_MTU: u32 = 1500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_mtu_is_named_where_it_may_be_the_reason() {
        let advice = |hook, errno, mtu| mtu_advice(hook, &io::Error::from_raw_os_error(errno), mtu);
        for errno in [libc::EINVAL, libc::EOPNOTSUPP, libc::ERANGE, libc::EFAULT] {
            assert!(advice("xdp", errno, 9000).contains("the MTU is 9000"));
            assert_eq!(advice("xdp", errno, 1500), "");
            assert_eq!(advice("tc", errno, 9000), "");
        }
        assert_eq!(advice("xdp", libc::EBUSY, 9000), "");
    }
}
