//! Rules: those of `describe-security-group-rules`, with their ids, and the permissions of groups (facts 7.1–7.4).

use ipnet::IpNet;

use super::super::document::{Node, Value, fields};
use super::super::escape::quote;
use super::super::findings::Findings;
use super::super::permission::Permission;
use super::super::text;
use super::super::tree::{At, Entry, Located};
use super::text_of;
use crate::model::{Peer, RuleId, Traffic};

/// What a row may name as its peer (fact 1.19).
const PEERS: [&str; 4] = [
    "CidrIpv4",
    "CidrIpv6",
    "PrefixListId",
    "ReferencedGroupInfo",
];

/// A row of `describe-security-group-rules`: one rule. `None` if it is wrong, or not carried over, which is said.
pub(super) fn row(node: &Node<'_>, findings: &mut Findings) -> Option<Entry> {
    let traffic = traffic(node, findings)?;
    let empty = Value::String("".into());
    let is_given = |key: &&str| node.get(key).is_some_and(|value| value.value != empty);
    let given: Vec<&str> = PEERS.into_iter().filter(is_given).collect();
    let [key] = given[..] else {
        let message = match given.len() {
            0 => "the rule has no peer".to_owned(),
            count => format!("the rule has {count} peers"),
        };
        findings
            .error("missing-key", node.at, message)
            .help(format!("exactly one of {}", PEERS.join(", ")));
        return None;
    };
    let peer = match key {
        "ReferencedGroupInfo" => {
            let owner = text_of(node, "GroupOwnerId", findings);
            group(node.get(key)?, owner.map(|owner| owner.value), findings)
        }
        _ => {
            let text = text_of(node, key, findings)?;
            match key {
                "PrefixListId" => prefix_list(text, findings),
                _ => cidr(text, key == "CidrIpv6", findings),
            }
        }
    };
    Some(Entry {
        at: node.at,
        id: rule_id(node, findings),
        traffic: vec![traffic],
        peers: vec![peer?],
        description: description(node, findings),
    })
}

/// The rules of one of `IpPermissions`: one for each source or destination, in whichever of its four lists.
/// `owner`: the account whose group has them.
pub(super) fn permission(
    node: &Node<'_>,
    owner: Option<&str>,
    entries: &mut Vec<Entry>,
    findings: &mut Findings,
) {
    let Some(traffic) = traffic(node, findings) else {
        return;
    };
    let mut named = 0;
    let mut add = |peer: &Node<'_>, value: Option<Located<Peer>>, findings: &mut Findings| {
        let entry = value.map(|value| Entry {
            at: peer.at,
            id: None,
            traffic: vec![traffic],
            peers: vec![value],
            description: description(peer, findings),
        });
        entries.extend(entry);
    };
    for (list, key, ipv6) in [
        ("IpRanges", "CidrIp", false),
        ("Ipv6Ranges", "CidrIpv6", true),
    ] {
        for range in fields::list(node, list, findings) {
            named += 1;
            let text = required(range, key, findings);
            let peer = text.and_then(|text| cidr(text, ipv6, findings));
            add(range, peer, findings);
        }
    }
    for list in fields::list(node, "PrefixListIds", findings) {
        named += 1;
        let id = required(list, "PrefixListId", findings);
        let peer = id.and_then(|id| prefix_list(id, findings));
        add(list, peer, findings);
    }
    for pair in fields::list(node, "UserIdGroupPairs", findings) {
        named += 1;
        let peer = group(pair, owner, findings);
        add(pair, peer, findings);
    }
    if named == 0 {
        findings
            .warning(
                "not-carried-over",
                node.at,
                "this names no source or destination: it matches nothing",
            )
            .help("AWS has IpRanges, Ipv6Ranges, PrefixListIds and UserIdGroupPairs here");
    }
}

fn traffic(node: &Node<'_>, findings: &mut Findings) -> Option<Located<Traffic>> {
    let protocol = required(node, "IpProtocol", findings)?;
    let permission = Permission {
        protocol,
        from: port(node, "FromPort", findings)?,
        to: port(node, "ToPort", findings)?,
        at: node.at,
    };
    let value = permission.traffic(findings)?;
    Some(Located {
        value,
        at: protocol.at,
    })
}

