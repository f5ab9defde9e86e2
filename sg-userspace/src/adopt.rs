//! Existing flows become tracked when an interface is first attached, so that attaching cuts none.
//!
//! Only `own` interfaces: their sockets are in the interface's namespace. What a workload behind a
//! `host` interface has open is not visible from here, and neither are peers of unconnected UDP
//! sockets.

use std::{collections::BTreeSet, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::{
    control::{Control, ControlError, Inserted},
    netlink::NetlinkError,
    netns::{Netns, NetnsError},
    sockets::{self, OwnFlow},
};

/// What adoption came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// Flows that are tracked now.
    pub flows: u64,
    /// Flows that found no room.
    pub refused: u64,
}

impl Adopted {
    /// How many flows are tracked now, in words.
    pub fn connections(self) -> String {
        match self.flows {
            1 => "1 open connection".to_owned(),
            flows => format!("{flows} open connections"),
        }
    }
}

/// Why flows were not adopted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdoptError {
    /// The namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// Sockets cannot be listed.
    #[error("cannot list the sockets to adopt (`--no-adopt` attaches without)")]
    Sockets(#[from] NetlinkError),
    /// A flow cannot be inserted.
    #[error(transparent)]
    Control(#[from] ControlError),
}

/// Adopts the flows of one interface; called once before its links are attached and once after,
/// for what was opened in between.
#[derive(Debug)]
pub struct Adoption<'a> {
    control: &'a Control,
    netns: &'a Netns,
    interface: u32,
    addresses: &'a [IpAddr],
    tried: BTreeSet<OwnFlow>,
    /// So far.
    pub adopted: Adopted,
}

impl<'a> Adoption<'a> {
    /// Prepares to adopt flows of `addresses` on `interface`.
    pub fn new(
        control: &'a Control,
        netns: &'a Netns,
        interface: u32,
        addresses: &'a [IpAddr],
    ) -> Self {
        Self {
            control,
            netns,
            interface,
            addresses,
            tried: BTreeSet::new(),
            adopted: Adopted::default(),
        }
    }

    /// Lists the sockets and inserts those flows that were not tried yet.
    ///
    /// # Errors
    /// See [`AdoptError`].
    pub fn run(&mut self) -> Result<(), AdoptError> {
        let addresses = self.addresses;
        for one in self.netns.run(|| sockets::own_flows(addresses))?? {
            if !self.tried.insert(one) {
                continue;
            }
            let inserted = self
                .control
                .insert(self.interface, &one.flow, one.opened_by_local)?;
            match inserted {
                Inserted::Added => self.adopted.flows += 1,
                Inserted::Known | Inserted::Impossible => {}
                Inserted::Full => self.adopted.refused += 1,
            }
        }
        Ok(())
    }
}
