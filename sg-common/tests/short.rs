//! What the short way of plain packets has to leave to the long one, each by a packet that both could take.

use sg_common::{
    conntrack::tcp::{ACK, FIN, RST, SYN},
    family::{Family, Flow, V4},
    host::Host,
    layout::{
        Account, CARRIED, CarriedKey, Class, Interface, Live, NO_TRIE, Policy, Range, Runtime,
        Slice, TIMEOUT_DEFAULTS, WAYS, interface_flags, policy_flags, slice,
    },
    table,
    tables::Tables as _,
    verdict::{
        DropReason::{
            AllowanceExceeded, DestinationForeign, IpDestination, IpSource, Land, MidStream,
            NoRule, Revoked,
        },
        PassKind::{Established, Fragment, New, Untracked},
        Verdict::{self, Drop, Pass},
    },
};

const HZ: u32 = 100;
/// The interface that everything here happens on.
const ID: u32 = 1;
const WORKLOAD: [u8; 4] = [10, 0, 0, 1];
const PEER: [u8; 4] = [10, 0, 0, 2];
/// Everybody may reach it, by TCP and UDP; the workload may reach nothing.
const PORT: u16 = 80;
const PEER_PORT: u16 = 40_000;

fn host() -> Host {
    let allowance = 1000;
    let mut host = Host::new(Runtime {
        hz: HZ,
        accounting: 1,
        buckets: [sg_common::abi::buckets(allowance); 2],
        allowance,
        shared: allowance,
        unassured: allowance / 4,
        seed: [7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47],
        previous: 5,
        ..Runtime::ZERO
    });
    let mut open = Class::ZERO;
    for protocol in [slice::TCP, slice::UDP] {
        open.slices[protocol] = Slice { start: 0, len: 1 };
    }
    let policy = |any_class| Policy {
        trie: NO_TRIE,
        any_class,
        scope: 0,
        flags: 0,
    };
    for bank in &mut host.banks {
        bank.classes = vec![Class::ZERO, open];
        bank.ranges = vec![Range {
            low: PORT,
            high: PORT,
            rule_set: 1,
        }];
        bank.interfaces = vec![
            Interface::ZERO,
            Interface {
                flags: interface_flags::PRESENT,
                allowance,
                timeouts: TIMEOUT_DEFAULTS.map(|(_, seconds)| seconds * HZ),
                policy: [policy(1), policy(1), policy(0), policy(0)],
                ..Interface::ZERO
            },
        ];
    }
    host
}

/// An IPv4 packet in a frame; `fragment` is the field of flags and offset.
fn frame(protocol: u8, ends: [[u8; 4]; 2], fragment: u16, rest: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([0x08, 0x00, 0x45, 0]);
    frame.extend((20 + rest.len() as u16).to_be_bytes());
    frame.extend([0, 1]);
    frame.extend(fragment.to_be_bytes());
    frame.extend([64, protocol, 0, 0]);
    frame.extend(ends.concat());
    frame.extend(rest);
    frame
}

fn segment(ports: [u16; 2], flags: u8, sequence: u32, acknowledgement: u32, len: usize) -> Vec<u8> {
    let mut bytes = ports.map(u16::to_be_bytes).concat();
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(acknowledgement.to_be_bytes());
    bytes.extend([0x50, flags, 1, 0, 0, 0, 0, 0]);
    bytes.resize(20 + len, 0);
    bytes
}

fn inbound(host: &Host, flags: u8, sequence: u32, acknowledgement: u32, len: usize) -> Verdict {
    let segment = segment([PEER_PORT, PORT], flags, sequence, acknowledgement, len);
    host.judge(&frame(6, [PEER, WORKLOAD], 0, &segment), ID, true)
}

fn outbound(host: &Host, flags: u8, sequence: u32, acknowledgement: u32, len: usize) -> Verdict {
    let segment = segment([PORT, PEER_PORT], flags, sequence, acknowledgement, len);
    host.judge(&frame(6, [WORKLOAD, PEER], 0, &segment), ID, false)
}

