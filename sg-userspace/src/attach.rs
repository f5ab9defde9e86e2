//! Links between programs and a device: made, replaced without a gap, verified, undone.
//!
//! Ingress is XDP or tcx, egress is tcx. Every link is pinned as `links/<id>-<direction>`. Where the kernel has no
//! tcx, a TC filter stands in for the link (`filter.rs`).

use std::{io, os::fd::AsFd as _, path::Path};

use aya::programs::{
    LinkOrder, SchedClassifier, TcAttachType, Xdp, XdpMode, links::FdLink, tc::TcAttachOptions,
};

use sg_common::abi::{PROGRAM_TC_EGRESS, PROGRAM_TC_INGRESS};

use crate::{
    bpf::{self, LinkDetails, TcxHook},
    link::Link,
    model::Hook,
    netns::Netns,
    pin::Pins,
    programs::{ProgramSet, ProgramsError},
    state::HookInForce,
};

mod auto;
mod error;
mod filter;
mod replace;

pub use auto::reconsider;
pub use error::AttachError;
use error::{attach_failed, link_failed, refused};
pub use filter::Place;
pub use replace::{take_over, update};

/// Ingress, as pins spell it.
pub const INGRESS: &str = "ingress";
/// Egress, as pins spell it.
pub const EGRESS: &str = "egress";

/// Ingress while it moves to another hook, as pins spell it.
pub(crate) const ON_ITS_WAY: &str = "ingress-new";

/// Why it is the hook that the definition names.
pub(crate) const AS_ASKED: &str = "as asked";

/// What attaching came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The ingress hook in force.
    pub hook: HookInForce,
    /// Why this hook, where the choice was ours.
    pub why: String,
}

/// Attaches both directions of a device, first in its chains, and pins the links. If the second
/// direction fails, the first is undone.
///
/// Egress comes first: a workload that opens a connection in between is then known when the
/// answer meets ingress.
///
/// # Errors
/// See [`AttachError`].
pub fn attach(
    pins: &Pins,
    set: &ProgramSet<'_>,
    netns: &Netns,
    link: &Link,
    id: u32,
    wanted: Hook,
) -> Result<Attachment, AttachError> {
    load(set, link, wanted)?;
    netns.run(|| {
        let egress = pins.link(id, EGRESS);
        attach_tc(&mut set.tc_egress()?, link, TcxHook::Egress, &egress)?;
        let attached = attach_ingress(set, link, wanted, &pins.link(id, INGRESS));
        if attached.is_err() {
            detach(&egress, Place::here(link.ifindex))?;
        }
        attached
    })?
}

/// Moves ingress of an attached device to another hook; the old one goes when the new one judges.
///
/// # Errors
/// See [`AttachError`]; the old hook stays in force then.
pub fn move_ingress(
    pins: &Pins,
    set: &ProgramSet<'_>,
    netns: &Netns,
    link: &Link,
    id: u32,
    from: HookInForce,
    wanted: Hook,
) -> Result<Attachment, AttachError> {
    let between_modes = from != HookInForce::Tc && wanted != Hook::Tc;
    if !between_modes {
        return replace_ingress(pins, set, netns, link, id, wanted);
    }
    // The kernel runs one XDP mode on a device at a time: the way from one to the other is TC.
    replace_ingress(pins, set, netns, link, id, Hook::Tc)?;
    match replace_ingress(pins, set, netns, link, id, wanted) {
        Ok(attachment) => Ok(attachment),
        Err(error) => {
            replace_ingress(pins, set, netns, link, id, from.asked())?;
            Err(error)
        }
    }
}

/// Moves ingress to the hook on record if it sits at one of the other kind, as it does after a
/// move that was cut short.
///
/// # Errors
/// See [`AttachError`]; ingress stays where it is then.
pub fn settle_ingress(
    pins: &Pins,
    set: &ProgramSet<'_>,
    netns: &Netns,
    link: &Link,
    id: u32,
    hook: HookInForce,
) -> Result<(), AttachError> {
    let place = Place::within(netns.identity(), link.ifindex);
    if !is_astray(&pins.link(id, INGRESS), place, hook)? {
        return Ok(());
    }
    replace_ingress(pins, set, netns, link, id, hook.asked()).map(drop)
}

