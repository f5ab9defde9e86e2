//! Large allowances, of which every CPU has a credit that it need not settle at once.

use aya::util::nr_cpus;

use crate::{
    common::{require::require, scale::count},
    flow::{Flow, scattered},
    frame::Ip,
    rig::{INTERFACES, on_every_cpu, with_rig},
};

/// Flows that come and go, on either interface.
const FLOWS: u32 = 6000;
const ROUNDS: u32 = 4;
/// Makings and endings of a CPU in a round.
const STEPS: u32 = 6000;

/// However many flows CPUs make and others end, the sum of what each says and keeps to itself is exact.
#[test]
fn k11_occupancy_is_exact_while_every_cpu_has_a_credit() {
    require!(Root, Object);
    // Credits are parts of the allowance, by the number of possible CPUs.
    let cpus = nr_cpus().unwrap() as u32;
    with_rig((8192 * cpus).max(65_536), |rig| {
        assert!(rig.session.runtime.credit >= 2, "no credit");
        let mut kept = 0;
        for round in 0..count(ROUNDS) {
            on_every_cpu(|cpu| {
                cpu.meet(1);
                for step in 0..STEPS {
                    let number = (round * STEPS + step) * cpu.count + cpu.number;
                    let random = scattered(u64::from(number));
                    let interface = INTERFACES[(random >> 32) as usize % 2];
                    let ip = Ip::BOTH[(random >> 33) as usize % 2];
                    let flow = Flow::udp(interface, ip, random as u32 % FLOWS);
                    match random >> 48 & 3 {
                        0 => assert_eq!(rig.talk(&flow), 4),
                        1 => drop(rig.adopt(&flow)),
                        _ => drop(rig.delete(&flow)),
                    }
                }
            });
            let audit = rig.audit();
            assert!(audit.flows.len() > 1000, "{} flows", audit.flows.len());
            let locals = rig.session.tables.ct_local.get_per_cpu(&0).unwrap();
            kept += locals.iter().filter(|one| one.tracked != 0).count();
            for interface in INTERFACES {
                rig.flush(interface);
            }
            rig.audit_empty();
        }
        assert!(kept > 0, "no CPU ever kept anything to itself");
        assert_eq!(rig.sum(|one| one.replaced + one.refused), 0);
        assert_eq!(rig.dropped(), 0);
    });
}
