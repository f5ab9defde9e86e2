//! Which flows become tracked, and what is said about them.

use std::{net::UdpSocket, process::Command};

use crate::{
    common::{
        netns::{Enforcer, NEVER, Namespace, SOON, answers},
        pair::{FAR, NEAR, NEAR6, Pair, denies_all},
        require::{require, skip},
    },
    lines::{Line, Lines},
};

#[test]
fn only_what_rules_allow_is_adopted_where_that_is_asked_for() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let Pair { near, far } = &pair;
    let kept = vec![
        Line::tcp(far, (near, NEAR), 22),
        Line::tcp(far, (near, NEAR6), 22),
        Line::tcp(near, (far, FAR), 443),
        Line::udp(far, near, [FAR.into(), NEAR.into()], 53),
        Line::udp(near, far, [NEAR.into(), FAR.into()], 123),
    ];
    let cut = vec![
        Line::tcp(far, (near, NEAR), 23),
        Line::tcp(near, (far, FAR), 22),
        Line::udp(near, far, [NEAR.into(), FAR.into()], 53),
    ];
    let cuts = cut.len();
    let (kept, cut) = (Lines::start(kept), Lines::start(cut));
    let definition = "[groups.g]\ningress = [\n\
         { protocol = \"tcp\", ports = 22, cidr = [\"10.77.0.0/24\", \"fd77::/16\"] },\n\
         { protocol = \"udp\", ports = 53, cidr = \"10.77.0.0/24\" }]\n\
         egress = [{ protocol = \"tcp\", ports = 443, cidr = \"10.77.0.0/24\" },\n\
         { protocol = \"udp\", ports = 123, cidr = \"10.77.0.0/24\" }]\n"
        .to_owned()
        + &pair.interface("a", "[\"g\"]", "");
    let said = enforcer.apply(&definition, &["--adopt=policy"]).ok();
    let words = "5 open connections adopted (5 by its sockets), 3 left: no rule allows them";
    assert!(said.out.contains(words), "{said:?}");
    kept.go_on();
    assert_eq!(cut.silent().len(), cuts);
    let listed = enforcer.sgctl(&["ct", "list"]).ok().out;
    assert_eq!(listed.matches(" adopted").count(), 5, "{listed}");
    // Who opened datagrams that sockets alone tell of follows from the rules.
    assert!(listed.contains(&format!("{NEAR}:53 <- {FAR}:")), "{listed}");
    assert!(listed.contains(&format!("-> {FAR}:123 ")), "{listed}");
    let status = enforcer.sgctl(&["status"]).ok().out;
    assert!(
        status.contains("    when it was attached 5 open connections adopted (5 by its sockets)\n"),
        "{status}"
    );
    kept.finish();

    for wrong in [&["--adopt=some"][..], &["--no-adopt", "--adopt=all"]] {
        assert_eq!(enforcer.apply(&definition, wrong).code, 2);
    }
}

/// Four interfaces: one with an allowance below what exists, one with flows that need no entry, one on which something
/// begins as soon as it is attached, and a virtual machine's, whose sockets are its own affair.
#[test]
fn of_each_interface_is_said_what_became_of_its_flows() {
    require!(Root, Object);
    let (small, open, plain) = (Pair::new(), Pair::new(), Pair::new());
    let (host, enforcer) = (Namespace::new("host"), Enforcer::new());
    let tap = ["tuntap", "add", "dev", "tap0", "mode", "tap"];
    let tap = host.run(|| Command::new("ip").args(tap).output()).unwrap();
    let tap = tap.status.success();
    if tap {
        // Of a device that is down nothing is looked for.
        host.ip("link set tap0 up");
    }

    let _server = small.near.serve(NEAR, 22);
    let connect = |_| small.far.connect(NEAR, 22).unwrap();
    let mut streams: Vec<_> = (0..30).map(connect).collect();
    for stream in &mut streams {
        assert!(answers(stream));
        stream.set_read_timeout(Some(NEVER / 5)).unwrap();
    }
    let lines = Lines::start(vec![
        Line::tcp(&open.far, (&open.near, NEAR), 22),
        Line::tcp(&open.near, (&open.far, FAR), 3306),
        Line::tcp(&open.far, (&open.near, NEAR6), 22),
        Line::udp(&plain.near, &plain.far, [NEAR.into(), FAR.into()], 53),
    ]);
    let server = plain.near.run(|| UdpSocket::bind((NEAR, 7))).unwrap();

    // Over IPv4 everything may go out and come in: nothing is tracked there, and everything is over IPv6.
    let mut definition = "[groups.open]\n\
         ingress = [{ protocol = \"tcp\", ports = \"0-65535\", cidr = \"0.0.0.0/0\" }]\n\
         egress = [{ protocol = \"all\", cidr = \"0.0.0.0/0\" }]\n"
        .to_owned()
        + &denies_all("none")
        + &small.interface("small", "[\"none\"]", "allowance = 10")
        + &open.interface("open", "[\"open\"]", "")
        + &plain.interface("plain", "[\"none\"]", "");
    if tap {
        definition += &format!(
            "[interfaces.vm]\ndevice = \"tap0\"\nnetns = \"{}\"\norientation = \"host\"\ngroups = [\"none\"]\n",
            host.name
        );
    }
    let said = enforcer.apply(&definition, &["--json"]).ok();
    let report: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let of = |name: &str| {
        let all = report["interfaces"].as_array().unwrap().iter();
        all.clone().find(|one| one["name"] == name).unwrap()
    };

    let adopted = &of("small")["adopted"];
    assert_eq!(
        (&adopted["flows"], &adopted["refused"]),
        (&10.into(), &20.into())
    );
    let warning = "20 existing flows found no room and are cut: raise `allowance`";
    assert_eq!(of("small")["warnings"][0], warning);
    assert_eq!(enforcer.figure("small", "conntrack_tracked"), 10);
    let living = streams.iter_mut().map(answers);
    assert_eq!(living.filter(|lives| *lives).count(), 10);

    let adopted = &of("open")["adopted"];
    assert_eq!(
        (&adopted["flows"], &adopted["untracked"]),
        (&1.into(), &2.into())
    );
    assert_eq!(enforcer.figure("open", "conntrack_tracked"), 1);
    lines.go_on();

    // A datagram from somebody new is not let in because others are.
    let stranger = plain.far.run(|| UdpSocket::bind((FAR, 0))).unwrap();
    server.connect(stranger.local_addr().unwrap()).unwrap();
    stranger.send_to(b"in", (NEAR, 7)).unwrap();
    let _ = server.send(b"out");
    for socket in [&server, &stranger] {
        socket.set_read_timeout(Some(SOON / 10)).unwrap();
        assert!(socket.recv(&mut [0; 8]).is_err());
    }
    lines.finish();

    if !tap {
        return skip("the kernel has no tap devices, of which less is seen");
    }
    let unseen = "the workload's sockets: its other end is not a device of this machine";
    let warning = of("vm")["warnings"][0].as_str().unwrap();
    assert!(warning.contains(unseen), "{warning}");
    let status = enforcer.sgctl(&["status"]).ok().out;
    for unseen in [
        unseen,
        "what this host forwards: nf_conntrack tracks nothing here",
    ] {
        let line = format!("    not seen then: {unseen}\n");
        assert!(status.contains(&line), "{status}");
    }
}
