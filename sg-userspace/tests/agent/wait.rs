//! `sgctl wait`.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    agent::{Agent, LATER},
    netns::{Answer, Enforcer, Namespace, ip},
    pair::{FAR, NEAR, Pair, web},
    require::require,
};

fn definition(near: &Namespace) -> String {
    format!(
        "{}[interfaces.web]\ndevice = \"eth0\"\nnetns = \"{}\"\norientation = \"own\"\ngroups = [\"g\"]\n",
        web("g", 8080),
        near.name
    )
}

/// Made down, waited for, set up: no packet has passed before the rules held.
#[test]
fn m1_a_device_is_enforced_before_its_first_packet() {
    require!(Root, Object);
    let (near, far, enforcer) = (
        Namespace::new("near"),
        Namespace::new("far"),
        Enforcer::new(),
    );
    fs::write(&enforcer.file, definition(&near)).unwrap();
    let agent = Agent::spawn(&enforcer, &[]);
    agent.says("there is no device eth0");
    for name in ["web", "eth0"] {
        let seen = agent.lines().len();
        let waiting = enforcer
            .command(&["wait", name])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_millis(300));
        ip(&format!(
            "link add eth0 netns {} type veth peer name eth0 netns {}",
            near.name, far.name
        ));
        let said = Answer::from(waiting.wait_with_output().unwrap()).ok();
        assert!(
            said.out.starts_with("web (eth0): enforced by generation "),
            "{said:?}"
        );
        // A flood from the moment on when the link comes up.
        far.ip(&format!("addr add {FAR}/24 dev eth0"));
        far.ip("link set eth0 up");
        near.ip(&format!("addr add {NEAR}/24 dev eth0"));
        near.ip("link set eth0 up");
        let _server = near.serve(NEAR, 9090);
        assert!(far.connect_is_dropped(NEAR, 9090));
        let judged = enforcer.figure("web", "ingress_passed_packets")
            + enforcer.figure("web", "ingress_dropped_packets");
        assert_eq!(judged, received(&near), "every packet was judged");
        assert!(judged > 0);
        near.ip("link del eth0");
        agent.says_after(seen, "web: link lost");
        let said = enforcer.sgctl(&["wait", name, "--timeout", "0"]);
        assert_eq!(said.code, 1, "{said:?}");
    }
}

/// Packets that the kernel counts as received by eth0.
fn received(namespace: &Namespace) -> u64 {
    let shown = namespace.run(|| {
        Command::new("ip")
            .args(["-s", "-j", "link", "show", "eth0"])
            .output()
    });
    let shown: serde_json::Value = serde_json::from_slice(&shown.unwrap().stdout).unwrap();
    shown[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
}

#[test]
fn waiting_ends_with_the_time_given_and_says_why() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let start = Instant::now();
    let said = enforcer.sgctl(&["wait", "web", "--timeout", "700ms"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.err
            .contains("web is not enforced: nothing is enforced here"),
        "{said:?}"
    );
    assert!(start.elapsed() >= Duration::from_millis(700));
    assert!(start.elapsed() < LATER);
    enforcer.apply(&definition(&pair.near), &[]).ok();
    enforcer.sgctl(&["wait", "web", "--timeout", "0"]).ok();
    enforcer.sgctl(&["wait", "eth0", "--timeout", "0"]).ok();
    let netns = pair.near.name.clone();
    enforcer
        .sgctl(&["--netns", &netns, "wait", "eth0", "--timeout", "0"])
        .ok();
    let unknown = enforcer.sgctl(&["wait", "other", "--timeout", "0"]);
    assert_eq!(unknown.code, 1);
    assert!(unknown.err.contains("attached: web"), "{unknown:?}");
    enforcer
        .sgctl(&["wait", "web", "--timeout", "5 s"])
        .fails(&["as 30s"]);

    // Another device of that name is not the one that was attached.
    pair.near.ip("link set eth0 down");
    pair.near.ip("link set eth0 name old0");
    pair.near.ip("link add eth0 type veth peer name eth1");
    let said = enforcer.sgctl(&["wait", "eth0", "--timeout", "0"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("another device"), "{said:?}");
}
