//! Notice changes of links and addresses in every namespace that is served.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, PoisonError},
};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{RouteNetlinkMessage, link::LinkAttribute};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::Notify,
    task::JoinHandle,
};

use crate::{
    link::vlan,
    netns::{Netns, NetnsError, NetnsIdentity},
};

/// `RTNLGRP_LINK`, `RTNLGRP_TC`, `RTNLGRP_IPV4_IFADDR` and `RTNLGRP_IPV6_IFADDR` of
/// `include/uapi/linux/rtnetlink.h`.
const GROUPS: [u32; 4] = [1, 4, 5, 9];

/// Receive buffer in bytes: a burst of that many is read without loss. What is lost is noticed.
const BUFFER_BYTES: usize = 1 << 20;

/// The devices of one namespace that matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// By name, whether they exist or not.
    pub(super) names: BTreeSet<String>,
    /// By index, those that exist.
    pub(super) indexes: BTreeSet<u32>,
}

/// The namespaces that are listened to.
#[derive(Debug, Default)]
pub(super) struct Devices {
    followed: BTreeMap<(u64, u64), Followed>,
    told: Arc<Told>,
}

/// Where the listeners say that something has changed.
#[derive(Debug, Default)]
struct Told {
    /// Anything but addresses.
    changed: Notify,
    addressed: Notify,
    /// Devices that have gained or lost addresses.
    devices: Mutex<BTreeSet<Device>>,
}

/// A device: its namespace, by device and inode number, and its index there.
pub(super) type Device = ((u64, u64), u32);

/// What a datagram says of our devices.
#[derive(Debug, PartialEq, Eq)]
enum News {
    /// These have gained or lost addresses, and nothing else; perhaps none.
    Addresses(BTreeSet<u32>),
    /// Something else has changed, or it cannot be read.
    More,
}

/// Why a namespace cannot be listened to.
#[derive(Debug, thiserror::Error)]
pub(super) enum DevicesError {
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error("cannot listen to rtnetlink")]
    Socket(#[source] io::Error),
}

#[derive(Debug)]
struct Followed {
    wanted: Arc<Mutex<Wanted>>,
    listener: JoinHandle<()>,
}

impl Drop for Followed {
    /// Closes the socket, which would keep its namespace alive.
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Devices {
    /// Listens to these namespaces and no others. Returns whether anything is listened to that was
    /// not before: what changed there until now went unnoticed.
    ///
    /// # Errors
    /// A namespace that is there and cannot be listened to.
    pub(super) fn follow(
        &mut self,
        namespaces: &[(NetnsIdentity, Wanted)],
    ) -> Result<bool, DevicesError> {
        let key = |identity: &NetnsIdentity| (identity.device, identity.inode);
        let served: BTreeSet<_> = namespaces.iter().map(|(found, _)| key(found)).collect();
        self.followed.retain(|key, _| served.contains(key));
        let mut more = false;
        for (identity, wanted) in namespaces {
            if let Some(followed) = self.followed.get(&key(identity)) {
                let mut known = lock(&followed.wanted);
                more |= *known != *wanted;
                known.clone_from(wanted);
                continue;
            }
            let netns = match Netns::reopen(identity) {
                Ok(netns) => netns,
                // Gone since it was seen: the next look finds that out.
                Err(_) => continue,
            };
            let socket = netns.run(open)?.map_err(DevicesError::Socket)?;
            // SAFETY: the socket owns its file descriptor and keeps it until it is dropped.
            let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }
                .map_err(|error| DevicesError::Socket(error.into()))?;
            let wanted = Arc::new(Mutex::new(wanted.clone()));
            let key = key(identity);
            let listener = listen(socket, key, Arc::clone(&wanted), Arc::clone(&self.told));
            let listener = tokio::spawn(listener);
            self.followed.insert(key, Followed { wanted, listener });
            more = true;
        }
        Ok(more)
    }

    /// Waits for a change of anything but addresses.
    pub(super) async fn changed(&self) {
        self.told.changed.notified().await;
    }

    /// Waits for addresses to come or go; answers of which devices.
    pub(super) async fn addressed(&self) -> BTreeSet<Device> {
        self.told.addressed.notified().await;
        std::mem::take(&mut *lock(&self.told.devices))
    }
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.set_non_blocking(true)?;
    socket.set_rx_buf_sz(BUFFER_BYTES)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    for group in GROUPS {
        socket.add_membership(group)?;
    }
    Ok(socket)
}

