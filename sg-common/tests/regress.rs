//! Packet sequences that went wrong once, each through the whole pipeline.

use std::sync::Barrier;

use sg_common::{
    conntrack::{
        Segment, Side, open,
        tcp::{ACK, FIN, RST, SYN},
    },
    family::{self, Family, V4, V6},
    host::Host,
    layout::{
        Class, Interface, Policy, Range, Runtime, Slice, TIMEOUT_DEFAULTS, interface_flags,
        policy_flags, slice,
    },
    table::{self, Inserted},
    verdict::{
        DropReason::{
            AddressSpoofed, FragmentOrphan, IcmpQuote, IpOptions, IpSource, MidStream, NoRule,
            Truncated,
        },
        PassKind::{
            Dhcp, Established, Fragment, NeighborDiscovery, New, Related, Service, TakenOver,
        },
        Verdict::{self, Drop, Pass},
    },
};

const HZ: u32 = 100;
/// The interface that everything here happens on.
const ID: u32 = 1;
const WORKLOAD: [u8; 4] = [10, 0, 0, 1];
const PEER: [u8; 4] = [10, 0, 0, 2];
/// Both ports are open to everybody in one direction, so that flows are tracked.
const LOCAL_PORT: u16 = 80;
const REMOTE_PORT: u16 = 443;
const SYN_ACK: u8 = SYN | ACK;

/// One interface; peers may reach `LOCAL_PORT`, the workload `REMOTE_PORT`, both IGMP.
fn host() -> Host {
    host_for(1365)
}

/// The same with room for `allowance` flows.
fn host_for(allowance: u32) -> Host {
    let mut host = Host::new(Runtime {
        hz: HZ,
        accounting: 1,
        buckets: [sg_common::abi::buckets(allowance); 2],
        allowance,
        shared: allowance,
        unassured: allowance / 4,
        seed: [7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47],
        ..Runtime::ZERO
    });
    let range = |port| Range {
        low: port,
        high: port,
        rule_set: 1,
    };
    let class = |first| {
        let mut class = Class::ZERO;
        class.slices[slice::TCP] = Slice {
            start: first,
            len: 1,
        };
        class.slices[slice::OTHER] = Slice { start: 2, len: 1 };
        class
    };
    let policy = |any_class| Policy {
        trie: sg_common::layout::NO_TRIE,
        any_class,
        scope: 0,
        flags: 0,
    };
    for bank in &mut host.banks {
        bank.classes = vec![Class::ZERO, class(0), class(1)];
        bank.ranges = vec![range(LOCAL_PORT), range(REMOTE_PORT), range(2)];
        bank.interfaces = vec![
            Interface::ZERO,
            Interface {
                flags: interface_flags::PRESENT | interface_flags::MLD,
                allowance,
                timeouts: TIMEOUT_DEFAULTS.map(|(_, seconds)| seconds * HZ),
                policy: [policy(1), policy(1), policy(2), policy(2)],
                ..Interface::ZERO
            },
        ];
    }
    host
}

/// An IPv4 packet in a frame.
fn ip4(
    protocol: u8,
    source: [u8; 4],
    destination: [u8; 4],
    options: &[u8],
    rest: &[u8],
) -> Vec<u8> {
    let header = 20 + options.len();
    let mut frame = vec![0; 12];
    frame.extend([0x08, 0x00]);
    frame.extend([0x40 | (header / 4) as u8, 0]);
    frame.extend(((header + rest.len()) as u16).to_be_bytes());
    frame.extend([0, 1, 0, 0, 64, protocol, 0, 0]);
    frame.extend(source);
    frame.extend(destination);
    frame.extend(options);
    frame.extend(rest);
    frame
}

fn segment(ports: (u16, u16), flags: u8, sequence: u32, ack: u32, payload: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(ports.0.to_be_bytes());
    bytes.extend(ports.1.to_be_bytes());
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(ack.to_be_bytes());
    bytes.extend([0x50, flags, 1, 0, 0, 0, 0, 0]);
    bytes.resize(20 + payload, 0);
    bytes
}

