//! The control plane on real devices: apply, attach, adopt, read back, detach, refuse.

mod common;

use std::{
    fs,
    net::{Ipv6Addr, UdpSocket},
    os::unix::fs::PermissionsExt as _,
};

use common::{
    netns::{Enforcer, Namespace, SOON, answers, eventually, unique, veth},
    pair::{FAR, FAR6, NEAR, NEAR6, Pair, denies_all, web},
    require::require,
};
use sg_userspace::{attach, state::Lock};

#[test]
fn enforcement_starts_with_apply_outlives_the_process_and_ends_with_detach() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _open = pair.near.serve(NEAR, 8080);
    let _closed = pair.near.serve(NEAR, 9090);
    let definition = web("web", 8080) + &pair.interface("web", "[\"web\"]", "");
    let said = enforcer.apply(&definition, &[]).ok();
    assert!(
        said.out.contains("web (eth0): attached, ingress by tc"),
        "{said:?}"
    );
    assert!(said.out.contains("generation 1 is in force"), "{said:?}");

    let mut stream = pair.far.connect(NEAR, 8080).unwrap();
    assert!(answers(&mut stream));
    assert!(pair.far.connect_is_dropped(NEAR, 9090));
    assert_eq!(enforcer.figure("web", "conntrack_tcp_established"), 1);
    assert_eq!(enforcer.figure("eth0", "conntrack_tracked"), 1);
    assert_eq!(enforcer.figure("web", "ingress_passed_new_packets"), 1);
    assert!(enforcer.figure("web", "ingress_dropped_no_rule_packets") >= 1);
    let allowance = enforcer.figure("web", "conntrack_allowance");
    assert_eq!(
        enforcer.figure("web", "conntrack_allowance_available"),
        allowance - 1
    );

    let flows = enforcer.sgctl(&["ct", "list", "--interface", "web"]).ok();
    let expected = format!("web tcp established {NEAR}:8080 <- {FAR}:");
    assert!(flows.out.starts_with(&expected), "{flows:?}");
    assert_eq!(flows.out.lines().count(), 1);

    let status = enforcer.sgctl(&["status"]).ok();
    assert!(status.out.contains("web: enforced\n"), "{status:?}");

    let said = enforcer.sgctl(&["detach", "web"]).ok();
    assert!(
        said.out.contains("1 tracked connection forgotten"),
        "{said:?}"
    );
    assert!(!enforcer.context.bpffs.exists(), "every pin is gone");
    assert!(answers(&mut pair.far.connect(NEAR, 9090).unwrap()));
    assert!(answers(&mut stream));
    assert_eq!(enforcer.sgctl(&["status"]).code, 1);
}

#[test]
fn equal_names_indexes_and_addresses_in_two_namespaces_are_two_interfaces() {
    require!(Root, Object);
    let (one, two, enforcer) = (Pair::new(), Pair::new(), Enforcer::new());
    let _servers: Vec<_> = [&one, &two]
        .iter()
        .flat_map(|pair| [8080, 9090].map(|port| pair.near.serve(NEAR, port)))
        .collect();
    let definition = web("first", 8080)
        + &web("second", 9090)
        + &one.interface("one", "[\"first\"]", "")
        + &two.interface("two", "[\"second\"]", "");
    enforcer.apply(&definition, &[]).ok();

    let mut first = one.far.connect(NEAR, 8080).unwrap();
    assert!(answers(&mut first));
    assert!(one.far.connect_is_dropped(NEAR, 9090));
    assert!(two.far.connect_is_dropped(NEAR, 8080));
    assert!(answers(&mut two.far.connect(NEAR, 9090).unwrap()));
    assert_eq!(enforcer.figure("one", "ingress_passed_new_packets"), 1);
    assert_eq!(enforcer.figure("two", "ingress_passed_new_packets"), 1);

    let ambiguous = enforcer.sgctl(&["stats", "eth0"]);
    ambiguous.fails(&["eth0", "one, two"]);

    // The other goes, with its flows; this one's stay.
    enforcer.sgctl(&["detach", "two"]).ok();
    assert!(answers(&mut two.far.connect(NEAR, 8080).unwrap()));
    assert!(one.far.connect_is_dropped(NEAR, 9090));
    assert!(answers(&mut first));
    assert_eq!(enforcer.figure("one", "conntrack_tracked"), 1);
}

