//! What a definition would change, without changing anything.
//!
//! Both policies, the one in force and the one that the definition makes, are compiled as for the programs
//! ([`lookup`]) and subtracted in ranges of addresses and ports ([`difference`]), so that the answer is exact
//! whatever its size: union over groups, prefix lists, members and families included. One packet of each set
//! that is found is asked rule by rule of both ([`access`]); if the rules say otherwise, there is no plan.
//! [`flows`] streams the tracked flows through the new policy, [`capacity`] counts what the maps would hold.
//!
//! Sets are about what rules let begin. What passes or is dropped whatever the rules say
//! (`docs/semantics.md`, sections 2 to 7) is not subtracted; settings that move it are listed.

use serde::Serialize;
use sg_common::verdict::Direction;

mod access;
mod capacity;
mod changes;
mod difference;
mod flows;
mod in_force;
pub(crate) mod lookup;
mod peers;
mod traffic;

pub use access::{Access, Example, Reach};
pub use capacity::Used;
pub use changes::{
    Change, Effect, GroupChange, InterfaceChange, InterfaceFate, ListChange, MemberChange,
    RuleChange, RuleText, Setting,
};
pub use flows::{Flows, InterfaceFlows, Untracked};
pub use peers::{Peers, Span};
pub use traffic::Packets;

use in_force::{Fate, Future};
use lookup::Lookup;

use crate::{
    attach::AttachError,
    compile::{CompileError, Compiled, compile},
    flows::FlowsError,
    model::Model,
    netlink::NetlinkError,
    netns::NetnsError,
    resolve::Resolved,
    session::{Context, SessionError},
    state::StateError,
    target::TargetError,
    view::ViewError,
};

/// What a definition would change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Generation in force; `None`: nothing is enforced.
    pub generation: Option<u32>,
    /// Whether anything changes.
    pub changes: bool,
    /// What a reader should know.
    pub warnings: Vec<String>,
    /// Settings of the host.
    pub host: Vec<Setting>,
    /// Interfaces.
    pub interfaces: Vec<InterfaceChange>,
    /// Groups that come, go, or treat tracked flows otherwise.
    pub groups: Vec<GroupChange>,
    /// Rules.
    pub rules: Vec<RuleChange>,
    /// Prefix lists.
    pub prefix_lists: Vec<ListChange>,
    /// Members of groups.
    pub members: Vec<MemberChange>,
    /// Who gains and loses access to what.
    pub access: Vec<Access>,
    /// What becomes of flows.
    pub flows: Flows,
    /// Maps before and after.
    pub capacity: Vec<Used>,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The definition enforces nothing.
    #[error("the definition names no interface, so there is nothing to enforce")]
    NoInterface,
    /// What is in force cannot be opened.
    #[error(transparent)]
    View(#[from] ViewError),
    /// What is remembered cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// Somebody else changes what is in force.
    #[error("another sgctl is changing what is in force; try again when it is done")]
    Busy,
    /// A device cannot be enforced.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A link cannot be examined.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The new policy does not fit.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The policy in force cannot be compiled again.
    #[error("cannot compile the policy in force")]
    Before(#[source] CompileError),
    /// The conntrack tables in use do not fit the definition.
    #[error(transparent)]
    Tables(#[from] SessionError),
    /// Flows cannot be read.
    #[error(transparent)]
    Flows(#[from] FlowsError),
    /// Sockets cannot be listed.
    #[error(transparent)]
    Sockets(#[from] NetlinkError),
    /// A namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The rules, asked one by one, say otherwise than the comparison.
    #[error(
        "the comparison of both policies contradicts their rules at {packet}, {} of interface {interface}; this is a mistake of sgctl, and the plan would be wrong",
        direction.name()
    )]
    Contradiction {
        /// The interface.
        interface: String,
        /// The direction.
        direction: Direction,
        /// The packet.
        packet: String,
    },
}

/// A policy in both its forms.
struct Policy<'a> {
    resolved: &'a Resolved,
    lookup: Lookup,
    compiled: Compiled,
}

impl<'a> Policy<'a> {
    fn new(resolved: &'a Resolved) -> Result<Self, CompileError> {
        Ok(Self {
            resolved,
            compiled: compile(resolved)?,
            lookup: Lookup::new(resolved)?,
        })
    }

    fn both(&self) -> (&'a Resolved, &Lookup) {
        (self.resolved, &self.lookup)
    }
}

/// Compiles both policies, at the same time: they may be large.
fn compiled<'a>(
    before: &'a Resolved,
    after: &'a Resolved,
) -> Result<(Policy<'a>, Policy<'a>), PlanError> {
    std::thread::scope(|scope| {
        let old = scope.spawn(|| Policy::new(before));
        let new = Policy::new(after);
        let old = old.join().expect("compiling does not panic");
        Ok((old.map_err(PlanError::Before)?, new?))
    })
}

