//! One netlink request and its answers, synchronously.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};

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
}

/// Sends `message` in the calling thread's network namespace and returns all answers.
pub(crate) fn request<T>(protocol: isize, message: T, scope: Scope) -> Result<Vec<T>, NetlinkError>
where
    T: NetlinkSerializable + NetlinkDeserializable,
    NetlinkPayload<T>: From<T>,
{
    let flags = match scope {
        Scope::One => NLM_F_ACK,
        Scope::All => NLM_F_DUMP,
    };
    exchange(protocol, message, flags)
}

/// Asks for a change in the calling thread's network namespace, with more flags, and waits for it.
pub(crate) fn change<T>(protocol: isize, message: T, flags: u16) -> Result<(), NetlinkError>
where
    T: NetlinkSerializable + NetlinkDeserializable,
    NetlinkPayload<T>: From<T>,
{
    exchange(protocol, message, NLM_F_ACK | flags).map(drop)
}

fn exchange<T>(protocol: isize, message: T, flags: u16) -> Result<Vec<T>, NetlinkError>
where
    T: NetlinkSerializable + NetlinkDeserializable,
    NetlinkPayload<T>: From<T>,
{
    let socket = Socket::new(protocol).map_err(NetlinkError::Socket)?;
    socket
        .connect(&SocketAddr::new(0, 0))
        .map_err(NetlinkError::Socket)?;
    let mut packet = NetlinkMessage::from(message);
    packet.header.flags = NLM_F_REQUEST | flags;
    packet.header.sequence_number = 1;
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send(&bytes, 0).map_err(NetlinkError::Socket)?;

    let mut answers = Vec::new();
    loop {
        let (received, _) = socket.recv_from_full().map_err(NetlinkError::Socket)?;
        let mut rest = received.as_slice();
        while !rest.is_empty() {
            let answer = NetlinkMessage::<T>::deserialize(rest).map_err(|error| {
                NetlinkError::Malformed {
                    what: error.to_string(),
                }
            })?;
            let length = (answer.header.length as usize).next_multiple_of(4);
            match answer.payload {
                NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                NetlinkPayload::Done(_) => return Ok(answers),
                // An error of code 0 is the acknowledgement.
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(answers),
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