fn datagram(host: &Host, inbound: bool) -> Verdict {
    let (ends, ports) = if inbound {
        ([PEER, WORKLOAD], [PEER_PORT, PORT])
    } else {
        ([WORKLOAD, PEER], [PORT, PEER_PORT])
    };
    let mut bytes = ports.map(u16::to_be_bytes).concat();
    bytes.extend([0, 8, 0, 0]);
    host.judge(&frame(17, ends, 0, &bytes), ID, inbound)
}

/// A TCP flow that the peer opened at 1000 and the workload answered at 5000.
fn established() -> Host {
    let host = host();
    assert_eq!(inbound(&host, SYN, 1000, 0, 0), Pass(New));
    assert_eq!(outbound(&host, SYN | ACK, 5000, 1001, 0), Pass(Established));
    assert_eq!(inbound(&host, ACK, 1001, 5001, 0), Pass(Established));
    assert_eq!(host.interface_state(ID).unassured, 0);
    host
}

/// A UDP flow of the peer's, a stream.
fn stream() -> Host {
    let host = host();
    assert_eq!(datagram(&host, true), Pass(New));
    for inbound in [false, true, false, true, false] {
        assert_eq!(datagram(&host, inbound), Pass(Established));
    }
    assert_eq!(host.interface_state(ID).unassured, 0);
    host
}

fn set_seconds(host: &Host, seconds: u32) {
    host.set_now(u64::from(seconds * HZ));
}

#[test]
fn an_entry_of_another_generation_is_judged_again() {
    for (mut host, tcp) in [(established(), true), (stream(), false)] {
        let interface = &mut host.banks[1].interfaces[ID as usize];
        interface.policy = [interface.policy[2]; 4];
        interface.reevaluate_from = 1;
        host.set_generation(1);
        let verdict = if tcp {
            inbound(&host, ACK, 1001, 5001, 0)
        } else {
            datagram(&host, true)
        };
        assert_eq!(verdict, Drop(Revoked));
    }
}

#[test]
fn an_expired_entry_answers_nothing() {
    let host = established();
    set_seconds(&host, 431_999);
    assert_eq!(outbound(&host, ACK, 5001, 1001, 0), Pass(Established));
    set_seconds(&host, 863_999);
    assert_eq!(outbound(&host, ACK, 5001, 1001, 0), Drop(MidStream));

    let host = stream();
    set_seconds(&host, 179);
    assert_eq!(datagram(&host, false), Pass(Established));
    set_seconds(&host, 359);
    assert_eq!(datagram(&host, false), Drop(NoRule));
}

#[test]
fn h5_the_next_segment_takes_doubt_away() {
    let host = established();
    assert_eq!(inbound(&host, RST, 7777, 0, 0), Pass(Established));
    set_seconds(&host, 100);
    assert_eq!(outbound(&host, ACK, 5001, 1001, 0), Pass(Established));
    set_seconds(&host, 500);
    let fin = inbound(&host, FIN | ACK, 1001, 5001, 0);
    assert_eq!(fin, Pass(Established));

    let host = established();
    assert_eq!(inbound(&host, RST, 7777, 0, 0), Pass(Established));
    set_seconds(&host, 300);
    assert_eq!(outbound(&host, ACK, 5001, 1001, 0), Drop(MidStream));
}

/// Data behind a FIN: it was none of the sender's.
#[test]
fn a_fin_is_taken_back_by_either_side() {
    let host = established();
    assert_eq!(outbound(&host, FIN | ACK, 5001, 1001, 0), Pass(Established));
    assert_eq!(outbound(&host, ACK, 5002, 1001, 10), Pass(Established));
    assert_eq!(inbound(&host, FIN | ACK, 1001, 5001, 0), Pass(Established));
    set_seconds(&host, 60);
    assert_eq!(outbound(&host, ACK, 5012, 1001, 0), Pass(Established));

    let host = established();
    assert_eq!(inbound(&host, FIN | ACK, 1001, 5001, 0), Pass(Established));
    assert_eq!(inbound(&host, ACK, 1002, 5001, 10), Pass(Established));
    assert_eq!(outbound(&host, FIN | ACK, 5001, 1001, 0), Pass(Established));
    set_seconds(&host, 60);
    assert_eq!(inbound(&host, ACK, 1012, 5001, 0), Pass(Established));
}