/// Says what `apply` would change now; with `detach_missing` as with `apply --detach-missing`. Reads only, and
/// needs no lock.
///
/// # Errors
/// See [`PlanError`].
pub fn plan(context: &Context, model: &Model, detach_missing: bool) -> Result<Plan, PlanError> {
    if model.interfaces.is_empty() {
        return Err(PlanError::NoInterface);
    }
    let in_force = in_force::read(context)?;
    let future = in_force::look_ahead(context, model, in_force.as_ref(), detach_missing)?;
    let nothing = Resolved::default();
    let before = in_force.as_ref().map_or(&nothing, |found| &found.resolved);
    let (old, new) = compiled(before, &future.resolved)?;
    let mut plan = policies(&old, &new, &future, in_force.is_some())?;
    if let Some(in_force) = &in_force {
        plan.flows = flows::judge(in_force, &future, &old.lookup, &new.lookup)?;
        plan.generation = Some(in_force.view.state.generation);
        if let Some(maps) = in_force.other_generation {
            plan.warnings.push(format!(
                "the maps are at generation {maps}, while {} is remembered: a change was cut short or taken back, and the plan compares with what is remembered",
                in_force.view.state.generation
            ));
        }
    } else {
        plan.flows = flows::first(&future, &new.lookup)?;
    }
    plan.capacity
        .push(capacity::tracked(&plan.flows, &new.compiled));
    Ok(plan)
}

/// All that follows from both policies alone.
fn policies(
    old: &Policy<'_>,
    new: &Policy<'_>,
    future: &Future,
    in_force: bool,
) -> Result<Plan, PlanError> {
    let (before, after) = (old.resolved, new.resolved);
    // Who is opened or forgotten loses no access.
    let pairs: Vec<_> = future
        .fates
        .iter()
        .map(Fate::names)
        .filter(|(_, after)| after.is_some())
        .collect();
    let (access, deciding) = access::compare(old.both(), new.both(), &pairs)?;
    let mut plan = Plan {
        generation: None,
        changes: false,
        warnings: Vec::new(),
        host: if in_force {
            changes::host(before, after)
        } else {
            Vec::new()
        },
        interfaces: changes::interfaces(before, after, &future.fates, &future.absent),
        groups: changes::groups(before, after),
        rules: changes::rules(old.both(), new.both(), &future.fates, &deciding),
        prefix_lists: changes::lists(before, after),
        members: changes::members(before, after),
        access,
        flows: Flows::default(),
        capacity: capacity::used(&old.compiled, &new.compiled),
    };
    plan.changes = !(plan.host.is_empty()
        && plan.interfaces.is_empty()
        && plan.groups.is_empty()
        && plan.rules.is_empty()
        && plan.prefix_lists.is_empty()
        && plan.members.is_empty()
        && plan.access.is_empty());
    Ok(plan)
}

/// Who gains and loses access to what on the interfaces of `after`, if that follows `before`.
///
/// # Errors
/// [`PlanError::Before`], [`PlanError::Compile`], [`PlanError::Contradiction`].
pub fn access(before: &Resolved, after: &Resolved) -> Result<Vec<Access>, PlanError> {
    let (old, new) = compiled(before, after)?;
    let pairs: Vec<_> = after
        .interfaces
        .keys()
        .map(|name| {
            let was = before.interfaces.contains_key(name);
            (was.then_some(name.as_str()), Some(name.as_str()))
        })
        .collect();
    Ok(access::compare(old.both(), new.both(), &pairs)?.0)
}

#[cfg(test)]
mod tests;
