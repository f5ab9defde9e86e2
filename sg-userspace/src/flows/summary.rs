//! How many flows there are of each kind.

use serde::Serialize;
use sg_common::{
    abi::MAX_INTERFACES,
    conntrack::{State, flag},
};

use super::{FlowsError, each, protocol_name};
use crate::{session::Context, view::View};

/// Live flows, counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Tracked flows that the host may have.
    pub allowance: u32,
    /// Flows of the interfaces below.
    pub flows: u64,
    /// Attached interfaces, or the one that was asked for.
    pub interfaces: Vec<InterfaceSummary>,
}

/// Flows of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InterfaceSummary {
    /// Name in the definition.
    pub name: String,
    /// All of them.
    pub flows: u64,
    /// By protocol and state, those that occur.
    pub states: Vec<Count>,
}

/// Flows of one protocol in one state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Its name, or `other`.
    pub protocol: &'static str,
    /// As listings name it.
    pub state: &'static str,
    /// How many.
    pub flows: u64,
    /// How many of them not both sides have answered.
    pub unassured: u64,
}

/// A protocol and a state, and how many flows are and are unassured.
type Kind = (u8, State, [u64; 2]);

/// Counts the live flows of all interfaces, or of the one called `interface`.
///
/// # Errors
/// See [`FlowsError`].
pub fn summarize(context: &Context, interface: Option<&str>) -> Result<Summary, FlowsError> {
    let view = View::open(context)?;
    let chosen = view.interfaces(context, interface)?;
    // By interface id: the few kinds that occur there, with all and unassured ones.
    let mut counts: Vec<Vec<Kind>> = vec![Vec::new(); MAX_INTERFACES as usize];
    each(&view, |entry| {
        let own = &mut counts[entry.interface as usize];
        let unassured = u64::from(entry.flags & flag::ASSURED == 0);
        let known = own
            .iter_mut()
            .find(|(protocol, state, _)| (*protocol, *state) == (entry.protocol, entry.state));
        match known {
            Some((.., count)) => {
                count[0] += 1;
                count[1] += unassured;
            }
            None => own.push((entry.protocol, entry.state, [1, unassured])),
        }
    })?;
    let interfaces: Vec<InterfaceSummary> = chosen
        .into_iter()
        .map(|one| {
            let own = std::mem::take(&mut counts[one.id as usize]);
            InterfaceSummary {
                name: one.name.clone(),
                flows: own.iter().map(|(.., [flows, _])| flows).sum(),
                states: merged(own.into_iter()),
            }
        })
        .collect();
    Ok(Summary {
        allowance: view.runtime.allowance,
        flows: interfaces.iter().map(|one| one.flows).sum(),
        interfaces,
    })
}

/// Sorted by protocol and state, with protocols that have no name together.
fn merged(counts: impl Iterator<Item = Kind>) -> Vec<Count> {
    let mut merged: Vec<Count> = Vec::new();
    let mut counts: Vec<_> = counts
        .map(|(protocol, state, count)| (protocol_name(protocol), state as u8, state, count))
        .collect();
    counts.sort_unstable_by_key(|(protocol, order, ..)| (*protocol, *order));
    for (protocol, _, state, [flows, unassured]) in counts {
        let state = state.name();
        match merged.last_mut() {
            Some(last) if (last.protocol, last.state) == (protocol, state) => {
                last.flows += flows;
                last.unassured += unassured;
            }
            _ => merged.push(Count {
                protocol,
                state,
                flows,
                unassured,
            }),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_without_a_name_are_counted_together() {
        let counts = [
            (132, State::Other, [2, 1]),
            (6, State::TcpEstablished, [5, 0]),
            (47, State::Other, [3, 2]),
        ];
        let found: Vec<_> = merged(counts.into_iter())
            .into_iter()
            .map(|one| (one.protocol, one.state, one.flows, one.unassured))
            .collect();
        assert_eq!(
            found,
            [("other", "other", 5, 3), ("tcp", "established", 5, 0)]
        );
    }
}
