//! What the definition says about an attempt, what happened, and whether the two agree.

use std::fmt;

use anyhow::Result;
use sg_common::verdict::{Direction, DropReason};
use sg_userspace::model::RuleId;
use sg_userspace::resolve::Resolved;

use super::attempt::{Attempt, Reaction, What};
use super::figures::Place;
use super::script;
use super::topology::Topology;

/// What the model computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// A rule allows it, and somebody listens.
    Answered {
        /// The rule, for people.
        rule: String,
    },
    /// A rule allows it, and nobody listens.
    Refused {
        /// The rule, for people.
        rule: String,
    },
    /// No rule of this interface allows it.
    Dropped {
        /// The interface.
        interface: String,
        /// Its direction.
        direction: Direction,
    },
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Observed {
    /// The service answered, on a connection if `connected`.
    Answered {
        /// It is TCP.
        connected: bool,
    },
    /// The service's system refused.
    Refused,
    /// Nothing came back, and these counters of drops moved.
    Silent(Vec<Place>),
    /// Something else.
    Failed(String),
}

impl Expected {
    /// Asks the model: the sender's egress, then the receiver's ingress, where they are enforced.
    ///
    /// # Errors
    /// If the attempt names a node that is not there.
    pub(crate) fn of(
        resolved: &Resolved,
        topology: &Topology,
        attempt: &Attempt,
        ipv6: bool,
    ) -> Result<Self> {
        let mut rule = "no policy".to_owned();
        for (interface, direction, remote) in sides(attempt) {
            if !resolved.interfaces.contains_key(interface) {
                continue;
            }
            let remote = topology.node(remote)?.address(ipv6);
            let (protocol, port) = attempt.what.selector(ipv6);
            match resolved.evaluate(interface, direction, protocol, remote, port) {
                Some(id) => rule = label(resolved, id),
                None => {
                    return Ok(Self::Dropped {
                        interface: interface.to_owned(),
                        direction,
                    });
                }
            }
        }
        Ok(if script::is_served(attempt) {
            Self::Answered { rule }
        } else {
            Self::Refused { rule }
        })
    }

    /// Whether nothing is expected to come back.
    pub(crate) fn is_silence(&self) -> bool {
        matches!(self, Self::Dropped { .. })
    }

    /// Whether this is what happened.
    pub(crate) fn agrees(&self, observed: &Observed) -> bool {
        match (self, observed) {
            (Self::Answered { .. }, Observed::Answered { .. })
            | (Self::Refused { .. }, Observed::Refused) => true,
            (
                Self::Dropped {
                    interface,
                    direction,
                },
                Observed::Silent(places),
            ) => {
                let place = Place {
                    interface: interface.clone(),
                    direction: *direction,
                    reason: DropReason::NoRule.name().to_owned(),
                };
                *places == [place]
            }
            _ => false,
        }
    }
}

impl Observed {
    /// A reaction, with the drops that were counted meanwhile.
    pub(crate) fn new(attempt: &Attempt, reaction: Reaction, places: Vec<Place>) -> Self {
        match reaction {
            Reaction::Answered => Self::Answered {
                connected: matches!(attempt.what, What::Tcp(_)),
            },
            Reaction::Refused => Self::Refused,
            Reaction::Silent => Self::Silent(places),
            Reaction::Failed(why) => Self::Failed(why),
        }
    }
}

/// The two enforcement points of an attempt: interface, direction, remote node.
pub(crate) fn sides(attempt: &Attempt) -> [(&'static str, Direction, &'static str); 2] {
    [
        (attempt.from, Direction::Egress, attempt.to),
        (attempt.to, Direction::Ingress, attempt.from),
    ]
}

/// A rule for people: its group, and its description or traffic.
fn label(resolved: &Resolved, id: RuleId) -> String {
    for (name, group) in &resolved.groups {
        if let Some(rule) = group
            .ingress
            .iter()
            .chain(&group.egress)
            .find(|rule| rule.id == id)
        {
            return match &rule.description {
                Some(description) => format!("{name}, {description}"),
                None => format!("{name}, {}", rule.traffic),
            };
        }
    }
    id.to_string()
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered { rule } => write!(f, "pass ({rule})"),
            Self::Refused { rule } => write!(f, "pass ({rule}), nobody listens"),
            Self::Dropped {
                interface,
                direction,
            } => write!(f, "drop at {interface} {}", direction.name()),
        }
    }
}

impl fmt::Display for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered { connected: true } => f.write_str("connected"),
            Self::Answered { connected: false } => f.write_str("answered"),
            Self::Refused => f.write_str("refused by the application"),
            Self::Silent(places) if places.is_empty() => {
                f.write_str("timed out, and no drop was counted")
            }
            Self::Silent(places) => {
                let places: Vec<String> = places.iter().map(Place::to_string).collect();
                write!(f, "timed out: dropped at {}", places.join("; "))
            }
            Self::Failed(why) => f.write_str(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(direction: Direction, reason: DropReason) -> Place {
        Place {
            interface: "lb".to_owned(),
            direction,
            reason: reason.name().to_owned(),
        }
    }

    #[test]
    fn a_drop_agrees_only_where_and_why_it_is_expected() {
        let expected = Expected::Dropped {
            interface: "lb".to_owned(),
            direction: Direction::Ingress,
        };
        let right = place(Direction::Ingress, DropReason::NoRule);
        let reason = place(Direction::Ingress, DropReason::MidStream);
        let side = place(Direction::Egress, DropReason::NoRule);
        assert!(expected.agrees(&Observed::Silent(vec![right.clone()])));
        for observed in [
            Observed::Silent(vec![]),
            Observed::Silent(vec![reason]),
            Observed::Silent(vec![side.clone()]),
            Observed::Silent(vec![right, side]),
            Observed::Answered { connected: true },
            Observed::Refused,
            Observed::Failed("no route to host".to_owned()),
        ] {
            assert!(!expected.agrees(&observed), "{observed}");
        }
    }

    #[test]
    fn a_refusal_is_not_an_answer() {
        let rule = "alb, the web".to_owned();
        let answered = Expected::Answered { rule: rule.clone() };
        let refused = Expected::Refused { rule };
        assert!(answered.agrees(&Observed::Answered { connected: false }));
        assert!(refused.agrees(&Observed::Refused));
        assert!(!answered.agrees(&Observed::Refused));
        assert!(!refused.agrees(&Observed::Answered { connected: false }));
        let dropped = Observed::Silent(vec![place(Direction::Ingress, DropReason::NoRule)]);
        assert!(!answered.agrees(&dropped) && !refused.agrees(&dropped));
    }
}
