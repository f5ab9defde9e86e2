//! Packets are counted for every rule that lets them pass, over all generations.

use std::collections::BTreeMap;

use sg_userspace::{bank, compile::compile, hits, session::Session, state::Lock};

use crate::{
    common::{netns::answers, require::require},
    link::{Family, Link, Orientation},
    traffic::{datagrams, question_and_answer},
};

/// Packets by rule, as the last digits of its id.
fn counted(link: &Link) -> BTreeMap<String, u64> {
    let hits = hits::read(&link.enforcer.context).unwrap();
    assert!(hits.iter().all(|one| one.complete));
    let rules = hits.into_iter();
    rules
        .map(|one| {
            (
                one.rule.trim_start_matches("sgr-0000000000000000").into(),
                one.packets,
            )
        })
        .collect()
}

#[track_caller]
fn assert_counted(link: &Link, expected: &[(&str, u64)]) {
    let expected: BTreeMap<String, u64> = expected
        .iter()
        .map(|(rule, packets)| ((*rule).to_owned(), *packets))
        .collect();
    assert_eq!(counted(link), expected);
}

/// What a change leaves that ends when everything is written down and nothing is done.
fn cut_short(link: &Link) {
    let context = &link.enforcer.context;
    let lock = Lock::take(&context.state_dir).unwrap();
    let mut session = Session::open(context, &lock).unwrap().unwrap();
    let policy = lock.read_policy(&session.state).unwrap();
    let compiled = compile(&policy.resolved).unwrap();
    let vacant = bank::vacate(
        &session.tables,
        &session.object,
        &compiled,
        &mut session.runtime,
    )
    .unwrap();
    hits::turn_over(&session.tables, &lock, &vacant, &compiled).unwrap();
}

fn rule(id: &str, protocol: &str, ports: &str, peer: &str) -> String {
    format!(
        "{{ id = \"sgr-0000000000000000{id}\", protocol = \"{protocol}\", ports = {ports}, {peer} }}, "
    )
}

#[test]
fn every_rule_that_allows_a_new_flow_counts_it_once_and_for_all() {
    require!(Root, Object);
    for family in Family::ALL {
        let link = Link::new(Orientation::Own, "tc");
        let _server = link.workload.serve(family.workload(), 8080);
        let (wide, narrow) = match family {
            Family::V4 => ("cidr = \"10.77.0.0/24\"", "cidr = \"10.77.0.2/32\""),
            Family::V6 => ("cidr = \"fd77::/64\"", "cidr = \"fd77::2/128\""),
        };
        let overlapping = [
            rule("a", "tcp", "8080", wide),
            rule("b", "tcp", "\"8000-8100\"", narrow),
            rule("c", "tcp", "8080", "group = \"peers\""),
            rule("d", "tcp", "22", wide),
        ]
        .concat();
        let apply = |rules: &str| {
            let groups = format!(
                "[groups.peers]\ningress = []\negress = []\n[members.peers]\naddresses = [\"{}\"]\n\
                 [groups.g]\non_revoke = \"reevaluate\"\ningress = [{rules}]\negress = []\n",
                family.peer()
            );
            let definition = groups + &link.interface("[\"g\"]", "");
            link.enforcer.apply(&definition, &[]).ok();
        };
        apply(&overlapping);
        assert_counted(&link, &[("a", 0), ("b", 0), ("c", 0), ("d", 0)]);
        let mut streams: Vec<_> = (0..3)
            .map(|_| link.peer.connect(family.workload(), 8080).unwrap())
            .collect();
        assert!(
            streams.iter_mut().all(answers),
            "further packets count nothing"
        );
        assert!(link.peer.connect_is_dropped(family.workload(), 23));
        assert_counted(&link, &[("a", 3), ("b", 3), ("c", 3), ("d", 0)]);

        cut_short(&link);
        assert_counted(&link, &[("a", 3), ("b", 3), ("c", 3), ("d", 0)]);

        // Generations come and go; asking a flow again counts nothing.
        let more = overlapping.clone() + &rule("e", "tcp", "\"8080-8081\"", wide);
        for generation in 0..3 {
            apply(if generation == 1 { &overlapping } else { &more });
            assert!(streams.iter_mut().all(answers));
        }
        assert_counted(&link, &[("a", 3), ("b", 3), ("c", 3), ("d", 0), ("e", 0)]);
        streams.push(link.peer.connect(family.workload(), 8080).unwrap());
        assert_counted(&link, &[("a", 4), ("b", 4), ("c", 4), ("d", 0), ("e", 1)]);
        apply(&more);
        for _ in 0..2 {
            cut_short(&link);
            assert_counted(&link, &[("a", 4), ("b", 4), ("c", 4), ("d", 0), ("e", 1)]);
        }
        apply(&overlapping);
        apply(&overlapping);
        assert_counted(&link, &[("a", 4), ("b", 4), ("c", 4), ("d", 0)]);

        let shown = link.enforcer.sgctl(&["stats", "--rules"]).ok().out;
        for line in ["ingress rules of group g:", "     sgr-0000000000000000a: 4"] {
            assert!(
                shown.lines().any(|shown| shown == line),
                "{line} in {shown}"
            );
        }
        let shown = link.enforcer.sgctl(&["export"]).ok().out;
        let sample = "sgctl_rule_hits_total{rule=\"sgr-0000000000000000c\",group=\"g\",direction=\"ingress\"} 4";
        assert!(shown.lines().any(|line| line == sample), "{shown}");
    }
}

#[test]
fn every_packet_without_a_flow_is_counted_for_the_rules_of_its_direction() {
    require!(Root, Object);
    for family in Family::ALL {
        let link = Link::new(Orientation::Own, "tc");
        let any = format!("cidr = \"{}\"", family.any());
        let narrow = match family {
            Family::V4 => "cidr = \"10.77.0.2/32\"",
            Family::V6 => "cidr = \"fd77::2/128\"",
        };
        let ingress = rule("a", "udp", "5353", &any) + &rule("b", "udp", "\"5000-6000\"", narrow);
        let egress = rule("c", "udp", "\"0-65535\"", &any);
        link.enforce(&ingress, &egress, "");
        let workload = datagrams(&link.workload, family.workload(), 5353);
        let peer = datagrams(&link.peer, family.peer(), 4000);
        let before = link.counters();
        for _ in 0..5 {
            question_and_answer(&peer, &workload, 100);
        }
        let after = link.counters();
        for direction in ["ingress", "egress"] {
            assert_eq!(after.passed(&before, direction, "untracked"), 5);
        }
        assert_counted(&link, &[("a", 5), ("b", 5), ("c", 5)]);
        // With the peer tracked, its first datagram counts and no other.
        link.enforce(&ingress, &egress, "track = \"always\"");
        for _ in 0..5 {
            question_and_answer(&peer, &workload, 100);
        }
        assert_counted(&link, &[("a", 6), ("b", 6), ("c", 5)]);
    }
}