/// Whether a pinned ingress link is of another kind than the hook on record.
///
/// # Errors
/// [`AttachError::Link`].
pub fn is_astray(pin: &Path, place: Place<'_>, hook: HookInForce) -> Result<bool, AttachError> {
    Ok(details(pin, place)?.is_some_and(|found| found.xdp != (hook != HookInForce::Tc)))
}

fn replace_ingress(
    pins: &Pins,
    set: &ProgramSet<'_>,
    netns: &Netns,
    link: &Link,
    id: u32,
    wanted: Hook,
) -> Result<Attachment, AttachError> {
    let (new, old) = (pins.link(id, ON_ITS_WAY), pins.link(id, INGRESS));
    let place = Place::within(netns.identity(), link.ifindex);
    detach(&new, place)?;
    let attachment = netns.run(|| attach_ingress(set, link, wanted, &new))??;
    let filter = |pin| details(pin, place).map(|found| found.is_some_and(|found| found.filter));
    if filter(&old)? && filter(&new)? {
        // They are the same.
        Pins::remove(&old)?;
    } else {
        detach(&old, place)?;
    }
    std::fs::rename(&new, &old).map_err(|source| link_failed("rename", &new, source))?;
    Ok(attachment)
}

/// Makes those links of an attached device anew that somebody removed, at the hook they had, and
/// returns their directions.
///
/// # Errors
/// See [`AttachError`].
pub fn restore(
    pins: &Pins,
    set: &ProgramSet<'_>,
    netns: &Netns,
    link: &Link,
    id: u32,
    hook: HookInForce,
) -> Result<Vec<&'static str>, AttachError> {
    let wanted = hook.asked();
    netns.run(|| {
        let mut restored = Vec::new();
        for direction in [EGRESS, INGRESS] {
            let pin = pins.link(id, direction);
            if is_on(&pin, Place::here(link.ifindex))? {
                continue;
            }
            if direction == EGRESS {
                attach_tc(&mut set.tc_egress()?, link, TcxHook::Egress, &pin)?;
            } else {
                attach_ingress(set, link, wanted, &pin)?;
            }
            restored.push(direction);
        }
        Ok(restored)
    })?
}

/// Whether a pinned link sits on the device with this index, in whatever namespace that is; a filter must be at
/// its place.
///
/// # Errors
/// See [`details`].
pub fn is_on(pin: &Path, place: Place<'_>) -> Result<bool, AttachError> {
    Ok(details(pin, place)?.is_some_and(|found| found.ifindex == place.ifindex()))
}

/// Whether a pinned tcx link, or the filter of a pinned program, stands in the chain of the device with this index, in
/// the calling thread's namespace: the index alone would be another device's after ours has moved away.
///
/// # Errors
/// [`AttachError::Link`].
pub fn stands_here(pin: &Path, ifindex: u32, hook: TcxHook) -> Result<bool, AttachError> {
    let Some(found) = details(pin, Place::here(ifindex))?.filter(|found| found.ifindex == ifindex)
    else {
        return Ok(false);
    };
    if found.filter {
        return Ok(true);
    }
    match bpf::tcx_links(ifindex, hook) {
        Ok(links) => Ok(links.contains(&found.id)),
        // There is no such device here.
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(false),
        Err(source) => Err(link_failed("find", pin, source)),
    }
}

/// What is known about a pinned link, or a filter by its pinned program; `None` if there is no such pin.
///
/// # Errors
/// [`AttachError::Link`]; of filters also [`AttachError::Netns`].
pub fn details(pin: &Path, place: Place<'_>) -> Result<Option<LinkDetails>, AttachError> {
    let failed = |source| link_failed("examine", pin, source);
    let Some(found) = bpf::open_pinned(pin).map_err(failed)? else {
        return Ok(None);
    };
    let details = match bpf::program_id(found.as_fd()).map_err(failed)? {
        Some(program) => filter::details(pin, program, place)?,
        None => bpf::link_details(found.as_fd()).map_err(failed)?,
    };
    Ok(Some(details))
}

/// The same of a link; `None` also if what is pinned stands for a filter.
///
/// # Errors
/// [`AttachError::Link`].
pub(crate) fn link(pin: &Path) -> Result<Option<LinkDetails>, AttachError> {
    let failed = |source| link_failed("examine", pin, source);
    let Some(found) = bpf::open_pinned(pin).map_err(failed)? else {
        return Ok(None);
    };
    match bpf::program_id(found.as_fd()).map_err(failed)? {
        Some(_) => Ok(None),
        None => bpf::link_details(found.as_fd()).map(Some).map_err(failed),
    }
}