#[test]
fn open_connections_live_on_through_the_first_attachment() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    // A socket of both families has IPv4 peers too.
    let _near = pair.near.serve(Ipv6Addr::UNSPECIFIED, 22);
    let _far = pair.far.serve(FAR, 3306);
    let mut streams = [
        pair.far.connect(NEAR, 22).unwrap(),
        pair.far.connect(NEAR6, 22).unwrap(),
        pair.near.connect(FAR, 3306).unwrap(),
    ];
    let (client, server) = (
        pair.near.run(|| UdpSocket::bind((NEAR, 0))).unwrap(),
        pair.far.run(|| UdpSocket::bind((FAR, 53))).unwrap(),
    );
    client.connect((FAR, 53)).unwrap();
    server.connect(client.local_addr().unwrap()).unwrap();
    for socket in [&client, &server] {
        socket.set_read_timeout(Some(SOON)).unwrap();
    }
    let exchange = || {
        let mut back = [0; 8];
        client.send(b"question").unwrap();
        server.recv(&mut back).unwrap();
        server.send(b"answer").unwrap();
        client.recv(&mut back).unwrap()
    };
    exchange();
    for stream in &mut streams {
        assert!(answers(stream));
    }

    let definition = denies_all("none") + &pair.interface("a", "[\"none\"]", "");
    let said = enforcer.apply(&definition, &[]).ok();
    assert!(said.out.contains("4 open connections adopted"), "{said:?}");
    for stream in &mut streams {
        assert!(answers(stream), "{stream:?}");
    }
    exchange();
    let flows = enforcer.sgctl(&["ct", "list"]).ok().out;
    for expected in [
        format!("a tcp established {NEAR}:22 <- {FAR}:"),
        format!("a tcp established [{NEAR6}]:22 <- [{FAR6}]:"),
        format!("-> {FAR}:3306 "),
        format!("-> {FAR}:53 "),
    ] {
        assert!(flows.contains(&expected), "no {expected} in {flows}");
    }
    assert_eq!(flows.matches(" adopted").count(), 4, "{flows}");
    assert!(pair.far.connect_is_dropped(NEAR, 22));
    assert!(pair.far.connect_is_dropped(NEAR6, 22));
}

#[test]
fn without_adoption_open_connections_are_cut() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _near = pair.near.serve(NEAR, 22);
    let mut inbound = pair.far.connect(NEAR, 22).unwrap();
    assert!(answers(&mut inbound));
    inbound
        .set_read_timeout(Some(common::netns::NEVER))
        .unwrap();
    let definition = denies_all("none") + &pair.interface("a", "[\"none\"]", "");
    enforcer.apply(&definition, &["--no-adopt"]).ok();
    assert!(!answers(&mut inbound));
    assert!(enforcer.figure("a", "ingress_dropped_mid_stream_packets") >= 1);
}

#[test]
fn a_new_generation_keeps_open_connections_and_judges_new_ones() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _servers = [8080, 9090].map(|port| pair.near.serve(NEAR, port));
    let interface = pair.interface("a", "[\"g\"]", "");
    enforcer.apply(&(web("g", 8080) + &interface), &[]).ok();
    let mut old = pair.far.connect(NEAR, 8080).unwrap();
    assert!(answers(&mut old));
    let said = enforcer.apply(&(web("g", 9090) + &interface), &[]).ok();
    assert!(said.out.contains("a (eth0): updated"), "{said:?}");
    assert!(said.out.contains("generation 2 is in force"), "{said:?}");
    assert!(answers(&mut old));
    assert!(pair.far.connect_is_dropped(NEAR, 8080));
    assert!(answers(&mut pair.far.connect(NEAR, 9090).unwrap()));
    let exceeded = enforcer.figure("a", "conntrack_allowance_exceeded");
    assert_eq!(exceeded, 0);
}

#[test]
fn an_interface_the_definition_dropped_keeps_its_policy_until_told_otherwise() {
    require!(Root, Object);
    let (one, two, enforcer) = (Pair::new(), Pair::new(), Enforcer::new());
    let _servers: Vec<_> = [&one, &two]
        .iter()
        .flat_map(|pair| [8080, 9090].map(|port| pair.near.serve(NEAR, port)))
        .collect();
    let both = web("g", 8080) + &one.interface("one", "[\"g\"]", "");
    let both = both + &two.interface("two", "[\"g\"]", "");
    enforcer.apply(&both, &[]).ok();
    // The group of the same name means something else now, but not for the interface left behind.
    let only = web("g", 9090) + &one.interface("one", "[\"g\"]", "");
    let said = enforcer.apply(&only, &[]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.err.contains("two is attached but"), "{said:?}");
    assert!(said.out.contains("generation 2 is in force"), "{said:?}");
    assert!(answers(&mut one.far.connect(NEAR, 9090).unwrap()));
    assert!(answers(&mut two.far.connect(NEAR, 8080).unwrap()));
    assert!(two.far.connect_is_dropped(NEAR, 9090));
    let status = enforcer.sgctl(&["status"]).ok();
    assert!(
        status.out.contains("two: enforced by its last policy"),
        "{status:?}"
    );
    // And once more: what is kept survives being kept.
    assert_eq!(enforcer.apply(&only, &[]).code, 2);
    assert!(answers(&mut two.far.connect(NEAR, 8080).unwrap()));

    let said = enforcer.apply(&only, &["--detach-missing"]).ok();
    assert!(said.out.contains("two: detached"), "{said:?}");
    assert!(answers(&mut two.far.connect(NEAR, 9090).unwrap()));
    assert!(one.far.connect_is_dropped(NEAR, 8080));
}

