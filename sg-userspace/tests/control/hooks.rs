//! Hooks: chosen, moved, shared, replaced, and put right after a failure.

use std::{fs, process::Command};

use crate::common::{
    netns::{Enforcer, Namespace, answers, eventually, veth},
    pair::{FAR, NEAR, Pair, web},
    require::{require, skip},
};
use sg_userspace::{
    attach::{self, AttachError, Place},
    link::Link,
    model::{Conntrack, Hook},
    netns::Netns,
    pin::Pins,
    session::Session,
    state::{HookInForce, Lock},
};

#[test]
fn m8_a_failed_attachment_leaves_nothing_half_attached() {
    require!(Root, Object);
    let (good, bad) = (Pair::new(), Pair::without_native_xdp());
    let enforcer = Enforcer::new();
    let _servers: Vec<_> = [&good, &bad]
        .iter()
        .flat_map(|pair| [8080, 9090].map(|port| pair.near.serve(NEAR, port)))
        .collect();
    let refused = bad.interface("bad", "[\"g\"]", "hook = \"xdp\"");
    let said = enforcer.apply(&(web("g", 8080) + &refused), &[]);
    said.fails(&["bad", "ingress of eth0 by xdp", "no queues left"]);
    assert!(!enforcer.context.bpffs.exists(), "every pin is gone");
    assert_eq!(enforcer.sgctl(&["status"]).code, 1);
    assert!(answers(&mut bad.far.connect(NEAR, 9090).unwrap()));

    let first = good.interface("good", "[\"g\"]", "");
    enforcer.apply(&(web("g", 8080) + &first), &[]).ok();
    let mut stream = good.far.connect(NEAR, 8080).unwrap();
    let said = enforcer.apply(&(web("g", 9090) + &first + &refused), &[]);
    said.fails(&["bad", "nothing was changed"]);
    assert!(answers(&mut stream));
    assert!(answers(&mut good.far.connect(NEAR, 8080).unwrap()));
    assert!(good.far.connect_is_dropped(NEAR, 9090));
    assert!(answers(&mut bad.far.connect(NEAR, 9090).unwrap()));
    let status = enforcer.sgctl(&["status"]).ok();
    assert!(!status.out.contains("bad"), "{status:?}");
}

#[test]
fn a_failed_change_takes_back_the_hooks_it_has_moved() {
    require!(Root, Object);
    let (good, bad) = (Pair::new(), Pair::without_native_xdp());
    let enforcer = Enforcer::new();
    let with = |one: &str, two: &str| {
        web("g", 8080)
            + &good.interface("a", "[\"g\"]", &format!("hook = \"{one}\""))
            + &bad.interface("b", "[\"g\"]", &format!("hook = \"{two}\""))
    };
    for hook in ["tc", "xdp", "xdp-generic"] {
        enforcer.apply(&with(hook, "tc"), &[]).ok();
        let other = if hook == "xdp" { "xdp-generic" } else { "xdp" };
        let said = enforcer.apply(&with(other, "xdp"), &[]);
        said.fails(&["interface b", "ingress of eth0 by xdp"]);
        let status = enforcer.sgctl(&["status"]).ok();
        assert!(
            status.out.contains(&format!("ingress by {hook}: as asked")),
            "{status:?}"
        );
        assert!(!status.out.contains("warning"), "{status:?}");
    }
}

