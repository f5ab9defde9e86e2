use netlink_packet_core::{DefaultNla, NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::conntrack::TCPFlags;

use super::*;

fn tuple(source: &str, destination: &str, parts: Vec<ProtoTuple>) -> Vec<Tuple> {
    vec![
        Tuple::Ip(vec![
            IPTuple::SourceAddress(source.parse().unwrap()),
            IPTuple::DestinationAddress(destination.parse().unwrap()),
        ]),
        Tuple::Proto(parts),
    ]
}

fn ports(number: u8, source: u16, destination: u16) -> Vec<ProtoTuple> {
    vec![
        ProtoTuple::Protocol(number.into()),
        ProtoTuple::SourcePort(source),
        ProtoTuple::DestinationPort(destination),
    ]
}

/// As the kernel sends them: `CTA_PROTO_ICMP_ID`, `_TYPE`, `_CODE`.
fn icmp(identifier: u16, kind: u8) -> Vec<ProtoTuple> {
    let identifier = identifier.to_be_bytes().to_vec();
    vec![
        ProtoTuple::Protocol(1.into()),
        ProtoTuple::Other(DefaultNla::new(4, identifier)),
        ProtoTuple::Other(DefaultNla::new(5, vec![kind])),
        ProtoTuple::Other(DefaultNla::new(6, vec![0])),
    ]
}

fn answer(attributes: Vec<ConntrackAttribute>) -> NetfilterMessage {
    let header = NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0);
    NetfilterMessage::new(header, ConntrackMessage::New(attributes))
}

/// A connection through DNAT and SNAT, in a state and with the flags of both sides.
fn connection(state: u8, flags: [u8; 2]) -> NetfilterMessage {
    let [original, reply] = flags.map(|flags| TCPFlags::parse(&[flags, 0]).unwrap());
    answer(vec![
        ConntrackAttribute::CtaTupleOrig(tuple("192.0.2.1", "198.51.100.1", ports(6, 40_000, 80))),
        ConntrackAttribute::CtaTupleReply(tuple("10.0.0.5", "10.0.0.1", ports(6, 8080, 50_000))),
        ConntrackAttribute::CtaStatus(Status::SeenReply | Status::Assured | Status::Confirmed),
        ConntrackAttribute::CtaTimeout(431_999),
        ConntrackAttribute::CtaProtoInfo(vec![ProtoInfo::TCP(vec![
            ProtoInfoTCP::State(state),
            ProtoInfoTCP::OriginalFlags(original),
            ProtoInfoTCP::ReplyFlags(reply),
        ])]),
        ConntrackAttribute::Other(DefaultNla::new(11, vec![0; 4])),
    ])
}

fn bytes_of(message: &NetfilterMessage) -> Vec<u8> {
    let mut packet = NetlinkMessage::from(message.clone());
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    bytes
}

fn parsed(bytes: &[u8]) -> Option<NetfilterMessage> {
    match NetlinkMessage::deserialize(bytes).ok()?.payload {
        NetlinkPayload::InnerMessage(message) => Some(message),
        _ => None,
    }
}

#[test]
fn both_sides_of_a_translation_are_read() {
    let message = parsed(&bytes_of(&connection(3, [0x23, 0x23]))).unwrap();
    let found = understand(&message).unwrap();
    let ends = |source: &str, source_port, destination: &str, destination_port| Ends {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        source_port,
        destination_port,
    };
    assert_eq!(
        found,
        Tracked {
            protocol: 6,
            original: ends("192.0.2.1", 40_000, "198.51.100.1", 80),
            reply: ends("10.0.0.5", 8080, "10.0.0.1", 50_000),
            replied: true,
            assured: true,
            expires: 431_999,
            tcp: Tcp::Established,
        }
    );
}

