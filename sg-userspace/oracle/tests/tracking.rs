//! What is tracked and what is not, and what a change of the policy does to it.

mod common;

use common::*;
use sg_oracle::{
    Arrival, Direction, Verdict,
    policy::{Policy, Rule, What},
};

const PEER: &str = "203.0.113.1";
const HERE: &str = "10.0.0.5";

/// The example of fact 3.6.
fn example() -> Policy {
    policy(
        &[
            rule(What::Tcp(22, 22), "203.0.113.1/32"),
            rule(What::Tcp(80, 80), "0.0.0.0/0"),
            rule(What::Tcp(80, 80), "::/0"),
            rule(What::Icmp(None, None), "0.0.0.0/0"),
        ],
        &[rule(What::All, "0.0.0.0/0"), rule(What::All, "::/0")],
    )
}

fn syn(source: End<'_>, destination: End<'_>) -> Vec<u8> {
    tcp(source, destination, (SYN, 100, 0, 0))
}

fn ack(source: End<'_>, destination: End<'_>) -> Vec<u8> {
    tcp(source, destination, (ACK, 101, 501, 0))
}

#[test]
fn the_example_of_fact_3_6() {
    let mut bench = Bench::new(example());
    bench.enters(&syn((PEER, 4000), (HERE, 22)), "new");
    bench.enters(&syn((PEER, 4000), (HERE, 80)), "untracked");
    bench.leaves(&ack((HERE, 80), (PEER, 4000)), "untracked");
    bench.enters(&icmp(PEER, HERE, 8, 0, &[]), "new");
    bench.leaves(&icmp(HERE, PEER, 0, 0, &[]), "established");
    // Fact 3.10: what the host opens is tracked, though its egress is open.
    bench.leaves(&syn((HERE, 5000), (PEER, 443)), "new");
    bench.leaves(&ack((HERE, 5001), (PEER, 443)), "mid_stream");
    // ICMP requests of two sides with one identifier are two flows.
    bench.leaves(&icmp(HERE, PEER, 8, 0, &[]), "new");
    assert_eq!(bench.states().len(), 4);
}

#[test]
fn families_are_judged_apart() {
    let mut policy = example();
    policy.groups.get_mut("g").unwrap().egress.pop();
    let mut bench = Bench::new(policy.clone());
    bench.enters(&syn((PEER, 4000), (HERE, 80)), "untracked");
    bench.enters(&syn(("2001:db8::1", 4000), ("2001:db8::2", 80)), "new");
    only(&mut policy).track_always = true;
    bench.apply(policy);
    bench.enters(&syn((PEER, 4000), (HERE, 80)), "new");
}

#[test]
fn a_removed_rule_cuts_what_is_untracked_and_keeps_what_is_tracked() {
    let mut bench = Bench::new(example());
    bench.enters(&syn((PEER, 4000), (HERE, 22)), "new");
    bench.enters(&ack((PEER, 4000), (HERE, 80)), "untracked");
    bench.apply(policy(&[], &[rule(What::All, "0.0.0.0/0")]));
    bench.enters(&ack((PEER, 4000), (HERE, 22)), "established");
    bench.leaves(&ack((HERE, 22), (PEER, 4000)), "established");
    bench.enters(&syn((PEER, 4000), (HERE, 22)), "no_rule");
    bench.enters(&syn((PEER, 4001), (HERE, 80)), "no_rule");
    // Everything may leave, but it was the peer's opening that was untracked.
    bench.enters(&ack((PEER, 4000), (HERE, 80)), "mid_stream");
    bench.leaves(&ack((HERE, 80), (PEER, 4000)), "mid_stream");
}

#[test]
fn opening_up_makes_a_tracked_flow_untracked() {
    let mut bench = Bench::new(policy(&[rule(What::Tcp(80, 80), "203.0.113.1/32")], &[]));
    bench.enters(&syn((PEER, 4000), (HERE, 80)), "new");
    bench.apply(example());
    bench.enters(&ack((PEER, 4000), (HERE, 80)), "untracked");
    assert!(bench.states().is_empty());
}

/// TCP 80 from everywhere, and everything to everywhere: untracked.
fn open() -> Policy {
    policy(
        &[rule(What::Tcp(80, 80), "0.0.0.0/0")],
        &[rule(What::All, "0.0.0.0/0")],
    )
}

/// TCP 80 from everywhere alone: tracked.
fn closed() -> Policy {
    policy(&[rule(What::Tcp(80, 80), "0.0.0.0/0")], &[])
}

#[test]
fn hand_over_by_either_side() {
    let mut bench = Bench::new(open());
    bench.enters(&syn((PEER, 4000), (HERE, 80)), "untracked");
    bench.apply(closed());
    bench.leaves(
        &tcp((HERE, 80), (PEER, 4000), (RST | ACK, 501, 101, 0)),
        "mid_stream",
    );
    bench.leaves(&syn((HERE, 80), (PEER, 4000)), "no_rule");
    bench.leaves(&ack((HERE, 80), (PEER, 4000)), "taken_over");
    bench.enters(&ack((PEER, 4000), (HERE, 80)), "established");
    let flow = bench.oracle.flows(bench.now()).remove(0);
    assert!(
        !flow.opened_by_local,
        "opened by the side that a rule allows"
    );
    assert!(flow.assured, "both sides have been heard");

    // One side alone is not enough, however often.
    let mut bench = Bench::new(open());
    bench.apply(closed());
    for verdict in ["taken_over", "established", "established"] {
        bench.leaves(&ack((HERE, 80), (PEER, 4000)), verdict);
    }
    assert!(!bench.assured());
}

