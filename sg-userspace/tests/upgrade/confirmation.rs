//! Generations that wait to be confirmed, or were taken back, while something is to be taken over or resized.

use std::{thread, time::Duration};

use serde_json::Value;

use crate::{
    common::{
        netns::{Enforcer, answers, eventually_within},
        pair::{NEAR, Pair, denies_all, web},
        require::require,
    },
    other,
};

/// How long a generation may take to be taken back on a machine that has more to do.
const LATER: Duration = Duration::from_secs(20);

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Waits until a generation is in force, in the present layout.
fn comes(enforcer: &Enforcer, wanted: u32) {
    eventually_within(LATER, &format!("generation {wanted}"), || {
        let status = parsed(&enforcer.sgctl(&["status", "--json"]).out);
        status["generation"] == wanted
    });
}

/// An apply that is refused when it has taken over the layout before: nothing but that has happened.
#[track_caller]
fn taken_over_and_refused(enforcer: &Enforcer, definition: &str) {
    std::fs::write(&enforcer.file, definition.replace("\"own\"", "\"host\"")).unwrap();
    let file = enforcer.file.to_str().unwrap();
    other(enforcer, &["apply", file, "--confirm-within=1m"]).fails(&["changes its orientation"]);
}

#[test]
fn what_waits_to_be_confirmed_is_not_taken_over() {
    require!(Root, Object, Relaid);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _servers = [8080, 9090].map(|port| pair.near.serve(NEAR, port));
    let interface = pair.interface("a", "[\"g\"]", "");
    enforcer.apply(&(web("g", 8080) + &interface), &[]).ok();
    let mut old = pair.far.connect(NEAR, 8080).unwrap();
    assert!(answers(&mut old));
    let file = enforcer.file.to_str().unwrap().to_owned();
    let tried = web("g", 9090) + &interface;
    let words = ["generation 2 waits", "`sgctl confirm`", "`sgctl rollback`"];

    // Taken back by who would take it over.
    enforcer.apply(&tried, &["--confirm-within=5m"]).ok();
    other(&enforcer, &["apply", &file]).fails(&words);
    other(&enforcer, &["apply", &file, "--confirm-within=1m"]).fails(&words);
    other(&enforcer, &["status"]).fails(&words);
    other(&enforcer, &["detach", "a"]).fails(&["takes it over"]);
    assert!(pair.far.connect_is_dropped(NEAR, 8080));
    let said = other(&enforcer, &["rollback"]).ok().out;
    assert!(said.contains("in force as generation 3"), "{said}");
    assert!(answers(&mut pair.far.connect(NEAR, 8080).unwrap()));
    let status = parsed(&enforcer.sgctl(&["status", "--json"]).ok().out);
    assert_eq!(
        (&status["generation"], &status["taken_back"]),
        (&3.into(), &1.into())
    );
    assert_eq!(
        status["warnings"],
        serde_json::json!([]),
        "the state has followed"
    );

    // Confirmed by who then takes it over.
    enforcer.apply(&tried, &["--confirm-within=5m"]).ok();
    let said = other(&enforcer, &["confirm"]).ok().out;
    assert_eq!(said, "generation 4 is in force for good\n");
    assert_eq!(other(&enforcer, &["confirm"]).code, 1);
    taken_over_and_refused(&enforcer, &tried);
    let status = parsed(&other(&enforcer, &["status", "--json"]).ok().out);
    assert_eq!(
        (&status["generation"], &status["taken_back"]),
        (&4.into(), &1.into())
    );
    assert!(answers(&mut old), "a tracked flow outlives its rule");
    assert!(answers(&mut pair.far.connect(NEAR, 9090).unwrap()));
    assert!(pair.far.connect_is_dropped(NEAR, 8080));
}