#[test]
fn an_apply_that_was_killed_between_hook_and_record_is_put_right() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _server = pair.near.serve(NEAR, 8080);
    let with = |hook: &str| {
        let hook = format!("hook = \"{hook}\"");
        web("g", 8080) + &pair.interface("a", "[\"g\"]", &hook)
    };
    let state = enforcer.context.state_dir.join("state.json");
    for (recorded, reached) in [("tc", "xdp"), ("xdp", "tc")] {
        enforcer.apply(&with(recorded), &[]).ok();
        let before = fs::read_to_string(&state).unwrap();
        enforcer.apply(&with(reached), &[]).ok();
        let hook = |hook| format!("\"hook\":\"{hook}\"");
        let after = fs::read_to_string(&state).unwrap();
        assert!(before.contains(&hook(recorded)), "{before}");
        fs::write(&state, after.replacen(&hook(reached), &hook(recorded), 1)).unwrap();
        for hook in [reached, recorded] {
            enforcer.apply(&with(hook), &[]).ok();
            let status = enforcer.sgctl(&["status"]).ok();
            assert!(!status.out.contains("warning"), "{status:?}");
            assert!(answers(&mut pair.far.connect(NEAR, 8080).unwrap()));
            assert!(pair.far.connect_is_dropped(NEAR, 9090));
        }
    }
}

#[test]
fn a_hook_that_was_not_written_down_before_the_kill_gets_its_reason() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let with = |hook: &str| {
        let hook = format!("hook = \"{hook}\"");
        web("g", 8080) + &pair.interface("a", "[\"g\"]", &hook)
    };
    let state = enforcer.context.state_dir.join("state.json");
    for (asked, words) in [
        ("auto", "ingress by tc: native XDP on a veth"),
        ("tc", "ingress by tc: as asked"),
        ("xdp-generic", "ingress by xdp-generic: as asked"),
    ] {
        enforcer.apply(&with(asked), &[]).ok();
        // As the first apply leaves it until it writes again.
        let text = fs::read_to_string(&state).unwrap();
        let mut whole: serde_json::Value = serde_json::from_str(&text).unwrap();
        whole["interfaces"][0]["hook"] = "tc".into();
        whole["interfaces"][0]["why"] = "".into();
        fs::write(&state, whole.to_string()).unwrap();
        enforcer.apply(&with(asked), &[]).ok();
        let status = enforcer.sgctl(&["status"]).ok();
        assert!(status.out.contains(words), "{status:?}");
        assert!(!status.out.contains("warning"), "{status:?}");
        enforcer.sgctl(&["detach", "a"]).ok();
    }
}

/// The handle that our filters have, by the directory of the pins: "SG", and FNV-1a folded to 16 bits.
fn handle(bpffs: &std::path::Path) -> u32 {
    let bytes = bpffs.as_os_str().as_encoded_bytes();
    let hash = bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    0x5347 << 16 | (hash ^ hash >> 16) & 0xffff
}

