//! Flows go by command while other CPUs meet their packets.

use std::{
    hint,
    sync::atomic::{AtomicU64, Ordering},
};

use sg_userspace::control::Inserted;

use crate::{
    common::{require::require, scale::count},
    flow::{Flow, scattered},
    frame::Ip,
    rig::{Hook, INTERFACES, Rig, on_every_cpu, with_rig},
};

const ALLOWANCE: u32 = 1024;
/// Of the other interface: so many that one flow in several stands outside its first bucket.
const CROWD: u32 = 820;
/// Flows that come and go: fewer than may be unassured.
const FLOWS: u32 = 160;
const ROUNDS: u32 = 8;
/// Steps of a round.
const STEPS: u32 = 2500;
/// Steps after which a flush stands in the place of a deletion.
const FLUSH: u32 = 200;

/// What is charged, tagged and counted for a flow goes with it, whoever meets it at that moment, and only
/// once.
#[test]
fn k5_flows_deleted_and_flushed_while_all_other_cpus_hit_them_leave_nothing_behind() {
    require!(Root, Object);
    with_rig(ALLOWANCE, |rig| {
        let (mut ended, mut spilled) = (0, 0);
        for ip in Ip::BOTH {
            for n in 0..CROWD {
                let flow = Flow::udp(INTERFACES[1], ip, 1 << 20 | n);
                assert_eq!(rig.adopt(&flow), Inserted::Added);
            }
            for round in 0..count(ROUNDS) {
                ended += come_and_go(rig, ip, round);
                let audit = rig.audit();
                assert_eq!(rig.sum(|one| one.removed), ended);
                assert_eq!(rig.dropped(), 0);
                spilled += audit.spilled;
            }
            let left = INTERFACES.map(|id| rig.flush(id));
            ended += left[0] + left[1];
            rig.audit_empty();
        }
        assert!(spilled > 0, "no flow stood outside its first bucket");
        assert!(ended > 2000, "{ended} flows ended");
    });
}

/// One CPU ends flows, all others meet them, each step the same one, and now and then all end it; answers how
/// many ended.
fn come_and_go(rig: &Rig, ip: Ip, round: u32) -> u64 {
    let ended = AtomicU64::new(0);
    on_every_cpu(|cpu| {
        let ends = cpu.number == round % cpu.count;
        let mut hooks = [Hook::Xdp, Hook::TcEgress];
        hooks.rotate_left(((cpu.number + round / 2) % 2) as usize);
        for step in 1..=STEPS {
            let random = scattered(u64::from(round * STEPS + step));
            let flow = Flow::udp(INTERFACES[0], ip, random as u32 % FLOWS);
            // An answer changes the entry's state, and the second time whether it is assured.
            let packets = hooks.map(|hook| flow.packet(hook));
            cpu.meet(step);
            if (step + cpu.number) % 2 == 0 {
                for _ in 0..step % 97 {
                    hint::spin_loop();
                }
            }
            if ends && step % FLUSH == 0 {
                ended.fetch_add(rig.flush(INTERFACES[0]), Ordering::Relaxed);
            } else if ends || step % 3 == 0 {
                ended.fetch_add(u64::from(rig.delete(&flow)), Ordering::Relaxed);
            } else {
                let passed = packets.iter().all(|packet| rig.passes(packet));
                assert!(passed, "an allowed packet was dropped");
            }
        }
    });
    ended.into_inner()
}

/// A socket bound to an own address and connected to a loopback one never leaves the host: an entry of it would
/// let packets from the wire pass that no rule and no check of addresses has seen.
#[test]
fn nobody_adopts_what_no_packet_can_be_of() {
    require!(Root, Object);
    with_rig(ALLOWANCE, |rig| {
        for (ip, remote) in [(Ip::V4, "127.0.0.1"), (Ip::V4, "0.1.2.3"), (Ip::V6, "::1")] {
            let mut flow = Flow::tcp(INTERFACES[0], ip, 1);
            flow.tuple.remote = remote.parse().unwrap();
            assert_eq!(rig.adopt(&flow), Inserted::Impossible, "{remote}");
            flow.tuple.remote = flow.tuple.local;
            assert_eq!(rig.adopt(&flow), Inserted::Impossible);
        }
        let multicast = {
            let mut flow = Flow::udp(INTERFACES[0], Ip::V4, 1);
            flow.tuple.remote = "224.0.0.251".parse().unwrap();
            flow
        };
        assert_eq!(rig.adopt(&multicast), Inserted::Added);
    });
}
