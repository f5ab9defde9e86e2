//! All CPUs meet packets of one flow that none of them knows, at the same moment.

use std::hint;

use sg_userspace::control::Inserted;

use crate::{
    common::require::require,
    flow::{Flow, Packet},
    frame::Ip,
    rig::{Hook, INTERFACES, Rig, on_every_cpu, with_rig},
};

const ALLOWANCE: u32 = 8192;
/// Flows of a round: fewer than may be unassured.
const FLOWS: u32 = 1500;
/// Of the other interface, in a crowded table: many flows find their first bucket full, or their second.
const CROWD: u32 = 6600;

/// Who meets what: even CPUs the first, odd ones the second.
const ROUNDS: [[Hook; 2]; 4] = [
    [Hook::Xdp, Hook::TcEgress],
    [Hook::TcIngress, Hook::TcEgress],
    [Hook::TcEgress, Hook::TcEgress],
    [Hook::TcEgress, Hook::Xdp],
];

/// Both directions of a flow, met at once in an empty and in a crowded table, make one entry.
#[test]
fn i7_k4_all_cpus_open_the_same_flows_and_each_stands_once() {
    require!(Root, Object);
    with_rig(ALLOWANCE, |rig| {
        for ip in Ip::BOTH {
            for crowd in [0, CROWD] {
                for n in 0..crowd {
                    let flow = Flow::udp(INTERFACES[1], ip, 1 << 20 | n);
                    assert_eq!(rig.adopt(&flow), Inserted::Added);
                }
                for (round, hooks) in (0..).zip(ROUNDS) {
                    race(rig, ip, round, hooks);
                    let audit = rig.audit();
                    let opened = |n| Flow::udp(INTERFACES[0], ip, round * FLOWS + n);
                    assert!((0..FLOWS).all(|n| audit.flows.contains_key(&opened(n))));
                    assert_eq!(audit.flows.len() as u32, crowd + FLOWS);
                    assert_eq!(rig.dropped(), 0);
                    assert!(crowd == 0 || audit.spilled > 100, "no crowd");
                    assert_eq!(rig.flush(INTERFACES[0]), u64::from(FLOWS));
                }
                assert_eq!(rig.flush(INTERFACES[1]), u64::from(crowd));
                rig.audit_empty();
            }
        }
        assert_eq!(rig.sum(|one| one.replaced + one.refused), 0);
    });
}

fn race(rig: &Rig, ip: Ip, round: u32, hooks: [Hook; 2]) {
    on_every_cpu(|cpu| {
        let hook = hooks[(cpu.number % 2) as usize];
        let packets: Vec<Packet> = (0..FLOWS)
            .map(|n| Flow::udp(INTERFACES[0], ip, round * FLOWS + n).packet(hook))
            .collect();
        for (step, packet) in (1..).zip(&packets) {
            cpu.meet(step);
            // The way into the kernel is not equally long for all hooks: now one is held up, now the other.
            if (step + cpu.number) % 2 == 0 {
                for _ in 0..step % 97 {
                    hint::spin_loop();
                }
            }
            assert!(rig.passes(packet), "an allowed packet was dropped");
        }
    });
}
