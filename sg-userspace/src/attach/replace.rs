//! Other programs behind the links and in the filters that there are, in place.

use std::{io, path::Path};

use aya::programs::{
    SchedClassifier, Xdp,
    links::{FdLink, LinkError, PinnedLink},
    tc::SchedClassifierLink,
    xdp::XdpLink,
};

use super::{AttachError, EGRESS, INGRESS, Place, details, error::link_failed, filter, is_filter};
use crate::{pin::Pins, programs::ProgramSet, state::HookInForce};

/// Puts the set's programs behind existing links, in place: no packet goes unjudged.
///
/// # Errors
/// See [`AttachError`].
pub fn update(
    pins: &Pins,
    set: &ProgramSet<'_>,
    id: u32,
    hook: HookInForce,
    place: Place<'_>,
) -> Result<(), AttachError> {
    let ingress = pins.link(id, INGRESS);
    if is_filter(&ingress)? {
        filter::update(&mut set.tc_ingress()?, &ingress, place)?;
    } else if let Some(link) = open_live(&ingress, place)? {
        match hook {
            HookInForce::Xdp | HookInForce::XdpGeneric => {
                update_xdp(&mut set.xdp_ingress()?, link, &ingress)?;
            }
            HookInForce::Tc => update_tc(&mut set.tc_ingress()?, link, &ingress)?,
        }
    }
    let egress = pins.link(id, EGRESS);
    if is_filter(&egress)? {
        return filter::update(&mut set.tc_egress()?, &egress, place);
    }
    match open_live(&egress, place)? {
        Some(link) => update_tc(&mut set.tc_egress()?, link, &egress),
        None => Ok(()),
    }
}

/// Puts the set's program behind the link of one pin, or into its filter, in place, and pins the link at `new`
/// instead. Where the device is gone, only the pin moves.
///
/// # Errors
/// See [`AttachError`].
pub fn take_over(
    pin: &Path,
    set: &ProgramSet<'_>,
    new: &Path,
    place: Place<'_>,
) -> Result<(), AttachError> {
    let egress = pin.to_string_lossy().ends_with(EGRESS);
    let tc = || {
        if egress {
            set.tc_egress()
        } else {
            set.tc_ingress()
        }
    };
    if is_filter(pin)? {
        return filter::take_over(&mut tc()?, pin, new, place);
    }
    let found = details(pin, place)?;
    if let (Some(found), Some(link)) = (found, open(pin)?)
        && found.ifindex != 0
    {
        if found.xdp {
            update_xdp(&mut set.xdp_ingress()?, link, pin)?;
        } else {
            update_tc(&mut tc()?, link, pin)?;
        }
    }
    std::fs::rename(pin, new).map_err(|source| link_failed("rename", pin, source))
}

fn update_xdp(program: &mut Xdp, link: PinnedLink, pin: &Path) -> Result<(), AttachError> {
    let link =
        XdpLink::try_from(FdLink::from(link)).map_err(|source| link_failed("open", pin, source))?;
    let updated = program.attach_to_link(link);
    updated
        .and_then(|id| program.take_link(id))
        .map_err(|source| link_failed("update", pin, source))?;
    Ok(())
}

fn update_tc(
    program: &mut SchedClassifier,
    link: PinnedLink,
    pin: &Path,
) -> Result<(), AttachError> {
    let link = SchedClassifierLink::try_from(FdLink::from(link))
        .map_err(|source| link_failed("open", pin, source))?;
    let updated = program.attach_to_link(link);
    updated
        .and_then(|id| program.take_link(id))
        .map_err(|source| link_failed("update", pin, source))?;
    Ok(())
}

/// A link that somebody has detached cannot be given another program.
fn open_live(pin: &Path, place: Place<'_>) -> Result<Option<PinnedLink>, AttachError> {
    match details(pin, place)? {
        Some(found) if found.ifindex != 0 => open(pin),
        _ => Ok(None),
    }
}

fn open(pin: &Path) -> Result<Option<PinnedLink>, AttachError> {
    match PinnedLink::from_pin(pin) {
        Ok(link) => Ok(Some(link)),
        Err(LinkError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(source) => Err(link_failed("open", pin, source)),
    }
}