#[test]
fn a_failed_attachment_leaves_nothing_half_attached() {
    require!(Root, Object);
    let (good, bad, enforcer) = (Pair::new(), Pair::new(), Enforcer::new());
    // Native XDP of a veth does not take frames as long as its peer may send.
    bad.far.ip("link set eth0 mtu 9000");
    let _servers: Vec<_> = [&good, &bad]
        .iter()
        .flat_map(|pair| [8080, 9090].map(|port| pair.near.serve(NEAR, port)))
        .collect();
    let refused = bad.interface("bad", "[\"g\"]", "hook = \"xdp\"");
    let said = enforcer.apply(&(web("g", 8080) + &refused), &[]);
    said.fails(&["bad", "ingress of eth0 by xdp", "MTU"]);
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
    let (good, bad, enforcer) = (Pair::new(), Pair::new(), Enforcer::new());
    bad.far.ip("link set eth0 mtu 9000");
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
fn a_device_in_the_place_of_one_that_moved_away_is_not_taken_for_it() {
    require!(Root, Object);
    let (pair, other, enforcer) = (Pair::new(), Namespace::new("other"), Enforcer::new());
    let definition = web("g", 8080) + &pair.interface("a", "[\"g\"]", "");
    enforcer.apply(&definition, &[]).ok();
    pair.near.ip(&format!("link set eth0 netns {}", other.name));
    pair.near
        .ip("link add eth0 index 10 type veth peer name eth1");
    let said = enforcer.apply(&definition, &[]);
    said.fails(&["a", "eth0", "has moved to another network namespace"]);
    let status = enforcer.sgctl(&["status"]);
    assert_eq!(status.code, 1, "{status:?}");
    enforcer.sgctl(&["detach", "a"]).ok();
    enforcer.apply(&definition, &[]).ok();
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
fn a_hook_of_our_choice_comes_with_its_reason() {
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

#[test]
fn whoever_stands_before_us_is_a_warning() {
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
fn figures_are_there_as_json_and_for_the_host() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _server = pair.near.serve(NEAR6, 8080);
    let limits = "allowance = 100\nreserve = 40";
    let definition = "[conntrack]\nallowance = 2000\n".to_owned()
        + &web("g", 8080)
        + &pair.interface("a", "[\"g\"]", limits);
    enforcer.apply(&definition, &[]).ok();
    let mut stream = pair.far.connect(NEAR6, 8080).unwrap();
    assert!(answers(&mut stream));
    let said = enforcer.sgctl(&["stats", "--json"]).ok();
    let stats: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let interface = &stats["interfaces"][0]["statistics"];
    assert_eq!(stats["interfaces"][0]["name"], "a");
    assert_eq!(interface["conntrack_allowance_available"], 99);
    assert_eq!(interface["conntrack_tcp_established"], 1);
    assert_eq!(interface["conntrack_unassured"], 0);
    assert_eq!(stats["host"]["conntrack_allowance_available"], 1999);
    assert_eq!(stats["host"]["conntrack_tracked"], 1);
    let text = enforcer.sgctl(&["stats"]).ok().out;
    assert!(
        text.starts_with("Host statistics:\n     generation: 1\n"),
        "{text}"
    );
    assert!(
        text.contains("NIC statistics for a (eth0):\n     conntrack_allowance_available: 99\n")
    );

    let said = enforcer.sgctl(&["ct", "list", "--json"]).ok();
    let flows: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(flows.as_array().unwrap().len(), 1);
    assert_eq!(flows[0]["local"], NEAR6.to_string());
    assert_eq!(flows[0]["local_port"], 8080);
    assert_eq!(flows[0]["opened_by"], "remote");
    assert_eq!(flows[0]["assured"], true);
    // SYN, ACK, data, ACK of the answer at least; byte counts include Ethernet headers.
    assert!(
        flows[0]["traffic"]["ingress_packets"].as_u64().unwrap() >= 3,
        "{flows}"
    );
    assert!(
        flows[0]["traffic"]["egress_bytes"].as_u64().unwrap() >= 3 * 74,
        "{flows}"
    );
    let expires = flows[0]["expires_seconds"].as_f64().unwrap();
    assert!((431_990.0..=432_000.0).contains(&expires), "{flows}");
}

#[test]
fn programs_of_another_build_are_replaced_behind_the_links_in_use() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _server = pair.near.serve(NEAR, 8080);
    let definition = web("g", 8080) + &pair.interface("a", "[\"g\"]", "");
    enforcer.apply(&definition, &[]).ok();
    let mut stream = pair.far.connect(NEAR, 8080).unwrap();
    let ingress = enforcer.context.bpffs.join("v1/links/1-ingress");
    let before = attach::details(&ingress).unwrap().unwrap();

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
    let after = attach::details(&ingress).unwrap().unwrap();
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
fn a_device_made_anew_is_another_interface() {
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

#[test]
fn the_host_end_of_a_workloads_link_judges_from_the_workloads_side() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    // `near` is the host here: what comes in on its eth0 leaves the workload in `far`.
    let _servers = [8080, 9090].map(|port| pair.far.serve(FAR, port));
    let _host = pair.near.serve(NEAR, 8080);
    let interface = pair
        .interface("vm", "[\"g\"]", &format!("addresses = [\"{FAR}\"]"))
        .replace("\"own\"", "\"host\"");
    enforcer.apply(&(web("g", 8080) + &interface), &[]).ok();
    assert!(answers(&mut pair.near.connect(FAR, 8080).unwrap()));
    assert!(pair.near.connect_is_dropped(FAR, 9090));
    assert!(pair.far.connect_is_dropped(NEAR, 8080));
    assert!(enforcer.figure("vm", "egress_dropped_no_rule_packets") >= 1);
    assert!(enforcer.figure("vm", "ingress_dropped_no_rule_packets") >= 1);
}

#[test]
fn tables_do_not_grow_and_say_so() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let with = |conntrack: &str| {
        format!("[conntrack]\n{conntrack}\n")
            + &web("g", 8080)
            + &pair.interface("a", "[\"g\"]", "")
    };
    enforcer.apply(&with("allowance = 6000"), &[]).ok();
    enforcer.apply(&with("allowance = 5000"), &[]).ok();
    assert_eq!(enforcer.figure("a", "conntrack_allowance_available"), 5000);
    let said = enforcer.apply(&with("allowance = 7000"), &[]);
    said.fails(&["7000", "6000", "sgctl detach --all"]);
    let said = enforcer.apply(&with("allowance = 5000\naccounting = false"), &[]);
    said.fails(&["accounting = false", "sgctl detach --all"]);
    assert_eq!(enforcer.figure("a", "conntrack_allowance"), 5000);
}

#[test]
fn devices_that_cannot_be_judged_are_refused() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    pair.near.ip("link add br0 type bridge");
    pair.near.ip("tuntap add dev tun0 mode tun");
    pair.near.ip("tuntap add dev tap0 mode tap");
    let with = |device: &str, orientation: &str| {
        let name = &pair.near.name;
        let interface = format!(
            "[interfaces.a]\ndevice = \"{device}\"\nnetns = \"{name}\"\ngroups = [\"g\"]\n{orientation}"
        );
        enforcer.apply(&(web("g", 8080) + &interface), &[])
    };
    with("br0", "").fails(&["br0 is a bridge", "ports"]);
    with("lo", "").fails(&["lo is the loopback device"]);
    with("tun0", "").fails(&["tun0 carries no Ethernet header"]);
    with("tap0", "").fails(&["tap0 is a tap", "orientation"]);
    with("eth0", "").fails(&["eth0 is a veth whose peer", "orientation"]);
    with("eth9", "").fails(&["no device eth9"]);
    with("br0", "orientation = \"host\"").fails(&["br0 is a bridge"]);
    assert!(!enforcer.context.bpffs.exists(), "nothing was made");
}

#[test]
fn a_hostile_pin_directory_is_refused() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let definition = web("g", 8080) + &pair.interface("a", "[\"g\"]", "");
    // Something must have mounted the file system before a directory can stand in the way.
    enforcer.apply(&definition, &[]).ok();
    enforcer.sgctl(&["detach", "--all"]).ok();
    let base = &enforcer.context.bpffs;
    fs::create_dir(base).unwrap();
    fs::set_permissions(base, fs::Permissions::from_mode(0o777)).unwrap();
    enforcer
        .apply(&definition, &[])
        .fails(&["mode 0777", "0700"]);
    fs::set_permissions(base, fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(base, Some(65534), Some(65534)).unwrap();
    enforcer.apply(&definition, &[]).fails(&["uid 65534"]);
    fs::remove_dir(base).unwrap();
    std::os::unix::fs::symlink("/sys/fs/bpf", base).unwrap();
    enforcer.apply(&definition, &[]).fails(&["symbolic link"]);
    fs::remove_file(base).unwrap();
    enforcer.apply(&definition, &[]).ok();
}

#[test]
fn a_directory_in_somebody_elses_is_refused() {
    require!(Root);
    let (pair, mut enforcer) = (Pair::new(), Enforcer::new());
    let definition = web("g", 8080) + &pair.interface("a", "[\"g\"]", "");
    let theirs = enforcer.context.state_dir.clone();
    fs::create_dir(&theirs).unwrap();
    std::os::unix::fs::chown(&theirs, Some(65534), Some(65534)).unwrap();
    enforcer.context.state_dir = theirs.join("state");
    let said = enforcer.apply(&definition, &[]);
    fs::remove_dir_all(&theirs).unwrap();
    said.fails(&["belongs to somebody else"]);
}

#[test]
fn a_pinned_map_of_another_shape_is_refused() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _server = pair.near.serve(NEAR, 9090);
    let definition = web("g", 8080) + &pair.interface("a", "[\"g\"]", "");
    enforcer.apply(&definition, &[]).ok();
    let maps = enforcer.context.bpffs.join("v1/maps");
    fs::remove_file(maps.join("CLASSES")).unwrap();
    fs::hard_link(maps.join("GENERATION"), maps.join("CLASSES")).unwrap_or_else(|_| {
        let map = aya::maps::MapData::from_pin(maps.join("GENERATION")).unwrap();
        map.pin(maps.join("CLASSES")).unwrap();
    });
    let said = enforcer.apply(&definition, &[]);
    said.fails(&["CLASSES", "4", "32", "sgctl detach --all"]);
    // It goes on judging by what is loaded.
    assert!(pair.far.connect_is_dropped(NEAR, 9090));
    enforcer.sgctl(&["detach", "--all"]).ok();
    assert!(answers(&mut pair.far.connect(NEAR, 9090).unwrap()));
}

