//! `sgctl plan` beside live flows: what it foresees is what `apply` then does, and itself it does nothing.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::SystemTime,
};

use serde_json::Value;
use sg_userspace::state::Lock;

use crate::common::{
    netns::{Answer, Enforcer, NEVER, answers},
    pair::{FAR, NEAR, Pair, denies_all, web},
    require::require,
};

/// `sgctl plan` of a definition, with more arguments.
fn plan(enforcer: &Enforcer, definition: &str, arguments: &[&str]) -> Answer {
    fs::write(&enforcer.file, definition).unwrap();
    let file = enforcer.file.to_str().unwrap().to_owned();
    let mut all = vec!["plan", &file];
    all.extend(arguments);
    enforcer.sgctl(&all)
}

/// The same as data.
fn planned(enforcer: &Enforcer, definition: &str) -> Value {
    let said = plan(enforcer, definition, &["--json"]).ok();
    serde_json::from_str(&said.out).unwrap()
}

/// The only interface's flows in a plan.
fn flows(plan: &Value) -> &Value {
    let interfaces = plan["flows"]["interfaces"].as_array().unwrap();
    assert_eq!(interfaces.len(), 1, "{plan}");
    &interfaces[0]
}

/// Every file of a directory: when it was written, and what is in it.
fn contents(directory: &Path) -> BTreeMap<String, (SystemTime, Vec<u8>)> {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let written = entry.metadata().unwrap().modified().unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, (written, fs::read(entry.path()).unwrap()))
        })
        .collect()
}

/// Ingress on two TCP ports from anywhere, nothing out; `more` are other keys of the group.
fn two_ports(more: &str) -> String {
    format!(
        "[groups.g]\n{more}\ningress = [{{ protocol = \"tcp\", ports = [8080, 9090], cidr = \"0.0.0.0/0\" }}]\negress = []\n"
    )
}

/// The first of them only.
fn one_port(more: &str) -> String {
    two_ports(more).replace("[8080, 9090]", "8080")
}

#[test]
fn what_is_planned_is_what_apply_does_to_live_flows() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _servers = [8080, 9090].map(|port| pair.near.serve(NEAR, port));
    let interface = pair.interface("a", "[\"g\"]", "");

    // Nothing is in force: everything is new, and nothing is made.
    let said = plan(
        &enforcer,
        &(two_ports("") + &interface),
        &["--detailed-exitcode"],
    );
    assert_eq!(said.code, 2, "{said:?}");
    for words in [
        "nothing is in force: everything is new\n",
        "+ a (eth0): will be enforced; until then everything passes\n",
        "    + tcp 8080, tcp 9090 from 0.0.0.0/0\n",
        "for example tcp 8080 from 198.51.100.1: no rule now, sgr-",
    ] {
        assert!(said.out.contains(words), "no {words:?} in {}", said.out);
    }
    assert!(!enforcer.context.bpffs.exists() && !enforcer.context.state_dir.exists());

    enforcer.apply(&(two_ports("") + &interface), &[]).ok();
    let mut streams = [8080, 9090].map(|port| pair.far.connect(NEAR, port).unwrap());
    assert!(streams.iter_mut().all(answers));

    let said = plan(
        &enforcer,
        &(two_ports("") + &interface),
        &["--detailed-exitcode"],
    )
    .ok();
    assert!(
        said.out.starts_with("nothing changes: generation 1,"),
        "{said:?}"
    );

    // Another process is at work, and what is there stays as it is.
    let lock = Lock::take(&enforcer.context.state_dir).unwrap();
    let before = contents(&enforcer.context.state_dir);
    let kept = planned(&enforcer, &(one_port("") + &interface));
    let cut = planned(
        &enforcer,
        &(one_port("on_revoke = \"reevaluate\"") + &interface),
    );
    assert!(
        before == contents(&enforcer.context.state_dir),
        "plan wrote something"
    );
    drop(lock);
    assert_eq!(kept["changes"], true);
    assert_eq!(flows(&kept)["tracked"], 2, "{kept}");
    assert_eq!(flows(&kept)["stay_without_rule_newly"], 1, "{kept}");
    assert_eq!(flows(&kept)["stay_without_rule"], 1, "{kept}");
    assert_eq!(flows(&kept)["cut"], 0, "{kept}");
    assert_eq!(flows(&cut)["cut"], 1, "{cut}");
    assert_eq!(flows(&cut)["stay_without_rule"], 0, "{cut}");
    let access = kept["access"].as_array().unwrap();
    assert_eq!(access.len(), 1, "{kept}");
    assert_eq!(access[0]["direction"], "ingress");
    assert_eq!(access[0]["loses"][0]["peers"][0], "0.0.0.0/0");
    assert_eq!(access[0]["loses"][0]["traffic"][0], "tcp 9090");
    assert_eq!(access[0]["loses"][0]["example"]["after"], Value::Null);
    assert_eq!(access[0]["gains"], Value::Array(Vec::new()));

    // And so it comes.
    enforcer.apply(&(one_port("") + &interface), &[]).ok();
    assert!(streams.iter_mut().all(answers));
    let again = planned(
        &enforcer,
        &(one_port("on_revoke = \"reevaluate\"") + &interface),
    );
    assert_eq!(flows(&again)["cut"], 1, "{again}");
    assert_eq!(again["access"], Value::Array(Vec::new()), "{again}");
    enforcer
        .apply(&(one_port("on_revoke = \"reevaluate\"") + &interface), &[])
        .ok();
    let [allowed, denied] = &mut streams;
    denied.set_read_timeout(Some(NEVER)).unwrap();
    assert!(answers(allowed) && !answers(denied));
    assert!(enforcer.figure("a", "ingress_dropped_revoked_packets") >= 1);
}

