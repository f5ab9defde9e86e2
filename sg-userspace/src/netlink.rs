//! One netlink request and its answers, synchronously.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Why the kernel did not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetlinkError {
    /// The socket failed.
    #[error("netlink socket")]
    Socket(#[source] io::Error),
    /// The kernel refused.
    #[error("netlink request")]
    Refused(#[source] io::Error),
    /// The answer cannot be read.
    #[error("netlink answer cannot be read: {what}")]
    Malformed {
        /// What is wrong.
        what: String,
    },
}

/// Whether one object is asked for or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    One,
    All,
    /// Those that the message's header names; of a kernel that cannot tell them apart (before Linux 4.20) all.
    Named,
}

/// Sends `message` in the calling thread's network namespace and returns all answers.
pub(crate) fn request<T>(protocol: isize, message: T, scope: Scope) -> Result<Vec<T>, NetlinkError>
where
    T: NetlinkSerializable + NetlinkDeserializable,
    NetlinkPayload<T>: From<T>,
{
    Requests::open(protocol)?.ask(message, scope)
}

/// The same for all objects, of which there may be more than should be held: hands each answer over as it comes.
pub(crate) fn each<T>(protocol: isize, message: T, take: impl FnMut(T)) -> Result<(), NetlinkError>
where
    T: NetlinkSerializable + NetlinkDeserializable,
    NetlinkPayload<T>: From<T>,
{
    Requests::open(protocol)?.ask_each(message, Scope::All, take)
}

/// Asks for a change in the calling thread's network namespace, with more flags, and waits for it.
pub(crate) fn change<T>(protocol: isize, message: T, flags: u16) -> Result<(), NetlinkError>
where
    T: NetlinkSerializable + NetlinkDeserializable,
    NetlinkPayload<T>: From<T>,
{
    let mut requests = Requests::open(protocol)?;
    requests.exchange(message, NLM_F_ACK | flags, drop)
}

/// Requests to the network namespace that the calling thread was in when they began, one after the other.
pub(crate) struct Requests {
    socket: Socket,
    protocol: isize,
    sequence: u32,
    interrupted: bool,
}

impl Requests {
    pub(crate) fn open(protocol: isize) -> Result<Self, NetlinkError> {
        let socket = Socket::new(protocol).map_err(NetlinkError::Socket)?;
        socket
            .connect(&SocketAddr::new(0, 0))
            .map_err(NetlinkError::Socket)?;
        Ok(Self {
            socket,
            protocol,
            sequence: 0,
            interrupted: false,
        })
    }

    /// Sends `message` and returns all answers.
    pub(crate) fn ask<T>(&mut self, message: T, scope: Scope) -> Result<Vec<T>, NetlinkError>
    where
        T: NetlinkSerializable + NetlinkDeserializable,
        NetlinkPayload<T>: From<T>,
    {
        let mut answers = Vec::new();
        self.ask_each(message, scope, |answer| answers.push(answer))?;
        Ok(answers)
    }

    fn ask_each<T>(
        &mut self,
        message: T,
        scope: Scope,
        take: impl FnMut(T),
    ) -> Result<(), NetlinkError>
    where
        T: NetlinkSerializable + NetlinkDeserializable,
        NetlinkPayload<T>: From<T>,
    {
        let flags = match scope {
            Scope::One => NLM_F_ACK,
            Scope::All | Scope::Named => NLM_F_DUMP,
        };
        if scope == Scope::Named {
            // Where it fails more is answered.
            let _ = self.socket.set_netlink_get_strict_chk(true);
        }
        self.exchange(message, flags, take)
    }

    /// Whether things came and went while the kernel listed them: the last answers may lack some.
    pub(crate) fn was_interrupted(&self) -> bool {
        self.interrupted
    }

    fn exchange<T>(
        &mut self,
        message: T,
        flags: u16,
        mut take: impl FnMut(T),
    ) -> Result<(), NetlinkError>
    where
        T: NetlinkSerializable + NetlinkDeserializable,
        NetlinkPayload<T>: From<T>,
    {
        self.sequence += 1;
        self.interrupted = false;
        let mut packet = NetlinkMessage::from(message);
        packet.header.flags = NLM_F_REQUEST | flags;
        packet.header.sequence_number = self.sequence;
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map_err(NetlinkError::Socket)?;

        loop {
            let (mut received, _) = self.socket.recv_from_full().map_err(NetlinkError::Socket)?;
            if self.protocol == NETLINK_ROUTE {
                leave_what_is_read(&mut received);
            }
            let mut rest = received.as_slice();
            while !rest.is_empty() {
                let answer = NetlinkMessage::<T>::deserialize(rest).map_err(|error| {
                    NetlinkError::Malformed {
                        what: error.to_string(),
                    }
                })?;
                let length = (answer.header.length as usize).next_multiple_of(4);
                self.interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
                match answer.payload {
                    // What is left of a request that failed.
                    _ if answer.header.sequence_number != self.sequence => {}
                    NetlinkPayload::InnerMessage(inner) => take(inner),
                    NetlinkPayload::Done(_) => return Ok(()),
                    // An error of code 0 is the acknowledgement.
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(()),
                    NetlinkPayload::Error(error) => {
                        return Err(NetlinkError::Refused(error.to_io()));
                    }
                    _ => {}
                }
                if length == 0 {
                    return Err(NetlinkError::Malformed {
                        what: "message of length 0".to_owned(),
                    });
                }
                rest = rest.get(length..).unwrap_or_default();
            }
            if received.is_empty() {
                return Err(NetlinkError::Malformed {
                    what: "empty datagram".to_owned(),
                });
            }
        }
    }
}

