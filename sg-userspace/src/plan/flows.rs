//! What becomes of the flows that are there: `docs/semantics.md`, section 11, asked ahead.

use std::collections::BTreeMap;

use serde::Serialize;
use sg_common::{
    abi::MAX_INTERFACES,
    classify::{BY_LOCAL, BY_REMOTE},
    layout::interface_flags,
    verdict::Direction,
};

use super::{
    PlanError,
    in_force::{Fate, Future, InForce},
    lookup::Lookup,
};
use crate::{
    compile::CompiledInterface,
    control::Flow,
    flows::{Side, TrackedFlow, each},
    model::{Orientation, protocol},
    sockets,
    target::Target,
    view::{View, ViewError},
};

/// What becomes of flows, by interface; those of which something is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Flows {
    /// Tracked flows of all interfaces.
    pub tracked: u64,
    /// By interface.
    pub interfaces: Vec<InterfaceFlows>,
}

/// What becomes of the flows of an interface when their next packet comes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct InterfaceFlows {
    /// Its name.
    pub name: String,
    /// Those that are tracked.
    pub tracked: u64,
    /// Of these: cut, because a group says `on_revoke = "reevaluate"` and no rule would let them begin.
    pub cut: u64,
    /// Of these: they stay although no rule would let them begin.
    pub stay_without_rule: u64,
    /// Of the last: those that a rule would let begin by the policy in force.
    pub stay_without_rule_newly: u64,
    /// Of these: from then on untracked.
    pub become_untracked: u64,
    /// Of these: forgotten with their interface.
    pub forgotten: u64,
    /// Untracked flows that become tracked, where sockets tell which there are: those of an `own` interface.
    pub untracked: Option<Untracked>,
    /// Open connections that are taken over where an interface is attached for the first time, if sockets
    /// tell.
    pub adopted: Option<u64>,
}

/// Untracked flows that will not be untracked, as far as they have a connected socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Untracked {
    /// They become tracked with their next packet.
    pub become_tracked: u64,
    /// No rule allows them, so they end at once.
    pub cut: u64,
}

/// An interface as its flows meet it.
pub(super) struct Passage<'a> {
    /// Of [`Flows::interfaces`].
    pub(super) place: usize,
    pub(super) before: Option<&'a CompiledInterface>,
    /// `None`: it will not be enforced.
    pub(super) after: Option<&'a CompiledInterface>,
    /// All flows are asked whether they might begin now.
    pub(super) asked: bool,
    /// So are those that were last judged before this generation; 0: none.
    pub(super) asked_from: u32,
}

/// Streams the flows there are through the new policy.
///
/// # Errors
/// See [`PlanError`].
pub(super) fn judge(
    in_force: &InForce,
    future: &Future,
    old: &Lookup,
    new: &Lookup,
) -> Result<Flows, PlanError> {
    let view = &in_force.view;
    let mut flows = Flows::default();
    let mut passages: Vec<Option<Passage<'_>>> = Vec::new();
    passages.resize_with(MAX_INTERFACES as usize, || None);
    for fate in &future.fates {
        let (was, is) = fate.names();
        let place = flows.interfaces.len();
        flows.interfaces.push(InterfaceFlows {
            name: is.or(was).unwrap_or_default().to_owned(),
            ..InterfaceFlows::default()
        });
        let attached = view
            .state
            .interfaces
            .iter()
            .find(|one| Some(one.name.as_str()) == was);
        if let Some(one) = attached {
            passages[one.id as usize] = Some(passage(view, one.id, (was, is), place, old, new)?);
        }
    }
    each(view, |entry| {
        let Some(passage) = &passages[entry.interface as usize] else {
            return;
        };
        let flow = entry.decode("", view.runtime.hz);
        let counts = &mut flows.interfaces[passage.place];
        counts.tracked += 1;
        flows.tracked += 1;
        count(passage, &flow, counts, old, new);
    })?;
    by_sockets(future, &mut flows, old, new)?;
    flows
        .interfaces
        .sort_by(|one, other| one.name.cmp(&other.name));
    Ok(flows)
}

fn passage<'a>(
    view: &View,
    id: u32,
    (was, is): (Option<&str>, Option<&str>),
    place: usize,
    old: &'a Lookup,
    new: &'a Lookup,
) -> Result<Passage<'a>, PlanError> {
    let record = view.record(id).map_err(ViewError::from)?;
    let before = was.and_then(|name| old.interface(name));
    let after = is.and_then(|name| new.interface(name));
    let flags = record.flags | after.map_or(0, |after| after.flags);
    Ok(Passage {
        place,
        before,
        after,
        asked: flags & interface_flags::REEVALUATE != 0,
        asked_from: record.reevaluate_from,
    })
}

