//! The hook of `hook = "auto"`: chosen when an interface is attached, reconsidered when it is applied
//! again.

use std::{io, path::Path};

use aya::programs::XdpMode;

use super::{
    AttachError, Attachment, attach_tc, attach_xdp,
    error::{advice, mtu_advice},
    move_ingress,
};
use crate::{
    bpf::TcxHook,
    link::{Link, UNSEEN_TAGS},
    model::Hook,
    netns::Netns,
    pin::Pins,
    programs::{ProgramSet, ProgramsError},
    state::HookInForce,
};

/// Why it is native XDP.
const SUPPORTED: &str = "the driver supports it";

/// Attaches ingress by the hook that suits the device.
pub(super) fn attach_auto(
    set: &ProgramSet<'_>,
    link: &Link,
    pin: &Path,
) -> Result<Attachment, AttachError> {
    let by_tc = |why| {
        attach_tc(&mut set.tc_ingress()?, link, TcxHook::Ingress, pin)?;
        Ok(Attachment {
            hook: HookInForce::Tc,
            why,
        })
    };
    if let Some(why) = link.reason_for_tc() {
        return by_tc(why);
    }
    let mut program = match set.xdp_ingress() {
        Ok(program) => program,
        Err(ProgramsError::Refused { name, .. }) => {
            return by_tc(format!("the kernel's verifier refuses program {name}"));
        }
        Err(error) => return Err(error.into()),
    };
    match attach_xdp(&mut program, link, XdpMode::Driver, pin) {
        Ok(()) => Ok(by_xdp()),
        Err(AttachError::Refused { answer, .. }) => by_tc(unavailable(&answer, link)),
        Err(error) => Err(error),
    }
}

/// What the choice would be now for an attached interface. A hook that works stays, unless the device
/// has come to strip tags that are in use, or was on TC for that and does so no more.
///
/// # Errors
/// See [`AttachError`]; the old hook stays in force then.
pub fn reconsider(
    pins: &Pins,
    set: &ProgramSet<'_>,
    netns: &Netns,
    link: &Link,
    id: u32,
    now: Attachment,
) -> Result<Attachment, AttachError> {
    let tags_before = now.hook == HookInForce::Tc && now.why.starts_with(UNSEEN_TAGS);
    match link.reason_for_tc() {
        Some(why) if tags_before => Ok(Attachment { why, ..now }),
        Some(why) if now.hook != HookInForce::Tc && link.stripped_tags.is_some() => {
            let moved = move_ingress(pins, set, netns, link, id, now.hook, Hook::Tc)?;
            Ok(Attachment { why, ..moved })
        }
        None if tags_before => {
            match move_ingress(pins, set, netns, link, id, now.hook, Hook::Xdp) {
                Ok(_) => Ok(by_xdp()),
                Err(AttachError::Refused { answer, .. }) => Ok(Attachment {
                    why: unavailable(&answer, link),
                    ..now
                }),
                Err(error) => Err(error),
            }
        }
        _ => Ok(now),
    }
}

fn by_xdp() -> Attachment {
    Attachment {
        hook: HookInForce::Xdp,
        why: SUPPORTED.to_owned(),
    }
}

fn unavailable(answer: &io::Error, link: &Link) -> String {
    format!(
        "native XDP is not to be had: {}{}",
        advice(answer),
        mtu_advice("xdp", answer, link.mtu)
    )
}