/// A filter beside the XDP link that ingress was to leave, as a kill leaves them where there is no tcx. The kernel
/// knows filters whether or not it knows tcx, too.
#[test]
fn a_filter_to_which_ingress_was_moving_goes() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _server = pair.near.serve(NEAR, 8080);
    let definition = web("g", 8080) + &pair.interface("a", "[\"g\"]", "hook = \"xdp-generic\"");
    let tc = |arguments: &str| {
        let run = || Command::new("tc").args(arguments.split(' ')).output();
        let done = pair.near.run(run).unwrap();
        assert!(done.status.success(), "{arguments}: {done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    let pins = Pins::new(&enforcer.context.bpffs);
    let leave = || {
        enforcer
            .apply(&(definition.replace("xdp-generic", "tc")), &[])
            .ok();
        enforcer.apply(&definition, &[]).ok();
        let program = pins.programs(1).join("tc_ingress");
        let mut opened = aya::programs::SchedClassifier::from_pin(&program).unwrap();
        opened.pin(pins.link(1, "ingress-new")).unwrap();
        let _ = pair.near.run(|| {
            Command::new("tc")
                .args("qdisc add dev eth0 clsact".split(' '))
                .output()
        });
        let (handle, program) = (handle(&enforcer.context.bpffs), program.display());
        tc(&format!(
            "filter add dev eth0 ingress prio 1 handle {handle:#x} bpf da pinned {program}"
        ));
        assert!(tc("filter show dev eth0 ingress").contains("direct-action"));
    };
    for ended_by in ["apply", "detach"] {
        leave();
        if ended_by == "apply" {
            enforcer.apply(&definition, &[]).ok();
            assert!(answers(&mut pair.far.connect(NEAR, 8080).unwrap()));
            assert!(pair.far.connect_is_dropped(NEAR, 9090));
        } else {
            enforcer.sgctl(&["detach", "a"]).ok();
            assert!(!enforcer.context.bpffs.exists(), "every pin is gone");
            assert!(answers(&mut pair.far.connect(NEAR, 8080).unwrap()));
        }
        assert_eq!(tc("filter show dev eth0 ingress"), "", "{ended_by}");
        assert!(!pins.link(1, "ingress-new").exists());
    }
}

#[test]
fn filters_go_when_they_are_detached_and_their_qdisc_only_if_it_was_made_for_them() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let definition = web("g", 8080) + &pair.interface("a", "[\"g\"]", "hook = \"tc\"");
    enforcer.apply(&definition, &[]).ok();
    if !enforcer.is_by_filters() {
        return skip("the kernel has tcx, so there are no filters");
    }
    let tc = |arguments: &str| {
        let run = || Command::new("tc").args(arguments.split(' ')).output();
        let done = pair.near.run(run).unwrap();
        assert!(done.status.success(), "{arguments}: {done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    let filters = || tc("filter show dev eth0 ingress") + &tc("filter show dev eth0 egress");
    for ours in [true, false] {
        // Those that there are serve tables of another size.
        let resized = definition.clone() + "[conntrack]\nallowance = 300000\n";
        enforcer.apply(&resized, &[]).ok();
        assert_eq!(filters().matches("direct-action").count(), 2);
        let status = enforcer.sgctl(&["status"]).ok();
        assert!(
            status.out.contains("filters of a clsact qdisc"),
            "{status:?}"
        );
        enforcer.sgctl(&["detach", "a"]).ok();
        assert_eq!(tc("qdisc show dev eth0").contains("clsact"), !ours);
        if ours {
            tc("qdisc add dev eth0 clsact");
        }
        assert_eq!(filters(), "");
        if ours {
            enforcer.apply(&definition, &[]).ok();
        }
    }
}

#[test]
fn m5_filters_do_not_follow_a_device_that_moves_away() {
    require!(Root, Object);
    let (pair, other, enforcer) = (Pair::new(), Namespace::new("other"), Enforcer::new());
    let definition = web("g", 8080) + &pair.interface("a", "[\"g\"]", "");
    enforcer.apply(&definition, &[]).ok();
    if !enforcer.is_by_filters() {
        return skip("the kernel has tcx, so there are no filters");
    }
    pair.near.ip(&format!("link set eth0 netns {}", other.name));
    pair.near
        .ip("link add eth0 index 10 type veth peer name eth1");
    let said = enforcer.apply(&definition, &[]).ok();
    assert!(said.out.contains("a (eth0): attached"), "{said:?}");
    enforcer.sgctl(&["status"]).ok();
}

#[test]
fn hooks_change_while_connections_are_open() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _server = pair.near.serve(NEAR, 8080);
    let with = |hook: &str| {
        let hook = format!("hook = \"{hook}\"");
        web("g", 8080) + &pair.interface("a", "[\"g\"]", &hook)
    };
    enforcer.apply(&with("tc"), &[]).ok();
    let mut stream = pair.far.connect(NEAR, 8080).unwrap();
    for hook in ["xdp", "xdp-generic", "tc", "xdp-generic", "xdp"] {
        let said = enforcer.apply(&with(hook), &[]).ok();
        assert!(
            said.out.contains(&format!("ingress by {hook}\n")),
            "{said:?}"
        );
        assert!(answers(&mut stream), "{hook}");
        assert!(
            answers(&mut pair.far.connect(NEAR, 8080).unwrap()),
            "{hook}"
        );
        assert!(pair.far.connect_is_dropped(NEAR, 9090));
        let status = enforcer.sgctl(&["status"]).ok();
        assert!(
            status
                .out
                .contains(&format!("ingress by {hook}: as asked\n")),
            "{status:?}"
        );
    }
}

#[test]
fn m11_a_hook_of_our_choice_comes_with_its_reason() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    pair.near.ip("link add vx0 type vxlan id 7 dstport 4789");
    let tunnel = format!(
        "[interfaces.tunnel]\ndevice = \"vx0\"\nnetns = \"{}\"\ngroups = [\"g\"]\n",
        pair.near.name
    );
    let definition = web("g", 8080) + &pair.interface("a", "[\"g\"]", "") + &tunnel;
    enforcer.apply(&definition, &[]).ok();
    let status = enforcer.sgctl(&["status", "--json"]).ok();
    let status: serde_json::Value = serde_json::from_str(&status.out).unwrap();
    let why = |place: usize| status["interfaces"][place]["why"].as_str().unwrap();
    assert!(why(0).contains("veth"), "{status}");
    assert!(
        why(1).contains("the driver does not support it"),
        "{status}"
    );
    for place in [0, 1] {
        assert_eq!(status["interfaces"][place]["hook"], "tc");
        assert_eq!(status["interfaces"][place]["enforced"], true);
    }
}

