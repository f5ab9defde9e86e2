//! Commands that take over what another layout's maps hold.

use std::net::IpAddr;

use sg_common::layout::{CtCommand, CtRecord, ct_op};

use super::{Control, ControlError, Inserted, command, padded};

/// A flow as another layout's table holds it.
#[derive(Clone, Copy, Debug)]
pub struct Restored {
    /// `interface << 8 | protocol`.
    pub owner: u32,
    /// `local port << 16 | remote port`; of an echo `identifier << 16 | opener is local`.
    pub ports: u32,
    /// The workload's address.
    pub local: IpAddr,
    /// The other side's address.
    pub remote: IpAddr,
    /// State, age, and what it has carried since it was last told of.
    pub record: CtRecord,
}

/// Something to add to a counter: see [`ct_op::ADD`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addition {
    /// Interface id.
    pub interface: u32,
    /// Which counter.
    pub counter: u32,
    /// Packets or events, and bytes.
    pub what: (u64, u64),
}

impl Control {
    /// Makes a flow as it was elsewhere; one that is known gains what it lacks.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn restore(&self, flow: &Restored) -> Result<Inserted, ControlError> {
        let attempt = |last: u32| {
            let command = CtCommand {
                interface: flow.owner >> 8,
                protocol: flow.owner & 0xff,
                family: if flow.local.is_ipv4() { 4 } else { 6 },
                local: padded(flow.local),
                remote: padded(flow.remote),
                local_port: (flow.ports >> 16) as u16,
                remote_port: flow.ports as u16,
                argument: last << 1,
                ..command(ct_op::RESTORE)
            };
            self.run_with("restore", &command, flow.record.as_bytes())
        };
        let answer = match attempt(0)? {
            ct_op::FULL => attempt(1)?,
            answer => answer,
        };
        match answer {
            ct_op::OK => Ok(Inserted::Added),
            ct_op::EXISTS => Ok(Inserted::Known),
            ct_op::FULL => Ok(Inserted::Full),
            answer => Err(ControlError::Answer {
                operation: "restore",
                answer,
            }),
        }
    }

    /// Adds to a counter. One whose `number` is not above the last one's does nothing.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn add(&self, number: u32, addition: &Addition) -> Result<(), ControlError> {
        let word = |value: u64| {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&value.to_ne_bytes());
            bytes
        };
        let command = CtCommand {
            interface: addition.interface,
            argument: addition.counter,
            local: word(addition.what.0),
            remote: word(addition.what.1),
            count: number,
            ..command(ct_op::ADD)
        };
        match self.run("add", &command)? {
            ct_op::OK => Ok(()),
            answer => Err(ControlError::Answer {
                operation: "add",
                answer,
            }),
        }
    }
}
