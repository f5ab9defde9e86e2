//! VLAN tags that the device strips: XDP would not see them, TC does.

use sg_userspace::{ethtool, link::vlan};

use crate::common::{
    ethtool::strip_tags,
    netns::{Enforcer, Namespace, veth},
    pair::{Pair, web},
    require::{require, skip},
};

#[test]
fn a3_offloads_are_what_the_driver_says() {
    require!(Root);
    let pair = Pair::new();
    let active = || pair.near.run(|| ethtool::active("eth0")).unwrap();
    let before = active();
    for name in [
        "rx-vlan-hw-parse",
        "rx-vlan-stag-hw-parse",
        "tx-scatter-gather",
    ] {
        assert!(before.contains(name), "no {name} in {before:?}");
    }
    assert!(!before.contains("loopback"), "{before:?}");
    strip_tags(&pair.near, false);
    let mut expected = before.clone();
    expected.remove("rx-vlan-hw-parse");
    assert_eq!(active(), expected);
    strip_tags(&pair.near, true);
    assert_eq!(active(), before);
    // The other namespace's eth0 is another one.
    strip_tags(&pair.far, false);
    assert_eq!(active(), before);
    let missing = pair.near.run(|| ethtool::active("nothing")).unwrap_err();
    assert_eq!(missing.raw_os_error(), Some(libc::ENODEV));
}

/// With macvlans, which every kernel has that has network namespaces to speak of: the kernel tells of
/// them as of VLAN sub-interfaces, but for the kind.
#[test]
fn a3_devices_above_are_those_of_the_same_namespace() {
    require!(Root);
    let (pair, other) = (Pair::new(), Namespace::new("other"));
    pair.near
        .ip("link add eth1 index 11 type veth peer name eth2");
    for (name, below) in [
        ("one", "eth0"),
        ("two", "eth0"),
        ("three", "eth1"),
        ("four", "eth0"),
    ] {
        pair.near
            .ip(&format!("link add link {below} name {name} type macvlan"));
    }
    // It still stands on index 10, but that is another device where it is now.
    pair.near.ip(&format!("link set four netns {}", other.name));
    veth(&other, &pair.far, "eth3", 10);
    let names = |namespace: &Namespace, index, kind| {
        let found = namespace.run(|| vlan::above(index, kind)).unwrap();
        let mut names: Vec<String> = found.iter().filter_map(vlan::name).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(names(&pair.near, 10, "macvlan"), ["one", "two"]);
    assert_eq!(names(&pair.near, 11, "macvlan"), ["three"]);
    for kind in ["vlan", "veth"] {
        assert!(names(&pair.near, 10, kind).is_empty(), "{kind}");
    }
    assert!(names(&other, 10, "macvlan").is_empty());
}

/// The whole of it, where the kernel has VLANs; the decision and what is read for it are tested apart
/// from them too: here, and in `link::vlan`.
#[test]
fn a3_xdp_gives_way_to_tc_where_tags_are_stripped() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    if !pair.near.vlan("eth0", 5) {
        return skip("the kernel has no VLAN sub-interfaces");
    }
    let with = |hook: &str| {
        let hook = format!("hook = \"{hook}\"");
        web("g", 8080) + &pair.interface("a", "[\"g\"]", &hook)
    };
    let reason = "rx-vlan-offload is on and there are VLAN sub-interfaces (eth0.5)";

    for hook in ["xdp", "xdp-generic"] {
        let by = format!("ingress of eth0 by {hook}");
        let said = enforcer.apply(&with(hook), &[]);
        said.fails(&[&by, reason, "`ethtool -K eth0 rxvlan off`", "hook = \"tc\""]);
        assert!(!enforcer.context.bpffs.exists(), "nothing was made");
    }
    enforcer.apply(&with("auto"), &[]).ok();
    let status = enforcer.sgctl(&["status"]).ok();
    assert!(
        status.out.contains("ingress by tc: XDP would not see"),
        "{status:?}"
    );
    assert!(status.out.contains(reason), "{status:?}");
    enforcer
        .apply(&with("xdp"), &[])
        .fails(&[reason, "nothing was changed"]);

    // Either fact alone is none.
    strip_tags(&pair.near, false);
    enforcer.apply(&with("xdp"), &[]).ok();
    let status = enforcer.sgctl(&["status"]).ok();
    assert!(!status.out.contains("warning"), "{status:?}");

    // What is in force stays so, and says what it does not see.
    strip_tags(&pair.near, true);
    let status = enforcer.sgctl(&["status"]).ok();
    let warning = "warning: ingress by xdp does not see the VLAN tags of eth0";
    assert!(status.out.contains(warning), "{status:?}");
    let said = enforcer.apply(&with("xdp"), &[]).ok();
    assert!(said.err.contains("does not see the VLAN tags"), "{said:?}");
    enforcer.apply(&with("xdp-generic"), &[]).fails(&[reason]);

    // `auto` gives way, and forgets the reason with the VLAN.
    let said = enforcer.apply(&with("auto"), &[]).ok();
    assert!(said.out.contains("ingress by tc\n"), "{said:?}");
    pair.near.ip("link del eth0.5");
    enforcer.apply(&with("auto"), &[]).ok();
    let status = enforcer.sgctl(&["status"]).ok();
    assert!(!status.out.contains("VLAN"), "{status:?}");
    enforcer.apply(&with("xdp"), &[]).ok();
}