/// A TCP flow between the workload's `LOCAL_PORT` and a peer's port, or the reverse.
struct Flow<'a> {
    host: &'a Host,
    local: u16,
    remote: u16,
}

impl Flow<'_> {
    fn inbound(&self, flags: u8, sequence: u32, ack: u32, payload: usize) -> Verdict {
        let segment = segment((self.remote, self.local), flags, sequence, ack, payload);
        self.host
            .judge(&ip4(6, PEER, WORKLOAD, &[], &segment), ID, true)
    }

    fn outbound(&self, flags: u8, sequence: u32, ack: u32, payload: usize) -> Verdict {
        let segment = segment((self.local, self.remote), flags, sequence, ack, payload);
        self.host
            .judge(&ip4(6, WORKLOAD, PEER, &[], &segment), ID, false)
    }
}

/// A flow that the peer opened at 1000 and the workload answered at 5000.
fn established(host: &Host) -> Flow<'_> {
    let flow = Flow {
        host,
        local: LOCAL_PORT,
        remote: 40_000,
    };
    assert_eq!(flow.inbound(SYN, 1000, 0, 0), Pass(New));
    assert_eq!(flow.outbound(SYN_ACK, 5000, 1001, 0), Pass(Established));
    assert_eq!(flow.inbound(ACK, 1001, 5001, 0), Pass(Established));
    assert_eq!(host.interface_state(ID).unassured, 0);
    flow
}

#[test]
fn h5_forged_reset_ends_a_flow_that_has_been_idle_for_a_while() {
    let host = host();
    let flow = established(&host);
    host.set_now(301 * u64::from(HZ));
    assert_eq!(flow.inbound(RST, 77, 0, 0), Pass(Established));
    host.set_now(302 * u64::from(HZ));
    assert_eq!(flow.outbound(ACK, 5001, 1001, 10), Pass(Established));
    // Doubt is gone with that; if nothing else comes, 300 s after the reset it is over, and further
    // resets do not put it off.
    host.set_now(1000 * u64::from(HZ));
    assert_eq!(flow.inbound(RST, 77, 0, 0), Pass(Established));
    host.set_now(1200 * u64::from(HZ));
    assert_eq!(flow.inbound(RST, 78, 0, 0), Pass(Established));
    host.set_now(1300 * u64::from(HZ));
    assert_eq!(flow.outbound(ACK, 5011, 1001, 10), Drop(MidStream));
}

#[test]
fn h7_blind_acknowledgement_makes_a_half_open_flow_assured() {
    let host = host();
    let flow = Flow {
        host: &host,
        local: LOCAL_PORT,
        remote: 40_001,
    };
    assert_eq!(flow.inbound(SYN, 1000, 0, 0), Pass(New));
    assert_eq!(flow.outbound(SYN_ACK, 5000, 1001, 0), Pass(Established));
    // The opener's address is forged: it has not seen 5000, nor does the workload take the segment.
    assert_eq!(flow.inbound(ACK, 1001, 0x7000_0000, 0), Pass(Established));
    assert_eq!(flow.outbound(ACK, 5001, 1001, 0), Pass(Established));
    assert_eq!(host.interface_state(ID).unassured, 1);
    host.set_now(61 * u64::from(HZ));
    assert_eq!(flow.inbound(ACK, 1001, 5001, 0), Drop(MidStream));
}

#[test]
fn h15_fast_open_whose_data_is_taken_never_gets_established() {
    let host = host();
    let flow = Flow {
        host: &host,
        local: 40_002,
        remote: REMOTE_PORT,
    };
    assert_eq!(flow.outbound(SYN, 1000, 0, 300), Pass(New));
    assert_eq!(flow.inbound(SYN_ACK, 5000, 1301, 0), Pass(Established));
    assert_eq!(flow.inbound(ACK, 5001, 1301, 800), Pass(Established));
    assert_eq!(flow.outbound(ACK, 1301, 5801, 0), Pass(Established));
    assert_eq!(host.interface_state(ID).unassured, 0);
    host.set_now(130 * u64::from(HZ));
    assert_eq!(flow.outbound(ACK, 1301, 5801, 10), Pass(Established));
}

