//! An interface's figures at one moment, and what they rose by since another.

use std::collections::BTreeMap;

use sg_userspace::stats;

use crate::common::netns::Enforcer;

/// Figures by the names that `sgctl stats` prints.
#[derive(Clone, Debug)]
pub(crate) struct Counters(BTreeMap<String, u64>);

impl Counters {
    /// Packets of either direction that passed.
    pub(crate) fn packets(&self) -> [u64; 2] {
        ["ingress", "egress"].map(|direction| self.0[&format!("{direction}_passed_packets")])
    }

    pub(crate) fn read(enforcer: &Enforcer, interface: &str) -> Self {
        let stats = stats::read(&enforcer.context, Some(interface)).unwrap();
        Self(stats.interfaces[0].named().into_iter().collect())
    }

    #[track_caller]
    pub(crate) fn get(&self, name: &str) -> u64 {
        *self.0.get(name).unwrap_or_else(|| panic!("no {name}"))
    }

    /// Packets of a direction dropped for `reason` since `before`.
    #[track_caller]
    pub(crate) fn dropped(&self, before: &Self, direction: &str, reason: &str) -> u64 {
        let name = format!("{direction}_dropped_{reason}_packets");
        self.get(&name) - before.get(&name)
    }

    /// Packets of a direction that passed as `kind` since `before`.
    #[track_caller]
    pub(crate) fn passed(&self, before: &Self, direction: &str, kind: &str) -> u64 {
        let name = format!("{direction}_passed_{kind}_packets");
        self.get(&name) - before.get(&name)
    }

    /// Outcomes of a direction that rose since `before`, `passed_…` and `dropped_…`.
    pub(crate) fn outcomes(&self, before: &Self, direction: &str) -> BTreeMap<String, u64> {
        let outcome = |name: &str| {
            let name = name.strip_prefix(direction)?.strip_prefix('_')?;
            let name = name.strip_suffix("_packets")?;
            // The totals are called `passed` and `dropped`.
            name.contains('_').then(|| name.to_owned())
        };
        self.0
            .iter()
            .filter_map(|(name, value)| Some((outcome(name)?, value - before.get(name))))
            .filter(|(_, rise)| *rise > 0)
            .collect()
    }

    /// Asserts that nothing rose since `before` but what keeps the link itself alive, and these
    /// outcomes, each of which did.
    #[track_caller]
    pub(crate) fn only(&self, before: &Self, direction: &str, expected: &[&str]) {
        const LINK: [&str; 4] = [
            "passed_arp",
            "passed_neighbor_discovery",
            "passed_router_advertisement",
            "passed_multicast_listener",
        ];
        let found = self.outcomes(before, direction);
        for name in expected {
            assert!(
                found.contains_key(*name),
                "no {direction} {name} in {found:?}"
            );
        }
        for name in found.keys() {
            let known = LINK.contains(&name.as_str()) || expected.contains(&name.as_str());
            assert!(known, "{direction} {name} in {found:?}");
        }
    }
}
