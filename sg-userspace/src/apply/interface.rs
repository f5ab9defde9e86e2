//! One interface of an apply: attached, or brought in line.

use std::collections::{BTreeMap, btree_map::Entry};

use crate::{
    adopt::Adoption,
    attach::{self, AttachError},
    detach, index,
    link::Link,
    model::Hook,
    netns::Netns,
    programs,
    session::Session,
    state::{Attached, HookInForce, State},
    status::chain,
    target::Target,
};

use super::{
    ApplyError, attached_as,
    error::InterfaceError,
    report::{self, Change, InterfaceReport, Report},
};

/// An error of one interface as one of the whole.
pub(super) fn in_interface(name: &str, source: InterfaceError) -> ApplyError {
    ApplyError::Interface {
        interface: name.to_owned(),
        source: Box::new(source),
    }
}

/// Refuses XDP where it would not see tags that are in use. Where that very hook is in force already,
/// it stays, with a warning: a VLAN that somebody adds must not keep a changed policy from coming into
/// force.
pub(super) fn check_tags(
    target: &Target,
    attached: Option<&Attached>,
) -> Result<(), InterfaceError> {
    let asked = match target.hook {
        Hook::Xdp => HookInForce::Xdp,
        Hook::XdpGeneric => HookInForce::XdpGeneric,
        Hook::Auto | Hook::Tc => return Ok(()),
    };
    match &target.link.stripped_tags {
        Some(stripped) if attached.is_none_or(|one| one.hook != asked) => {
            Err(AttachError::UnseenTags {
                device: target.link.name.clone(),
                hook: asked.name(),
                stripped: stripped.clone(),
            }
            .into())
        }
        _ => Ok(()),
    }
}

/// Attaches a new interface.
pub(super) fn start<'a>(
    session: &mut Session,
    target: &'a Target,
    id: u32,
    adoption: &mut Adoption<'a>,
) -> Result<InterfaceReport, InterfaceError> {
    let namespace = session
        .state
        .interfaces
        .iter()
        .find(|one| one.id == id)
        .map_or(0, |one| one.namespace);
    index::insert(
        &session.tables.interface_index,
        namespace,
        target.link.ifindex,
        id,
    )?;
    adoption.before(session, target, id)?;
    let set = session.programs(namespace);
    let attached = attach::attach(
        &session.pins,
        &set,
        &target.netns,
        &target.link,
        id,
        target.hook,
    )?;
    adoption.after(session)?;
    for one in &mut session.state.interfaces {
        if one.id == id {
            one.hook = attached.hook;
            one.why.clone_from(&attached.why);
        }
    }
    let mut report = InterfaceReport::new(target, id, attached, Change::Attached);
    report.warnings = cautions(target, report.hook);
    Ok(report)
}

/// Adopts what is left to adopt on the interfaces that were attached, and says what came of it.
pub(super) fn settle(
    session: &mut Session,
    adoption: &mut Adoption<'_>,
    report: &mut Report,
) -> Result<(), ApplyError> {
    let mut done = Vec::new();
    adoption
        .settle(session, |id, adopted| done.push((id, adopted)))
        .map_err(|failed| in_interface(&failed.0, failed.1.into()))?;
    for (id, adopted) in done {
        for one in &mut session.state.interfaces {
            if one.id == id {
                one.adopted = Some(adopted.clone());
            }
        }
        if let Some(one) = report.interfaces.iter_mut().find(|one| one.id == id) {
            one.adopted = adopted;
            one.warn_of_flows();
        }
    }
    Ok(())
}

