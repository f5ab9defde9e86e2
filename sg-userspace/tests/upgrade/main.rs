//! From one layout of the maps to the next, under traffic: nothing is lost, let in or counted twice.

#[path = "../common/mod.rs"]
mod common;

mod confirmation;
mod lanes;

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use crate::{
    common::{
        netns::{Answer, Enforcer, answers},
        pair::{FAR, FAR6, NEAR, NEAR6, Pair},
        require::{relaid, require},
    },
    lanes::{Done, Lanes},
};

/// How long loading programs may take on a machine that has more to do.
const PATIENCE: Duration = Duration::from_secs(180);

/// Flows from outside are let in on two ports, and out to a third; answers depend on tracking.
fn definition(pair: &Pair, more: &str) -> String {
    let open = |ports: u16, protocol: &str| {
        format!(
            "{{ protocol = \"{protocol}\", ports = {ports}, cidr = [\"0.0.0.0/0\", \"::/0\"] }}"
        )
    };
    format!(
        "[groups.g]\ningress = [{}, {}]\negress = [{}]\n",
        open(lanes::TCP, "tcp"),
        open(lanes::UDP_IN, "udp"),
        open(lanes::UDP_OUT, "udp"),
    ) + &pair.interface("a", "[\"g\"]", more)
}

/// The same with an allowance.
fn sized(pair: &Pair, allowance: u32, more: &str) -> String {
    format!("[conntrack]\nallowance = {allowance}\n{more}\n") + &definition(pair, "")
}

fn other(enforcer: &Enforcer, arguments: &[&str]) -> Answer {
    Answer::from(enforcer.command_of(&relaid(), arguments).output().unwrap())
}

