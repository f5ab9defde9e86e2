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

#[test]
fn an_allowance_below_what_exists_is_kept_and_said() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _server = pair.near.serve(NEAR, 22);
    let mut streams: Vec<_> = (0..30)
        .map(|_| pair.far.connect(NEAR, 22).unwrap())
        .collect();
    for stream in &mut streams {
        assert!(answers(stream));
        stream.set_read_timeout(Some(NEVER / 5)).unwrap();
    }
    let definition = denies_all("none") + &pair.interface("a", "[\"none\"]", "allowance = 10");
    let said = enforcer.apply(&definition, &[]).ok();
    assert!(said.out.contains("10 open connections adopted"), "{said:?}");
    assert!(
        said.err
            .contains("20 existing flows found no room and are cut"),
        "{said:?}"
    );
    assert_eq!(enforcer.figure("a", "conntrack_tracked"), 10);
    let living = streams.iter_mut().map(|stream| answers(stream));
    assert_eq!(living.filter(|lives| *lives).count(), 10);
}

#[test]
fn what_needs_no_entry_gets_none() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let Pair { near, far } = &pair;
    let lines = Lines::start(vec![
        Line::tcp(far, (near, NEAR), 22),
        Line::tcp(near, (far, FAR), 3306),
        Line::tcp(far, (near, NEAR6), 22),
    ]);
    // Over IPv4 everything may go out and SSH may come in: both are untracked there, nothing is over IPv6.
    let definition = "[groups.g]\ningress = [{ protocol = \"tcp\", ports = \"0-65535\", cidr = \"0.0.0.0/0\" }]\n\
         egress = [{ protocol = \"all\", cidr = \"0.0.0.0/0\" }]\n"
        .to_owned()
        + &pair.interface("a", "[\"g\"]", "");
    let said = enforcer.apply(&definition, &["--json"]).ok();
    let report: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let adopted = &report["interfaces"][0]["adopted"];
    assert_eq!(
        (&adopted["flows"], &adopted["untracked"]),
        (&1.into(), &2.into()),
        "{said:?}"
    );
    lines.go_on();
    assert_eq!(enforcer.figure("a", "conntrack_tracked"), 1);
    lines.finish();
}

/// A virtual machine's sockets are its own affair.
#[test]
fn a_tap_shows_nothing_and_that_is_said() {
    require!(Root, Object);
    let (host, enforcer) = (Namespace::new("host"), Enforcer::new());
    let made = host.run(|| {
        let tap = ["tuntap", "add", "dev", "tap0", "mode", "tap"];
        Command::new("ip").args(tap).output()
    });
    if !made.unwrap().status.success() {
        return skip("the kernel has no tap devices");
    }
    let interface = format!(
        "[interfaces.vm]\ndevice = \"tap0\"\nnetns = \"{}\"\norientation = \"host\"\ngroups = [\"none\"]\n",
        host.name
    );
    let said = enforcer.apply(&(denies_all("none") + &interface), &[]).ok();
    let unseen = "the workload's sockets: its other end is not a device of this machine";
    assert!(said.err.contains(unseen), "{said:?}");
    let status = enforcer.sgctl(&["status"]).ok().out;
    for unseen in [
        unseen,
        "what this host forwards: nf_conntrack tracks nothing here",
    ] {
        assert!(
            status.contains(&format!("    not seen then: {unseen}\n")),
            "{status}"
        );
    }
}

/// A datagram from whom nobody knows is not let in because others are.
#[test]
fn what_begins_after_attachment_goes_by_rule() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let Pair { near, far } = &pair;
    let lines = Lines::start(vec![Line::udp(near, far, [NEAR.into(), FAR.into()], 53)]);
    let server = near.run(|| UdpSocket::bind((NEAR, 7))).unwrap();
    let definition = denies_all("none") + &pair.interface("a", "[\"none\"]", "");
    enforcer.apply(&definition, &[]).ok();
    lines.go_on();
    let stranger = far.run(|| UdpSocket::bind((FAR, 0))).unwrap();
    server.connect(stranger.local_addr().unwrap()).unwrap();
    stranger.send_to(b"in", (NEAR, 7)).unwrap();
    let _ = server.send(b"out");
    for socket in [&server, &stranger] {
        socket.set_read_timeout(Some(SOON / 10)).unwrap();
        assert!(socket.recv(&mut [0; 8]).is_err());
    }
    lines.finish();
}