/// Where the kernel answers EINVAL to a link, as many drivers do to an MTU, aya asks again by netlink.
/// That answer must count as the kernel's too, or `auto` would fail instead of taking TC. A device that
/// there is not is met the same way.
#[test]
fn a_refusal_by_netlink_is_one_too() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let lock = Lock::take(&enforcer.context.state_dir).unwrap();
    let session = Session::create(&enforcer.context, &lock, Conntrack::default()).unwrap();
    let netns = Netns::open(Some(&pair.near.name)).unwrap();
    let link = Link {
        ifindex: 1 << 20,
        ..pair.near.run(|| Link::read("eth0")).unwrap()
    };
    let set = session.programs(1);
    for hook in [Hook::Xdp, Hook::XdpGeneric] {
        let from = HookInForce::Tc;
        let refused = attach::move_ingress(&session.pins, &set, &netns, &link, 1, from, hook);
        let Err(AttachError::Refused { answer, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(answer.raw_os_error(), Some(libc::ENODEV));
    }
}

#[test]
fn j10_whoever_stands_before_us_is_a_warning() {
    require!(Root, Object);
    let (pair, ours, theirs) = (Pair::new(), Enforcer::new(), Enforcer::new());
    let definition = web("g", 8080) + &pair.interface("a", "[\"g\"]", "");
    ours.apply(&definition, &[]).ok();
    let status = ours.sgctl(&["status"]).ok();
    assert!(!status.out.contains("warning"), "{status:?}");
    // Another enforcer puts itself first, as every one does.
    theirs.apply(&definition, &[]).ok();
    let status = ours.sgctl(&["status"]).ok();
    for direction in ["ingress", "egress"] {
        let words = format!("stands before ours in the {direction} chain of eth0");
        assert!(status.out.contains(&words), "{status:?}");
    }
    let status = theirs.sgctl(&["status"]).ok();
    assert!(!status.out.contains("warning"), "{status:?}");
    // Both are heard: a packet that passes one goes on to the other.
    let _server = pair.near.serve(NEAR, 8080);
    assert!(answers(&mut pair.far.connect(NEAR, 8080).unwrap()));
    for enforcer in [&ours, &theirs] {
        assert_eq!(enforcer.figure("a", "ingress_passed_new_packets"), 1);
    }
}

#[test]
fn programs_of_another_build_are_replaced_behind_the_links_in_use() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _server = pair.near.serve(NEAR, 8080);
    let definition = web("g", 8080) + &pair.interface("a", "[\"g\"]", "");
    enforcer.apply(&definition, &[]).ok();
    let mut stream = pair.far.connect(NEAR, 8080).unwrap();
    let ingress = Pins::new(&enforcer.context.bpffs).link(1, attach::INGRESS);
    let netns = Netns::open(Some(&pair.near.name)).unwrap();
    let place = Place::within(netns.identity(), 10);
    let before = attach::details(&ingress, place).unwrap().unwrap();

    // As if another build had loaded them.
    let state = enforcer.context.state_dir.join("state.json");
    let text = fs::read_to_string(&state).unwrap();
    let at = text.find("\"object\":\"").unwrap() + "\"object\":\"".len();
    let other = format!("{}{}{}", &text[..at], "0".repeat(64), &text[at + 64..]);
    fs::write(&state, other).unwrap();
    let status = enforcer.sgctl(&["status"]).ok();
    assert!(
        status.out.contains("programs of another build"),
        "{status:?}"
    );

    enforcer.apply(&definition, &[]).ok();
    let after = attach::details(&ingress, place).unwrap().unwrap();
    assert_eq!(before.id, after.id, "the link stays");
    assert_ne!(before.program_id, after.program_id);
    assert!(answers(&mut stream));
    assert!(pair.far.connect_is_dropped(NEAR, 9090));
    let status = enforcer.sgctl(&["status"]).ok();
    assert!(!status.out.contains("warning"), "{status:?}");
}