#[test]
fn flows_that_become_tracked_and_untracked_are_counted() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _server = pair.near.serve(NEAR, 8080);
    let interface = pair.interface("a", "[\"g\"]", "");
    let tracked = web("g", 8080) + &interface;
    let open = "egress = [{ protocol = \"all\", cidr = \"0.0.0.0/0\" }]";
    let untracked = tracked.replace("egress = []", open);
    enforcer.apply(&tracked, &[]).ok();
    let mut stream = pair.far.connect(NEAR, 8080).unwrap();
    assert!(answers(&mut stream));

    let there = planned(&enforcer, &untracked);
    assert_eq!(flows(&there)["become_untracked"], 1, "{there}");
    assert_eq!(flows(&there)["untracked"]["become_tracked"], 0, "{there}");
    enforcer.apply(&untracked, &[]).ok();
    assert!(answers(&mut stream));
    assert_eq!(enforcer.figure("a", "conntrack_tracked"), 0);

    let back = planned(&enforcer, &tracked);
    assert_eq!(flows(&back)["tracked"], 0, "{back}");
    assert_eq!(flows(&back)["untracked"]["become_tracked"], 1, "{back}");
    assert_eq!(flows(&back)["untracked"]["cut"], 0, "{back}");
    let none = planned(&enforcer, &(denies_all("g") + &interface));
    assert_eq!(flows(&none)["untracked"]["become_tracked"], 0, "{none}");
    assert_eq!(flows(&none)["untracked"]["cut"], 1, "{none}");
    enforcer.apply(&tracked, &[]).ok();
    assert!(answers(&mut stream));
    assert_eq!(enforcer.figure("a", "ingress_passed_taken_over_packets"), 1);
}

