//! What an apply did, for people and programs to read.

use serde::{Deserialize, Serialize};

use crate::{
    adopt::Adopted,
    attach::{self, Attachment},
    bpf::TcxHook,
    model::Orientation,
    state::HookInForce,
    target::Target,
    upgrade::Upgraded,
};

/// What an apply did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The generation in force.
    pub generation: u32,
    /// Interfaces of the definition.
    pub interfaces: Vec<InterfaceReport>,
    /// Interfaces that the definition no longer names and that keep their last policy.
    pub orphans: Vec<String>,
    /// Interfaces detached because the definition no longer names them.
    pub detached: Vec<String>,
    /// Interfaces that were dropped because their device is gone.
    pub gone: Vec<String>,
    /// Interfaces whose device had moved to another network namespace, or had another index there.
    #[serde(default)]
    pub moved: Vec<String>,
    /// Interfaces of which a link had been removed by somebody else and was made again.
    #[serde(default)]
    pub repaired: Vec<String>,
    /// Why the definition cannot be gone back to later, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_kept: Option<String>,
    /// Why what was before the change is not cleared away yet; the next change does it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untidy: Option<String>,
    /// What moved over from an earlier layout of the maps, if one was in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgraded: Option<Upgraded>,
    /// Ids of the interfaces to be detached.
    #[serde(skip)]
    pub(super) detaching: Vec<u32>,
}

/// What became of one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceReport {
    /// Name in the definition.
    pub name: String,
    /// Device.
    pub device: String,
    /// Our id.
    pub id: u32,
    /// Which side it is.
    pub orientation: Orientation,
    /// Ingress hook in force.
    pub hook: HookInForce,
    /// Why this hook.
    pub why: String,
    /// What was done.
    pub change: Change,
    /// Flows that were taken over, and what could not be seen.
    pub adopted: Adopted,
    /// What a reader should know.
    pub warnings: Vec<String>,
}

/// What was done to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It is enforced from now on.
    Attached,
    /// It was enforced before, and is so by the new policy.
    Updated,
}

impl InterfaceReport {
    pub(super) fn new(target: &Target, id: u32, attachment: Attachment, change: Change) -> Self {
        Self {
            name: target.name.clone(),
            device: target.link.name.clone(),
            id,
            orientation: target.orientation,
            hook: attachment.hook,
            why: attachment.why,
            change,
            adopted: Adopted::default(),
            warnings: Vec::new(),
        }
    }
}

impl InterfaceReport {
    /// Adds what a reader should know of flows that were not adopted.
    pub(super) fn warn_of_flows(&mut self) {
        let Adopted {
            refused,
            workload_hidden,
            unseen,
            ..
        } = &self.adopted;
        if *workload_hidden {
            self.warnings.push(format!(
                "of the flows that exist on {} some cannot be seen from here, and are cut if no rule lets them begin again: {}",
                self.device,
                unseen.join("; ")
            ));
        }
        if *refused > 0 {
            self.warnings.push(format!(
                "{refused} existing flows found no room and are cut: raise `allowance`"
            ));
        }
    }
}

/// A warning about who runs before us in a tcx chain, if anybody does.
pub(crate) fn ahead(device: &str, hook: TcxHook, ahead: &[u32]) -> Option<String> {
    if ahead.is_empty() {
        return None;
    }
    let direction = attach::direction(hook);
    let ids: Vec<String> = ahead.iter().map(u32::to_string).collect();
    Some(format!(
        "program {} stands before ours in the {direction} chain of {device} and may let packets pass unjudged (`bpftool prog show id N` names it)",
        ids.join(", ")
    ))
}
