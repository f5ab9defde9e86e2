//! Which packets a flow's key makes one flow, over addresses and ports that are easily confused.

use proptest::{prelude::*, sample::select};
use sg_common::{
    host::Host,
    layout::{
        Class, Interface, Policy, Range, Runtime, Slice, TIMEOUT_DEFAULTS, interface_flags, slice,
    },
    verdict::{
        DropReason::NoRule,
        PassKind::{Established, New},
        Verdict::{Drop, Pass},
    },
};

const HZ: u32 = 100;

/// Interfaces 1 and 2; everybody may send either any datagram, and gets answers alone.
fn host() -> Host {
    let mut host = Host::new(Runtime {
        hz: HZ,
        accounting: 1,
        buckets: [256; 2],
        allowance: 256,
        shared: 256,
        unassured: 64,
        seed: [7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47],
        ..Runtime::ZERO
    });
    let mut any = Class::ZERO;
    any.slices[slice::UDP] = Slice { start: 0, len: 1 };
    let policy = |any_class| Policy {
        trie: sg_common::layout::NO_TRIE,
        any_class,
        scope: 0,
        flags: 0,
    };
    let interface = Interface {
        flags: interface_flags::PRESENT,
        allowance: 256,
        timeouts: TIMEOUT_DEFAULTS.map(|(_, seconds)| seconds * HZ),
        policy: [policy(1), policy(1), policy(0), policy(0)],
        ..Interface::ZERO
    };
    for bank in &mut host.banks {
        bank.classes = vec![Class::ZERO, any];
        bank.ranges = vec![Range {
            low: 0,
            high: u16::MAX,
            rule_set: 1,
        }];
        bank.interfaces = vec![Interface::ZERO, interface, interface];
    }
    host
}

/// One end: four bytes stand for an IPv4 address, sixteen for an IPv6 one.
type End = (Vec<u8>, u16);

fn datagram(from: &End, to: &End) -> Vec<u8> {
    let mut frame = vec![0; 12];
    if from.0.len() == 4 {
        frame.extend([0x08, 0x00, 0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0]);
    } else {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 17, 64]);
    }
    frame.extend(&from.0);
    frame.extend(&to.0);
    frame.extend(from.1.to_be_bytes());
    frame.extend(to.1.to_be_bytes());
    frame.extend([0, 8, 0, 0]);
    frame
}

/// Addresses that differ in one byte, or in the order of bytes or words alone.
fn address(ipv6: bool) -> BoxedStrategy<Vec<u8>> {
    let four = [[10, 0, 0, 1], [1, 0, 0, 10], [10, 0, 1, 0], [10, 0, 0, 2]];
    if !ipv6 {
        return select(four.map(Vec::from).to_vec()).boxed();
    }
    // An IPv4 address' word in each of four places, between words that are not zero.
    let places: Vec<Vec<u8>> = four
        .iter()
        .flat_map(|word| {
            (1..4).map(move |place| {
                let mut address = vec![0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
                address[place * 4..][..4].copy_from_slice(word);
                address
            })
        })
        .collect();
    select(places).boxed()
}

fn end(ipv6: bool) -> impl Strategy<Value = End> {
    // Port 80, and 80 with its bytes in the wrong order.
    (address(ipv6), select(vec![80, 0x5000, 0, 1, 65_535]))
}

fn ends() -> impl Strategy<Value = (End, End)> {
    any::<bool>()
        .prop_flat_map(|ipv6| (end(ipv6), end(ipv6)))
        .prop_filter("equal addresses are no flow", |(one, two)| one.0 != two.0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    /// The reverse packet in the reverse direction is of the flow, and nothing else is.
    #[test]
    fn j2_k3_the_exact_reverse_is_the_same_flow((local, remote) in ends(), (other_local, other_remote) in ends()) {
        let host = host();
        prop_assert_eq!(host.judge(&datagram(&remote, &local), 1, true), Pass(New));
        prop_assert_eq!(host.judge(&datagram(&local, &remote), 1, false), Pass(Established));
        prop_assert_eq!(host.judge(&datagram(&remote, &local), 1, true), Pass(Established));
        // The sides changed, on this interface; the same packet on another.
        prop_assert_eq!(host.judge(&datagram(&remote, &local), 1, false), Drop(NoRule));
        prop_assert_eq!(host.judge(&datagram(&local, &remote), 2, false), Drop(NoRule));
        // Any other two ends.
        let expected = if (&other_local, &other_remote) == (&local, &remote) {
            Pass(Established)
        } else {
            Drop(NoRule)
        };
        let other = datagram(&other_local, &other_remote);
        prop_assert_eq!(host.judge(&other, 1, false), expected);
        prop_assert_eq!(host.interface_state(1).tracked, 1);
        prop_assert_eq!(host.interface_state(2).tracked, 0);
    }
}