#[test]
fn h5_reset_with_number_zero_ends_a_flow_of_which_no_acknowledgement_is_known() {
    let host = host();
    let opening = open(6, 1, Side::Remote, Side::Remote, Segment::default(), 0);
    let key = family::Flow {
        owner: ID << 8 | 6,
        ports: u32::from(LOCAL_PORT) << 16 | 40_003,
        local: u32::from_ne_bytes(WORKLOAD),
        remote: u32::from_ne_bytes(PEER),
    };
    let hash = V4::hash(&key, &host.runtime.seed);
    let limits = host.banks[0].interfaces[ID as usize];
    let made = table::insert::<Host, V4>(&host.context(), &limits, hash, &key, &opening, true);
    assert_eq!(made, Inserted::Made);
    let flow = Flow {
        host: &host,
        local: LOCAL_PORT,
        remote: 40_003,
    };
    assert_eq!(flow.inbound(RST, 0, 0, 0), Pass(Established));
    host.set_now(11 * u64::from(HZ));
    assert_eq!(flow.outbound(ACK, 5001, 1001, 10), Pass(Established));
}

#[test]
fn one_of_two_fins_at_the_same_moment_is_lost() {
    const FLOWS: u16 = 400;
    let mut host = host();
    host.runtime.allowance = 100_000;
    host.runtime.shared = 100_000;
    for bank in &mut host.banks {
        bank.interfaces[ID as usize].allowance = 100_000;
    }
    let flows = |first: u16| (0..FLOWS).map(move |n| first + n);
    for round in 0..20 {
        let first = 1024 + round * FLOWS;
        let flow = |remote| Flow {
            host: &host,
            local: LOCAL_PORT,
            remote,
        };
        for port in flows(first) {
            assert_eq!(flow(port).inbound(SYN, 1000, 0, 0), Pass(New));
            flow(port).outbound(SYN_ACK, 5000, 1001, 0);
            flow(port).inbound(ACK, 1001, 5001, 0);
        }
        let meet = Barrier::new(2);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                for port in flows(first) {
                    meet.wait();
                    flow(port).inbound(FIN | ACK, 1001, 5001, 0);
                }
            });
            for port in flows(first) {
                meet.wait();
                flow(port).outbound(FIN | ACK, 5001, 1001, 0);
            }
        });
        for port in flows(first) {
            flow(port).inbound(ACK, 1002, 5002, 0);
            flow(port).outbound(ACK, 5002, 1002, 0);
        }
        // Both sides have closed: time-wait, or at worst last-ACK.
        host.set_now(u64::from(round + 1) * 1000 * u64::from(HZ));
        assert_eq!(host.sweep(), u32::from(FLOWS), "round {round}");
    }
}

#[test]
fn b2_workload_takes_an_address_over_by_soliciting_from_it() {
    let mut host = host();
    for bank in &mut host.banks {
        bank.interfaces[ID as usize].flags |=
            interface_flags::HOST | interface_flags::ADDRESSES_KNOWN;
        let own = family::address_key::<V6>(ID, &[0x2001_0db8_u32.to_be(), 0, 0, 1_u32.to_be()]);
        bank.addresses
            .insert((own.interface, own.family, own.address));
    }
    // Out of the workload, whose egress is the hook's ingress.
    let solicit = |last: [u8; 2], prefix: [u8; 4]| {
        let mut frame = vec![0; 12];
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 58, 255]);
        frame.extend(prefix);
        frame.extend([0; 10]);
        frame.extend(last);
        frame.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 9]);
        frame.extend([135, 0, 0, 0, 0, 0, 0, 0]);
        frame.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
        host.judge(&frame, ID, true)
    };
    let global = [0x20, 1, 0x0d, 0xb8];
    assert_eq!(solicit([0, 1], global), Pass(NeighborDiscovery));
    assert_eq!(solicit([0, 7], [0xfe, 0x80, 0, 0]), Pass(NeighborDiscovery));
    assert_eq!(solicit([0, 0], [0; 4]), Pass(NeighborDiscovery));
    assert_eq!(solicit([0, 2], global), Drop(AddressSpoofed));
}

