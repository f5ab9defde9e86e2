//! A generation is taken back by the kernel unless it is confirmed.

use std::{thread, time::Duration};

use crate::{
    attempt::{LATER, WITHIN, begin, comes, exported, generation, killed_at, open, opens, status},
    common::{
        netns::{Enforcer, NEVER, answers, eventually_within},
        pair::{NEAR, Pair, denies_all, web},
        require::require,
    },
};
use sg_userspace::hits;

/// Where the group wants it, flows end with their rule.
fn reevaluating(port: u16) -> String {
    web("g", port).replace("[groups.g]\n", "[groups.g]\non_revoke = \"reevaluate\"\n")
}

#[test]
fn the_generation_before_returns_though_nobody_is_alive() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _servers = [8080, 9090].map(|port| pair.near.serve(NEAR, port));
    let interface = pair.interface("a", "[\"g\"]", "");
    enforcer.apply(&(web("g", 8080) + &interface), &[]).ok();
    let mut old = open(&pair, 8080);
    let attempt = begin(&enforcer, &(web("g", 9090) + &interface), &[WITHIN]);
    killed_at(&enforcer, attempt, 2);
    let mut tried = open(&pair, 9090);
    assert!(answers(&mut old));
    assert!(pair.far.connect_is_dropped(NEAR, 8080));

    comes(&enforcer, 3);
    assert!(answers(&mut old), "opened before");
    assert!(
        answers(&mut tried),
        "opened meanwhile: tracked flows outlive their rule"
    );
    assert!(opens(&pair, 8080));
    assert!(pair.far.connect_is_dropped(NEAR, 9090));

    // Nobody has followed yet, and everybody is told.
    let said = enforcer.sgctl(&["status"]).ok();
    assert!(said.out.contains("generation 2 was taken back"), "{said:?}");
    assert_eq!(status(&enforcer)["taken_back"], 1);
    assert_eq!(exported(&enforcer, "sgctl_generations_taken_back_total"), 1);
    let said = enforcer.sgctl(&["confirm"]);
    said.fails(&["too late", "generation 2 was taken back"]);

    // The next change does, and is one.
    let said = enforcer.apply(&(web("g", 8080) + &interface), &[]).ok();
    assert!(said.out.contains("generation 4 is in force"), "{said:?}");
    let status = status(&enforcer);
    assert_eq!(status["taken_back"], 1);
    assert_eq!(status["warnings"], serde_json::json!([]));
    assert!(answers(&mut old) && answers(&mut tried));
    assert!(opens(&pair, 8080));
}

#[test]
fn flows_of_a_generation_that_was_taken_back_end_where_a_group_says_so() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _servers = [8080, 9090].map(|port| pair.near.serve(NEAR, port));
    let interface = pair.interface("a", "[\"g\"]", "");
    enforcer.apply(&(reevaluating(8080) + &interface), &[]).ok();
    let mut silent = open(&pair, 8080);
    enforcer
        .apply(&(reevaluating(9090) + &interface), &[WITHIN])
        .ok();
    let mut tried = open(&pair, 9090);
    comes(&enforcer, 3);
    assert!(answers(&mut silent), "allowed whenever it said something");
    tried.set_read_timeout(Some(NEVER)).unwrap();
    assert!(!answers(&mut tried));
    assert!(enforcer.figure("a", "ingress_dropped_revoked_packets") >= 1);
}

