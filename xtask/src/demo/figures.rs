//! Counters of dropped packets, as `sgctl stats --json` tells them.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result};
use serde_json::Value;
use sg_common::verdict::Direction;

/// The counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Generation in force.
    pub(crate) generation: u64,
    dropped: BTreeMap<Place, u64>,
}

/// Where packets are dropped, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Interface.
    pub(crate) interface: String,
    /// Direction.
    pub(crate) direction: Direction,
    /// Reason, by its name in the counters.
    pub(crate) reason: String,
}

impl Figures {
    /// Reads the answer of `sgctl stats --json`.
    ///
    /// # Errors
    /// If it is not of that form.
    pub(crate) fn read(answer: &Value) -> Result<Self> {
        let generation = answer["host"]["generation"]
            .as_u64()
            .context("`sgctl stats --json` tells no generation")?;
        let mut dropped = BTreeMap::new();
        let interfaces = answer["interfaces"]
            .as_array()
            .context("`sgctl stats --json` tells no interfaces")?;
        for one in interfaces {
            let name = one["name"].as_str().context("an interface has no name")?;
            let statistics = one["statistics"]
                .as_object()
                .context("an interface has no statistics")?;
            for (counter, value) in statistics {
                if let Some((direction, reason)) = dropped_packets(counter) {
                    let place = Place {
                        interface: name.to_owned(),
                        direction,
                        reason: reason.to_owned(),
                    };
                    let value = value.as_u64().context("a counter is no number")?;
                    dropped.insert(place, value);
                }
            }
        }
        Ok(Self {
            generation,
            dropped,
        })
    }

    /// Where packets were dropped since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Vec<Place> {
        let grown = self.dropped.iter().filter(|(place, packets)| {
            let before = earlier.dropped.get(place).copied().unwrap_or_default();
            **packets > before
        });
        grown.map(|(place, _)| place.clone()).collect()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}, {}",
            self.interface,
            self.direction.name(),
            self.reason
        )
    }
}

/// Direction and reason of `ingress_dropped_no_rule_packets`; the sum over all reasons has none.
fn dropped_packets(counter: &str) -> Option<(Direction, &str)> {
    Direction::ALL.into_iter().find_map(|direction| {
        let rest = counter.strip_prefix(direction.name())?;
        let reason = rest.strip_prefix("_dropped_")?.strip_suffix("_packets")?;
        Some((direction, reason))
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn answer(no_rule: u64, tcp_flags: u64) -> Value {
        serde_json::json!({
            "host": { "generation": 3 },
            "interfaces": [{
                "name": "lb",
                "statistics": {
                    "ingress_dropped_packets": no_rule + tcp_flags,
                    "ingress_dropped_no_rule_packets": no_rule,
                    "ingress_dropped_no_rule_bytes": 60 * no_rule,
                    "egress_dropped_tcp_flags_packets": tcp_flags,
                    "ingress_passed_new_packets": 7,
                },
            }],
        })
    }

    #[test]
    fn only_growth_of_drops_by_reason_counts() {
        let before = Figures::read(&answer(1, 4)).unwrap();
        let after = Figures::read(&answer(3, 4)).unwrap();
        assert_eq!(after.generation, 3);
        let places = after.since(&before);
        assert_eq!(places.len(), 1);
        assert_eq!(places[0].to_string(), "lb ingress, no_rule");
        assert!(before.since(&after).is_empty());
    }

    #[test]
    fn an_answer_of_another_form_is_refused() {
        assert!(Figures::read(&serde_json::json!({ "interfaces": [] })).is_err());
        assert!(Figures::read(&serde_json::json!({ "host": { "generation": 1 } })).is_err());
    }
}
