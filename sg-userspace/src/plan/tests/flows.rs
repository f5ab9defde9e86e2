//! What a plan foresees of a flow is what the oracle does with its next packet.

use sg_oracle::{
    Arrival, Direction, Oracle, Verdict,
    policy::Policy as Definition,
    random::{Source, changed, policy},
};

use super::{packet::Packet, resolved};
use crate::{
    flows::{Side, TrackedFlow},
    plan::{
        flows::{InterfaceFlows, Passage, count},
        lookup::Lookup,
    },
};
use sg_common::layout::interface_flags::REEVALUATE;

/// Pairs of definitions, and packets that may open a flow under the first of each.
const PAIRS: u64 = 300;
const PACKETS: usize = 60;

/// A random definition with room for all flows.
fn roomy(mut definition: Definition) -> Definition {
    definition.allowance = 4096;
    for interface in definition.interfaces.values_mut() {
        (interface.allowance, interface.reserve) = (None, 0);
    }
    definition
}

/// Has the oracle judge a frame that travels in a direction.
fn judge(
    oracle: &mut Oracle,
    definition: &Definition,
    name: &str,
    direction: Direction,
    frame: &[u8],
) -> Verdict {
    let host = definition.interfaces.get(name).is_some_and(|one| one.host);
    let arrival = Arrival {
        ingress: (direction == Direction::In) != host,
        frame,
        tagged: false,
        merged: false,
        packets: 1,
    };
    oracle.judge(0, name, &arrival).verdict
}

/// Any packet between a workload and its neighbours that may open a flow. Each has other ends than all others.
fn packet(source: &mut Source<'_>, definition: &Definition, name: &str, number: usize) -> Packet {
    let ipv6 = source.one_in(2);
    let own = definition.interfaces[name].addresses.iter().flatten();
    let own = own.copied().find(|address| address.is_ipv6() == ipv6);
    let (host, net) = (1 + source.below(4) as u16, source.below(2) as u16);
    let (local, remote, icmp) = if ipv6 {
        let remote = [0x2001, 0xdb8, 0, net, 0, 0, 0, host];
        (
            own.unwrap_or([0x2001, 0xdb8, 9, 9, 0, 0, 0, 9].into()),
            remote.into(),
            58,
        )
    } else {
        let remote = [10, 0, net as u8, host as u8];
        (own.unwrap_or([10, 9, 9, 9].into()), remote.into(), 1)
    };
    let protocol = source.of(&[6, 6, 6, 17, 17, icmp, 47]);
    let port = if protocol == icmp {
        if ipv6 { 128 << 8 } else { 8 << 8 }
    } else {
        source.of(&[80, 0, 1, 53, 443, 1023, 1024, 40_000, 65_534, 65_535])
    };
    Packet {
        direction: source.of(&[Direction::In, Direction::Out]),
        local,
        remote,
        protocol,
        port,
        opener_port: 20_000 + number as u16,
    }
}

/// The entry of a flow that a packet has opened.
fn tracked<'a>(packet: &Packet) -> TrackedFlow<'a> {
    let (local_port, remote_port, opened_by) = match packet.direction {
        Direction::In => (packet.port, packet.opener_port, Side::Remote),
        Direction::Out => (packet.opener_port, packet.port, Side::Local),
    };
    TrackedFlow {
        interface: "",
        protocol: packet.protocol,
        state: "",
        local: packet.local,
        local_port,
        remote: packet.remote,
        remote_port,
        opened_by,
        assured: false,
        adopted: false,
        idle_seconds: 0.0,
        expires_seconds: 1.0,
        generation: 1,
        traffic: None,
    }
}

#[test]
fn what_is_foreseen_of_flows_is_what_the_oracle_does() {
    // Cut, untracked, kept without a rule, kept by one.
    let mut met = [0; 4];
    for seed in 0..PAIRS {
        let source = &mut Source::Seed(seed);
        let before = roomy(policy(source));
        let mut all = vec![before.clone()];
        for _ in 0..1 + source.below(4) {
            let next = changed(source, &all);
            all.push(next);
        }
        let after = roomy(all.pop().expect("there are two at least"));
        let [old, new] = [&before, &after]
            .map(|one| Lookup::new(&resolved(&sg_oracle::definition(one))).unwrap());
        let mut oracle = Oracle::new(250);
        oracle.apply(before.clone(), 0);
        let names: Vec<String> = after.interfaces.keys().cloned().collect();
        let mut open = Vec::new();
        for number in 0..PACKETS {
            let Some(name) = source
                .among(&names)
                .filter(|name| before.interfaces.contains_key(*name))
            else {
                continue;
            };
            let packet = packet(source, &before, name, number);
            let verdict = judge(
                &mut oracle,
                &before,
                name,
                packet.direction,
                &packet.frame(),
            );
            if verdict == Verdict::Pass("new") {
                open.push((name, packet));
            }
        }
        oracle.apply(after.clone(), 0);
        for (name, packet) in open {
            let (was, is) = (old.interface(name).unwrap(), new.interface(name).unwrap());
            let passage = Passage {
                place: 0,
                before: Some(was),
                after: Some(is),
                asked: (was.flags | is.flags) & REEVALUATE != 0,
                asked_from: 0,
            };
            let mut counts = InterfaceFlows::default();
            count(&passage, &tracked(&packet), &mut counts, &old, &new);
            let verdict = judge(
                &mut oracle,
                &after,
                name,
                packet.direction,
                &packet.next_frame(),
            );
            let done = match verdict {
                Verdict::Drop("revoked") => 0,
                Verdict::Pass("untracked") => 1,
                Verdict::Pass("established") if counts.stay_without_rule == 1 => 2,
                Verdict::Pass("established") => 3,
                // Something else than rules decides.
                _ => continue,
            };
            let foreseen = [
                counts.cut,
                counts.become_untracked,
                counts.stay_without_rule,
                1 - counts.cut - counts.become_untracked - counts.stay_without_rule,
            ];
            assert_eq!(
                foreseen[done],
                1,
                "seed {seed}: {name} {packet:?}: {verdict:?}, and not {counts:?}\n{}\n{}",
                sg_oracle::definition(&before),
                sg_oracle::definition(&after)
            );
            assert!(counts.stay_without_rule_newly <= counts.stay_without_rule);
            met[done] += 1;
        }
    }
    println!("{met:?}");
    assert!(met.iter().all(|met| *met > 50), "{met:?}");
}