#[test]
fn what_is_confirmed_stays() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _servers = [8080, 9090].map(|port| pair.near.serve(NEAR, port));
    let interface = pair.interface("a", "[\"g\"]", "");
    enforcer.apply(&(web("g", 8080) + &interface), &[]).ok();
    let said = enforcer.sgctl(&["confirm"]);
    assert_eq!((said.code, said.out.as_str()), (1, ""), "{said:?}");
    assert!(said.err.contains("nothing waits"), "{said:?}");

    let said = enforcer.apply(&(web("g", 9090) + &interface), &["--confirm-within", "4s"]);
    let said = said.ok();
    assert!(
        said.err.contains("unless `sgctl confirm` comes within 4 s"),
        "{said:?}"
    );
    let waiting = &status(&enforcer)["pending"];
    assert_eq!(waiting["generation"], 2);
    assert!(
        (1..=4).contains(&waiting["seconds_left"].as_u64().unwrap()),
        "{waiting}"
    );
    let text = enforcer.sgctl(&["status"]).ok().out;
    assert!(
        text.contains("generation 2 waits for `sgctl confirm`"),
        "{text}"
    );
    assert!(exported(&enforcer, "sgctl_generation_unconfirmed_seconds") >= 1);

    let said = enforcer.sgctl(&["confirm"]).ok();
    assert_eq!(said.out, "generation 2 is in force for good\n");
    assert_eq!(enforcer.sgctl(&["confirm"]).code, 1);
    thread::sleep(Duration::from_secs(6));
    assert_eq!(generation(&enforcer), 2);
    assert!(opens(&pair, 9090));
    assert!(pair.far.connect_is_dropped(NEAR, 8080));
    let status = status(&enforcer);
    assert_eq!(status["pending"], serde_json::Value::Null);
    assert_eq!(status["taken_back"], 0);
    assert_eq!(
        exported(&enforcer, "sgctl_generation_unconfirmed_seconds"),
        0
    );
    let said = enforcer.apply(&(web("g", 8080) + &interface), &[]).ok();
    assert!(said.out.contains("generation 3 is in force"), "{said:?}");
}

#[test]
fn a_first_attachment_that_nobody_confirms_lets_everything_pass_and_counts_it() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _server = pair.near.serve(NEAR, 22);
    let mut before = open(&pair, 22);
    let definition = denies_all("none") + &pair.interface("a", "[\"none\"]", "");
    enforcer.apply(&definition, &[WITHIN, "--no-adopt"]).ok();
    before.set_read_timeout(Some(NEVER)).unwrap();
    assert!(!answers(&mut before));
    assert!(pair.far.connect_is_dropped(NEAR, 22));

    comes(&enforcer, 2);
    let mut after = open(&pair, 22);
    eventually_within(LATER, "the connection from before", || answers(&mut before));
    assert!(enforcer.figure("a", "ingress_passed_unconfirmed_packets") >= 3);
    assert!(enforcer.figure("a", "egress_passed_unconfirmed_packets") >= 3);
    let said = enforcer.sgctl(&["status"]);
    assert_eq!(said.code, 1, "{said:?}");
    for words in [
        "a: NOT ENFORCED",
        "everything passes",
        "generation 1 was taken back",
    ] {
        assert!(said.out.contains(words), "{words} in {said:?}");
    }
    enforcer.sgctl(&["confirm"]).fails(&["too late"]);

    // Who came in meanwhile is taken over when it is tried again.
    let said = enforcer.apply(&definition, &[]).ok();
    assert!(
        said.out.contains("attached") && said.out.contains("adopted"),
        "{said:?}"
    );
    assert!(answers(&mut after));
    assert!(pair.far.connect_is_dropped(NEAR, 22));
    assert_eq!(status(&enforcer)["taken_back"], 1);
}

#[test]
fn a_first_attachment_is_taken_back_though_it_was_killed() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _server = pair.near.serve(NEAR, 22);
    let definition = denies_all("none") + &pair.interface("a", "[\"none\"]", "");
    let attempt = begin(&enforcer, &definition, &[WITHIN]);
    killed_at(&enforcer, attempt, 1);
    comes(&enforcer, 2);
    assert!(opens(&pair, 22));
    enforcer.apply(&definition, &[]).ok();
    assert!(pair.far.connect_is_dropped(NEAR, 22));
}

