//! Which packets are counted for the rules that let them pass.

use sg_common::{
    conntrack::tcp::{ACK, SYN},
    host::Host,
    layout::{
        Class, Interface, NO_TRIE, Policy, Range, Runtime, Slice, TIMEOUT_DEFAULTS,
        interface_flags, policy_flags, slice,
    },
    verdict::{
        DropReason::{AllowanceExceeded, MidStream, NoRule},
        PassKind::{Established, New, Untracked},
        Verdict::{self, Drop, Pass},
    },
};

const ID: u32 = 1;
const WORKLOAD: [u8; 4] = [10, 0, 0, 1];
const PEER: [u8; 4] = [10, 0, 0, 2];
/// Sets of rules with prefixes, in both directions, and of rules with groups.
const INGRESS: u32 = 1;
const EGRESS: u32 = 2;
const GROUPS: u32 = 3;

/// Port 80 is for everybody and again for a group that the peer is in; out goes what `egress` says.
fn host(allowance: u32, egress: Policy) -> Host {
    let mut host = Host::new(Runtime {
        hz: 100,
        buckets: [sg_common::abi::buckets(allowance); 2],
        allowance,
        shared: allowance,
        unassured: allowance,
        ..Runtime::ZERO
    });
    let class = |range| {
        let mut class = Class::ZERO;
        class.slices[slice::TCP] = Slice {
            start: range,
            len: 1,
        };
        class
    };
    let range = |low, high, rule_set| Range {
        low,
        high,
        rule_set,
    };
    let ingress = Policy {
        trie: NO_TRIE,
        any_class: 1,
        scope: 1,
        flags: 0,
    };
    for bank in &mut host.banks {
        bank.classes = vec![Class::ZERO, class(0), class(1), class(2)];
        bank.ranges = vec![
            range(80, 80, INGRESS),
            range(0, 65535, EGRESS),
            range(80, 80, GROUPS),
        ];
        bank.members4.insert(u32::from_ne_bytes(PEER), 5);
        bank.identities.insert((1, 5), 3);
        bank.interfaces = vec![
            Interface::ZERO,
            Interface {
                flags: interface_flags::PRESENT | interface_flags::REEVALUATE,
                allowance,
                timeouts: TIMEOUT_DEFAULTS.map(|(_, seconds)| seconds * 100),
                reevaluate_from: 1,
                policy: [ingress, Policy::ZERO, egress, Policy::ZERO],
                ..Interface::ZERO
            },
        ];
    }
    host
}

const NOTHING: Policy = Policy {
    trie: NO_TRIE,
    ..Policy::ZERO
};

/// A segment between the workload's port 80 and the peer's `port`.
fn judge(host: &Host, inbound: bool, port: u16, flags: u8, numbers: (u32, u32)) -> Verdict {
    let mut frame = vec![0; 12];
    frame.extend([0x08, 0x00, 0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0]);
    let ends = [(PEER, port), (WORKLOAD, 80)];
    let (from, to) = if inbound {
        (ends[0], ends[1])
    } else {
        (ends[1], ends[0])
    };
    frame.extend(from.0.into_iter().chain(to.0));
    frame.extend([from.1.to_be_bytes(), to.1.to_be_bytes()].concat());
    frame.extend([numbers.0.to_be_bytes(), numbers.1.to_be_bytes()].concat());
    frame.extend([0x50, flags, 1, 0, 0, 0, 0, 0]);
    host.judge(&frame, ID, inbound)
}

/// Hits in a bank: of rules with prefixes, ingress and egress, and with groups.
fn hits(host: &Host, bank: u32) -> [u64; 3] {
    [INGRESS, EGRESS, GROUPS].map(|set| host.hits(bank, set))
}

#[test]
fn a_flow_is_counted_when_it_opens_and_never_again() {
    let host = host(16, NOTHING);
    assert_eq!(judge(&host, true, 4000, SYN, (1000, 0)), Pass(New));
    assert_eq!(hits(&host, 0), [1, 0, 1], "by either kind of rule");
    for (inbound, flags, numbers) in [
        (true, SYN, (1000, 0)),
        (false, SYN | ACK, (5000, 1001)),
        (true, ACK, (1001, 5001)),
        (true, SYN, (9000, 0)),
    ] {
        let verdict = judge(&host, inbound, 4000, flags, numbers);
        assert_eq!(verdict, Pass(Established));
    }
    assert_eq!(hits(&host, 0), [1, 0, 1]);
    // Asked again under a new generation, which counts for itself.
    host.set_generation(1);
    let verdict = judge(&host, true, 4000, ACK, (1001, 5001));
    assert_eq!((verdict, hits(&host, 1)), (Pass(Established), [0; 3]));
    // In place of an expired flow a SYN opens another.
    host.set_now(100 * 432_000);
    assert_eq!(judge(&host, true, 4000, SYN, (2000, 0)), Pass(New));
    assert_eq!((hits(&host, 0), hits(&host, 1)), ([1, 0, 1], [1, 0, 1]));
}

#[test]
fn what_is_dropped_is_not_counted() {
    let host = host(1, NOTHING);
    assert_eq!(judge(&host, true, 4000, SYN, (1, 0)), Pass(New));
    assert_eq!(judge(&host, true, 4001, ACK, (1, 1)), Drop(MidStream));
    assert_eq!(judge(&host, false, 4001, SYN, (1, 0)), Drop(NoRule));
    judge(&host, false, 4000, SYN | ACK, (5000, 2));
    judge(&host, true, 4000, ACK, (2, 5001));
    let full = judge(&host, true, 4002, SYN, (1, 0));
    assert_eq!(full, Drop(AllowanceExceeded));
    assert_eq!(hits(&host, 0), [1, 0, 1]);
}

#[test]
fn without_a_flow_every_packet_is_counted_in_its_direction() {
    let open = Policy {
        any_class: 2,
        flags: policy_flags::OPEN_TCP,
        ..NOTHING
    };
    let host = host(16, open);
    for _ in 0..3 {
        assert_eq!(judge(&host, true, 4000, ACK, (1, 1)), Pass(Untracked));
    }
    assert_eq!(judge(&host, false, 4000, ACK, (1, 1)), Pass(Untracked));
    assert_eq!(hits(&host, 0), [3, 1, 3]);
}