#[test]
fn states_of_tcp_are_those_of_the_kernel() {
    let of = |state, flags| understand(&connection(state, flags)).unwrap().tcp;
    for (state, expected) in [
        (0, Tcp::Opening),
        (1, Tcp::Opening),
        (2, Tcp::Answered),
        (3, Tcp::Established),
        (4, Tcp::Closing(None)),
        (5, Tcp::Closing(None)),
        (6, Tcp::LastAck),
        (7, Tcp::Closed),
        (8, Tcp::Closed),
        (9, Tcp::Opening),
        (200, Tcp::Opening),
    ] {
        assert_eq!(of(state, [0, 0]), expected, "{state}");
    }
    assert_eq!(of(4, [CLOSE_INIT, 0]), Tcp::Closing(Some(Opener::Yes)));
    assert_eq!(of(5, [0, CLOSE_INIT]), Tcp::Closing(Some(Opener::No)));
}

#[test]
fn an_echo_goes_by_its_identifier_and_no_other_icmp_is_a_flow() {
    let of = |kind, back| {
        understand(&answer(vec![
            ConntrackAttribute::CtaTupleOrig(tuple("10.0.0.1", "10.0.0.2", icmp(77, kind))),
            ConntrackAttribute::CtaTupleReply(tuple("10.0.0.2", "10.0.0.1", icmp(77, back))),
        ]))
    };
    let echo = of(8, 0).unwrap();
    assert_eq!((echo.protocol, echo.original.source_port), (1, 77));
    assert_eq!(of(13, 14), None);
}

#[test]
fn protocols_without_ports_here_have_none() {
    let found = understand(&answer(vec![
        ConntrackAttribute::CtaTupleOrig(tuple("10.0.0.1", "10.0.0.2", ports(132, 5, 6))),
        ConntrackAttribute::CtaTupleReply(tuple("10.0.0.2", "10.0.0.1", ports(132, 6, 5))),
    ]));
    let ends = found.unwrap().original;
    assert_eq!((ends.source_port, ends.destination_port), (0, 0));
}

#[test]
fn what_is_no_flow_is_none() {
    let (one, other) = ("10.0.0.1", "10.0.0.2");
    let original = ConntrackAttribute::CtaTupleOrig(tuple(one, other, ports(6, 1, 2)));
    let reply = ConntrackAttribute::CtaTupleReply(tuple(other, one, ports(6, 2, 1)));
    let short = vec![
        ProtoTuple::Protocol(1.into()),
        ProtoTuple::Other(DefaultNla::new(4, vec![1])),
    ];
    for attributes in [
        vec![],
        vec![original.clone()],
        vec![reply.clone()],
        vec![original.clone(), ConntrackAttribute::CtaTupleReply(vec![])],
        vec![
            original.clone(),
            ConntrackAttribute::CtaTupleReply(tuple(other, one, ports(17, 2, 1))),
        ],
        vec![
            original.clone(),
            ConntrackAttribute::CtaTupleReply(tuple("::1", one, ports(6, 2, 1))),
        ],
        vec![
            original.clone(),
            ConntrackAttribute::CtaTupleReply(tuple(other, one, short)),
        ],
        vec![
            original,
            reply,
            ConntrackAttribute::CtaStatus(Status::Dying),
        ],
    ] {
        assert_eq!(
            understand(&answer(attributes.clone())),
            None,
            "{attributes:?}"
        );
    }
    let header = NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0);
    let get = NetfilterMessage::new(header, ConntrackMessage::Get(vec![]));
    assert_eq!(understand(&get), None);
}

/// Cut short anywhere, and with any byte another: it is understood or not, and nobody stumbles.
#[test]
fn damaged_messages_are_refused_or_understood() {
    let whole = bytes_of(&connection(3, [0, 0]));
    let mut understood = 0;
    for end in 0..whole.len() {
        if let Some(message) = parsed(&whole[..end]) {
            understand(&message);
        }
        for value in [0, 1, 0x7f, 0xff] {
            let mut damaged = whole.clone();
            damaged[end] = value;
            if let Some(message) = parsed(&damaged) {
                understood += usize::from(understand(&message).is_some());
            }
        }
    }
    assert!(understood > 0, "ports may be anything");
}