/// A port; the outer `None`: it is none, which is not the same as not given.
#[expect(clippy::option_option, reason = "the outer one is for `?`")]
fn port(node: &Node<'_>, key: &str, findings: &mut Findings) -> Option<Option<Located<i64>>> {
    let port = fields::integer(node, key, findings);
    (port.is_some() || node.get(key).is_none()).then_some(port)
}

/// Text that must be there.
fn required<'n>(
    node: &'n Node<'_>,
    key: &str,
    findings: &mut Findings,
) -> Option<Located<&'n str>> {
    let found = fields::text(node, key, findings);
    if found.is_none() && node.get(key).is_none() {
        fields::missing(node, key, findings);
    }
    found
}

fn cidr(text: Located<&str>, ipv6: bool, findings: &mut Findings) -> Option<Located<Peer>> {
    let net = text::cidr(findings, text)?;
    if matches!(net.value, IpNet::V6(_)) != ipv6 {
        let (own, other) = if ipv6 {
            ("IPv6", "IPv4")
        } else {
            ("IPv4", "IPv6")
        };
        let message = format!("{} is of {other}, and {own} stands here", quote(text.value));
        findings.error("InvalidParameterValue", text.at, message);
        return None;
    }
    Some(Located {
        value: Peer::Cidr(net.value),
        at: net.at,
    })
}

fn prefix_list(id: Located<&str>, findings: &mut Findings) -> Option<Located<Peer>> {
    let id = text::id(findings, id, "pl-")?;
    Some(Located {
        value: Peer::PrefixList(id.value),
        at: id.at,
    })
}

/// A group as a peer; none through a peering connection that is not active, which matches nothing (fact 1.24), and
/// none that another account than `own` calls so: names are of one account, ids of all.
fn group(node: &Node<'_>, own: Option<&str>, findings: &mut Findings) -> Option<Located<Peer>> {
    // Before groups had ids everywhere they were named.
    let (name, at) = match text_of(node, "GroupId", findings) {
        Some(id) => {
            let id = text::id(findings, id, "sg-")?;
            (id.value, id.at)
        }
        None => {
            let Some(name) = text_of(node, "GroupName", findings) else {
                fields::missing(node, "GroupId", findings);
                return None;
            };
            if let (Some(own), Some(user)) = (own, text_of(node, "UserId", findings))
                && user.value != own
            {
                let message = format!(
                    "this matches nothing: {} is a group of account {}, and only its name is given",
                    quote(name.value),
                    quote(user.value)
                );
                findings
                    .warning("stale-rule", name.at, message)
                    .help("give its `GroupId`, and its members in a TOML file beside");
                return None;
            }
            (text::name_of(name.value), name.at)
        }
    };
    if let Some(status) = text_of(node, "PeeringStatus", findings)
        && status.value != "active"
    {
        let peering = text_of(node, "VpcPeeringConnectionId", findings);
        let peering = peering.map_or(String::new(), |id| format!(" {}", quote(id.value)));
        let owner = text_of(node, "UserId", findings);
        let owner = owner.map_or(String::new(), |id| {
            format!(" of account {}", quote(id.value))
        });
        let message = format!(
            "this matches nothing: the peering connection{peering} to the VPC of {}{owner} is {}",
            quote(&name),
            quote(status.value)
        );
        findings
            .warning("not-carried-over", at, message)
            .help("such a rule is stale: AWS keeps it and lets nothing through by it");
        return None;
    }
    Some(Located {
        value: Peer::Group(name),
        at,
    })
}

fn rule_id(node: &Node<'_>, findings: &mut Findings) -> Option<Located<RuleId>> {
    let text = text_of(node, "SecurityGroupRuleId", findings)?;
    match text.value.parse() {
        Ok(value) => Some(Located { value, at: text.at }),
        Err(error) => {
            let message = format!("the rule id {} is not carried over", quote(text.value));
            findings
                .warning("not-carried-over", text.at, message)
                .help(format!("{error}; one is derived from the rule instead"));
            None
        }
    }
}

fn description(node: &Node<'_>, findings: &mut Findings) -> Option<String> {
    let text = text_of(node, "Description", findings)?;
    Some(text::carried_rule_description(findings, text))
}

/// Where a rule stands and what it is, to compare rules of two sources.
pub(super) fn identity(entry: &Entry) -> Option<(At, (Traffic, Peer))> {
    let (traffic, peer) = (entry.traffic.first()?, entry.peers.first()?);
    Some((entry.at, (traffic.value, peer.value.clone())))
}
