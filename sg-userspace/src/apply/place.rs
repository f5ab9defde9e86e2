//! Where the attached devices are by now: in their place, gone, or moved to another namespace.

use std::{
    collections::{BTreeSet, HashSet},
    path::PathBuf,
    thread,
};

use crate::{
    attach::{self, AttachError, EGRESS, INGRESS, Place},
    bpf::{self, LinkDetails, TcxHook},
    detach::{self, DetachError},
    index,
    netns::Netns,
    rcu::Expedited,
    session::Session,
    state::{Attached, HookInForce, Lock, State},
    target::Target,
};

use super::{
    ApplyError, InterfaceError, Report,
    interface::{self, in_interface, is_there},
};

/// Brings what is remembered of attached interfaces in line with their devices.
///
/// Where both links are dead and its device is not there, it is gone, and what comes under the same ifindex later is
/// another one. Otherwise the device is still the same and somebody removed the links: they are made again, and
/// tracked flows stay. A link follows its device into another namespace, and so does the interface, with its flows.
pub(super) fn settle(
    session: &mut Session,
    lock: &Lock,
    targets: &[Target],
    report: &mut Report,
) -> Result<(), ApplyError> {
    let mut live = HashSet::new();
    let unchanged = unchanged(session)?;
    let changed = session.state.interfaces.len() - unchanged.len();
    let _expedited = Expedited::begin(lock, changed);
    for one in session.state.interfaces.clone() {
        let pins = [INGRESS, EGRESS].map(|hook| session.pins.link(one.id, hook));
        if unchanged.contains(&one.id) {
            live.extend(pins.map(PathBuf::into_os_string));
            continue;
        }
        let place = session.state.place(&one);
        let place = place.unwrap_or(Place::here(one.ifindex));
        let mut links = Vec::new();
        for pin in &pins {
            links.extend(attach::details(pin, place).map_err(DetachError::Attach)?);
        }
        if is_gone(&links, &session.state, &one) {
            detach::one(session, lock, &one)?;
            report.gone.push(one.name);
            continue;
        }
        links.retain(|found| found.ifindex != 0);
        let followed = links
            .last()
            .map(|found| follow(session, lock, targets, &one, *found));
        let one = match followed.transpose() {
            Ok(None | Some(None)) => one,
            Ok(Some(Some(there))) => {
                report.moved.push(one.name);
                there
            }
            Err(source) => return Err(in_interface(&one.name, source)),
        };
        // A move of ingress, or the first apply of all, was cut short before it was written down.
        let place = session.state.place(&one);
        let place = place.unwrap_or(Place::here(one.ifindex));
        let astray = attach::is_astray(&pins[0], place, one.hook).map_err(DetachError::Attach)?;
        let dead = links.len() < pins.len();
        // Where nobody knows the way, nothing can be made again.
        let reachable = session
            .state
            .namespace(one.namespace)
            .is_some_and(|namespace| Netns::reopen(&namespace.identity).is_ok());
        if (dead || astray) && reachable {
            interface::restore(session, &one).map_err(|source| in_interface(&one.name, source))?;
        }
        if dead && reachable {
            report.repaired.push(one.name);
        }
        live.extend(pins.map(PathBuf::into_os_string));
    }
    // Links of an apply that was cut short belong to nobody.
    for link in session.pins.links()? {
        if !live.contains(link.as_os_str()) {
            let owner = session.state.of_pin(&link);
            let ingress = owner.map(|one| session.pins.link(one.id, INGRESS));
            let place = owner.and_then(|one| session.state.place(one));
            attach::abandon(&link, place.zip(ingress.as_deref())).map_err(DetachError::Attach)?;
        }
    }
    Ok(())
}

/// Interfaces whose two links are where they are remembered to be. Each namespace is entered once, and what takes
/// more to find out is left to [`settle`].
fn unchanged(session: &Session) -> Result<BTreeSet<u32>, ApplyError> {
    let mut all = BTreeSet::new();
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    for namespace in &session.state.namespaces {
        let Ok(netns) = Netns::reopen(&namespace.identity) else {
            continue;
        };
        let interfaces = session.state.interfaces.iter();
        let inside = interfaces.filter(|one| one.namespace == namespace.number);
        let inside: Vec<&Attached> = inside.collect();
        let looked = netns.run(|| {
            thread::scope(|scope| {
                let some = inside.chunks(inside.len().div_ceil(cpus).max(1));
                let looks = some.map(|some| scope.spawn(|| look(session, some)));
                // All are begun before the first is waited for.
                let looks: Vec<_> = looks.collect();
                let looked = looks.into_iter();
                let looked = looked.map(|look| look.join().expect("looking does not panic"));
                looked.collect::<Result<Vec<_>, _>>()
            })
        });
        if let Ok(looked) = looked {
            all.extend(looked.map_err(DetachError::Attach)?.concat());
        }
    }
    Ok(all)
}