#[test]
fn interfaces_that_are_dropped_moved_or_not_there_yet_are_said() {
    require!(Root, Object);
    let (one, two, enforcer) = (Pair::new(), Pair::new(), Enforcer::new());
    let _server = two.near.serve(NEAR, 8080);
    let only = web("g", 8080) + &one.interface("one", "[\"g\"]", "");
    let both = only.clone() + &two.interface("two", "[\"g\"]", "");
    enforcer.apply(&both, &[]).ok();
    let mut stream = two.far.connect(NEAR, 8080).unwrap();
    assert!(answers(&mut stream));

    let said = plan(&enforcer, &only, &["--detailed-exitcode"]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.out
            .contains("! two (eth0): the definition does not name it"),
        "{said:?}"
    );
    assert!(
        said.out.contains("two: 1 tracked; all stay, by rule"),
        "{said:?}"
    );
    assert!(!said.out.contains("access of new flows"), "{said:?}");
    let said = plan(&enforcer, &only, &["--detach-missing"]).ok();
    assert!(
        said.out
            .contains("- two (eth0): will not be enforced any more"),
        "{said:?}"
    );
    assert!(
        said.out
            .contains("two: 1 tracked; forgotten with the interface: 1"),
        "{said:?}"
    );

    // What is kept is not a change any more.
    assert_eq!(enforcer.apply(&only, &[]).code, 2);
    plan(&enforcer, &only, &["--detailed-exitcode"]).ok();
    assert!(answers(&mut stream));

    let renamed =
        only.replace("interfaces.one", "interfaces.uno") + &two.interface("two", "[\"g\"]", "");
    let said = plan(&enforcer, &renamed, &[]).ok();
    assert!(
        said.out.contains("~ uno (eth0): name \"one\" → \"uno\""),
        "{said:?}"
    );
    assert!(
        said.out
            .contains("~ two (eth0): named by the definition false → true"),
        "{said:?}"
    );

    // One device is not there, the other's namespace neither.
    let later = two
        .interface("later", "[\"g\"]", "")
        .replace("\"eth0\"", "\"eth7\"")
        + "[interfaces.elsewhere]\ndevice = \"eth0\"\nnetns = \"/nowhere/ns\"\norientation = \"own\"\ngroups = [\"g\"]\n";
    let said = plan(&enforcer, &(only.clone() + &later), &[]).ok();
    for words in [
        "+ later (eth7): will be enforced",
        "no device eth7 in this network namespace",
        "cannot open network namespace /nowhere/ns",
        "elsewhere, later: ingress, IPv4\n    + tcp 8080 from 0.0.0.0/0\n",
    ] {
        assert!(said.out.contains(words), "no {words:?} in {}", said.out);
    }
}

#[test]
fn exit_codes_are_those_of_terraform_where_asked_for() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let interface = pair.interface("a", "[\"g\"]", "");
    let definition = web("g", 8080) + &interface;
    enforcer.apply(&definition, &[]).ok();
    let other = web("g", 8081) + &interface;
    for (definition, plain, detailed) in [
        (definition.as_str(), 0, 0),
        (other.as_str(), 0, 2),
        ("[groups.g]\nnonsense = 1\n", 2, 1),
        // Not an error of the definition, but nothing that could be applied.
        ("[groups.g]\negress = []\n", 2, 1),
        (
            // Tables grow.
            &(definition.clone() + "[conntrack]\nallowance = 16000000\n"),
            0,
            2,
        ),
    ] {
        assert_eq!(plan(&enforcer, definition, &[]).code, plain, "{definition}");
        let said = plan(&enforcer, definition, &["--detailed-exitcode"]);
        assert_eq!(said.code, detailed, "{definition}: {said:?}");
    }
    // Errors are printed as `check` does.
    let said = plan(&enforcer, "[groups.g]\nnonsense = 1\n", &[]);
    let file = enforcer.file.to_str().unwrap().to_owned();
    let checked = enforcer.sgctl(&["check", &file]);
    assert_eq!((&said.out, &said.err), (&checked.out, &checked.err));
    assert!(said.err.contains("error["), "{said:?}");
    let json = plan(&enforcer, "[groups.g]\nnonsense = 1\n", &["--json"]);
    assert_eq!(json.out, enforcer.sgctl(&["check", "--json", &file]).out);
    assert_eq!(json.code, 2);
    let missing = enforcer.sgctl(&["plan", "--detailed-exitcode", "/nowhere.toml"]);
    assert_eq!(missing.code, 1, "{missing:?}");
    assert!(missing.err.contains("/nowhere.toml"), "{missing:?}");

    let unasked = enforcer.sgctl(&["plan", "--detailed-exitcode"]);
    assert_eq!((unasked.code, enforcer.sgctl(&["plan"]).code), (1, 2));
    assert_eq!(enforcer.sgctl(&["plan", "--help"]).code, 0);

    // The answer is the same if nobody reads it.
    fs::write(&enforcer.file, &other).unwrap();
    let (_, unread) = std::io::pipe().unwrap();
    let status = enforcer
        .command(&["plan", "--detailed-exitcode", "--json", &file])
        .stdout(unread)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(2));
}