#[test]
fn b5_rule_for_igmp_matches_nothing() {
    const ALERT: [u8; 4] = [0x94, 4, 0, 0];
    let host = host();
    let query = [0x11, 0, 0, 0, 0, 0, 0, 0];
    let ask = |source, options: &[u8], protocol| {
        let frame = ip4(protocol, source, [224, 0, 0, 1], options, &query);
        host.judge(&frame, ID, true)
    };
    assert_eq!(ask(PEER, &ALERT, 2), Pass(New));
    assert_eq!(ask([0; 4], &ALERT, 2), Pass(New));
    // Nothing else gets by with it.
    assert_eq!(ask(PEER, &[7, 4, 4, 0], 2), Drop(IpOptions));
    assert_eq!(ask(PEER, &[0x94, 4, 0, 0, 0, 0, 0, 0], 2), Drop(IpOptions));
    assert_eq!(ask(PEER, &ALERT, 17), Drop(IpOptions));
    assert_eq!(ask([0; 4], &[], 17), Drop(IpSource));
}

#[test]
fn b6_half_a_datagram_from_nowhere_passes_as_dhcp() {
    let mut host = host();
    for bank in &mut host.banks {
        bank.interfaces[ID as usize].flags |= interface_flags::DHCP;
    }
    let answer = |source, rest: &[u8]| host.judge(&ip4(17, source, WORKLOAD, &[], rest), ID, true);
    let whole = [0, 67, 0, 68, 0, 8, 0, 0];
    assert_eq!(answer(PEER, &whole), Pass(Dhcp));
    assert_eq!(answer(PEER, &whole[..4]), Drop(Truncated));
    assert_eq!(answer([127, 0, 0, 1], &whole), Drop(IpSource));
}

#[test]
fn b8_address_of_a_service_is_a_way_in() {
    const METADATA: [u8; 4] = [169, 254, 169, 254];
    let mut host = host();
    for bank in &mut host.banks {
        bank.interfaces[ID as usize].flags |= interface_flags::SERVICES;
        let service = family::address_key::<V4>(0, &u32::from_ne_bytes(METADATA));
        bank.addresses
            .insert((service.interface, service.family, service.address));
    }
    let from_service = |flags| {
        let segment = segment((80, 22), flags, 1, 1, 0);
        host.judge(&ip4(6, METADATA, WORKLOAD, &[], &segment), ID, true)
    };
    assert_eq!(from_service(SYN), Drop(NoRule));
    assert_eq!(from_service(SYN_ACK), Pass(Service));
    let ask = ip4(
        6,
        WORKLOAD,
        METADATA,
        &[],
        &segment((40_000, 80), SYN, 1, 0, 0),
    );
    assert_eq!(host.judge(&ask, ID, false), Pass(Service));
}

#[test]
fn g4_quote_is_read_from_the_padding_behind_an_error() {
    let host = host();
    let flow = established(&host);
    let quoted = ip4(
        6,
        WORKLOAD,
        PEER,
        &[],
        &segment((flow.local, flow.remote), ACK, 1, 1, 0),
    );
    let error = |quote: &[u8], padding: &[u8]| {
        let mut rest = vec![3, 1, 0, 0, 0, 0, 0, 0];
        rest.extend(quote);
        let mut frame = ip4(1, PEER, WORKLOAD, &[], &rest);
        frame.extend(padding);
        host.judge(&frame, ID, true)
    };
    // From the Ethernet header on 14 bytes; 20 of IP and 8 of TCP must be quoted.
    let (whole, short) = (&quoted[14..42], &quoted[14..38]);
    assert_eq!(error(whole, &[]), Pass(Related));
    assert_eq!(error(short, &quoted[38..42]), Drop(IcmpQuote));
}