fn figures(enforcer: &Enforcer) -> impl Fn(&str) -> u64 {
    let answer = other(enforcer, &["stats", "a"]).ok();
    move |name: &str| {
        let mut lines = answer.out.lines();
        let line = lines.find_map(|line| line.trim().strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no {name} in {}", answer.out))
            .parse()
            .unwrap()
    }
}

/// Whatever was sent is there, in figures too.
fn check(enforcer: &Enforcer, done: &Done, killed: bool) {
    let figure = figures(enforcer);
    assert_eq!(
        figure("ingress_dropped_no_rule_packets"),
        done.denied,
        "every denied datagram is counted once"
    );
    assert_eq!(
        figure("ingress_dropped_packets"),
        done.denied,
        "nothing else was dropped"
    );
    assert_eq!(figure("egress_dropped_packets"), 0, "nothing was dropped");
    // One whose packets may open it has perhaps begun twice, once in either table.
    let (least, streams) = (
        done.connections + done.inbound.len() as u64,
        done.inbound.len() as u64,
    );
    let new = figure("ingress_passed_new_packets");
    assert!(
        (least..=least + streams).contains(&new),
        "{new} flows, {least} were opened"
    );
    assert!(figure("conntrack_created") >= least);
    let rules = other(enforcer, &["stats", "--rules", "--json"]).ok().out;
    let rules: serde_json::Value = serde_json::from_str(&rules).unwrap();
    let rules = rules["rules"].as_array().unwrap().iter();
    let hits: u64 = rules.map(|rule| rule["packets"].as_u64().unwrap()).sum();
    assert_eq!(
        hits,
        new + figure("egress_passed_new_packets"),
        "packets by rule"
    );
    let flows = other(enforcer, &["ct", "list", "--json"]).ok().out;
    let flows: serde_json::Value = serde_json::from_str(&flows).unwrap();
    for (port, packets) in done.inbound.iter().chain(&done.outbound) {
        let carried = |flow: &&serde_json::Value| {
            flow["protocol"] == 17 && (flow["local_port"] == *port || flow["remote_port"] == *port)
        };
        let flow = flows.as_array().unwrap().iter().find(carried);
        let flow = flow.unwrap_or_else(|| panic!("no flow of {port}"));
        for direction in ["ingress", "egress"] {
            let carried = flow["traffic"][format!("{direction}_packets")]
                .as_u64()
                .unwrap();
            // A flow that has moved over twice keeps the higher one of two counts.
            let least = if killed { packets * 9 / 10 } else { *packets };
            assert!(
                (least..=*packets).contains(&carried),
                "{packets} were sent: {flow}"
            );
        }
    }
}

#[test]
fn m3_another_layout_takes_over_under_traffic() {
    require!(Root, Object, Relaid);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let definition = definition(&pair, "");
    enforcer.apply(&definition, &[]).ok();
    let lanes = Lanes::start(
        &pair,
        &[(NEAR.into(), FAR.into()), (NEAR6.into(), FAR6.into())],
    );
    thread::sleep(Duration::from_secs(1));

    let file = enforcer.file.to_str().unwrap().to_owned();
    other(&enforcer, &["ct", "list"]).fails(&["takes it over"]);
    let start = Instant::now();
    let said = other(&enforcer, &["apply", &file]).ok();
    eprintln!("taken over in {:?}: {}", start.elapsed(), said.out);
    assert!(said.out.contains("taken over from layout"), "{said:?}");
    thread::sleep(Duration::from_secs(1));
    let done = lanes.stop();
    check(&enforcer, &done, false);
    let versions = fs::read_dir(&enforcer.context.bpffs).unwrap().count();
    assert_eq!(versions, 1, "the old pins are gone");

    // The way back is a layout that the older one does not know.
    enforcer
        .sgctl(&["apply", &file])
        .fails(&["cannot take over", "detach --all"]);
    let status = other(&enforcer, &["status"]).ok();
    assert!(status.out.contains("a: enforced"), "{status:?}");
    enforcer.sgctl(&["detach", "--all"]).ok();
    assert!(!enforcer.context.bpffs.exists(), "also of another layout");
}

#[test]
fn a_take_over_that_is_killed_anywhere_goes_on_with_the_next_start() {
    require!(Root, Object, Relaid);
    const KILLS: u32 = 8;
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    // XDP as well as TC.
    let definition = definition(&pair, "hook = \"xdp-generic\"");
    enforcer.apply(&definition, &[]).ok();
    let lanes = Lanes::start(&pair, &[(NEAR.into(), FAR.into())]);
    let file = enforcer.file.to_str().unwrap().to_owned();
    let journal = enforcer.context.state_dir.join("upgrade.json");
    let moving =
        || fs::read_to_string(&journal).is_ok_and(|text| text.contains("\"step\":\"move\""));
    let mut killed = 0;
    for number in 0..KILLS {
        let mut child = enforcer
            .command_of(&relaid(), &["apply", &file])
            .spawn()
            .unwrap();
        let start = Instant::now();
        // The first while the new programs are loaded, the others ever later in what follows.
        while number > 0 && !moving() && start.elapsed() < PATIENCE {
            if child.try_wait().unwrap().is_some() {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(u64::from(number) * 25 + 5));
        if child.try_wait().unwrap().is_none() {
            killed += 1;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        lanes.alive();
    }
    other(&enforcer, &["apply", &file]).ok();
    assert!(killed >= 3, "{killed} were killed at work");
    assert!(!journal.exists());
    thread::sleep(Duration::from_millis(500));
    let done = lanes.stop();
    check(&enforcer, &done, true);
    assert_eq!(fs::read_dir(&enforcer.context.bpffs).unwrap().count(), 1);
}

#[test]
fn an_allowance_grows_and_shrinks_under_traffic() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let apply = |allowance: u32, more: &str| {
        let definition = sized(&pair, allowance, more);
        enforcer.apply(&definition, &[]).ok().out
    };
    apply(2048, "");
    // More connections than are allowed afterwards; each stays open.
    let _server = pair.near.serve(NEAR6, lanes::TCP);
    let mut held: Vec<_> = (0..1200)
        .map(|_| pair.far.connect(NEAR6, lanes::TCP).unwrap())
        .collect();
    let lanes = Lanes::start(&pair, &[(NEAR.into(), FAR.into())]);
    for allowance in [20_000, 8000, 40_000] {
        let said = apply(allowance, "");
        let moves = said.contains("moved to tables of another size");
        assert_eq!(moves, allowance != 8000, "{said}");
        assert_eq!(
            enforcer.figure("a", "conntrack_allowance"),
            u64::from(allowance)
        );
        lanes.alive();
    }
    let done = lanes.stop();
    assert_eq!(enforcer.figure("a", "ingress_dropped_packets"), done.denied);
    assert_eq!(enforcer.figure("a", "egress_dropped_packets"), 0);

    // Below what there is, into smaller tables: nobody goes, and nobody comes.
    let said = apply(1024, "accounting = false");
    assert!(said.contains("moved to tables of another size"), "{said}");
    assert!(held.iter_mut().all(answers), "a connection is cut");
    assert!(pair.far.connect_is_dropped(NEAR6, lanes::TCP));
    assert!(enforcer.figure("a", "conntrack_tracked") >= 1200);
    assert!(enforcer.figure("a", "ingress_dropped_conntrack_allowance_exceeded_packets") > 0);
    apply(4096, "accounting = false");
    let mut one = pair.far.connect(NEAR6, lanes::TCP).unwrap();
    assert!(answers(&mut one));
    assert!(held.iter_mut().all(answers), "a connection is cut");
}

#[test]
fn tables_that_cannot_be_made_change_nothing() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    enforcer.apply(&sized(&pair, 2048, ""), &[]).ok();
    std::fs::write(&enforcer.file, sized(&pair, 400_000, "")).unwrap();
    // Enough descriptors to open what there is, and too few to make as many maps again.
    let sgctl = enforcer.command(&["apply", enforcer.file.to_str().unwrap()]);
    let mut limited = std::process::Command::new("prlimit");
    limited.arg("--nofile=60:60").arg(sgctl.get_program());
    let said = limited.args(sgctl.get_args()).output().unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("cannot load the eBPF object"), "{said}");
    enforcer.sgctl(&["status"]).ok();
    assert_eq!(enforcer.figure("a", "conntrack_allowance"), 2048);
    let said = enforcer.apply(&sized(&pair, 1024, ""), &[]).ok().out;
    assert!(said.contains("generation 2 is in force"), "{said}");
}