/// Kernel ids of programs, by namespace and name.
pub(super) type ProgramIds = BTreeMap<(u32, &'static str), u32>;

/// Brings an attached interface in line with its settings. Ids of programs in use are kept in `ours`.
pub(super) fn adjust(
    session: &mut Session,
    target: &Target,
    ours: &mut ProgramIds,
) -> Result<InterfaceReport, InterfaceError> {
    let found = attached_as(session, target)
        .expect("the caller found it attached")
        .clone();
    if found.orientation != target.orientation {
        // Local and remote have changed sides: what is tracked is told from the wrong end.
        detach::flush(session, found.id).map_err(Box::new)?;
    }
    let set = session.programs(found.namespace);
    let mut attached = attach::Attachment {
        hook: found.hook,
        why: found.why.clone(),
    };
    if target.hook == Hook::Auto {
        attached = attach::reconsider(
            &session.pins,
            &set,
            &target.netns,
            &target.link,
            found.id,
            attached,
        )?;
    } else if target.hook != found.hook.asked() {
        attached = attach::move_ingress(
            &session.pins,
            &set,
            &target.netns,
            &target.link,
            found.id,
            found.hook,
            target.hook,
        )?;
    } else if attached.why.is_empty() {
        // The first apply was cut short before it was written down.
        attached.why = attach::AS_ASKED.to_owned();
    }
    for one in &mut session.state.interfaces {
        if one.id == found.id {
            one.orientation = target.orientation;
            one.hook = attached.hook;
            one.why.clone_from(&attached.why);
        }
    }
    let hook = attached.hook;
    let mut report = InterfaceReport::new(target, found.id, attached, Change::Updated);
    report.warnings = cautions(target, hook);
    let directory = session.pins.programs(found.namespace);
    let mut look = |name, hook| -> Result<Vec<u32>, InterfaceError> {
        let ours = match ours.entry((found.namespace, name)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => *new.insert(programs::id(&directory, name)?),
        };
        Ok(attach::ahead_of(ours, &target.link, hook)?)
    };
    let looked = target.netns.run(|| {
        let programs = attach::tc_programs(hook).into_iter();
        let looked = programs.map(|(name, hook)| (hook, look(name, hook)));
        looked.collect::<Vec<_>>()
    });
    for (hook, ahead) in looked.map_err(AttachError::from)? {
        match ahead {
            Ok(ahead) => {
                let warning = report::ahead(&target.link.name, hook, &ahead);
                report.warnings.extend(warning);
            }
            Err(error @ InterfaceError::Attach(AttachError::Elsewhere { .. })) => {
                return Err(error);
            }
            // That one is in force as asked; only who else is cannot be said.
            Err(error) => report.warnings.push(format!(
                "who stands before us in the {} chain cannot be seen: {}",
                attach::direction(hook),
                chain(&error)
            )),
        }
    }
    Ok(report)
}

/// Makes the links of an attached interface what its record says: those that somebody removed, and
/// ingress at the hook on record.
pub(super) fn restore(session: &Session, one: &Attached) -> Result<(), InterfaceError> {
    let (netns, link) = place(&session.state, one)?;
    let (pins, set) = (&session.pins, session.programs(one.namespace));
    attach::restore(pins, &set, &netns, &link, one.id, one.hook)?;
    attach::settle_ingress(pins, &set, &netns, &link, one.id, one.hook)?;
    Ok(())
}

/// Takes a move of ingress back that a failed change has made.
pub(super) fn move_back(
    session: &Session,
    before: &Attached,
    from: HookInForce,
) -> Result<(), InterfaceError> {
    let (netns, link) = place(&session.state, before)?;
    let set = session.programs(before.namespace);
    attach::move_ingress(
        &session.pins,
        &set,
        &netns,
        &link,
        before.id,
        from,
        before.hook.asked(),
    )?;
    Ok(())
}

/// Whether the device of an attached interface is still there, and no other has taken its place, told by its
/// Ethernet address. `None`: there is one under its index, and nothing tells whether it is the same.
pub(crate) fn is_there(state: &State, one: &Attached) -> Option<bool> {
    match place(state, one) {
        Ok((_, link)) if link.mac != one.mac => Some(false),
        Ok(_) => one.mac.map(|_| true),
        Err(_) => Some(false),
    }
}

/// The device of an attached interface, found again.
fn place(state: &State, one: &Attached) -> Result<(Netns, Link), InterfaceError> {
    let gone = || AttachError::Replaced {
        device: one.device.clone(),
    };
    let namespace = state.namespace(one.namespace).ok_or_else(gone)?;
    let netns = Netns::reopen(&namespace.identity).map_err(AttachError::from)?;
    let found = netns
        .run(|| Link::read_at(one.ifindex, &one.device))
        .map_err(AttachError::from)?;
    let link = found.ok().ok_or_else(gone)?;
    Ok((netns, link))
}

fn cautions(target: &Target, hook: HookInForce) -> Vec<String> {
    target.link.cautions(hook)
}
