//! Apply, adopt, change, detach: the life of an enforced interface.

use std::{
    fs,
    net::{Ipv6Addr, UdpSocket},
};

use sg_userspace::pin::Pins;

use crate::common::{
    netns::{Enforcer, NEVER, SOON, answers},
    pair::{FAR, FAR6, NEAR, NEAR6, Pair, denies_all, web},
    require::require,
};

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
fn j7_l12_equal_names_indexes_and_addresses_in_two_namespaces_are_two_interfaces() {
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
fn m2_open_connections_live_on_through_the_first_attachment() {
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
fn h2_m2_without_adoption_open_connections_are_cut() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _near = pair.near.serve(NEAR, 22);
    let mut inbound = pair.far.connect(NEAR, 22).unwrap();
    assert!(answers(&mut inbound));
    inbound.set_read_timeout(Some(NEVER)).unwrap();
    let definition = denies_all("none") + &pair.interface("a", "[\"none\"]", "");
    enforcer.apply(&definition, &["--no-adopt"]).ok();
    assert!(!answers(&mut inbound));
    assert!(enforcer.figure("a", "ingress_dropped_mid_stream_packets") >= 1);
}

#[test]
fn an_interface_that_a_first_apply_had_not_come_to_is_begun_with_anew() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _near = pair.near.serve(NEAR, 22);
    let definition = denies_all("none") + &pair.interface("a", "[\"none\"]", "");
    enforcer.apply(&definition, &[]).ok();
    // As SIGKILL leaves it after the switch and before the first link: named in the state, and never attached.
    for link in ["1-egress", "1-ingress"] {
        fs::remove_file(
            Pins::new(&enforcer.context.bpffs)
                .root()
                .join("links")
                .join(link),
        )
        .unwrap();
    }
    let state = enforcer.context.state_dir.join("state.json");
    let mut written: serde_json::Value =
        serde_json::from_slice(&fs::read(&state).unwrap()).unwrap();
    written["interfaces"][0]["why"] = "".into();
    fs::write(&state, written.to_string()).unwrap();
    let mut inbound = pair.far.connect(NEAR, 22).unwrap();
    assert!(answers(&mut inbound));
    let said = enforcer.apply(&definition, &[]).ok();
    assert!(said.out.contains("1 open connection adopted"), "{said:?}");
    assert!(answers(&mut inbound), "what was open lives");
    assert!(pair.far.connect_is_dropped(NEAR, 22));
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
fn j6_j8_the_host_end_of_a_workloads_link_judges_from_the_workloads_side() {
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
