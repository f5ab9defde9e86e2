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
    /// How far it is.
    pub stage: Stage,
}

/// How far a connection is, as its socket says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Its handshake is not complete.
    Opening,
    /// Both sides may send.
    Open,
    /// This side has sent FIN.
    ClosedHere,
    /// The other side has.
    ClosedThere,
    /// Both have, and not both are acknowledged.
    Closing,
}

impl Stage {
    /// By the states of `include/net/tcp_states.h`.
    fn of(state: u8) -> Self {
        match state {
            2 | 3 | 12 => Stage::Opening,
            4 | 5 => Stage::ClosedHere,
            8 => Stage::ClosedThere,
            9 | 11 => Stage::Closing,
            _ => Stage::Open,
        }
    }
}

/// Flows of connected TCP and UDP sockets whose local address is one of `addresses`, in the
/// calling thread's namespace. A socket between two of them never leaves the machine and is left
/// out, and so is a UDP server's unconnected socket, which knows no peer.
///
/// # Errors
/// See [`NetlinkError`].
pub fn own_flows(addresses: &[IpAddr]) -> Result<BTreeSet<OwnFlow>, NetlinkError> {
    let mut flows = flows()?;
    flows
        .retain(|one| addresses.contains(&one.flow.local) && !addresses.contains(&one.flow.remote));
    Ok(flows)
}

/// The same whatever the addresses, those within the machine included.
///
/// # Errors
/// See [`NetlinkError`].
pub fn flows() -> Result<BTreeSet<OwnFlow>, NetlinkError> {
    let mut flows = BTreeSet::new();
    let listening = listening()?;
    for socket in sockets(IPPROTO_TCP, connected())? {
        flows.insert(socket.tcp(&listening));
    }
    for socket in sockets(IPPROTO_UDP, StateFlags::ESTABLISHED)? {
        flows.insert(OwnFlow {
            flow: socket.flow,
            opened_by_local: true,
            stage: Stage::Open,
        });
    }
    Ok(flows)
}

/// TCP connections of the calling thread's namespace whose sockets have these inode numbers.
///
/// # Errors
/// See [`NetlinkError`].
pub fn connections(inodes: &BTreeSet<u32>) -> Result<BTreeSet<OwnFlow>, NetlinkError> {
    let listening = listening()?;
    let found = sockets(IPPROTO_TCP, connected())?.into_iter();
    let ours = found.filter(|socket| inodes.contains(&socket.inode));
    Ok(ours.map(|socket| socket.tcp(&listening)).collect())
}

/// Ports that somebody listens on.
fn listening() -> Result<BTreeSet<u16>, NetlinkError> {
    let found = sockets(IPPROTO_TCP, StateFlags::LISTEN)?.into_iter();
    Ok(found.map(|socket| socket.flow.local_port).collect())
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

/// A socket.
struct Socket {
    flow: Flow,
    state: u8,
    inode: u32,
}

impl Socket {
    fn tcp(&self, listening: &BTreeSet<u16>) -> OwnFlow {
        OwnFlow {
            flow: self.flow,
            opened_by_local: !listening.contains(&self.flow.local_port),
            stage: Stage::of(self.state),
        }
    }
}

fn sockets(protocol: u8, states: StateFlags) -> Result<Vec<Socket>, NetlinkError> {
    let mut found = Vec::new();
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
            found.push(Socket {
                flow,
                state: socket.header.state,
                inode: socket.header.inode,
            });
        }
    }
    Ok(found)
}