#[test]
fn what_was_taken_back_is_not_taken_over() {
    require!(Root, Object, Relaid);
    let (one, two, enforcer) = (Pair::new(), Pair::new(), Enforcer::new());
    let _servers: Vec<_> = [&one, &two]
        .iter()
        .flat_map(|pair| [8080, 9090].map(|port| pair.near.serve(NEAR, port)))
        .collect();
    let first = one.interface("one", "[\"g\"]", "");
    enforcer.apply(&(web("g", 8080) + &first), &[]).ok();
    let mut old = one.far.connect(NEAR, 8080).unwrap();
    let both = web("g", 9090) + &first + &two.interface("two", "[\"g\"]", "");
    enforcer.apply(&both, &["--confirm-within=1s"]).ok();
    comes(&enforcer, 3);
    let mut between = one.far.connect(NEAR, 8080).unwrap();

    // Nobody has followed yet.
    taken_over_and_refused(&enforcer, &both);
    let status = parsed(&other(&enforcer, &["status", "--json"]).ok().out);
    assert_eq!(
        (&status["generation"], &status["taken_back"]),
        (&3.into(), &1.into())
    );
    assert_eq!(
        status["interfaces"].as_array().unwrap().len(),
        1,
        "{status}"
    );
    assert_eq!(status["warnings"], serde_json::json!([]));
    let kept = parsed(&other(&enforcer, &["history", "--json"]).ok().out);
    let outcomes: Vec<_> = kept["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["outcome"])
        .collect();
    assert_eq!(outcomes, ["applied", "rolled-back"]);
    assert!(answers(&mut old) && answers(&mut between));
    assert!(answers(&mut one.far.connect(NEAR, 8080).unwrap()));
    assert!(one.far.connect_is_dropped(NEAR, 9090));
    for port in [8080, 9090] {
        assert!(
            answers(&mut two.far.connect(NEAR, port).unwrap()),
            "it is attached no more"
        );
    }
    let rules = parsed(&other(&enforcer, &["stats", "--rules", "--json"]).ok().out);
    let hits: u64 = rules["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| rule["packets"].as_u64().unwrap())
        .sum();
    assert_eq!(
        hits, 3,
        "one before, one after it was taken back, one after it was taken over"
    );
    std::fs::write(&enforcer.file, both).unwrap();
    let file = enforcer.file.to_str().unwrap();
    let said = other(&enforcer, &["apply", file]).ok().out;
    assert!(said.contains("generation 4 is in force"), "{said}");
    assert!(two.far.connect_is_dropped(NEAR, 8080));
}

#[test]
fn a_first_attachment_that_was_taken_back_leaves_nothing_to_take_over() {
    require!(Root, Object, Relaid);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _server = pair.near.serve(NEAR, 22);
    let definition = denies_all("none") + &pair.interface("a", "[\"none\"]", "");
    enforcer.apply(&definition, &["--confirm-within=1s"]).ok();
    comes(&enforcer, 2);
    let mut open = pair.far.connect(NEAR, 22).unwrap();
    let file = enforcer.file.to_str().unwrap().to_owned();
    let said = other(&enforcer, &["apply", &file]).ok().out;
    assert!(!said.contains("taken over"), "{said}");
    assert!(answers(&mut open), "adopted");
    assert!(pair.far.connect_is_dropped(NEAR, 22));
    assert_eq!(
        std::fs::read_dir(&enforcer.context.bpffs).unwrap().count(),
        1
    );
}

#[test]
fn tables_of_another_size_wait_for_what_is_to_be_confirmed() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _servers = [8080, 9090].map(|port| pair.near.serve(NEAR, port));
    let sized = |allowance: u32, port: u16, more: &str| {
        format!("[conntrack]\nallowance = {allowance}\n{more}\n")
            + &web("g", port)
            + &pair.interface("a", "[\"g\"]", "")
    };
    enforcer.apply(&sized(2048, 8080, ""), &[]).ok();
    let mut old = pair.far.connect(NEAR, 8080).unwrap();

    // Another size while one waits.
    enforcer
        .apply(&sized(2048, 9090, ""), &["--confirm-within=5m"])
        .ok();
    let said = enforcer.apply(&sized(400_000, 8080, ""), &[]);
    said.fails(&["generation 2 waits"]);
    enforcer.sgctl(&["rollback"]).ok();

    // One that waits has another size: smaller tables, which have room for what may return.
    let tried = sized(1024, 9090, "accounting = false");
    let said = enforcer.apply(&tried, &["--confirm-within=1s"]).ok().out;
    assert!(said.contains("moved to tables of another size"), "{said}");
    comes(&enforcer, 5);
    assert_eq!(enforcer.figure("a", "conntrack_allowance"), 2048);
    let mut held: Vec<_> = (0..1500)
        .map(|_| pair.far.connect(NEAR, 8080).unwrap())
        .collect();
    assert!(held.iter_mut().all(answers) && answers(&mut old));
    assert!(pair.far.connect_is_dropped(NEAR, 9090));
    assert_eq!(
        enforcer.figure("a", "ingress_dropped_conntrack_allowance_exceeded_packets"),
        0
    );

    // And larger ones, confirmed.
    let said = enforcer.apply(&sized(50_000, 9090, ""), &["--confirm-within=2s"]);
    assert!(said.ok().out.contains("moved to tables of another size"));
    enforcer.sgctl(&["confirm"]).ok();
    thread::sleep(Duration::from_secs(3));
    assert_eq!(enforcer.figure("a", "conntrack_allowance"), 50_000);
    assert!(answers(&mut pair.far.connect(NEAR, 9090).unwrap()));
    assert!(held.iter_mut().all(answers) && answers(&mut old));
}