#[test]
fn what_does_not_fit_is_named_and_not_planned() {
    require!(Root, Object);
    let enforcer = Enforcer::new();
    let interface = |number: u32| {
        format!(
            "[interfaces.i{number}]\nnetns = \"/nowhere/ns\"\norientation = \"own\"\ngroups = [\"g\"]\n"
        )
    };
    let interfaces = |number: u32| (0..number).map(interface).collect::<String>();
    plan(&enforcer, &(web("g", 80) + &interfaces(1023)), &[]).ok();
    let said = plan(&enforcer, &(web("g", 80) + &interfaces(1024)), &[]);
    said.fails(&["error[capacity]: 1024 interfaces are more than the 1023"]);
}

#[test]
fn names_of_files_do_not_move_the_cursor() {
    require!(Root, Object);
    let (pair, mut enforcer) = (Pair::new(), Enforcer::new());
    let name = enforcer
        .file
        .to_str()
        .unwrap()
        .replace(".toml", "\u{1b}[31m.toml");
    enforcer.file = name.into();
    let definition = web("g", 80) + &pair.interface("a", "[\"g\"]", "");
    for arguments in [&[][..], &["--json"]] {
        let said = plan(&enforcer, &definition, arguments).ok();
        assert!(!(said.out + &said.err).contains('\u{1b}'));
    }
    let json = planned(&enforcer, &definition);
    let file = json["rules"][0]["after"]["origin"]["file"]
        .as_str()
        .unwrap();
    assert_eq!(file, enforcer.file.to_str().unwrap());
}

#[test]
fn members_that_come_and_go_are_access() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let definition = |members: &str| {
        format!(
            "[groups.g]\negress = []\ningress = [{{ protocol = \"tcp\", ports = 80, group = \"peers\" }}]\n[groups.peers]\negress = []\n[members.peers]\naddresses = [{members}]\n"
        ) + &pair.interface("a", "[\"g\"]", "")
    };
    enforcer
        .apply(&definition(&format!("\"{FAR}\", \"10.77.0.3\"")), &[])
        .ok();
    let said = plan(
        &enforcer,
        &definition("\"10.77.0.3\", \"10.77.0.4\", \"10.77.0.5\""),
        &[],
    )
    .ok();
    for words in [
        "+ peers: 2 members (10.77.0.4/31)",
        &format!("- peers: 1 member ({FAR}/32)"),
        "    + tcp 80 from 10.77.0.4/31\n",
        &format!("    - tcp 80 from {FAR}/32\n"),
    ] {
        assert!(said.out.contains(words), "no {words:?} in {}", said.out);
    }
    assert!(!said.out.contains("\nrules\n"), "{said:?}");
}

#[test]
fn a_plan_beside_a_writer_compares_with_one_generation_or_another() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let interface = pair.interface("a", "[\"g\"]", "");
    let definitions = [8080, 9090].map(|port| web("g", port) + &interface);
    enforcer.apply(&definitions[0], &[]).ok();
    let file = enforcer.file.with_extension("other.toml");
    fs::write(&file, &definitions[1]).unwrap();
    let path = file.to_str().unwrap().to_owned();
    let stop = AtomicBool::new(false);
    let seen = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for which in (0..2).cycle().take(500) {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let files = [&path, enforcer.file.to_str().unwrap()];
                enforcer.sgctl(&["apply", files[which]]).ok();
            }
        });
        let mut seen = BTreeMap::new();
        for _ in 0..20 {
            let said = enforcer.sgctl(&["plan", "--json", &path]);
            let plan: Value = serde_json::from_str(&said.ok().out).unwrap();
            let sets = plan["access"].as_array().unwrap();
            let says = |reaches: &Value, term: &str| reaches[0]["traffic"][0] == term;
            let change = sets
                .iter()
                .all(|one| says(&one["gains"], "tcp 9090") && says(&one["loses"], "tcp 8080"));
            let rules = plan["rules"].as_array().unwrap().len();
            assert!(
                change && matches!((sets.len(), rules), (0, 0) | (2, 4)),
                "{plan}"
            );
            *seen.entry(sets.len()).or_insert(0) += 1;
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        seen
    });
    fs::remove_file(&file).unwrap();
    assert_eq!(seen.len(), 2, "both generations were met: {seen:?}");
}
