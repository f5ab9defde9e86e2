//! What the demo tries, and who listens.

use super::attempt::{Attempt, What};

/// Who listens on what, over both families.
pub(crate) const SERVICES: [(&str, &[What]); 3] = [
    (
        "lb",
        // 9000 is a port that somebody forgot to close.
        &[
            What::Tcp(22),
            What::Tcp(80),
            What::Tcp(443),
            What::Udp(443),
            What::Tcp(9000),
        ],
    ),
    ("app", &[What::Tcp(8080)]),
    ("db", &[What::Tcp(3306), What::Tcp(8000)]),
];

/// Every attempt, each made over IPv4 and over IPv6. Between them they need every rule of the
/// definition, so that none can be missing from the maps unnoticed.
pub(crate) const ATTEMPTS: [Attempt; 22] = [
    attempt("client", "lb", What::Tcp(443)),
    attempt("client", "lb", What::Tcp(80)),
    attempt("client", "lb", What::Udp(443)),
    attempt("client", "lb", What::Tcp(22)),
    attempt("client", "lb", What::Tcp(9000)),
    attempt("client", "lb", What::Ping),
    attempt("client", "app", What::Tcp(8080)),
    attempt("client", "app", What::Tcp(22)),
    attempt("client", "db", What::Tcp(3306)),
    attempt("client", "db", What::Tcp(8000)),
    attempt("lb", "app", What::Tcp(8080)),
    attempt("lb", "app", What::Ping),
    attempt("lb", "app", What::Udp(53)),
    attempt("lb", "db", What::Tcp(3306)),
    attempt("app", "db", What::Tcp(3306)),
    attempt("app", "lb", What::Tcp(443)),
    attempt("db", "app", What::Tcp(8080)),
    attempt("db", "client", What::Ping),
    attempt("outsider", "lb", What::Tcp(443)),
    attempt("outsider", "app", What::Tcp(8080)),
    attempt("outsider", "db", What::Tcp(3306)),
    attempt("outsider", "db", What::Ping),
];

/// The connection that is open while its rule goes, and the same anew.
pub(crate) const WEB: Attempt = attempt("client", "lb", What::Tcp(443));

/// What is tried after the rule of [`WEB`] has gone.
pub(crate) const AFTERWARDS: [Attempt; 3] = [
    WEB,
    attempt("lb", "app", What::Tcp(8080)),
    attempt("client", "lb", What::Tcp(22)),
];

/// Whether somebody answers, if nothing is in the way.
pub(crate) fn is_served(attempt: &Attempt) -> bool {
    attempt.what == What::Ping
        || SERVICES
            .iter()
            .any(|(node, services)| *node == attempt.to && services.contains(&attempt.what))
}

const fn attempt(from: &'static str, to: &'static str, what: What) -> Attempt {
    Attempt { from, to, what }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use sg_userspace::resolve::resolve;

    use super::*;
    use crate::demo::outcome::{Expected, sides};
    use crate::demo::topology::Topology;
    use crate::demo::{definition, example};

    #[test]
    fn every_rule_is_needed_by_an_attempt_and_every_outcome_occurs() {
        let model = definition(&example()).unwrap();
        let topology = Topology::of(&model).unwrap();
        let resolved = resolve(&model, &BTreeMap::new());
        let mut needed = BTreeSet::new();
        let mut outcomes = [0; 3];
        for attempt in &ATTEMPTS {
            for ipv6 in [false, true] {
                let expected = Expected::of(&resolved, &topology, attempt, ipv6).unwrap();
                outcomes[match expected {
                    Expected::Answered { .. } => 0,
                    Expected::Refused { .. } => 1,
                    Expected::Dropped { .. } => 2,
                }] += 1;
                if expected.is_silence() {
                    continue;
                }
                for (interface, direction, remote) in sides(attempt) {
                    let remote = topology.node(remote).unwrap().address(ipv6);
                    let (protocol, port) = attempt.what.selector(ipv6);
                    let mut rules = resolved.matching(interface, direction, protocol, remote, port);
                    if let (Some(only), None) = (rules.next(), rules.next()) {
                        needed.insert(only.id);
                    }
                }
            }
        }
        assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
        for (name, group) in &resolved.groups {
            for rule in group.ingress.iter().chain(&group.egress) {
                assert!(
                    needed.contains(&rule.id),
                    "no attempt needs {} of {name}: {}",
                    rule.id,
                    rule.traffic
                );
            }
        }
    }
}