/// 100,000 SYN a second from everywhere at an open port for three seconds, and a hundred clients whose
/// packets take 50 ms each way: none is refused or forgotten, with the table that a host has by default.
#[test]
fn h6_a_flood_of_syn_refuses_no_client() {
    const ALLOWANCE: u32 = 262_144;
    const FLOOD: u32 = 300_000;
    /// SYN between two packets of a client.
    const DELAY: u32 = 5_000;
    let host = host_for(ALLOWANCE);
    let mut waiting = std::collections::VecDeque::new();
    let mut finished = 0;
    for number in 0..FLOOD {
        // 100,000 a second at 100 jiffies a second.
        host.set_now(u64::from(number / 1000));
        let source = [11, (number >> 16) as u8, (number >> 8) as u8, number as u8];
        let ports = (1024 + (number % 60_000) as u16, LOCAL_PORT);
        let syn = ip4(6, source, WORKLOAD, &[], &segment(ports, SYN, number, 0, 0));
        assert_eq!(host.judge(&syn, ID, true), Pass(New), "SYN {number}");
        if number % 2_500 == 0 {
            let remote = 40_000 + (number / 2_500) as u16;
            waiting.push_back((number, remote, 0));
        }
        while waiting.front().is_some_and(|(due, ..)| *due <= number) {
            let (due, remote, step) = waiting.pop_front().expect("one is due");
            let client = Flow {
                host: &host,
                local: LOCAL_PORT,
                remote,
            };
            let (verdict, expected) = match step {
                0 => (client.inbound(SYN, 1000, 0, 0), New),
                1 => (client.outbound(SYN_ACK, 5000, 1001, 0), Established),
                2 => (client.inbound(ACK, 1001, 5001, 0), Established),
                _ => (client.outbound(ACK, 5001, 1001, 100), Established),
            };
            assert_eq!(verdict, Pass(expected), "client {remote}, packet {step}");
            if step == 3 {
                finished += 1;
            } else {
                waiting.push_back((due + DELAY, remote, step + 1));
            }
        }
    }
    let state = host.interface_state(ID);
    assert_eq!((state.refused, finished), (0, 114));
    assert!(state.replaced > 200_000, "{state:?}");
    assert!(
        state.unassured <= u64::from(ALLOWANCE) / 4 + 1000,
        "{state:?}"
    );
}

/// Nothing forgets a first fragment but the room that others take: half a turn of the clock later it must
/// not look like one of the future, and thereby of now.
#[test]
fn a_first_fragment_of_long_ago_lets_nothing_pass() {
    let host = host();
    let igmp = |flags: [u8; 2]| {
        let mut frame = ip4(2, PEER, WORKLOAD, &[], &[0; 64]);
        frame[20..22].copy_from_slice(&flags);
        frame
    };
    let (first, later) = (igmp([0x20, 0]), igmp([0, 8]));
    assert_eq!(host.judge(&first, ID, true), Pass(New));
    assert_eq!(host.judge(&later, ID, true), Pass(Fragment));
    for turn in [1_u64 << 30, 1 << 31, (1 << 31) + 1, 3 << 30] {
        host.set_now(turn);
        assert_eq!(host.judge(&later, ID, true), Drop(FragmentOrphan), "{turn}");
    }
}

/// The bank of the generation before is asked only while nobody writes it.
#[test]
fn nothing_is_handed_over_while_the_bank_is_written() {
    let mut host = host();
    for policy in &mut host.banks[0].interfaces[ID as usize].policy {
        policy.flags = policy_flags::OPEN_TCP;
    }
    host.set_generation(1);
    let flow = |host: &Host| {
        Flow {
            host,
            local: LOCAL_PORT,
            remote: 40_009,
        }
        .inbound(ACK, 1001, 5001, 0)
    };
    host.runtime.previous = 1;
    assert_eq!(flow(&host), Drop(MidStream));
    host.runtime.previous = 0;
    assert_eq!(flow(&host), Pass(TakenOver));
}