async fn listen(
    socket: AsyncFd<Socket>,
    namespace: (u64, u64),
    wanted: Arc<Mutex<Wanted>>,
    told: Arc<Told>,
) {
    loop {
        let Ok(mut ready) = socket.readable().await else {
            return;
        };
        match ready.try_io(|socket| socket.get_ref().recv_from_full()) {
            Ok(Ok((bytes, _))) => match news(&bytes, &lock(&wanted)) {
                News::More => told.changed.notify_one(),
                News::Addresses(indexes) if indexes.is_empty() => {}
                News::Addresses(indexes) => {
                    let devices = indexes.into_iter().map(|index| (namespace, index));
                    lock(&told.devices).extend(devices);
                    told.addressed.notify_one();
                }
            },
            Ok(Err(error)) => {
                // The buffer ran over: what was lost may have concerned us.
                if error.raw_os_error() != Some(libc::ENOBUFS) {
                    log::warn!("rtnetlink: {error}");
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                }
                told.changed.notify_one();
            }
            Err(_would_block) => {}
        }
    }
}

/// What a datagram tells of our devices.
fn news(datagram: &[u8], wanted: &Wanted) -> News {
    let mut rest = datagram;
    let mut addressed = BTreeSet::new();
    while !rest.is_empty() {
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) else {
            return News::More;
        };
        let ours = match &message.payload {
            NetlinkPayload::InnerMessage(
                RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link),
            ) => {
                wanted.indexes.contains(&link.header.index)
                    || vlan::below(link, "vlan")
                        .is_some_and(|index| wanted.indexes.contains(&index))
                    || link.attributes.iter().any(|attribute| match attribute {
                        LinkAttribute::IfName(name) => wanted.names.contains(name),
                        _ => false,
                    })
            }
            NetlinkPayload::InnerMessage(
                RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address),
            ) => {
                if wanted.indexes.contains(&address.header.index) {
                    addressed.insert(address.header.index);
                }
                false
            }
            // Where there is no tcx our filters go with their qdisc, or one by one.
            NetlinkPayload::InnerMessage(
                RouteNetlinkMessage::DelTrafficFilter(gone)
                | RouteNetlinkMessage::DelQueueDiscipline(gone),
            ) => {
                u32::try_from(gone.header.index).is_ok_and(|index| wanted.indexes.contains(&index))
            }
            _ => false,
        };
        let length = (message.header.length as usize).next_multiple_of(4);
        if ours || length == 0 {
            return News::More;
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    News::Addresses(addressed)
}

fn lock<T>(wanted: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing can panic between two writes of a value that is replaced as a whole.
    wanted.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::{
        address::AddressMessage,
        link::{InfoKind, LinkInfo, LinkMessage},
        tc::TcMessage,
    };

    fn datagram(messages: Vec<RouteNetlinkMessage>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for message in messages {
            let mut packet = NetlinkMessage::from(message);
            packet.finalize();
            let start = bytes.len();
            bytes.resize(start + packet.buffer_len().next_multiple_of(4), 0);
            packet.serialize(&mut bytes[start..]);
        }
        bytes
    }

    fn link(index: u32, name: &str) -> RouteNetlinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        RouteNetlinkMessage::NewLink(link)
    }

    /// A device of a kind that stands on the one with index `below`.
    fn above(kind: InfoKind, below: u32, elsewhere: bool) -> RouteNetlinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = 30;
        link.attributes = vec![
            LinkAttribute::Link(below),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]),
        ];
        if elsewhere {
            link.attributes.push(LinkAttribute::LinkNetNsId(1));
        }
        RouteNetlinkMessage::DelLink(link)
    }

    fn address(index: u32) -> RouteNetlinkMessage {
        let mut address = AddressMessage::default();
        address.header.index = index;
        RouteNetlinkMessage::DelAddress(address)
    }

    fn filter_gone(index: i32) -> RouteNetlinkMessage {
        RouteNetlinkMessage::DelTrafficFilter(TcMessage::with_index(index))
    }

    #[test]
    fn only_our_devices_concern_us() {
        let wanted = Wanted {
            names: ["eth0".to_owned()].into(),
            indexes: [7].into(),
        };
        let nothing = || News::Addresses(BTreeSet::new());
        let of_ours = || News::Addresses([7].into());
        for (messages, expected) in [
            (vec![link(9, "eth0")], News::More),
            (vec![link(7, "renamed")], News::More),
            (vec![link(9, "other")], nothing()),
            (vec![above(InfoKind::Vlan, 7, false)], News::More),
            (vec![above(InfoKind::Vlan, 9, false)], nothing()),
            (vec![above(InfoKind::Vlan, 7, true)], nothing()),
            // As the other end of a veth, wherever it is.
            (vec![above(InfoKind::Veth, 7, false)], nothing()),
            (vec![address(7)], of_ours()),
            (vec![address(9)], nothing()),
            (vec![link(9, "other"), address(7)], of_ours()),
            (vec![address(7), link(7, "renamed")], News::More),
            (vec![filter_gone(7)], News::More),
            (vec![filter_gone(9)], nothing()),
            (vec![], nothing()),
        ] {
            let text = format!("{messages:?}");
            assert_eq!(news(&datagram(messages), &wanted), expected, "{text}");
        }
        assert_eq!(news(&[1, 2, 3], &wanted), News::More, "what cannot be read");
    }
}
