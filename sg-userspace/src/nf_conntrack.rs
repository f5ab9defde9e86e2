//! What netfilter tracks in a network namespace, read by ctnetlink
//! (`include/uapi/linux/netfilter/nfnetlink_conntrack.h`).

use std::{fs, net::IpAddr};

use netlink_packet_core::Nla;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    conntrack::{
        ConntrackAttribute, ConntrackMessage, IPTuple, ProtoInfo, ProtoInfoTCP, ProtoTuple, Status,
        Tuple,
    },
};
use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::{
    model::protocol,
    netlink::{self, NetlinkError},
};

/// A flow that netfilter tracks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// IP protocol number.
    pub protocol: u8,
    /// The opener's packets, as they come in before any translation.
    pub original: Ends,
    /// The answers, as they come in before it is undone.
    pub reply: Ends,
    /// Both sides have sent something.
    pub replied: bool,
    /// `IPS_ASSURED`: TCP whose handshake is complete, a UDP stream, and the like.
    pub assured: bool,
    /// Seconds that netfilter keeps it if nothing more comes.
    pub expires: u32,
    /// How far TCP is.
    pub tcp: Tcp,
}

/// Where a packet comes from and goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// Source port, or the identifier of an echo; 0 where there is none.
    pub source_port: u16,
    /// Destination port, or the identifier of an echo; 0 where there is none.
    pub destination_port: u16,
}

/// How far a TCP flow is: `enum tcp_conntrack` of `include/uapi/linux/netfilter/nf_conntrack_tcp.h`, as far as it
/// matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tcp {
    /// Nobody has answered; or it is no TCP.
    #[default]
    Opening,
    /// SYN and SYN+ACK were seen.
    Answered,
    /// It is open.
    Established,
    /// One side has sent FIN; which, if it is known.
    Closing(Option<Opener>),
    /// Both have, and not both are acknowledged.
    LastAck,
    /// It is over.
    Closed,
}

/// Whether the opener of a flow is meant, or the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opener {
    /// It sent the first packet.
    Yes,
    /// It did not.
    No,
}

/// Why the table cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the table of nf_conntrack")]
pub struct NfConntrackError(#[from] NetlinkError);

/// Flows of the calling thread's namespace; `None` where nothing is tracked, be it that the kernel has no
/// nf_conntrack. It is not asked then, which would load it.
///
/// # Errors
/// [`NfConntrackError`].
pub fn read() -> Result<Option<Vec<Tracked>>, NfConntrackError> {
    let count = fs::read_to_string(COUNT).ok();
    let count = count.and_then(|text| text.trim().parse::<u32>().ok());
    if count.unwrap_or(0) == 0 {
        return Ok(None);
    }
    let mut found = Vec::new();
    netlink::each(NETLINK_NETFILTER, question(), |answer| {
        found.extend(understand(&answer));
    })?;
    Ok(Some(found))
}

/// How many flows the calling thread's namespace has: there wherever nf_conntrack is.
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

/// `IPCTNL_MSG_CT_GET` for both families.
fn question() -> NetfilterMessage {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0);
    NetfilterMessage::new(header, ConntrackMessage::Get(Vec::new()))
}

/// The flow that an answer describes; `None` if it lacks what makes a flow, or is one of which packets cannot be
/// told apart (ICMP other than echo).
fn understand(answer: &NetfilterMessage) -> Option<Tracked> {
    let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = &answer.inner else {
        return None;
    };
    let (mut original, mut reply) = (None, None);
    let (mut status, mut expires, mut tcp) = (Status::empty(), 0, Tcp::default());
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(tuple) => original = ends(tuple),
            ConntrackAttribute::CtaTupleReply(tuple) => reply = ends(tuple),
            ConntrackAttribute::CtaStatus(found) => status = *found,
            ConntrackAttribute::CtaTimeout(seconds) => expires = *seconds,
            ConntrackAttribute::CtaProtoInfo(infos) => tcp = tcp_of(infos),
            _ => {}
        }
    }
    let ((protocol, original), (other, reply)) = (original?, reply?);
    if protocol != other || status.intersects(Status::Dying | Status::Template) {
        return None;
    }
    Some(Tracked {
        protocol,
        original,
        reply,
        replied: status.contains(Status::SeenReply),
        assured: status.contains(Status::Assured),
        expires,
        tcp,
    })
}