#[test]
fn an_interface_that_is_new_passes_everything_while_the_others_go_back() {
    require!(Root, Object);
    let (one, two, enforcer) = (Pair::new(), Pair::new(), Enforcer::new());
    let _servers: Vec<_> = [&one, &two]
        .iter()
        .flat_map(|pair| [8080, 9090].map(|port| pair.near.serve(NEAR, port)))
        .collect();
    let first = one.interface("one", "[\"g\"]", "");
    enforcer.apply(&(web("g", 8080) + &first), &[]).ok();
    let both = web("g", 9090) + &first + &two.interface("two", "[\"g\"]", "");
    enforcer.apply(&both, &[WITHIN]).ok();
    assert!(two.far.connect_is_dropped(NEAR, 8080));
    comes(&enforcer, 3);
    assert!(opens(&one, 8080) && one.far.connect_is_dropped(NEAR, 9090));
    assert!(opens(&two, 8080) && opens(&two, 9090));
    assert!(enforcer.figure("two", "ingress_passed_unconfirmed_packets") >= 2);
    assert_eq!(
        enforcer.figure("one", "ingress_passed_unconfirmed_packets"),
        0
    );

    // It belongs to nobody when the state has followed.
    let said = enforcer.apply(&(web("g", 8080) + &first), &[]).ok();
    assert!(said.out.contains("generation 4 is in force"), "{said:?}");
    let interfaces = status(&enforcer)["interfaces"].clone();
    assert_eq!(interfaces.as_array().unwrap().len(), 1, "{interfaces}");
    assert!(opens(&two, 9090));
}

#[test]
fn nothing_else_changes_while_a_generation_waits() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _servers = [8080, 9090].map(|port| pair.near.serve(NEAR, port));
    let interface = pair.interface("a", "[\"g\"]", "");
    let definition = web("g", 8080) + &interface;
    enforcer.apply(&definition, &[]).ok();
    let tried = web("g", 9090) + &interface;
    enforcer.apply(&tried, &["--confirm-within", "5m"]).ok();
    let words = ["generation 2 waits", "`sgctl confirm`", "`sgctl rollback`"];
    enforcer.apply(&definition, &[]).fails(&words);
    enforcer.apply(&definition, &[WITHIN]).fails(&words);
    enforcer.sgctl(&["detach", "a"]).fails(&words);
    enforcer.sgctl(&["rollback", "1"]).fails(&words);
    assert!(opens(&pair, 9090));

    let said = enforcer.sgctl(&["rollback"]).ok();
    assert!(said.out.contains("generation 2 is taken back"), "{said:?}");
    assert!(said.out.contains("in force as generation 3"), "{said:?}");
    assert!(opens(&pair, 8080));
    assert!(pair.far.connect_is_dropped(NEAR, 9090));
    assert_eq!(enforcer.sgctl(&["status"]).ok().err, "");

    // What ends everything ends this, too.
    enforcer.apply(&tried, &[WITHIN]).ok();
    enforcer.sgctl(&["detach", "--all"]).ok();
    assert!(opens(&pair, 8080) && opens(&pair, 9090));
    assert!(!enforcer.context.bpffs.exists());
}

#[test]
fn what_no_timer_can_take_back_is_refused() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let interface = pair.interface("a", "[\"g\"]", "");
    enforcer.apply(&(web("g", 8080) + &interface), &[]).ok();
    let host = interface.replace("\"own\"", "\"host\"");
    let said = enforcer.apply(&(web("g", 8080) + &host), &[WITHIN]);
    said.fails(&["interface a changes its orientation"]);
    let said = enforcer.apply(
        &(web("g", 8080) + &interface),
        &[WITHIN, "--detach-missing"],
    );
    said.fails(&["--detach-missing"]);
    assert_eq!(generation(&enforcer), 1);
    assert_eq!(status(&enforcer)["warnings"], serde_json::json!([]));
}

