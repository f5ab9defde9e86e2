//! Names become addresses: who is a member of which group, and what each interface lets pass.
//!
//! A [`Resolved`] holds all that a policy means at one moment. It is what the control plane stores
//! as "last applied", and it stands on its own: compiling it needs no definition.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sg_common::verdict::Direction;

use crate::model::{Conntrack, InterfaceSettings, Peer, Rule};

mod name;

pub use name::Name;

/// A rule whose peer names are [`Name`]s.
pub type ResolvedRule = Rule<Peer<Name>>;

/// The policy of a host at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Resolved {
    /// Groups: rules and members.
    pub groups: BTreeMap<Name, ResolvedGroup>,
    /// Prefix lists; host bits are zero.
    pub prefix_lists: BTreeMap<Name, Vec<IpNet>>,
    /// Interfaces by name, orphans included.
    pub interfaces: BTreeMap<String, ResolvedInterface>,
    /// Link-local services that always pass.
    pub services: Vec<IpAddr>,
    /// Connection tracking of the host.
    pub conntrack: Conntrack,
}

/// A group: what it allows and who is in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ResolvedGroup {
    /// Rules of traffic towards the workload.
    pub ingress: Vec<ResolvedRule>,
    /// Rules of traffic from the workload.
    pub egress: Vec<ResolvedRule>,
    /// Addresses of the interfaces that carry it, here and on other hosts.
    pub members: BTreeSet<IpAddr>,
}

impl ResolvedGroup {
    /// The rules of one direction.
    pub fn rules(&self, direction: Direction) -> &[ResolvedRule] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

/// An interface: its settings, groups and addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResolvedInterface {
    /// How it is found, attached and tracked.
    pub settings: InterfaceSettings,
    /// Its groups; each is in [`Resolved::groups`].
    pub groups: Vec<Name>,
    /// Its addresses; `None`: unknown.
    pub addresses: Option<Vec<IpAddr>>,
    /// The definition names it no longer; it keeps what was last applied (decisions, Changes 1).
    #[serde(default)]
    pub orphan: bool,
}