/// Counts a flow by what becomes of it.
pub(super) fn count(
    passage: &Passage<'_>,
    flow: &TrackedFlow<'_>,
    counts: &mut InterfaceFlows,
    old: &Lookup,
    new: &Lookup,
) {
    let Some(after) = passage.after else {
        counts.forgotten += 1;
        return;
    };
    let ipv6 = flow.remote.is_ipv6();
    if new.untracked(
        after,
        ipv6,
        flow.protocol,
        flow.local_port,
        flow.remote_port,
    ) != 0
    {
        counts.become_untracked += 1;
        return;
    }
    let opens = |side: &Lookup, interface: &CompiledInterface| {
        let (direction, port) = opening(flow);
        side.allows(interface, direction, flow.remote, flow.protocol, port)
    };
    if opens(new, after) {
        return;
    }
    // Generations are compared with wrap-around, as the programs do.
    let behind = flow.generation.wrapping_sub(passage.asked_from) > i32::MAX as u32;
    if passage.asked || (passage.asked_from != 0 && behind) {
        counts.cut += 1;
        return;
    }
    counts.stay_without_rule += 1;
    let might = passage.before.is_some_and(|before| opens(old, before));
    counts.stay_without_rule_newly += u64::from(might);
}

/// What a rule is asked about the flow's opener: direction, and port as for
/// [`crate::resolve::Resolved::evaluate`]; of an echo that is the request.
fn opening(flow: &TrackedFlow<'_>) -> (Direction, u16) {
    let (direction, port) = match flow.opened_by {
        Side::Local => (Direction::Egress, flow.remote_port),
        Side::Remote => (Direction::Ingress, flow.local_port),
    };
    let port = match flow.protocol {
        protocol::TCP | protocol::UDP => port,
        protocol::ICMP if flow.remote.is_ipv4() => 8 << 8,
        protocol::ICMPV6 if flow.remote.is_ipv6() => 128 << 8,
        _ => 0,
    };
    (direction, port)
}

/// Flows that no entry speaks of, where sockets do: of `own` interfaces.
fn by_sockets(
    future: &Future,
    flows: &mut Flows,
    old: &Lookup,
    new: &Lookup,
) -> Result<(), PlanError> {
    let targets: BTreeMap<&str, &Target> = future
        .targets
        .iter()
        .filter(|target| target.orientation == Orientation::Own)
        .map(|target| (target.name.as_str(), target))
        .collect();
    for (fate, counts) in future.fates.iter().zip(&mut flows.interfaces) {
        let (was, Some(is)) = fate.names() else {
            continue;
        };
        let (Some(target), Some(after)) = (targets.get(is), new.interface(is)) else {
            continue;
        };
        let open = target
            .netns
            .run(|| sockets::own_flows(&target.link.addresses))??;
        let Some(before) = was.and_then(|name| old.interface(name)) else {
            counts.adopted = Some(open.len() as u64);
            continue;
        };
        let mut untracked = Untracked::default();
        for one in open {
            match hand_over((old, before), (new, after), &one.flow) {
                Some(true) => untracked.become_tracked += 1,
                Some(false) => untracked.cut += 1,
                None => {}
            }
        }
        counts.untracked = Some(untracked);
    }
    Ok(())
}

/// Whether an untracked flow is taken over into an entry; `None` if it is not untracked, or stays so.
fn hand_over(
    (old, before): (&Lookup, &CompiledInterface),
    (new, after): (&Lookup, &CompiledInterface),
    flow: &Flow,
) -> Option<bool> {
    let ipv6 = flow.remote.is_ipv6();
    let untracked = |side: &Lookup, interface| {
        side.untracked(
            interface,
            ipv6,
            flow.protocol,
            flow.local_port,
            flow.remote_port,
        )
    };
    let openers = untracked(old, before);
    if openers == 0 || untracked(new, after) != 0 {
        return None;
    }
    let may = |direction, port| new.allows(after, direction, flow.remote, flow.protocol, port);
    Some(
        (openers & BY_REMOTE != 0 && may(Direction::Ingress, flow.local_port))
            || (openers & BY_LOCAL != 0 && may(Direction::Egress, flow.remote_port)),
    )
}

/// Flows of interfaces that are attached for the first time, where nothing is in force.
///
/// # Errors
/// See [`PlanError`].
pub(super) fn first(future: &Future, new: &Lookup) -> Result<Flows, PlanError> {
    let interfaces = future.fates.iter().filter_map(|fate| match fate {
        Fate::Attached { after } => Some(InterfaceFlows {
            name: after.clone(),
            ..InterfaceFlows::default()
        }),
        _ => None,
    });
    let mut flows = Flows {
        tracked: 0,
        interfaces: interfaces.collect(),
    };
    by_sockets(future, &mut flows, new, new)?;
    Ok(flows)
}