#[test]
fn a_name_that_moves_to_another_device_leaves_the_old_one_enforced() {
    require!(Root, Object);
    let (one, two, enforcer) = (Pair::new(), Pair::new(), Enforcer::new());
    let _servers: Vec<_> = [&one, &two]
        .iter()
        .flat_map(|pair| [8080, 9090].map(|port| pair.near.serve(NEAR, port)))
        .collect();
    let first = web("g", 8080) + &one.interface("a", "[\"g\"]", "");
    enforcer.apply(&first, &[]).ok();
    let second = web("g", 9090) + &two.interface("a", "[\"g\"]", "");
    let said = enforcer.apply(&second, &[]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.err.contains("a@eth0 is attached but"), "{said:?}");
    assert!(answers(&mut one.far.connect(NEAR, 8080).unwrap()));
    assert!(one.far.connect_is_dropped(NEAR, 9090));
    assert!(answers(&mut two.far.connect(NEAR, 9090).unwrap()));
    // It can be named again, under another name: it is known by its device.
    let both = second + &one.interface("b", "[\"g\"]", "");
    let said = enforcer.apply(&both, &[]).ok();
    assert!(said.out.contains("b (eth0): updated"), "{said:?}");
    assert!(answers(&mut one.far.connect(NEAR, 9090).unwrap()));
}

#[test]
fn m6_a_device_made_anew_is_another_interface() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let definition = web("g", 8080) + &pair.interface("a", "[\"g\"]", "");
    enforcer.apply(&definition, &[]).ok();
    {
        let _server = pair.near.serve(NEAR, 8080);
        assert!(answers(&mut pair.far.connect(NEAR, 8080).unwrap()));
    }
    pair.near.ip("link del eth0");
    eventually("the dead link's notice", || {
        enforcer.sgctl(&["status"]).code == 1
    });
    veth(&pair.near, &pair.far, "eth0", 10);
    pair.near.ip(&format!("addr add {NEAR}/24 dev eth0"));
    pair.far.ip(&format!("addr add {FAR}/24 dev eth0"));
    let said = enforcer.apply(&definition, &[]).ok();
    assert!(
        said.out.contains("a: its device or its links are gone"),
        "{said:?}"
    );
    assert!(said.out.contains("a (eth0): attached"), "{said:?}");
    assert_eq!(enforcer.figure("a", "conntrack_tracked"), 0);
    let _servers = [8080, 9090].map(|port| pair.near.serve(NEAR, port));
    assert!(answers(&mut pair.far.connect(NEAR, 8080).unwrap()));
    assert!(pair.far.connect_is_dropped(NEAR, 9090));
}
