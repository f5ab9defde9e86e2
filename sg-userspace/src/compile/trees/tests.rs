//! Trees beside the longest match, prefix by prefix, through the lookup that the programs do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use sg_common::family::{Family as _, V4, V6};
use sg_common::host::Host;
use sg_common::layout::Runtime;
use sg_common::tree;

use super::*;

/// What no prefix holds.
const OUTSIDE: u32 = 77;
const ALL: usize = usize::MAX;

/// As the compiler makes it: ascending, each prefix once.
fn trie(entries: impl IntoIterator<Item = (IpNet, u32)>) -> Trie {
    let mut entries: Vec<_> = entries.into_iter().collect();
    entries.sort_by_key(|(net, _)| (net.network(), net.prefix_len()));
    entries.dedup_by_key(|(net, _)| *net);
    Trie { entries }
}

/// Some trees in the first bank.
struct Planted {
    host: Host,
    roots: Vec<u32>,
}

impl Planted {
    fn new(tries: &[Trie]) -> Self {
        let mut trees = Trees::new(ALL);
        let roots = tries.iter().map(|trie| trees.add(trie, OUTSIDE).unwrap());
        let roots = roots.collect();
        let mut host = Host::new(Runtime::ZERO);
        host.banks[0].nodes = trees.nodes;
        Self { host, roots }
    }

    fn find(&self, tree: usize, address: IpAddr) -> u32 {
        let root = self.roots[tree];
        match address {
            IpAddr::V4(address) => {
                let word = u32::from_ne_bytes(address.octets());
                tree::find(&self.host, 0, root, V4::WORDS, |place| {
                    V4::word(&word, place)
                })
            }
            IpAddr::V6(address) => {
                let bytes = address.octets();
                let words: [u32; 4] = std::array::from_fn(|at| {
                    u32::from_ne_bytes(bytes[4 * at..][..4].try_into().unwrap())
                });
                tree::find(&self.host, 0, root, V6::WORDS, |place| {
                    V6::word(&words, place)
                })
            }
        }
    }
}

fn longest_match(trie: &Trie, address: IpAddr) -> u32 {
    let covering = trie
        .entries
        .iter()
        .filter(|(net, _)| net.contains(&address));
    covering
        .max_by_key(|(net, _)| net.prefix_len())
        .map_or(OUTSIDE, |(_, class)| *class)
}

/// First and last address of every prefix, and their neighbours.
fn edges(trie: &Trie) -> Vec<IpAddr> {
    let mut edges = Vec::new();
    for (net, _) in &trie.entries {
        match net {
            IpNet::V4(net) => {
                let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
                let all = [first, last, first.wrapping_sub(1), last.wrapping_add(1)];
                edges.extend(all.map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))));
            }
            IpNet::V6(net) => {
                let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
                let all = [first, last, first.wrapping_sub(1), last.wrapping_add(1)];
                edges.extend(all.map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))));
            }
        }
    }
    edges
}

fn same(planted: &Planted, tree: usize, trie: &Trie, address: IpAddr) -> Result<(), TestCaseError> {
    let (found, expected) = (planted.find(tree, address), longest_match(trie, address));
    prop_assert_eq!(found, expected, "{} in {:?}", address, trie.entries);
    Ok(())
}

/// A number whose words are the first, the last, or near one another, so that prefixes nest and touch.
fn bits() -> impl Strategy<Value = u128> {
    let word = || {
        prop_oneof![
            3 => Just(0_u32),
            2 => Just(u32::MAX),
            3 => 0..8_u32,
            3 => (0..8_u32).prop_map(|high| high << 29),
            1 => any::<u32>(),
        ]
    };
    [word(), word(), word(), word()].prop_map(|words| {
        words
            .iter()
            .fold(0, |bits, word| bits << 32 | u128::from(*word))
    })
}

fn v4(bits: u128) -> Ipv4Addr {
    Ipv4Addr::from_bits((bits >> 96) as u32)
}

fn prefixes4() -> impl Strategy<Value = Trie> {
    let net = (bits(), 1..=32_u8).prop_map(|(bits, len)| IpNet::new(v4(bits).into(), len).unwrap());
    prop::collection::vec((net.prop_map(|net| net.trunc()), 0..6_u32), 1..300).prop_map(trie)
}

fn prefixes6() -> impl Strategy<Value = Trie> {
    let len = prop_oneof![
        1..=128_u8,
        Just(32),
        Just(33),
        Just(64),
        Just(65),
        Just(96),
        Just(97),
        Just(128)
    ];
    let net = (bits(), len)
        .prop_map(|(bits, len)| IpNet::new(Ipv6Addr::from_bits(bits).into(), len).unwrap());
    prop::collection::vec((net.prop_map(|net| net.trunc()), 0..6_u32), 1..200).prop_map(trie)
}

