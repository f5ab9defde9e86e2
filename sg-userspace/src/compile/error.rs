//! What does not fit.

use std::fmt;

use sg_common::abi::{MAX_CLASSES, MAX_INTERFACES, MAX_RANGES, MAX_TRIES};
use sg_common::verdict::Direction;

use crate::model::RuleId;

use super::rule_sets::{MAX_MEMBERSHIPS, MAX_STEPS};

/// Why a policy cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// More interfaces than ids.
    #[error("{count} interfaces are more than the {limit} that can be enforced at a time")]
    Interfaces {
        /// Interfaces of the policy.
        count: usize,
        /// What fits.
        limit: usize,
    },
    /// The interfaces' reserves do not fit the host's allowance.
    #[error(
        "the interfaces reserve {reserved} tracked flows together, more than the host's allowance of {allowance}: raise `allowance` of [conntrack] or lower `reserve`"
    )]
    Reserves {
        /// Sum of all reserves.
        reserved: u64,
        /// Tracked flows of the host.
        allowance: u32,
    },
    /// A table of the kernel side is too small.
    #[error("{} {} of interface `{interface}` does not fit{}: {capacity}", family(*ipv6), direction.name(), at(*rule))]
    Capacity {
        /// The table.
        capacity: Capacity,
        /// Interface whose policy was compiled.
        interface: String,
        /// Direction of that policy.
        direction: Direction,
        /// Family of that policy.
        ipv6: bool,
        /// Rule that did not fit, where one can be named.
        rule: Option<RuleId>,
    },
    /// What members of groups may reach does not fit, all interfaces together.
    #[error("references to group `{group}` do not fit: {capacity}")]
    Members {
        /// The table.
        capacity: Capacity,
        /// The group whose members were one too many.
        group: String,
    },
}

impl CompileError {
    /// The rule that did not fit, where one can be named.
    pub fn rule(&self) -> Option<RuleId> {
        match self {
            Self::Capacity { rule, .. } => *rule,
            Self::Interfaces { .. } | Self::Reserves { .. } | Self::Members { .. } => None,
        }
    }
}

fn family(ipv6: bool) -> &'static str {
    if ipv6 { "IPv6" } else { "IPv4" }
}

fn at(rule: Option<RuleId>) -> String {
    rule.map_or_else(String::new, |rule| format!(" at rule {rule}"))
}

/// A table that is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capacity {
    /// Distinct combinations of rules that cover an address.
    Classes,
    /// Port ranges.
    Ranges,
    /// Distinct policies with prefixes.
    Tries,
    /// Rules over all sets of rules.
    RuleSets,
    /// Prefixes.
    Prefixes,
    /// Sets of groups that members belong to, by policy.
    Identities,
    /// Steps of compiling.
    Steps,
}

/// Prefixes of one policy, counted for each rule, and of all policies' tries. What AWS's quotas let one
/// interface have is 1,000 rules with a list of 1,000 prefixes each, by direction and family.
const MAX_PREFIXES: usize = 4 << 20;
/// Entries of the map `IDENTITIES`.
const MAX_IDENTITIES: usize = 4 << 20;

impl Capacity {
    /// Interfaces that can be enforced at a time: id 0 is nobody's.
    pub const INTERFACES: usize = MAX_INTERFACES as usize - 1;

    /// What fits.
    pub fn limit(self) -> usize {
        match self {
            // Class 0 is empty.
            Capacity::Classes => MAX_CLASSES as usize - 1,
            Capacity::Ranges => MAX_RANGES as usize,
            // Two banks share the tries.
            Capacity::Tries => MAX_TRIES as usize / 2,
            Capacity::RuleSets => MAX_MEMBERSHIPS,
            Capacity::Prefixes => MAX_PREFIXES,
            Capacity::Identities => MAX_IDENTITIES,
            Capacity::Steps => MAX_STEPS as usize,
        }
    }
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = self.limit();
        match self {
            Capacity::Classes => write!(
                f,
                "more than {limit} classes (distinct combinations of rules that cover an address); addresses with equal rules share one when they stand in a prefix list"
            ),
            Capacity::Ranges => write!(
                f,
                "more than {limit} port ranges; merge neighbouring ports, or put addresses with equal rules into a prefix list"
            ),
            Capacity::Tries => write!(
                f,
                "more than {limit} distinct policies with prefixes; interfaces with equal groups share one"
            ),
            Capacity::RuleSets => write!(
                f,
                "rules overlap too much (more than {limit} rules over all distinct sets of rules); remove rules that others cover"
            ),
            Capacity::Prefixes => write!(
                f,
                "more than {limit} prefixes (of one policy, where a list counts for each rule that names it, or of all distinct policies); shorten lists, or give interfaces equal groups"
            ),
            Capacity::Identities => write!(
                f,
                "more than {limit} combinations of groups that an address is a member of, over all distinct policies that refer to groups; let fewer groups share members, or give interfaces equal groups"
            ),
            Capacity::Steps => write!(
                f,
                "rules overlap too much (more than {limit} steps to compile them); remove rules that others cover"
            ),
        }
    }
}

/// A full table, met somewhere below one policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full {
    pub(super) capacity: Capacity,
    pub(super) rule: Option<RuleId>,
}

impl Full {
    pub(super) fn within(self, interface: &str, direction: Direction, ipv6: bool) -> CompileError {
        CompileError::Capacity {
            capacity: self.capacity,
            interface: interface.into(),
            direction,
            ipv6,
            rule: self.rule,
        }
    }
}

impl From<Capacity> for Full {
    fn from(capacity: Capacity) -> Self {
        Self {
            capacity,
            rule: None,
        }
    }
}
