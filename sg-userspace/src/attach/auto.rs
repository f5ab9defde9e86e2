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
            return by_tc(unloadable(name));
        }
        Err(error) => return Err(error.into()),
    };
    match attach_xdp(&mut program, link, XdpMode::Driver, pin) {
        Ok(()) => Ok(by_xdp()),
        Err(AttachError::Refused { answer, .. }) => by_tc(unavailable(&answer, link)),
        Err(error) => Err(error),
    }
}

/// What is to become of ingress of an attached interface.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    /// It stays where it is.
    Stays,
    /// It is on TC, for this reason.
    IsTc(String),
    /// It moves to TC, for this reason.
    ToTc(String),
    /// It moves to native XDP, if that is to be had.
    ToXdp,
}

/// A hook that works stays, unless the device has come to strip tags that are in use, or was on TC for that and
/// does so no more. One that was never written down, because the first apply was cut short, is chosen now.
fn choose(now: &Attachment, link: &Link) -> Choice {
    let is_tc = now.hook == HookInForce::Tc;
    let open = is_tc && (now.why.is_empty() || now.why.starts_with(UNSEEN_TAGS));
    match link.reason_for_tc() {
        Some(why) if open => Choice::IsTc(why),
        Some(why) if !is_tc && link.stripped_tags.is_some() => Choice::ToTc(why),
        None if open => Choice::ToXdp,
        _ => Choice::Stays,
    }
}

/// What the choice would be now for an attached interface.
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
    match choose(&now, link) {
        Choice::Stays => Ok(now),
        Choice::IsTc(why) => Ok(Attachment { why, ..now }),
        Choice::ToTc(why) => {
            let moved = move_ingress(pins, set, netns, link, id, now.hook, Hook::Tc)?;
            Ok(Attachment { why, ..moved })
        }
        Choice::ToXdp => {
            let why = match move_ingress(pins, set, netns, link, id, now.hook, Hook::Xdp) {
                Ok(_) => return Ok(by_xdp()),
                Err(AttachError::Refused { answer, .. }) => unavailable(&answer, link),
                Err(AttachError::Programs(ProgramsError::Refused { name, .. })) => unloadable(name),
                Err(error) => return Err(error),
            };
            Ok(Attachment { why, ..now })
        }
    }
}

fn by_xdp() -> Attachment {
    Attachment {
        hook: HookInForce::Xdp,
        why: SUPPORTED.to_owned(),
    }
}

fn unloadable(program: &str) -> String {
    format!("the kernel's verifier refuses program {program}")
}

fn unavailable(answer: &io::Error, link: &Link) -> String {
    format!(
        "native XDP is not to be had: {}{}",
        advice(answer),
        mtu_advice("xdp", answer, link.mtu)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(kind: Option<&str>) -> Link {
        Link {
            name: "eth0".to_owned(),
            ifindex: 2,
            kind: kind.map(str::to_owned),
            ethernet: true,
            loopback: false,
            up: true,
            peer_elsewhere: false,
            peer: None,
            mac: None,
            mtu: 1500,
            addresses: Vec::new(),
            stripped_tags: None,
        }
    }

    fn by(hook: HookInForce, why: &str) -> Attachment {
        Attachment {
            hook,
            why: why.to_owned(),
        }
    }

    #[test]
    fn a_hook_that_was_never_written_down_is_chosen_again() {
        let unwritten = by(HookInForce::Tc, "");
        assert_eq!(choose(&unwritten, &link(None)), Choice::ToXdp);
        let veth = choose(&unwritten, &link(Some("veth")));
        assert!(matches!(veth, Choice::IsTc(why) if why.contains("veth")));
        for written in [
            by(HookInForce::Tc, "as asked"),
            by(HookInForce::Xdp, SUPPORTED),
            by(HookInForce::XdpGeneric, "as asked"),
        ] {
            assert_eq!(choose(&written, &link(None)), Choice::Stays);
            assert_eq!(choose(&written, &link(Some("veth"))), Choice::Stays);
        }
        let tags = by(HookInForce::Tc, UNSEEN_TAGS);
        assert_eq!(choose(&tags, &link(None)), Choice::ToXdp);
    }
}
