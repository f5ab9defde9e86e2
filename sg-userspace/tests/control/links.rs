//! Links that somebody removes, and devices that go and take theirs with them.

use std::{fs, os::fd::AsFd as _, process::Command};

use crate::common::{
    netns::{Enforcer, answers, eventually},
    pair::{NEAR, Pair, web},
    require::require,
};
use sg_userspace::{
    attach::{EGRESS, INGRESS},
    bpf,
    pin::Pins,
};

/// The only sample of a family.
fn figure(enforcer: &Enforcer, name: &str) -> Option<u64> {
    let text = enforcer.sgctl(&["export"]).ok().out;
    let mut lines = text.lines();
    let line = lines.find(|line| line.starts_with(&format!("{name}{{")))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Takes both directions away, in one of the ways that there are.
fn remove(enforcer: &Enforcer, pair: &Pair, by_pin: bool) {
    if !by_pin && enforcer.is_by_filters() {
        let run = || {
            Command::new("tc")
                .args(["qdisc", "del", "dev", "eth0", "clsact"])
                .output()
        };
        assert!(pair.near.run(run).unwrap().status.success());
        return;
    }
    for direction in [EGRESS, INGRESS] {
        let pin = Pins::new(&enforcer.context.bpffs).link(1, direction);
        if by_pin {
            fs::remove_file(pin).unwrap();
        } else {
            let link = bpf::open_pinned(&pin).unwrap().unwrap();
            bpf::detach_link(link.as_fd()).unwrap();
        }
    }
}

#[test]
fn m7_a_device_whose_links_were_all_removed_is_the_same_device() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _servers = [8080, 9090].map(|port| pair.near.serve(NEAR, port));
    let definition = web("g", 8080) + &pair.interface("a", "[\"g\"]", "");
    enforcer.apply(&definition, &[]).ok();
    let mut stream = pair.far.connect(NEAR, 8080).unwrap();
    for by_pin in [false, true] {
        if by_pin && enforcer.is_by_filters() {
            // A filter outlives its pin, which is only its name.
            continue;
        }
        remove(&enforcer, &pair, by_pin);
        eventually("the end of enforcement", || {
            pair.far.connect(NEAR, 9090).is_ok()
        });
        let status = enforcer.sgctl(&["status"]);
        assert_eq!(status.code, 1, "{status:?}");
        for direction in [
            "ingress is not attached",
            "egress is not attached",
            "NOT ENFORCED",
        ] {
            assert!(status.out.contains(direction), "{status:?}");
        }
        assert!(!status.out.contains("device eth0 is gone"), "{status:?}");
        assert_eq!(figure(&enforcer, "sgctl_interface_attached"), Some(0));
        assert_eq!(figure(&enforcer, "sgctl_interface_present"), Some(1));
        let said = enforcer.apply(&definition, &[]).ok();
        assert!(
            said.err.contains("a: links of it had been removed"),
            "{said:?}"
        );
        assert!(answers(&mut stream), "its flows stay");
        assert!(pair.far.connect_is_dropped(NEAR, 9090));
        let status = enforcer.sgctl(&["status"]).ok();
        assert!(!status.out.contains("warning"), "{status:?}");
        assert_eq!(figure(&enforcer, "sgctl_interface_attached"), Some(1));
    }
    assert_eq!(
        enforcer.figure("a", "conntrack_created"),
        1,
        "nothing was adopted anew"
    );
}

#[test]
fn a_device_that_is_gone_is_said_to_be_gone() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let definition = web("g", 8080) + &pair.interface("a", "[\"g\"]", "");
    enforcer.apply(&definition, &[]).ok();
    pair.near.ip("link del eth0");
    eventually("the word of it", || {
        let status = enforcer.sgctl(&["status"]).out;
        status.contains("its device eth0 is gone, and its links with it")
    });
    assert_eq!(figure(&enforcer, "sgctl_interface_attached"), Some(0));
    assert_eq!(figure(&enforcer, "sgctl_interface_present"), Some(0));
}