#[test]
fn a_second_writer_is_refused_and_readers_are_not() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let definition = web("g", 8080) + &pair.interface("a", "[\"g\"]", "");
    enforcer.apply(&definition, &[]).ok();
    let _held = Lock::take(&enforcer.context.state_dir).unwrap();
    let pid = std::process::id().to_string();
    enforcer
        .apply(&definition, &[])
        .fails(&["another sgctl", &pid]);
    enforcer
        .sgctl(&["detach", "a"])
        .fails(&["another sgctl", &pid]);
    enforcer.sgctl(&["status"]).ok();
    enforcer.sgctl(&["stats"]).ok();
}

#[test]
fn pins_without_their_state_are_not_touched() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _server = pair.near.serve(NEAR, 9090);
    let definition = web("g", 8080) + &pair.interface("a", "[\"g\"]", "");
    enforcer.apply(&definition, &[]).ok();
    fs::remove_file(enforcer.context.state_dir.join("state.json")).unwrap();
    enforcer
        .apply(&definition, &[])
        .fails(&["state", "sgctl detach --all"]);
    assert!(pair.far.connect_is_dropped(NEAR, 9090));
    enforcer.sgctl(&["detach", "--all"]).ok();
    assert!(answers(&mut pair.far.connect(NEAR, 9090).unwrap()));
}

#[test]
fn a_definition_with_mistakes_changes_nothing() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let wrong = web("g", 8080) + &pair.interface("a", "[\"missing\"]", "");
    enforcer
        .apply(&wrong, &[])
        .fails(&["missing", "nothing was changed"]);
    assert!(!enforcer.context.bpffs.exists());
    let elsewhere = unique("nowhere");
    let wrong = web("g", 8080)
        + &format!(
            "[interfaces.a]\ndevice = \"eth0\"\nnetns = \"{elsewhere}\"\ngroups = [\"g\"]\n"
        );
    enforcer.apply(&wrong, &[]).fails(&[&elsewhere]);
    assert!(!enforcer.context.bpffs.exists());
}
