//! The kernel's own sockets, by sock_diag: which flows a namespace has and who opened them.

use std::{collections::BTreeSet, net::IpAddr};

use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP},
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use crate::{
    control::Flow,
    netlink::{self, NetlinkError, Scope},
};

/// A flow that the calling thread's namespace has a socket for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnFlow {
    /// The flow.
    pub flow: Flow,
    /// Whether this side opened it: nobody listens on its local port.
    pub opened_by_local: bool,
}

/// Flows of connected TCP and UDP sockets whose local address is one of `addresses`, in the
/// calling thread's namespace. A socket between two of them never leaves the machine and is left
/// out, and so is a UDP server's unconnected socket, which knows no peer.
///
/// # Errors
/// See [`NetlinkError`].
pub fn own_flows(addresses: &[IpAddr]) -> Result<BTreeSet<OwnFlow>, NetlinkError> {
    let mut flows = BTreeSet::new();
    let listening: BTreeSet<u16> = dump(IPPROTO_TCP, StateFlags::LISTEN)?
        .into_iter()
        .map(|flow| flow.local_port)
        .collect();
    for flow in dump(IPPROTO_TCP, connected())? {
        flows.insert(OwnFlow {
            flow,
            opened_by_local: !listening.contains(&flow.local_port),
        });
    }
    for flow in dump(IPPROTO_UDP, StateFlags::ESTABLISHED)? {
        flows.insert(OwnFlow {
            flow,
            opened_by_local: true,
        });
    }
    flows
        .retain(|one| addresses.contains(&one.flow.local) && !addresses.contains(&one.flow.remote));
    Ok(flows)
}

/// TCP connections of the calling thread's namespace whose sockets have these inode numbers.
///
/// # Errors
/// See [`NetlinkError`].
pub fn connections(inodes: &BTreeSet<u32>) -> Result<BTreeSet<OwnFlow>, NetlinkError> {
    let listening: BTreeSet<u16> = dump(IPPROTO_TCP, StateFlags::LISTEN)?
        .into_iter()
        .map(|flow| flow.local_port)
        .collect();
    let found = sockets(IPPROTO_TCP, connected())?.into_iter();
    let ours = found.filter(|(_, inode)| inodes.contains(inode));
    let flows = ours.map(|(flow, _)| OwnFlow {
        flow,
        opened_by_local: !listening.contains(&flow.local_port),
    });
    Ok(flows.collect())
}

/// Every state in which segments still travel both ways.
fn connected() -> StateFlags {
    StateFlags::ESTABLISHED
        | StateFlags::SYN_SENT
        | StateFlags::SYN_RECV
        | StateFlags::FIN_WAIT1
        | StateFlags::FIN_WAIT2
        | StateFlags::CLOSE_WAIT
        | StateFlags::LAST_ACK
        | StateFlags::CLOSING
}

fn dump(protocol: u8, states: StateFlags) -> Result<Vec<Flow>, NetlinkError> {
    let found = sockets(protocol, states)?;
    Ok(found.into_iter().map(|(flow, _)| flow).collect())
}

/// Flows with the inode numbers of their sockets.
fn sockets(protocol: u8, states: StateFlags) -> Result<Vec<(Flow, u32)>, NetlinkError> {
    let mut flows = Vec::new();
    for (family, socket_id) in [
        (AF_INET, SocketId::new_v4()),
        (AF_INET6, SocketId::new_v6()),
    ] {
        let request = SockDiagMessage::InetRequest(InetRequest {
            family,
            protocol,
            extensions: ExtensionFlags::empty(),
            states: states.clone(),
            socket_id,
        });
        for answer in netlink::request(NETLINK_SOCK_DIAG, request, Scope::All)? {
            let SockDiagMessage::InetResponse(socket) = answer else {
                continue;
            };
            let id = &socket.header.socket_id;
            let flow = Flow {
                protocol,
                // A socket of both families shows IPv4 peers as mapped addresses.
                local: id.source_address.to_canonical(),
                remote: id.destination_address.to_canonical(),
                local_port: id.source_port,
                remote_port: id.destination_port,
            };
            flows.push((flow, socket.header.inode));
        }
    }
    Ok(flows)
}
