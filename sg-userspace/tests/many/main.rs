//! Many interfaces at once. A program of its own: each link takes the kernel's lock of all devices for grace periods, which
//! other tests would wait for.

#[path = "../common/mod.rs"]
mod common;

use std::{
    fmt::Write as _,
    fs,
    time::{Duration, Instant},
};

use crate::common::{
    netns::{Enforcer, ip},
    pair::{NEAR, Pair, web},
    require::require,
};

/// The host's ends of many workloads. `cargo xtask bench --only control-plane` holds the time against its
/// goal; here it is only to be bounded, whatever else the machine does.
#[test]
fn five_hundred_workloads_with_a_policy_each() {
    require!(Root, Object);
    const MANY: u32 = 500;
    const EACH: Duration = Duration::from_millis(150);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _servers = [8001, 8499].map(|port| pair.near.serve(NEAR, port));
    pair.near.run(|| {
        for number in 1..MANY {
            ip(&format!("link add v{number} type veth peer name w{number}"));
        }
    });
    let definition = |first_port: u32| {
        let mut text = String::new();
        for number in 1..MANY {
            write!(
                text,
                "[groups.g{number}]\negress = []\ningress = [{{ protocol = \"tcp\", ports = {}, cidr = [\"10.0.0.0/8\"] }}]\n\
                 [interfaces.i{number}]\ndevice = \"v{number}\"\nnetns = \"{}\"\norientation = \"host\"\ngroups = [\"g{number}\"]\n",
                first_port + number,
                pair.near.name
            )
            .unwrap();
        }
        text + &pair.interface("a", "[\"g499\"]", "")
    };
    let timed = |what: &str, arguments: &[&str], definition: &str| {
        let start = Instant::now();
        enforcer.apply(definition, arguments).ok();
        let took = start.elapsed();
        assert!(took < EACH * MANY, "{what} took {took:?}");
    };
    timed("attaching", &[], &definition(8000));
    pair.far.connect(NEAR, 8499).unwrap();
    assert!(pair.far.connect_is_dropped(NEAR, 8001));
    timed("changing", &[], &definition(7502));
    pair.far.connect(NEAR, 8001).unwrap();
    assert!(pair.far.connect_is_dropped(NEAR, 8499));
    // Programs are shared: those of the namespace, and the commands.
    let versions = fs::read_dir(&enforcer.context.bpffs).unwrap();
    let pins = versions.map(|entry| entry.unwrap().path()).next().unwrap();
    assert_eq!(fs::read_dir(pins.join("progs")).unwrap().count(), 2);
    let one = web("g499", 8001) + &pair.interface("a", "[\"g499\"]", "");
    timed("detaching", &["--detach-missing"], &one);
    let status = enforcer.sgctl(&["status"]).ok();
    assert_eq!(status.out.matches(": enforced").count(), 1, "{status:?}");
}
