//! Definitions that were in force before, and going back to them.

use crate::{
    attempt::{WITHIN, comes, generation, opens},
    common::{
        netns::Enforcer,
        pair::{NEAR, Pair, web},
        require::require,
    },
};

#[test]
fn any_definition_that_is_kept_can_be_gone_back_to() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _servers = [8080, 9090].map(|port| pair.near.serve(NEAR, port));
    let said = enforcer.sgctl(&["history"]);
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    enforcer
        .sgctl(&["rollback"])
        .fails(&["no definition before"]);
    let interface = pair.interface("a", "[\"g\"]", "");
    let definition = |port| web("g", port) + &interface;
    enforcer.apply(&definition(8080), &[]).ok();
    enforcer
        .sgctl(&["rollback"])
        .fails(&["no definition before"]);
    enforcer.apply(&definition(9090), &[]).ok();
    // The file may say anything by now, or be gone.
    std::fs::remove_file(&enforcer.file).unwrap();
    let said = enforcer.sgctl(&["rollback"]).ok();
    assert!(said.out.contains("generation 3 is in force"), "{said:?}");
    assert!(said.err.contains("going back to generation 1"), "{said:?}");
    assert!(opens(&pair, 8080) && pair.far.connect_is_dropped(NEAR, 9090));

    let listed = enforcer.sgctl(&["history"]).ok().out;
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 3, "{listed}");
    assert!(lines[0].starts_with("generation 3: 20") && lines[0].contains("rollback to 1"));
    assert!(lines[2].contains(", apply ") && lines[2].contains(enforcer.file.to_str().unwrap()));

    enforcer.sgctl(&["rollback", "2", WITHIN]).ok();
    assert!(opens(&pair, 9090));
    comes(&enforcer, 5);
    assert!(opens(&pair, 8080));
    enforcer.sgctl(&["rollback", "2"]).ok();
    assert!(opens(&pair, 9090));
    let listed = enforcer.sgctl(&["history"]).ok().out;
    assert!(
        listed.contains("generation 4") && listed.contains(", rolled back"),
        "{listed}"
    );
    enforcer
        .sgctl(&["rollback", "99"])
        .fails(&["99", "sgctl history"]);
}

#[test]
fn ten_definitions_are_kept_and_one_that_says_the_same_is_one() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let interface = pair.interface("a", "[\"g\"]", "");
    for port in 1..=12 {
        enforcer.apply(&(web("g", port) + &interface), &[]).ok();
    }
    enforcer.apply(&(web("g", 12) + &interface), &[]).ok();
    let json = enforcer.sgctl(&["history", "--json"]).ok().out;
    let history: serde_json::Value = serde_json::from_str(&json).unwrap();
    let generations: Vec<u64> = history["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["generation"].as_u64().unwrap())
        .collect();
    assert_eq!(generations, [3, 4, 5, 6, 7, 8, 9, 10, 11, 13]);
    let files = std::fs::read_dir(&enforcer.context.state_dir).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let texts = names.filter(|name| name.starts_with("definition-"));
    assert_eq!(texts.count(), 10);
    // Both generations of the last one mean it.
    let said = enforcer.sgctl(&["rollback", "12"]).ok();
    assert!(said.err.contains("going back to generation 13"), "{said:?}");
    enforcer.sgctl(&["rollback", "2"]).fails(&["generation 2"]);
}

#[test]
fn what_is_kept_outlives_what_is_pinned() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _servers = [8080, 9090].map(|port| pair.near.serve(NEAR, port));
    let interface = pair.interface("a", "[\"g\"]", "");
    for port in [8080, 9090] {
        enforcer.apply(&(web("g", port) + &interface), &[]).ok();
    }
    enforcer.sgctl(&["detach", "--all"]).ok();
    enforcer.sgctl(&["rollback", "1"]).ok();
    assert_eq!(generation(&enforcer), 1);
    assert!(opens(&pair, 8080) && pair.far.connect_is_dropped(NEAR, 9090));
    let said = enforcer.sgctl(&["history"]).ok().out;
    assert_eq!(said.matches("generation 1:").count(), 1, "{said}");

    // Where nothing is in force, going back is to what was last; what waited then was never confirmed.
    let tried = web("g", 9090) + &interface;
    enforcer.apply(&tried, &["--confirm-within=5m"]).ok();
    enforcer.sgctl(&["detach", "--all"]).ok();
    let said = enforcer.sgctl(&["history"]).ok().out;
    assert!(!said.contains("to be confirmed"), "{said}");
    let said = enforcer.sgctl(&["rollback"]).ok();
    assert!(said.err.contains("going back to generation 1"), "{said:?}");
    assert!(opens(&pair, 8080) && pair.far.connect_is_dropped(NEAR, 9090));
    assert_eq!(crate::attempt::status(&enforcer)["taken_back"], 1);
}

#[test]
fn a_definition_that_says_something_else_on_this_host_is_checked_anew() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let interface = pair.interface("a", "[\"g\"]", "");
    enforcer.apply(&(web("g", 8080) + &interface), &[]).ok();
    enforcer.apply(&(web("g", 9090) + &interface), &[]).ok();
    pair.near.ip("link set eth0 name eth9");
    enforcer.sgctl(&["rollback"]).fails(&["no device eth0"]);
    assert_eq!(generation(&enforcer), 2);
}