/// `RTM_NEWLINK` with the length of `struct ifinfomsg`, `RTM_NEWADDR` with that of `struct ifaddrmsg`, and the
/// attributes of each that are read: `IFLA_ADDRESS`, `_IFNAME`, `_MTU`, `_LINK`, `_LINKINFO`, `_LINK_NETNSID`; `IFA_ADDRESS`,
/// `IFA_LOCAL` (`include/uapi/linux/{rtnetlink,if_link,if_addr}.h`).
const READ: [(u16, usize, &[u16]); 2] = [(16, 16, &[1, 3, 4, 5, 18, 37]), (20, 8, &[1, 2])];
/// `IFLA_IFNAME`.
const NAME: u16 = 3;
/// An attribute that nobody knows, of any content; `NLA_TYPE_MASK` has as many bits.
const UNKNOWN: u16 = 0x3fff;

/// Keeps the parser from what is not read. Names, aliases and labels are bytes that the owner of any namespace
/// chooses; one that is no text would make the whole answer unreadable, and with it every change of the host.
fn leave_what_is_read(datagram: &mut [u8]) {
    let u16_at = |bytes: &[u8], at: usize| {
        let bytes = bytes.get(at..at + 2)?;
        Some(u16::from_ne_bytes(bytes.try_into().ok()?))
    };
    let mut start = 0;
    while let Some(header) = datagram.get(start..start + 16) {
        let length = u32::from_ne_bytes(header[..4].try_into().expect("four bytes")) as usize;
        let kind = u16_at(header, 4).unwrap_or_default();
        let Some(message) = datagram.get_mut(start..start.saturating_add(length)) else {
            return;
        };
        if length < 16 {
            return;
        }
        start += length.next_multiple_of(4);
        let Some((_, fixed, read)) = READ.iter().find(|(read, ..)| *read == kind) else {
            continue;
        };
        let mut at = 16 + fixed;
        while let (Some(length), Some(attribute)) = (u16_at(message, at), u16_at(message, at + 2)) {
            let (length, attribute) = (usize::from(length), attribute & UNKNOWN);
            let Some(value) = message.get_mut(at + 4..at + length) else {
                break;
            };
            if *read == READ[0].2 && attribute == NAME && std::str::from_utf8(value).is_err() {
                let foreign = value.iter_mut().filter(|byte| !byte.is_ascii());
                foreign.for_each(|byte| *byte = b'?');
            } else if !read.contains(&attribute) {
                message[at + 2..at + 4].copy_from_slice(&UNKNOWN.to_ne_bytes());
            }
            at += length.next_multiple_of(4);
        }
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::{
        RouteNetlinkMessage,
        address::{AddressAttribute, AddressMessage},
        link::{LinkAttribute, LinkMessage},
    };

    use super::*;

    fn bytes(message: RouteNetlinkMessage) -> Vec<u8> {
        let mut packet = NetlinkMessage::from(message);
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len().next_multiple_of(4)];
        packet.serialize(&mut bytes);
        bytes
    }

    fn parsed(bytes: &[u8]) -> Option<RouteNetlinkMessage> {
        match NetlinkMessage::deserialize(bytes).ok()?.payload {
            NetlinkPayload::InnerMessage(message) => Some(message),
            _ => None,
        }
    }

    #[test]
    fn names_that_are_no_text_do_not_make_an_answer_unreadable() {
        let mut link = LinkMessage::default();
        link.attributes = vec![
            LinkAttribute::IfName("name#".into()),
            LinkAttribute::Mtu(1400),
            LinkAttribute::IfAlias("alias#".into()),
        ];
        let mut address = AddressMessage::default();
        address.attributes = vec![
            AddressAttribute::Label("label#".into()),
            AddressAttribute::Local([10, 0, 0, 1].into()),
        ];
        let mut datagram = Vec::new();
        let messages = [
            RouteNetlinkMessage::NewLink(link),
            RouteNetlinkMessage::NewAddress(address),
        ];
        let parts = messages.map(bytes);
        let starts = [0, parts[0].len()];
        parts.iter().for_each(|part| datagram.extend(part));
        datagram
            .iter_mut()
            .filter(|byte| **byte == b'#')
            .for_each(|byte| *byte = 0xff);
        for start in starts {
            assert!(
                parsed(&datagram[start..]).is_none(),
                "it would be unreadable"
            );
        }
        leave_what_is_read(&mut datagram);
        let [
            Some(RouteNetlinkMessage::NewLink(link)),
            Some(RouteNetlinkMessage::NewAddress(address)),
        ] = starts.map(|start| parsed(&datagram[start..]))
        else {
            panic!("{datagram:?}");
        };
        assert!(
            link.attributes
                .contains(&LinkAttribute::IfName("name?".into()))
        );
        assert!(link.attributes.contains(&LinkAttribute::Mtu(1400)));
        let local = AddressAttribute::Local([10, 0, 0, 1].into());
        assert!(address.attributes.contains(&local));
        // Of any bytes there is none that it stumbles over.
        for end in 0..datagram.len() {
            leave_what_is_read(&mut datagram[..end].to_vec());
            let mut damaged = datagram.clone();
            damaged[end] = 0xff;
            leave_what_is_read(&mut damaged);
            damaged[end] = 0;
            leave_what_is_read(&mut damaged);
        }
    }
}