/// Detaches a pinned link at once, or removes a filter, and removes the pin; a missing one is fine.
///
/// # Errors
/// See [`AttachError`].
pub fn detach(pin: &Path, place: Place<'_>) -> Result<(), AttachError> {
    if is_filter(pin)? {
        return filter::detach(pin, place);
    }
    let detached = bpf::open_pinned(pin)
        .and_then(|link| link.map(|link| bpf::detach_link(link.as_fd())).transpose());
    detached.map_err(|source| link_failed("detach", pin, source))?;
    Ok(Pins::remove(pin)?)
}

/// [`detach`] where it is not known which device it is: a link is found all the same.
///
/// # Errors
/// See [`AttachError`]; [`AttachError::Nowhere`] for a filter.
pub fn detach_anywhere(pin: &Path) -> Result<(), AttachError> {
    if is_filter(pin)? {
        let egress = pin
            .as_os_str()
            .as_encoded_bytes()
            .ends_with(EGRESS.as_bytes());
        return Err(AttachError::Nowhere {
            path: pin.to_owned(),
            direction: if egress { EGRESS } else { INGRESS },
        });
    }
    detach(pin, Place::here(0))
}

/// [`detach`] of what an apply that was cut short has left, at the place of its interface if that is known, whose
/// ingress is pinned as `ingress`.
///
/// A filter is removed if ingress is a link: it is the one to which ingress was being moved. Else there is but one
/// filter, which is that of `ingress`, or whose place nobody has written down: what attaches there next takes it
/// over.
///
/// # Errors
/// See [`AttachError`].
pub fn abandon(pin: &Path, owner: Option<(Place<'_>, &Path)>) -> Result<(), AttachError> {
    if !is_filter(pin)? {
        return detach(pin, Place::here(0));
    }
    match owner {
        Some((place, ingress)) if ingress.exists() && !is_filter(ingress)? => {
            filter::detach(pin, place)
        }
        _ => Ok(Pins::remove(pin)?),
    }
}

/// Whether what is pinned is the program of a filter.
///
/// # Errors
/// [`AttachError::Link`].
pub fn is_filter(pin: &Path) -> Result<bool, AttachError> {
    let found = bpf::open_pinned(pin).and_then(|found| {
        found
            .map(|found| bpf::program_id(found.as_fd()))
            .transpose()
    });
    let found = found.map_err(|source| link_failed("examine", pin, source))?;
    Ok(found.flatten().is_some())
}

/// The programs of an attached interface that stand in tcx chains, by name.
pub fn tc_programs(hook: HookInForce) -> Vec<(&'static str, TcxHook)> {
    let mut programs = vec![(PROGRAM_TC_EGRESS, TcxHook::Egress)];
    if hook == HookInForce::Tc {
        programs.push((PROGRAM_TC_INGRESS, TcxHook::Ingress));
    }
    programs
}

/// Programs that run before `ours` at a device's tcx hook, or in filters before ours, in the calling thread's
/// namespace.
///
/// # Errors
/// [`AttachError::Refused`]; [`AttachError::Elsewhere`] if ours is not there.
pub fn ahead_of(ours: u32, link: &Link, hook: TcxHook) -> Result<Vec<u32>, AttachError> {
    let chain = match bpf::tcx_programs(link.ifindex, hook) {
        Err(_) if filter::is_needed(link.ifindex) => {
            return filter::ahead_of(ours, link, hook)?.ok_or_else(|| AttachError::Elsewhere {
                direction: direction(hook),
                device: link.name.clone(),
            });
        }
        chain => chain.map_err(|answer| refused(direction(hook), link, "tc", answer))?,
    };
    let place = chain.iter().position(|program| *program == ours);
    let place = place.ok_or_else(|| AttachError::Elsewhere {
        direction: direction(hook),
        device: link.name.clone(),
    })?;
    Ok(chain[..place].to_vec())
}

/// Loads what attaching may need. Between the two directions there must be no time for that.
///
/// # Errors
/// See [`AttachError`].
pub fn load(set: &ProgramSet<'_>, link: &Link, wanted: Hook) -> Result<(), AttachError> {
    set.tc_egress()?;
    let auto = wanted == Hook::Auto;
    if wanted == Hook::Tc || auto {
        set.tc_ingress()?;
    }
    if matches!(wanted, Hook::Xdp | Hook::XdpGeneric) {
        set.xdp_ingress()?;
    }
    if auto && link.reason_for_tc().is_none() {
        match set.xdp_ingress() {
            // Then `auto` takes TC.
            Ok(_) | Err(ProgramsError::Refused { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn attach_ingress(
    set: &ProgramSet<'_>,
    link: &Link,
    wanted: Hook,
    pin: &Path,
) -> Result<Attachment, AttachError> {
    let done = |hook, why: &str| Attachment {
        hook,
        why: why.to_owned(),
    };
    match wanted {
        Hook::Tc => {
            attach_tc(&mut set.tc_ingress()?, link, TcxHook::Ingress, pin)?;
            Ok(done(HookInForce::Tc, AS_ASKED))
        }
        Hook::Xdp => {
            attach_xdp(&mut set.xdp_ingress()?, link, XdpMode::Driver, pin)?;
            Ok(done(HookInForce::Xdp, AS_ASKED))
        }
        Hook::XdpGeneric => {
            attach_xdp(&mut set.xdp_ingress()?, link, XdpMode::Skb, pin)?;
            Ok(done(HookInForce::XdpGeneric, AS_ASKED))
        }
        Hook::Auto => auto::attach_auto(set, link, pin),
    }
}

fn attach_xdp(
    program: &mut Xdp,
    link: &Link,
    mode: XdpMode,
    pin: &Path,
) -> Result<(), AttachError> {
    let hook = match mode {
        XdpMode::Skb => "xdp-generic",
        _ => "xdp",
    };
    let id = program
        .attach_to_if_index(link.ifindex, mode)
        .map_err(|error| attach_failed(INGRESS, link, hook, error))?;
    let taken = program
        .take_link(id)
        .map_err(|error| attach_failed(INGRESS, link, hook, error))?;
    // On EINVAL aya attaches by netlink instead, which no pin would keep: dropping it detaches.
    let made = FdLink::try_from(taken).map_err(|_| {
        let answer = io::Error::from_raw_os_error(libc::EINVAL);
        refused(INGRESS, link, hook, answer)
    })?;
    keep(made, link, pin)
}

fn attach_tc(
    program: &mut SchedClassifier,
    link: &Link,
    hook: TcxHook,
    pin: &Path,
) -> Result<(), AttachError> {
    if filter::is_needed(link.ifindex) {
        return filter::attach(program, link, hook, pin);
    }
    let failed = |error| attach_failed(direction(hook), link, "tc", error);
    let attach_type = match hook {
        TcxHook::Ingress => TcAttachType::Ingress,
        TcxHook::Egress => TcAttachType::Egress,
    };
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program
        .attach_with_options(&link.name, attach_type, first)
        .map_err(failed)?;
    let taken = program.take_link(id).map_err(failed)?;
    let made = FdLink::try_from(taken).map_err(|source| link_failed("take", pin, source))?;
    let ours = program.info().map_err(failed)?.id();
    if !ahead_of(ours, link, hook)?.is_empty() {
        return Err(AttachError::NotFirst {
            direction: direction(hook),
            device: link.name.clone(),
        });
    }
    keep(made, link, pin)
}

/// Pins a fresh link, and makes sure that it sits on the device that was examined.
fn keep(made: FdLink, link: &Link, pin: &Path) -> Result<(), AttachError> {
    // A pin of this name belongs to a link that was given up before it was removed.
    let place = Place::here(link.ifindex);
    detach(pin, place)?;
    made.pin(pin)
        .map_err(|source| link_failed("pin", pin, source))?;
    if details(pin, place)?.is_none_or(|found| found.ifindex != link.ifindex) {
        detach(pin, place)?;
        return Err(AttachError::Replaced {
            device: link.name.clone(),
        });
    }
    Ok(())
}

/// As pins and messages spell it.
pub(crate) fn direction(hook: TcxHook) -> &'static str {
    match hook {
        TcxHook::Ingress => INGRESS,
        TcxHook::Egress => EGRESS,
    }
}
