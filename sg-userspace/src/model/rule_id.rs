//! Rule ids: `sgr-` and 17 hexadecimal digits (fact 1.30).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sg_common::verdict::Direction;
use sha2::{Digest, Sha256};

use super::{Family, Peer, Traffic};

/// Hexadecimal digits behind `sgr-`.
const DIGITS: usize = 17;
/// Bits of an id.
const BITS: u32 = 4 * DIGITS as u32;

/// Id of a rule.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RuleId(u128);

impl RuleId {
    /// The id of a rule that names none: a hash of its identity (fact 1.38: group, direction,
    /// protocol, from, to, peer), so that it survives edits elsewhere.
    pub fn derive(group: &str, direction: Direction, traffic: &Traffic, peer: &Peer) -> Self {
        let (kind, peer) = match peer {
            Peer::Cidr(net) => ("cidr", net.to_string()),
            Peer::PrefixList(name) => ("prefix_list", name.clone()),
            Peer::Group(name) => ("group", name.clone()),
            Peer::GroupOf(name, Family::Ipv4) => ("group_ipv4", name.clone()),
            Peer::GroupOf(name, Family::Ipv6) => ("group_ipv6", name.clone()),
        };
        let mut hash = Sha256::new();
        for field in [group, direction.name(), &traffic.to_string(), kind, &peer] {
            // The length keeps ("ab", "c") apart from ("a", "bc").
            hash.update((field.len() as u64).to_be_bytes());
            hash.update(field);
        }
        let digest: [u8; 32] = hash.finalize().into();
        let (head, _) = digest
            .split_first_chunk::<16>()
            .expect("a SHA-256 digest has 32 bytes");
        Self(u128::from_be_bytes(*head) >> (u128::BITS - BITS))
    }
}

/// Text that is not a rule id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a rule id is `sgr-` and 17 hexadecimal digits in lower case")]
pub struct MalformedRuleId;

impl FromStr for RuleId {
    type Err = MalformedRuleId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("sgr-").ok_or(MalformedRuleId)?;
        let is_lower_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if digits.len() != DIGITS || !digits.bytes().all(is_lower_hex) {
            return Err(MalformedRuleId);
        }
        u128::from_str_radix(digits, 16)
            .map(Self)
            .map_err(|_| MalformedRuleId)
    }
}

impl TryFrom<String> for RuleId {
    type Error = MalformedRuleId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<RuleId> for String {
    fn from(id: RuleId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sgr-{:0DIGITS$x}", self.0)
    }
}

impl fmt::Debug for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Ports;

    fn derive(group: &str, direction: Direction, port: u16, peer: Peer) -> RuleId {
        let traffic = Traffic::Tcp(Ports::single(port));
        RuleId::derive(group, direction, &traffic, &peer)
    }

    #[test]
    fn round_trips_and_refuses_other_shapes() {
        let id: RuleId = "sgr-0123456789abcdef0".parse().unwrap();
        assert_eq!(id.to_string(), "sgr-0123456789abcdef0");
        for bad in [
            "",
            "sgr-",
            "sgr-0123456789abcdef",
            "sgr-0123456789ABCDEF0",
            "sg-0123456789abcdef0",
            "sgr-+123456789abcdef0",
        ] {
            assert_eq!(bad.parse::<RuleId>(), Err(MalformedRuleId), "{bad}");
        }
    }

    #[test]
    fn derived_ids_depend_on_the_identity_only_and_never_change() {
        let cidr = || Peer::Cidr("10.0.0.0/8".parse().unwrap());
        let id = derive("app", Direction::Ingress, 22, cidr());
        assert_eq!(id, derive("app", Direction::Ingress, 22, cidr()));
        assert_eq!(id.to_string(), "sgr-7c91a57692665bbe0");
        let others = [
            derive("db", Direction::Ingress, 22, cidr()),
            derive("app", Direction::Egress, 22, cidr()),
            derive("app", Direction::Ingress, 23, cidr()),
            derive("app", Direction::Ingress, 22, Peer::Group("x".into())),
            derive(
                "app",
                Direction::Ingress,
                22,
                Peer::GroupOf("x".into(), Family::Ipv4),
            ),
            derive("app", Direction::Ingress, 22, Peer::PrefixList("x".into())),
        ];
        assert!(others.iter().all(|other| *other != id));
        assert_ne!(others[3], others[4]);
    }
    #[test]
    fn l12_names_that_are_equal_when_joined_are_two_rules() {
        const JOINED: &str = "a-b/c.d:e f";
        let split = |at: usize| {
            let (group, peer) = JOINED.split_at(at);
            derive(group, Direction::Ingress, 22, Peer::Group(peer.into()))
        };
        let ids: std::collections::BTreeSet<RuleId> = (0..=JOINED.len()).map(split).collect();
        assert_eq!(ids.len(), JOINED.len() + 1);
    }
}