/// Protocol and ends of a tuple.
fn ends(tuple: &[Tuple]) -> Option<(u8, Ends)> {
    let (mut source, mut destination, mut number) = (None, None, None);
    let (mut source_port, mut destination_port) = (0, 0);
    let (mut identifier, mut kind) = (0, None);
    for part in tuple {
        match part {
            Tuple::Ip(addresses) => {
                for address in addresses {
                    match address {
                        IPTuple::SourceAddress(address) => source = Some(*address),
                        IPTuple::DestinationAddress(address) => destination = Some(*address),
                        _ => {}
                    }
                }
            }
            Tuple::Proto(values) => {
                for value in values {
                    match value {
                        ProtoTuple::Protocol(found) => number = Some(u8::from(*found)),
                        ProtoTuple::SourcePort(port) => source_port = *port,
                        ProtoTuple::DestinationPort(port) => destination_port = *port,
                        ProtoTuple::Other(other) => match other.kind() {
                            ICMP_ID | ICMPV6_ID => identifier = u16::from_be_bytes(bytes(other)?),
                            ICMP_TYPE | ICMPV6_TYPE => kind = Some(bytes::<1>(other)?[0]),
                            _ => {}
                        },
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let (source, destination, number) = (source?, destination?, number?);
    if source.is_ipv4() != destination.is_ipv4() {
        return None;
    }
    match (number, kind) {
        (protocol::ICMP, Some(0 | 8)) if source.is_ipv4() => {
            (source_port, destination_port) = (identifier, identifier);
        }
        (protocol::ICMPV6, Some(128 | 129)) if source.is_ipv6() => {
            (source_port, destination_port) = (identifier, identifier);
        }
        (protocol::ICMP, _) if source.is_ipv4() => return None,
        (protocol::ICMPV6, _) if source.is_ipv6() => return None,
        (protocol::TCP | protocol::UDP, _) => {}
        // Ours go by addresses there.
        _ => (source_port, destination_port) = (0, 0),
    }
    let ends = Ends {
        source,
        destination,
        source_port,
        destination_port,
    };
    Some((number, ends))
}

/// `CTA_PROTO_ICMP_ID`, `_ICMP_TYPE`, `_ICMPV6_ID`, `_ICMPV6_TYPE`.
const ICMP_ID: u16 = 4;
const ICMP_TYPE: u16 = 5;
const ICMPV6_ID: u16 = 7;
const ICMPV6_TYPE: u16 = 8;

/// The value of an attribute of exactly this length.
fn bytes<const LENGTH: usize>(attribute: &impl Nla) -> Option<[u8; LENGTH]> {
    if attribute.value_len() != LENGTH {
        return None;
    }
    let mut value = [0; LENGTH];
    attribute.emit_value(&mut value);
    Some(value)
}

fn tcp_of(infos: &[ProtoInfo]) -> Tcp {
    let (mut state, mut first) = (0, None);
    for info in infos {
        let ProtoInfo::TCP(values) = info else {
            continue;
        };
        for value in values {
            match value {
                ProtoInfoTCP::State(found) => state = *found,
                ProtoInfoTCP::OriginalFlags(set) if set.flags & CLOSE_INIT != 0 => {
                    first = Some(Opener::Yes);
                }
                ProtoInfoTCP::ReplyFlags(set) if set.flags & CLOSE_INIT != 0 => {
                    first = Some(Opener::No);
                }
                _ => {}
            }
        }
    }
    match state {
        2 => Tcp::Answered,
        3 => Tcp::Established,
        4 | 5 => Tcp::Closing(first),
        6 => Tcp::LastAck,
        7 | 8 => Tcp::Closed,
        _ => Tcp::Opening,
    }
}

/// `IP_CT_TCP_FLAG_CLOSE_INIT`: this side was the first to send FIN.
const CLOSE_INIT: u8 = 0x04;

#[cfg(test)]
mod tests;