/// Those of some interfaces that are unchanged, in the calling thread's namespace.
fn look(session: &Session, some: &[&Attached]) -> Result<Vec<u32>, AttachError> {
    let mut found = Vec::new();
    for one in some {
        if is_unchanged(session, one)? {
            found.push(one.id);
        }
    }
    Ok(found)
}

/// Whether both links of an interface that is in the calling thread's namespace are as they are remembered.
fn is_unchanged(session: &Session, one: &Attached) -> Result<bool, AttachError> {
    let link = |hook| attach::link(&session.pins.link(one.id, hook));
    let (Some(egress), Some(ingress)) = (link(EGRESS)?, link(INGRESS)?) else {
        return Ok(false);
    };
    let is_here = |found: &LinkDetails| found.ifindex == one.ifindex;
    Ok(is_here(&egress)
        && is_here(&ingress)
        && ingress.xdp == (one.hook != HookInForce::Tc)
        // The index alone would be another device's after ours has moved away.
        && bpf::tcx_links(one.ifindex, TcxHook::Egress).is_ok_and(|all| all.contains(&egress.id)))
}

/// Whether nothing is left of an interface to enforce, by all that is known of its links.
///
/// Links die with their device, and when somebody removes them; filters that stand in for them also go when the
/// device moves, even if a link of XDP stays. The Ethernet address tells whether the device is still the same.
/// An interface that no link was ever made for, since its first apply was cut short, is one to begin with.
pub(crate) fn is_gone(found: &[LinkDetails], state: &State, one: &Attached) -> bool {
    if found.is_empty() && one.why.is_empty() {
        return true;
    }
    let is_live = |found: &&LinkDetails| found.ifindex != 0;
    let mut live = found.iter().filter(is_live);
    let filters = found.iter().any(|found| found.filter);
    let lives = live.any(|found| found.filter || !filters);
    !lives && is_there(state, one) != Some(true)
}

/// Follows an interface whose device is not where it was, and answers what is remembered of it now. `link` is one
/// of its links that live.
///
/// Programs know their namespace by a constant, and an index is one device's only within one namespace: a device
/// that has moved is first entered under the programs of its new namespace, then judged by them. Where it has kept
/// its index it was judged by its policy all the time; else its packets were dropped meanwhile.
fn follow(
    session: &mut Session,
    lock: &Lock,
    targets: &[Target],
    one: &Attached,
    link: LinkDetails,
) -> Result<Option<Attached>, InterfaceError> {
    if link.filter {
        // It was found where the device was.
        return Ok(None);
    }
    // Links are found by their pins alone.
    let place = Place::here(link.ifindex);
    let hook = session.pins.link(one.id, EGRESS);
    let (hook, direction) = match attach::details(&hook, place)? {
        Some(found) if found.id == link.id => (hook, TcxHook::Egress),
        _ => (session.pins.link(one.id, INGRESS), TcxHook::Ingress),
    };
    let here = |netns: &Netns| {
        if link.xdp {
            // No chain tells of an XDP link; the index has to do.
            return Ok(true);
        }
        netns.run(|| attach::stands_here(&hook, link.ifindex, direction))?
    };
    let recorded = session.state.namespace(one.namespace);
    let home = recorded.and_then(|namespace| Netns::reopen(&namespace.identity).ok());
    if let Some(home) = &home
        && link.ifindex == one.ifindex
        && here(home)?
    {
        return Ok(None);
    }
    let mut there = None;
    for target in targets {
        let known = recorded.is_some_and(|known| known.identity.is(target.netns.identity()));
        let moved = !known || target.link.ifindex != one.ifindex;
        if moved && !link.xdp && target.link.ifindex == link.ifindex && here(&target.netns)? {
            there = Some(target);
        }
    }
    if there.is_none() && home.is_none() && link.ifindex == one.ifindex {
        // It may still be there, and only the namespace cannot be reached any more.
        return Ok(None);
    }
    let namespace = match there {
        Some(target) => session.namespace(target.netns.identity()),
        None => session.unknown_namespace(),
    };
    let table = &session.tables.interface_index;
    index::insert(table, namespace, link.ifindex, one.id)?;
    attach::update(
        &session.pins,
        &session.programs(namespace),
        one.id,
        one.hook,
        place,
    )?;
    index::remove(table, one.namespace, one.ifindex, one.id)?;
    let moved = Attached {
        namespace,
        ifindex: link.ifindex,
        device: there.map_or_else(|| one.device.clone(), |target| target.link.name.clone()),
        ..one.clone()
    };
    for remembered in &mut session.state.interfaces {
        if remembered.id == one.id {
            remembered.clone_from(&moved);
        }
    }
    lock.write(&session.state)?;
    Ok(Some(moved))
}