/// A reset is proven by what the other side last acknowledged.
#[test]
fn h5_the_latest_acknowledgement_proves_a_reset() {
    for old in [false, true] {
        let host = established();
        assert_eq!(outbound(&host, ACK, 5001, 2001, 0), Pass(Established));
        if old {
            assert_eq!(outbound(&host, ACK, 5001, 1501, 0), Pass(Established));
        }
        assert_eq!(inbound(&host, RST, 2001, 0, 0), Pass(Established));
        set_seconds(&host, 10);
        assert_eq!(outbound(&host, ACK, 5001, 2001, 0), Drop(MidStream));
    }
}

#[test]
fn a_syn_asks_the_rules_though_there_is_an_entry() {
    let host = established();
    assert_eq!(outbound(&host, SYN, 9000, 0, 0), Drop(NoRule));
    assert_eq!(inbound(&host, ACK, 1001, 5001, 0), Pass(Established));
}

#[test]
fn a_first_fragment_of_a_flow_is_remembered() {
    let host = established();
    let segment = segment([PEER_PORT, PORT], ACK, 1001, 5001, 60);
    let first = frame(6, [PEER, WORKLOAD], 0x2000, &segment);
    assert_eq!(host.judge(&first, ID, true), Pass(Established));
    let later = frame(6, [PEER, WORKLOAD], 10, &[0; 20]);
    assert_eq!(host.judge(&later, ID, true), Pass(Fragment));
}

#[test]
fn a_flow_that_is_allowed_begins_with_possible_addresses() {
    let host = host();
    let opening = |ends, inbound| {
        let segment = segment([PEER_PORT, PORT], SYN, 1000, 0, 0);
        host.judge(&frame(6, ends, 0, &segment), ID, inbound)
    };
    assert_eq!(opening([[127, 0, 0, 1], WORKLOAD], true), Drop(IpSource));
    assert_eq!(opening([[224, 0, 0, 1], WORKLOAD], true), Drop(IpSource));
    assert_eq!(opening([PEER, [127, 0, 0, 1]], true), Drop(IpDestination));
    assert_eq!(opening([WORKLOAD, WORKLOAD], true), Drop(Land));
    assert_eq!(opening([PEER, WORKLOAD], true), Pass(New));
}

/// What looks full is looked at twice, and no more.
#[test]
fn a_flow_that_finds_no_room_is_refused() {
    let mut host = established();
    host.banks[0].interfaces[ID as usize].allowance = 1;
    let segment = segment([PEER_PORT + 1, PORT], SYN, 1000, 0, 0);
    let opening = frame(6, [PEER, WORKLOAD], 0, &segment);
    for refused in 1..4 {
        assert_eq!(host.judge(&opening, ID, true), Drop(AllowanceExceeded));
        assert_eq!(host.interface_state(ID).refused, refused);
    }
    set_seconds(&host, 432_000);
    assert_eq!(host.judge(&opening, ID, true), Pass(New));
}

