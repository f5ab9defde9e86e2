//! Where the parser's limits lie: the last thing it takes and the first it refuses.

use proptest::prelude::*;
use sg_common::{
    conntrack::{Segment, tcp},
    family::{Family, Flow, V4, V6},
    host::{Bank, Host},
    layout::{Interface, Runtime, interface_flags},
    verdict::{Direction, DropReason, Verdict},
    wire::{
        self, ETHERNET, Frame, Payload, Window as _,
        ip::{Datagram, Parse, Place},
        transport,
    },
};

/// A packet that nothing has been read of.
fn unread<F: Family<Address: Default>>() -> Datagram<F> {
    Datagram {
        hash: 0,
        flow: Flow {
            owner: 0,
            ports: 0,
            local: Default::default(),
            remote: Default::default(),
        },
        segment: Segment::default(),
        transport: 0,
        length: 0,
        id: 0,
        source_port: 0,
        destination_port: 0,
        identifier: 0,
        fragment_offset: 0,
        first_fragment: false,
        protocol: 0,
        fragment_protocol: 0,
        hop_limit: 0,
        extended: false,
        router_alert: false,
    }
}

/// A frame that the kernel merged of several.
struct Merged<'a>(&'a [u8]);

impl<'a> Frame for Merged<'a> {
    type Window = &'a [u8];

    fn len(&self) -> u32 {
        self.0.len() as u32
    }

    fn merged(&self) -> bool {
        true
    }

    fn tagged(&self) -> bool {
        false
    }

    fn window<const LEN: usize>(&self, offset: usize) -> Option<&'a [u8]> {
        Frame::window::<LEN>(&self.0, offset)
    }
}

fn read_at<F: Parse<Address: Default>>(
    frame: &impl Frame,
    quoted: bool,
) -> Result<Datagram<F>, DropReason> {
    let mut datagram = unread();
    let place = Place {
        offset: ETHERNET,
        available: wire::ip::available(frame),
        quoted,
        direction: Direction::Ingress,
    };
    F::parse(frame, place, &mut datagram).map(|()| datagram)
}

fn read<F: Parse<Address: Default>>(frame: &[u8]) -> Result<Datagram<F>, DropReason> {
    read_at(&frame, false)
}

fn v4(protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let [total_high, total_low] = (20 + payload.len() as u16).to_be_bytes();
    let [fragment_high, fragment_low] = fragment.to_be_bytes();
    let mut frame = vec![0; 12];
    frame.extend([0x08, 0x00, 0x45, 0, total_high, total_low, 0x12, 0x34]);
    frame.extend([fragment_high, fragment_low, 64, protocol, 0, 0]);
    frame.extend([198, 51, 100, 20, 10, 1, 0, 10]);
    frame.extend(payload);
    frame
}

fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend((payload.len() as u16).to_be_bytes());
    frame.extend([next, 64]);
    frame.extend([0x20, 1, 0xd, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    frame.extend([0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    frame.extend(payload);
    frame
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const NONE: u8 = 59;
const DESTINATION: u8 = 60;

/// An extension header of `bytes` bytes, eight of which are counted as 0.
fn extension(next: u8, bytes: usize) -> Vec<u8> {
    let mut header = vec![0; bytes];
    header[0] = next;
    header[1] = (bytes / 8 - 1) as u8;
    header
}

#[test]
fn a2_a4_ethernet_carries_what_is_listed() {
    let frame = |kind: u16| [&[0; 12][..], &kind.to_be_bytes()].concat();
    for (kind, expected) in [
        (0x0800, Ok(Payload::Ipv4)),
        (0x86dd, Ok(Payload::Ipv6)),
        (0x0806, Ok(Payload::Arp)),
        (0x8100, Err(DropReason::VlanTag)),
        (0x88a8, Err(DropReason::VlanTag)),
        (0x9100, Err(DropReason::VlanTag)),
        (0x9200, Err(DropReason::VlanTag)),
        (0x8864, Err(DropReason::Ethertype)),
    ] {
        assert_eq!(wire::ethernet(&&frame(kind)[..]), expected);
    }
    assert_eq!(
        wire::ethernet(&&frame(0x0800)[..13]),
        Err(DropReason::Truncated)
    );
}

#[test]
fn a3_a_tag_in_metadata_is_a_tag() {
    struct Tagged(Vec<u8>);
    impl Frame for Tagged {
        type Window = &'static [u8];
        fn len(&self) -> u32 {
            self.0.len() as u32
        }
        fn merged(&self) -> bool {
            false
        }
        fn tagged(&self) -> bool {
            true
        }
        fn window<const LEN: usize>(&self, _: usize) -> Option<&'static [u8]> {
            Some(&[0; LEN])
        }
    }
    assert_eq!(
        wire::ethernet(&Tagged(v4(UDP, 0, &[]))),
        Err(DropReason::VlanTag)
    );
}

#[test]
fn windows_end_with_the_frame() {
    let frame: &[u8] = &[1, 2, 3, 4, 5];
    assert_eq!(
        frame.window::<4>(1).map(|window| window.u32(0)),
        Some(0x0203_0405)
    );
    assert_eq!(frame.window::<5>(1), None);
    assert_eq!(frame.window::<1>(5), None);
    assert_eq!(frame.window::<4>(usize::MAX), None);
    assert_eq!(wire::ip::available(&frame), 0);
    assert!(!Frame::is_empty(&frame));
}

#[test]
fn a6_c1_ipv4_lengths() {
    let whole = read::<V4>(&v4(UDP, 0, &[0; 8])).unwrap();
    assert_eq!((whole.transport, whole.length), (34, 8));
    // Padding is not part of the packet; a byte less than stated is too few, unless it is quoted.
    let padded = [v4(UDP, 0, &[0; 8]), vec![0; 18]].concat();
    assert_eq!(read::<V4>(&padded).unwrap().length, 8);
    let mut short = v4(UDP, 0, &[0; 8]);
    short.pop();
    assert_eq!(read::<V4>(&short).unwrap_err(), DropReason::IpTotalLength);
    assert_eq!(read_at::<V4>(&&short[..], true).unwrap().length, 8);
    assert_eq!(read::<V4>(&short[..33]).unwrap_err(), DropReason::Truncated);
    // What a merged frame does not state, it has.
    let mut merged = v4(UDP, 0, &[0; 100]);
    merged[16..18].fill(0);
    assert_eq!(read::<V4>(&merged).unwrap_err(), DropReason::IpTotalLength);
    assert_eq!(read_at::<V4>(&Merged(&merged), false).unwrap().length, 100);
}

#[test]
fn ipv4_fragments() {
    // DF is no fragment; MF alone is the first; an offset counts eights.
    for (field, first, offset) in [
        (0x4000, false, 0),
        (0x2000, true, 0),
        (0x2001, false, 8),
        (0x1fff, false, 65_528),
    ] {
        let datagram = read::<V4>(&v4(UDP, field, &[0; 8])).unwrap();
        assert_eq!(datagram.first_fragment, first);
        assert_eq!(datagram.fragment_offset, offset);
        assert_eq!(datagram.later_fragment(), offset != 0);
        assert_eq!(datagram.id, 0x1234);
    }
}

#[test]
fn c2_the_router_alert_of_igmp_is_the_only_option() {
    let optional = |protocol: u8, words: u8, options: &[u8]| {
        let mut frame = v4(protocol, 0, &[options, &[0; 8]].concat());
        frame[14] = 0x40 | words;
        read::<V4>(&frame)
    };
    let alert = [0x94, 4, 0, 0];
    let igmp = optional(2, 6, &alert).unwrap();
    assert_eq!((igmp.transport, igmp.length), (38, 8));
    for refused in [
        optional(UDP, 6, &alert),
        optional(2, 6, &[0x94, 4, 0, 1]),
        optional(2, 6, &[1; 4]),
        optional(2, 7, &[&alert[..], &[0; 4]].concat()),
    ] {
        assert_eq!(refused.unwrap_err(), DropReason::IpOptions);
    }
}

#[test]
fn a6_e11_ipv6_lengths() {
    let whole = read::<V6>(&v6(UDP, &[0; 8])).unwrap();
    assert_eq!(
        (whole.transport, whole.length, whole.extended),
        (54, 8, false)
    );
    let mut short = v6(UDP, &[0; 8]);
    short.pop();
    assert_eq!(read::<V6>(&short).unwrap_err(), DropReason::IpTotalLength);
    assert_eq!(read_at::<V6>(&&short[..], true).unwrap().length, 8);
    let mut merged = v6(TCP, &[0; 100]);
    merged[18..20].fill(0);
    assert_eq!(read::<V6>(&merged).unwrap_err(), DropReason::IpTotalLength);
    assert_eq!(read_at::<V6>(&Merged(&merged), false).unwrap().length, 100);
    assert_eq!(
        read::<V6>(&v6(UDP, &[])).unwrap_err(),
        DropReason::IpTotalLength
    );
    assert_eq!(
        read::<V6>(&v6(NONE, &[])).unwrap_err(),
        DropReason::Ipv6NoNextHeader
    );
}

#[test]
fn e1_extension_headers_are_limited_in_number_and_bytes() {
    let chain = |count: usize| {
        let mut payload: Vec<u8> = (1..count).flat_map(|_| extension(DESTINATION, 8)).collect();
        payload.extend(extension(UDP, 8));
        payload.extend([0; 8]);
        v6(DESTINATION, &payload)
    };
    let longest = read::<V6>(&chain(8)).unwrap();
    assert_eq!((longest.transport, longest.length), (54 + 64, 8));
    assert!(longest.extended);
    assert_eq!(
        read::<V6>(&chain(9)).unwrap_err(),
        DropReason::Ipv6Extension
    );

    let long = |bytes: usize| v6(DESTINATION, &[extension(UDP, bytes), vec![0; 8]].concat());
    assert_eq!(read::<V6>(&long(256)).unwrap().transport, 54 + 256);
    assert_eq!(
        read::<V6>(&long(264)).unwrap_err(),
        DropReason::Ipv6Extension
    );
}

#[test]
fn e5_extension_headers_end_within_the_packet() {
    let mut header = extension(UDP, 16);
    assert_eq!(read::<V6>(&v6(DESTINATION, &header)).unwrap().length, 0);
    header[1] = 2;
    assert_eq!(
        read::<V6>(&v6(DESTINATION, &header)).unwrap_err(),
        DropReason::Ipv6Extension
    );
    assert_eq!(
        read::<V6>(&v6(DESTINATION, &header[..7])).unwrap_err(),
        DropReason::Truncated
    );
}

#[test]
fn e6_extension_headers_have_their_places() {
    let behind = |first: u8, second: u8| {
        v6(
            first,
            &[extension(second, 8), extension(UDP, 8), vec![0; 8]].concat(),
        )
    };
    assert!(read::<V6>(&behind(HOP_BY_HOP, DESTINATION)).is_ok());
    for first in [DESTINATION, HOP_BY_HOP] {
        assert_eq!(
            read::<V6>(&behind(first, HOP_BY_HOP)).unwrap_err(),
            DropReason::Ipv6Extension
        );
    }
    let mut routed = extension(UDP, 8);
    assert!(read::<V6>(&v6(ROUTING, &routed)).is_ok());
    routed[3] = 1;
    assert_eq!(
        read::<V6>(&v6(ROUTING, &routed)).unwrap_err(),
        DropReason::Ipv6Routing
    );
}

#[test]
fn e2_authentication_headers_count_in_fours() {
    let mut header = vec![0; 24];
    header[..2].copy_from_slice(&[UDP, 4]);
    let datagram = read::<V6>(&v6(AUTHENTICATION, &[header, vec![0; 8]].concat())).unwrap();
    assert_eq!((datagram.transport, datagram.length), (54 + 24, 8));
}

#[test]
fn e10_ipv6_fragments() {
    let header = |next: u8, field: u16| {
        let [high, low] = field.to_be_bytes();
        [next, 0, high, low, 0xde, 0xad, 0xbe, 0xef]
    };
    let payload = |field| [&header(UDP, field)[..], &[0; 8]].concat();
    // Whole, first, last, in the middle; the reserved bits mean nothing.
    for (field, first, offset) in [
        (0, false, 0),
        (1, true, 0),
        (7, true, 0),
        (8, false, 8),
        (0xfff9, false, 65_528),
    ] {
        let datagram = read::<V6>(&v6(FRAGMENT, &payload(field))).unwrap();
        assert_eq!(datagram.first_fragment, first, "{field:#x}");
        assert_eq!(datagram.fragment_offset, offset);
        assert_eq!(datagram.id, 0xdead_beef);
        assert_eq!((datagram.protocol, datagram.transport), (UDP, 54 + 8));
    }
    // Behind a later one stands payload, whatever it looks like.
    let later = [&header(HOP_BY_HOP, 8)[..], &extension(UDP, 8)].concat();
    let datagram = read::<V6>(&v6(FRAGMENT, &later)).unwrap();
    assert_eq!((datagram.protocol, datagram.length), (HOP_BY_HOP, 8));
    let twice = [&header(FRAGMENT, 1)[..], &header(UDP, 1)].concat();
    assert_eq!(
        read::<V6>(&v6(FRAGMENT, &twice)).unwrap_err(),
        DropReason::Ipv6FragmentRepeated
    );
}

#[test]
fn a_router_alert_stands_alone() {
    let header = |rest: [u8; 6]| {
        let mut header = vec![58, 0];
        header.extend(rest);
        header
    };
    let alert = |payload: &[u8]| read::<V6>(&v6(HOP_BY_HOP, payload)).unwrap().router_alert;
    assert!(alert(&header([5, 2, 0, 0, 1, 0])));
    assert!(alert(&header([1, 0, 5, 2, 0, 0])));
    assert!(alert(&header([0, 0, 5, 2, 0, 0])));
    // Not for MLD, not a router alert, not alone.
    assert!(!alert(&header([5, 2, 0, 1, 1, 0])));
    assert!(!alert(&header([1, 4, 0, 0, 0, 0])));
    assert!(!alert(&header([5, 2, 0, 0, 17, 0])));
    assert!(!alert(&header([17, 0, 5, 2, 0, 0])));
    let mut long = extension(58, 16);
    long[2..6].copy_from_slice(&[5, 2, 0, 0]);
    assert!(!alert(&long));
    // Somewhere else it is none.
    let elsewhere = v6(DESTINATION, &header([5, 2, 0, 0, 1, 0]));
    assert!(!read::<V6>(&elsewhere).unwrap().router_alert);
}

fn tcp_header(words: u8, flags: u8) -> Vec<u8> {
    let mut header = vec![0x9c, 0x40, 0, 80, 0, 0, 0, 7, 0, 0, 0, 9, words << 4, flags];
    header.extend([0; 6]);
    header
}

fn transport(frame: &[u8]) -> Result<Datagram<V4>, DropReason> {
    let mut datagram = read::<V4>(frame)?;
    transport::parse(&frame, &mut datagram)?;
    Ok(datagram)
}

#[test]
fn h3_h16_tcp_headers() {
    let segment = [tcp_header(5, tcp::SYN), vec![0; 3]].concat();
    let datagram = transport(&v4(TCP, 0, &segment)).unwrap();
    assert_eq!(
        (datagram.source_port, datagram.destination_port),
        (40_000, 80)
    );
    let expected = Segment {
        flags: tcp::SYN,
        sequence: 7,
        acknowledgement: 9,
        payload: 3,
    };
    assert_eq!(datagram.segment, expected);
    // Options to the last byte, and one word more.
    let options = |words| [tcp_header(words, tcp::ACK), vec![0; 40]].concat();
    assert_eq!(
        transport(&v4(TCP, 0, &options(15)))
            .unwrap()
            .segment
            .payload,
        0
    );
    let refused = |payload: &[u8], fragment| transport(&v4(TCP, fragment, payload)).unwrap_err();
    assert_eq!(refused(&options(15)[..59], 0), DropReason::TcpHeader);
    assert_eq!(refused(&options(4), 0), DropReason::TcpHeader);
    assert_eq!(refused(&options(5)[..19], 0), DropReason::Truncated);
    // In a first fragment it is an evasion.
    assert_eq!(
        refused(&options(15)[..59], 0x2000),
        DropReason::FragmentTiny
    );
    assert_eq!(refused(&options(5)[..19], 0x2000), DropReason::FragmentTiny);
    assert_eq!(refused(&options(4), 0x2000), DropReason::TcpHeader);
    assert_eq!(refused(&tcp_header(5, 0), 0), DropReason::TcpFlags);
}

#[test]
fn a6_a_header_that_only_padding_completes_is_not_there() {
    for (protocol, least) in [(TCP, 20), (UDP, 8), (1, 8)] {
        let mut header = tcp_header(5, tcp::SYN);
        header.truncate(least - 1);
        let padded = [v4(protocol, 0, &header), vec![0; 40]].concat();
        assert_eq!(transport(&padded).unwrap_err(), DropReason::Truncated);
    }
}

#[test]
fn g4_quotes_need_eight_bytes() {
    let frame = v4(UDP, 0, &[0, 1, 0, 2, 0, 0, 0, 0]);
    let quote = |frame: &[u8]| {
        let mut datagram = read_at::<V4>(&frame, true).unwrap();
        transport::parse_quoted(&frame, &mut datagram)
            .map(|()| (datagram.source_port, datagram.destination_port))
    };
    assert_eq!(quote(&frame), Ok((1, 2)));
    assert_eq!(quote(&frame[..frame.len() - 1]), Err(DropReason::IcmpQuote));
    let other = v4(47, 0, &[1; 8]);
    assert_eq!(quote(&other), Ok((0, 0)));
}

/// A host that lets nothing pass but what always passes, on interface 1.
fn closed() -> Host {
    let runtime = Runtime {
        hz: 100,
        buckets: [1, 1],
        allowance: 1,
        shared: 1,
        unassured: 1,
        ..Runtime::ZERO
    };
    let mut host = Host::new(runtime);
    host.banks[0] = Bank {
        interfaces: vec![
            Interface::ZERO,
            Interface {
                flags: interface_flags::PRESENT,
                ..Interface::ZERO
            },
        ],
        ..Bank::default()
    };
    host
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// Neither a panic nor, but for the always-passed, a pass.
    #[test]
    fn a1_bytes_of_any_kind_are_judged(
        kind in prop_oneof![Just(0x0800_u16), Just(0x86dd), Just(0x0806), any::<u16>()],
        first in prop_oneof![Just(0x45_u8), Just(0x60), any::<u8>()],
        next in prop_oneof![Just(TCP), Just(UDP), Just(1_u8), Just(58), Just(HOP_BY_HOP), Just(FRAGMENT), any::<u8>()],
        mut rest in proptest::collection::vec(any::<u8>(), 0..200),
        ingress in any::<bool>(),
    ) {
        let stated = rest.len() as u16;
        for (offset, byte) in [(0, first), (2, (stated >> 8) as u8), (3, stated as u8), (6, next), (9, next)] {
            if let Some(place) = rest.get_mut(offset) {
                *place = byte;
            }
        }
        if first == 0x60 && rest.len() >= 40 {
            rest[4..6].copy_from_slice(&(stated - 40).to_be_bytes());
        }
        let frame = [&[0; 12][..], &kind.to_be_bytes(), &rest].concat();
        match closed().judge(&frame, 1, ingress) {
            Verdict::Drop(_) => {}
            Verdict::Pass(kind) => {
                let always = ["arp", "neighbor_discovery", "router_advertisement"];
                prop_assert!(always.contains(&kind.name()), "{kind:?}");
            }
        }
    }

    /// What is read lies within the packet.
    #[test]
    fn a1_what_is_read_is_there(next in any::<u8>(), payload in proptest::collection::vec(any::<u8>(), 1..300)) {
        let frame = v6(next, &payload);
        if let Ok(datagram) = read::<V6>(&frame) {
            prop_assert_eq!((datagram.transport + datagram.length) as usize, frame.len());
            prop_assert!(datagram.transport >= 54);
        }
        let frame = v4(next, 0, &payload);
        if let Ok(datagram) = read::<V4>(&frame) {
            prop_assert_eq!((datagram.transport + datagram.length) as usize, frame.len());
        }
    }
}