#[test]
fn hand_over_ends_with_the_timeout_and_with_the_next_generation() {
    let mut bench = Bench::new(open());
    bench.apply(closed());
    bench.second += 431_999;
    bench.enters(&ack((PEER, 4000), (HERE, 80)), "taken_over");
    bench.second += 1;
    bench.enters(&ack((PEER, 4001), (HERE, 80)), "mid_stream");
    let mut bench = Bench::new(open());
    bench.apply(closed());
    bench.apply(closed());
    bench.enters(&ack((PEER, 4000), (HERE, 80)), "mid_stream");
}

#[test]
fn hand_over_of_datagrams() {
    let open = [rule(What::Udp(0, 65535), "0.0.0.0/0")];
    let mut bench = Bench::new(policy(&open, &open));
    bench.leaves(&udp((HERE, 53), (PEER, 4000)), "untracked");
    bench.apply(policy(&[rule(What::Udp(53, 53), "0.0.0.0/0")], &[]));
    bench.second += 179;
    bench.leaves(&udp((HERE, 53), (PEER, 4000)), "taken_over");
    bench.second += 1;
    bench.leaves(&udp((HERE, 53), (PEER, 4001)), "no_rule");
}

/// A group that lets TCP 22 in from the peer, or nothing, and cuts or keeps what it no longer allows.
fn ssh(allowed: bool, reevaluate: bool) -> Policy {
    let rules: &[Rule] = &[rule(What::Tcp(22, 22), "203.0.113.1/32")];
    let mut policy = policy(if allowed { rules } else { &[] }, &[]);
    policy.groups.get_mut("g").unwrap().reevaluate = reevaluate;
    policy
}

#[test]
fn on_revoke_before_or_after_the_change() {
    for (before, after, verdict) in [
        (false, false, "established"),
        (true, false, "revoked"),
        (false, true, "revoked"),
        (true, true, "revoked"),
    ] {
        let mut bench = Bench::new(ssh(true, before));
        bench.enters(&syn((PEER, 4000), (HERE, 22)), "new");
        bench.apply(ssh(false, after));
        bench.leaves(&ack((HERE, 22), (PEER, 4000)), verdict);
        assert_eq!(bench.states().is_empty(), verdict == "revoked");
    }
}

#[test]
fn on_revoke_of_any_generation_that_the_flow_has_not_seen() {
    let mut bench = Bench::new(ssh(true, false));
    bench.enters(&syn((PEER, 4000), (HERE, 22)), "new");
    bench.apply(ssh(false, true));
    bench.apply(ssh(false, false));
    bench.apply(ssh(false, false));
    bench.enters(&ack((PEER, 4000), (HERE, 22)), "revoked");
    // A flow that is allowed when it is judged stays, and what came before is forgotten.
    let mut bench = Bench::new(ssh(true, true));
    bench.enters(&syn((PEER, 4000), (HERE, 22)), "new");
    bench.apply(ssh(true, false));
    bench.leaves(&ack((HERE, 22), (PEER, 4000)), "established");
    bench.apply(ssh(false, false));
    bench.leaves(&ack((HERE, 22), (PEER, 4000)), "established");
}

#[test]
fn an_interface_that_is_gone_has_no_flows() {
    let mut bench = Bench::new(ssh(true, false));
    bench.enters(&syn((PEER, 4000), (HERE, 22)), "new");
    bench.apply(Policy::default());
    bench.enters(&ack((PEER, 4000), (HERE, 22)), "interface_unknown");
    bench.apply(ssh(true, false));
    bench.enters(&ack((PEER, 4000), (HERE, 22)), "mid_stream");
}

#[test]
fn room() {
    let all = [rule(What::Udp(53, 53), "0.0.0.0/0")];
    let mut policy = policy(&all, &[]);
    policy.allowance = 8;
    only(&mut policy).allowance = Some(4);
    let mut neighbor = interface();
    neighbor.reserve = 5;
    policy.interfaces.insert("n".to_owned(), neighbor);
    let mut bench = Bench::new(policy);
    let frame = |port| udp((PEER, port), (HERE, 53));
    // A quarter of four.
    for (port, replaces) in [(1, false), (2, true), (3, true)] {
        let judgement = bench.judge(Direction::In, &frame(port));
        assert_eq!(
            (name(judgement.verdict), judgement.replaces.is_some()),
            ("new", replaces)
        );
    }
    // The neighbour's reserve is not for others.
    bench.enters(&frame(4), "conntrack_allowance_exceeded");
    let at_neighbor = frame(4);
    let arrival = Arrival {
        ingress: true,
        frame: &at_neighbor,
        tagged: false,
        merged: false,
        packets: 1,
    };
    let now = bench.now();
    let verdict = bench.oracle.judge(now, "n", &arrival).verdict;
    assert_eq!(verdict, Verdict::Pass("new"));
    bench.oracle.end("n");
    bench.enters(&frame(1), "established");
    let flow = bench.oracle.flows(bench.now()).remove(0);
    assert!(bench.oracle.forget(&flow));
    assert!(!bench.oracle.forget(&flow));
    bench.enters(&frame(4), "new");
    // An idle time equal to the life is expired.
    bench.second += 30;
    assert!(bench.states().is_empty());
}