/// Words of an account that run over, in every combination, lose nothing.
#[test]
fn accounts_outgrow_their_words() {
    for (packets, bytes, high) in [
        (0, 0, 0),
        (u32::MAX, 7, 1),
        (7, u32::MAX, 1),
        (u32::MAX, u32::MAX, CARRIED - 1),
        (0, u32::MAX, CARRIED - 1),
    ] {
        let host = established();
        let flow = Flow {
            owner: ID << 8 | 6,
            ports: u32::from(PORT) << 16 | u32::from(PEER_PORT),
            local: u32::from_ne_bytes(WORKLOAD),
            remote: u32::from_ne_bytes(PEER),
        };
        let hash = V4::hash(&flow, &host.runtime.seed);
        let found = table::lookup::<Host, V4>(&host.context(), hash, &flow);
        let entry = found.expect("the flow's entry");
        let account = || {
            let accounted = entry.live().cast::<u8>();
            // SAFETY: behind the dynamic part of the host's entries.
            unsafe { &mut *accounted.add(size_of::<Live>()).cast::<Account>() }
        };
        (account().packets[0], account().bytes[0]) = (packets, bytes);
        // SAFETY: a valid entry.
        unsafe { (*entry.live()).bytes_high[0] = high };
        let key = (0..WAYS as u32 * table::with_stash(host.runtime.buckets[0]))
            .map(|index| CarriedKey::new(false, false, index, entry.meta.version()))
            .find(|key| host.slot4(false, key.index).map(V4::live) == Some(entry.live()))
            .expect("its index");
        // SAFETY: as above.
        let totals = || account().totals(unsafe { (*entry.live()).bytes_high }, &host.carried(key));
        let before = totals();
        for segment in 1..=3 {
            assert_eq!(inbound(&host, ACK, 1001, 5001, 100), Pass(Established));
            let [(packets, bytes), egress] = totals();
            assert_eq!(packets, before[0].0 + segment);
            assert_eq!(bytes, before[0].1 + segment * 154);
            assert_eq!(egress, before[1]);
        }
    }
}

/// Everybody may reach every port of the workload's, and the workload everybody's.
fn open() -> Host {
    let mut host = host();
    for bank in &mut host.banks {
        bank.ranges[0] = Range {
            low: 0,
            high: u16::MAX,
            rule_set: 1,
        };
        let interface = &mut bank.interfaces[1];
        for policy in &mut interface.policy {
            policy.any_class = 1;
            policy.flags = policy_flags::OPEN_TCP | policy_flags::OPEN_UDP;
        }
        interface.bypass = [[bank.ranges[0]; 2]; 4];
        interface.flags |= interface_flags::BYPASS;
    }
    host
}

#[test]
fn a_flow_that_needs_no_entry_is_not_looked_up_once_all_entries_are_reviewed() {
    let mut host = open();
    let say = |host: &Host| (inbound(host, ACK, 1001, 5001, 0), datagram(host, false));
    host.set_generation(2);
    assert_eq!(say(&host), (Pass(Untracked), Pass(Untracked)));
    host.runtime.reviewed = 2;
    assert_eq!(say(&host), (Pass(Untracked), Pass(Untracked)));
    assert_eq!(host.hits(0, 1), 4, "rules are counted either way");
    assert_eq!(host.interface_state(ID).created, 0);
    // What the long way says of addresses, tracking and sources holds.
    let land = frame(
        6,
        [WORKLOAD; 2],
        0,
        &segment([PEER_PORT, PORT], ACK, 1, 1, 0),
    );
    assert_eq!(host.judge(&land, ID, true), Drop(Land));
    host.banks[0].interfaces[1].flags |= interface_flags::SOURCE_DEST_CHECK;
    assert_eq!(datagram(&host, true), Drop(DestinationForeign));
}

#[test]
fn a_review_ends_what_needs_no_entry_and_nothing_else() {
    let mut host = established();
    let review = |host: &Host| -> u32 {
        let buckets = table::with_stash(host.runtime.buckets[0]);
        let one = |bucket| table::review::<Host, V4>(&host.context(), false, bucket);
        (0..buckets).map(one).sum()
    };
    assert_eq!(review(&host), 0);
    assert_eq!(inbound(&host, ACK, 1001, 5001, 0), Pass(Established));
    host.banks = open().banks;
    assert_eq!(review(&host), 1);
    assert_eq!(host.interface_state(ID).tracked, 0);
    assert_eq!(inbound(&host, ACK, 1001, 5001, 0), Pass(Untracked));
}