proptest! {
    #[test]
    fn ipv4_trees_find_the_longest_match(
        tries in prop::collection::vec(prefixes4(), 1..4),
        remotes in prop::collection::vec(bits(), 50),
    ) {
        let planted = Planted::new(&tries);
        for (number, trie) in tries.iter().enumerate() {
            let drawn = remotes.iter().map(|bits| v4(*bits).into());
            for address in edges(trie).into_iter().chain(drawn) {
                same(&planted, number, trie, address)?;
            }
        }
    }

    #[test]
    fn ipv6_trees_find_the_longest_match(
        tries in prop::collection::vec(prefixes6(), 1..4),
        remotes in prop::collection::vec(bits(), 50),
    ) {
        let planted = Planted::new(&tries);
        for (number, trie) in tries.iter().enumerate() {
            let drawn = remotes.iter().map(|bits| Ipv6Addr::from_bits(*bits).into());
            for address in edges(trie).into_iter().chain(drawn) {
                same(&planted, number, trie, address)?;
            }
        }
    }
}

/// Hosts that do not touch one another, so that each makes two intervals.
fn apart(count: u32) -> Trie {
    let host = |number: u32| {
        let net = IpNet::new(Ipv4Addr::from(number * 4000 + 1).into(), 32).unwrap();
        (net, number)
    };
    trie((0..count).map(host))
}

/// Full and nearly full nodes of every level, up to the last address of all.
#[test]
fn nodes_are_full_or_filled_up() {
    let last: IpNet = "255.255.255.255/32".parse().unwrap();
    for leaves in [1, 2, 15, 16, 17, 255, 256, 257, 4095, 4096, 4097] {
        // Two intervals a host, and one more that is outside.
        for hosts in [leaves * 4 - 1, leaves * 4, leaves * 4 + 1] {
            for more in [None, Some((last, 5))] {
                let trie = trie(apart(hosts).entries.into_iter().chain(more));
                let planted = Planted::new(std::slice::from_ref(&trie));
                let some = [0, 1, hosts / 2, hosts - 2, hosts - 1].into_iter();
                for number in some.filter(|number| *number < hosts) {
                    let address = number * 4000 + 1;
                    for (address, expected) in [
                        (address - 1, OUTSIDE),
                        (address, number),
                        (address + 1, OUTSIDE),
                    ] {
                        let found = planted.find(0, Ipv4Addr::from(address).into());
                        assert_eq!(found, expected, "{address} of {hosts} hosts");
                    }
                }
                let expected = more.map_or(OUTSIDE, |(_, class)| class);
                assert_eq!(planted.find(0, Ipv4Addr::BROADCAST.into()), expected);
            }
        }
    }
}

#[test]
fn l8_halves_of_the_address_space_meet() {
    let halves = ["0.0.0.0/1", "128.0.0.0/1"].map(|net| net.parse().unwrap());
    let trie = trie(halves.into_iter().zip([1, 2]));
    let planted = Planted::new(std::slice::from_ref(&trie));
    for (address, expected) in [
        ("0.0.0.0", 1),
        ("127.255.255.255", 1),
        ("128.0.0.0", 2),
        ("255.255.255.255", 2),
    ] {
        assert_eq!(planted.find(0, address.parse().unwrap()), expected);
    }
    assert_eq!(planted.host.banks[0].nodes.len(), 1);
}

#[test]
fn what_does_not_fit_leaves_no_trace() {
    let small = apart(3);
    let mut trees = Trees::new(2);
    assert_eq!(trees.add(&apart(100), OUTSIDE), None);
    assert_eq!(trees.add(&small, OUTSIDE), Some(0));
    assert_eq!(trees.add(&apart(8), OUTSIDE), None);
    assert_eq!(trees.nodes.len(), 1);
    assert_eq!(trees.add(&small, OUTSIDE), Some(1));
    assert_eq!(trees.add(&small, OUTSIDE), None);
}

#[test]
fn a_hundred_thousand_prefixes_take_no_time() {
    let v6 = |number: u32| {
        let bits = 0x2001_0db8 << 96 | u128::from(number) << 72;
        (
            IpNet::new(Ipv6Addr::from_bits(bits).into(), 56).unwrap(),
            number,
        )
    };
    for trie in [apart(100_000), trie((0..100_000).map(v6))] {
        let mut trees = Trees::new(ALL);
        let start = Instant::now();
        assert!(trees.add(&trie, OUTSIDE).is_some());
        let elapsed = start.elapsed();
        println!("{} nodes in {elapsed:?}", trees.nodes.len());
        assert!(elapsed < Duration::from_secs(2), "{elapsed:?}");
        assert!(trees.nodes.len() < 30_000);
    }
}