#[test]
fn limits_go_back_with_their_generation() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let definition = |allowance: u32| {
        format!("[conntrack]\nallowance = {allowance}\n")
            + &web("g", 8080)
            + &pair.interface("a", "[\"g\"]", "")
    };
    enforcer.apply(&definition(6000), &[]).ok();
    enforcer.apply(&definition(1024), &[WITHIN]).ok();
    assert_eq!(enforcer.figure("a", "conntrack_allowance"), 1024);
    comes(&enforcer, 3);
    assert_eq!(enforcer.figure("a", "conntrack_allowance"), 6000);
    let said = enforcer.sgctl(&["stats"]).ok().out;
    assert!(said.contains("conntrack_allowance: 6000"), "{said}");
}

#[test]
fn packets_of_rules_are_counted_once_wherever_they_go() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _servers = [8080, 9090].map(|port| pair.near.serve(NEAR, port));
    let interface = pair.interface("a", "[\"g\"]", "");
    // One rule for each family.
    let counted = || -> u64 {
        let rules = hits::read(&enforcer.context).unwrap();
        rules.iter().map(|rule| rule.packets).sum()
    };
    enforcer.apply(&(web("g", 8080) + &interface), &[]).ok();
    open(&pair, 8080);
    assert_eq!(counted(), 1);
    enforcer
        .apply(&(web("g", 9090) + &interface), &[WITHIN])
        .ok();
    open(&pair, 9090);
    open(&pair, 9090);
    assert_eq!(counted(), 2);
    comes(&enforcer, 3);
    open(&pair, 8080);
    assert_eq!(counted(), 2, "one before, one after");
    // What is remembered follows only with the next change.
    enforcer.sgctl(&["detach", "nobody"]).fails(&["nobody"]);
    assert_eq!(counted(), 2);
    for _ in 0..3 {
        enforcer.apply(&(web("g", 8080) + &interface), &[]).ok();
    }
    open(&pair, 8080);
    assert_eq!(counted(), 3);
}

#[test]
fn flows_that_were_untracked_meanwhile_are_taken_over() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _server = pair.near.serve(NEAR, 8080);
    let interface = pair.interface("a", "[\"g\"]", "");
    let open_to_all = "[groups.g]\ningress = [{ protocol = \"all\", cidr = [\"0.0.0.0/0\", \"::/0\"] }]\negress = [{ protocol = \"all\", cidr = [\"0.0.0.0/0\", \"::/0\"] }]\n";
    enforcer.apply(&(web("g", 8080) + &interface), &[]).ok();
    enforcer
        .apply(&(open_to_all.to_owned() + &interface), &[WITHIN])
        .ok();
    let mut stream = open(&pair, 8080);
    assert!(enforcer.figure("a", "ingress_passed_untracked_packets") >= 1);
    comes(&enforcer, 3);
    assert!(answers(&mut stream));
    assert!(enforcer.figure("a", "ingress_passed_taken_over_packets") >= 1);
    assert_eq!(
        enforcer.figure("a", "ingress_dropped_mid_stream_packets"),
        0
    );
}

#[test]
fn who_confirms_in_the_last_moment_is_told_what_is_true() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let interface = pair.interface("a", "[\"g\"]", "");
    enforcer.apply(&(web("g", 8080) + &interface), &[]).ok();
    let (mut kept, mut gone) = (0, 0);
    for attempt in 0..16 {
        let before = generation(&enforcer);
        let definition = web("g", 9000 + attempt) + &interface;
        enforcer
            .apply(&definition, &["--confirm-within=1s", "--yes"])
            .ok();
        // Around the end of the time, which begins a little before the command has ended.
        thread::sleep(Duration::from_millis(900 + u64::from(attempt) * 10));
        let said = enforcer.sgctl(&["confirm"]);
        thread::sleep(Duration::from_millis(200));
        let (expected, words) = match said.code {
            0 => (before + 1, "in force for good"),
            _ => (before + 2, "too late"),
        };
        *(if said.code == 0 { &mut kept } else { &mut gone }) += 1;
        assert_eq!(generation(&enforcer), expected, "{said:?}");
        assert!(
            said.out.contains(words) || said.err.contains(words),
            "{said:?}"
        );
    }
    println!("{kept} kept, {gone} taken back");
}
