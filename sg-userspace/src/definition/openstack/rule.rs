//! A rule: whom, of which ethertype (facts 7.40, 7.41).

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;
use sg_common::verdict::Direction;

use super::super::document::{Node, fields};
use super::super::escape::quote;
use super::super::findings::Findings;
use super::super::text;
use super::super::tree::{At, Entry, Located};
use super::protocol::{Range, traffic};
use super::{AddressGroup, DESCRIPTION, ID, family_of, has, prefix, present, wrong_type};
use crate::model::{Family, Peer, Traffic};

/// A rule and where it belongs.
pub(super) struct Rule {
    pub(super) direction: Direction,
    pub(super) entry: Entry,
}

/// Reads one; `seen` are the ids of those that were read, since a rule may stand in its group and in a list.
pub(super) fn read(
    node: &Node<'_>,
    lists: &HashMap<String, AddressGroup>,
    seen: &mut HashSet<String>,
    findings: &mut Findings,
) -> Option<Rule> {
    if node.map().is_none() {
        wrong_type("a rule", node, "an object", findings);
        return None;
    }
    if let Some(id) = fields::text(node, present(node, &ID), findings)
        && !seen.insert(id.value.to_owned())
    {
        return None;
    }
    let words = [
        ("ingress", Direction::Ingress),
        ("egress", Direction::Egress),
    ];
    let direction = choice(node, &["direction", "Direction"], &words, findings);
    let words = [("IPv4", Family::Ipv4), ("IPv6", Family::Ipv6)];
    let family = choice(
        node,
        &["ethertype", "ether_type", "Ethertype"],
        &words,
        findings,
    );
    let (direction, family) = (direction?, family?);
    let key = present(node, &["protocol", "IP Protocol"]);
    let protocol = fields::text(node, key, findings);
    if protocol.is_none() && node.get(key).is_some() {
        return None;
    }
    let range = range(node, findings)?;
    let traffic = traffic(protocol, family, range, node.at, findings);
    let peer = peer(node, family, lists, findings)?;
    let traffic = traffic?;
    let description = fields::text(node, present(node, &DESCRIPTION), findings)
        .filter(|text| !text.value.is_empty())
        .map(|text| text::carried_rule_description(findings, text));
    Some(Rule {
        direction,
        entry: Entry {
            at: node.at,
            id: None,
            peers: vec![Located {
                value: of_one_family(peer.value, traffic),
                at: peer.at,
            }],
            traffic: vec![Located {
                value: traffic,
                at: protocol.map_or(node.at, |protocol| protocol.at),
            }],
            description,
        },
    })
}

/// ICMP is of one family by itself.
fn of_one_family(peer: Peer, traffic: Traffic) -> Peer {
    match (peer, traffic) {
        (Peer::GroupOf(name, _), Traffic::Icmp(_) | Traffic::Icmpv6(_)) => Peer::Group(name),
        (peer, _) => peer,
    }
}

fn choice<T: Copy>(
    node: &Node<'_>,
    keys: &[&str],
    words: &[(&str, T)],
    findings: &mut Findings,
) -> Option<T> {
    let key = present(node, keys);
    let Some(text) = fields::text(node, key, findings) else {
        if node.get(key).is_none() {
            fields::missing(node, key, findings);
        }
        return None;
    };
    let found = words
        .iter()
        .find(|(word, _)| word.eq_ignore_ascii_case(text.value));
    if found.is_none() {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let message = format!("{} is not {}", quote(text.value), known.join(" or "));
        findings.error("InvalidParameterValue", text.at, message);
    }
    found.map(|(_, value)| *value)
}

/// The fields of ports, or the one of the command line's lists. `None` if they are wrong.
fn range(node: &Node<'_>, findings: &mut Findings) -> Option<Range> {
    const SHOWN: &str = "Port Range";
    if !has(node, SHOWN) {
        let mut given = |key: &str| {
            let value = fields::integer(node, key, findings);
            let wrong = value.is_none() && node.get(key).is_some();
            (!wrong).then_some(value)
        };
        return Some(Range::Given(
            given("port_range_min")?,
            given("port_range_max")?,
        ));
    }
    let Some(text) = fields::text(node, SHOWN, findings) else {
        return match node.get(SHOWN) {
            None => Some(Range::Shown(None, None, node.at)),
            Some(_) => None,
        };
    };
    let parts: Vec<&str> = text.value.split(':').collect();
    let number = |part: &str, prefix: &str| part.strip_prefix(prefix).unwrap_or(part).parse().ok();
    let range = match parts[..] {
        [""] => Some((None, None)),
        ["", code] => number(code, "code=").map(|code| (None, Some(code))),
        [kind] => number(kind, "type=").map(|kind| (Some(kind), None)),
        [from, to] => number(from, "type=")
            .zip(number(to, "code="))
            .map(|(from, to)| (Some(from), Some(to))),
        _ => None,
    };
    let Some((from, to)) = range else {
        let message = format!("{} is not a range of ports", quote(text.value));
        findings.error("InvalidParameterValue", text.at, message);
        return None;
    };
    Some(Range::Shown(from, to, text.at))
}

fn peer(
    node: &Node<'_>,
    family: Family,
    lists: &HashMap<String, AddressGroup>,
    findings: &mut Findings,
) -> Option<Located<Peer>> {
    let mut remote = |keys: &[&str]| {
        let key = present(node, keys);
        let text = fields::text(node, key, findings).filter(|text| !text.value.is_empty());
        let wrong = text.is_none()
            && node
                .get(key)
                .is_some_and(|node| node.value != super::Value::String("".into()));
        (!wrong).then_some(text)
    };
    let net = remote(&["remote_ip_prefix", "IP Range"])?;
    let group = remote(&["remote_group_id", "Remote Security Group"])?;
    let list = remote(&["remote_address_group_id", "Remote Address Group"])?;
    let everywhere = match family {
        Family::Ipv4 => "0.0.0.0/0",
        Family::Ipv6 => "::/0",
    };
    // The command line's lists show no prefix as everywhere, whatever the remote is.
    let net = net.filter(|net| {
        let shown = has(node, "IP Range") && net.value == everywhere;
        !(shown && (group.is_some() || list.is_some()))
    });
    match (net, group, list) {
        (None, None, None) => Some(Located {
            value: Peer::Cidr(everywhere.parse().expect("a literal prefix")),
            at: node.at,
        }),
        (Some(net), None, None) => {
            let net = prefix(net, findings)?;
            check_family(family_of(net.value), family, net, findings)?;
            Some(Located {
                value: Peer::Cidr(net.value),
                at: net.at,
            })
        }
        (None, Some(group), None) => Some(Located {
            value: Peer::GroupOf(group.value.to_owned(), family),
            at: group.at,
        }),
        (None, None, Some(list)) => of_address_group(list, family, lists, findings),
        _ => {
            findings
                .error(
                    "InvalidParameterValue",
                    node.at,
                    "a rule has one kind of remote",
                )
                .help("a prefix, a group or an address group");
            None
        }
    }
}

fn check_family(
    own: Family,
    family: Family,
    net: Located<IpNet>,
    findings: &mut Findings,
) -> Option<()> {
    if own == family {
        return Some(());
    }
    let message = format!("{} is not of the rule's ethertype", net.value);
    findings.error("InvalidParameterValue", net.at, message);
    None
}

fn of_address_group(
    word: Located<&str>,
    family: Family,
    lists: &HashMap<String, AddressGroup>,
    findings: &mut Findings,
) -> Option<Located<Peer>> {
    let at: At = word.at;
    let Some(group) = lists.get(word.value) else {
        let message = format!("there is no address group {}", quote(word.value));
        findings
            .error("InvalidPrefixListID.NotFound", at, message)
            .help("give its file as well: `openstack address group show -f json` prints it");
        return None;
    };
    let list = group.lists[usize::from(family.is_ipv6())].as_ref();
    let Some(list) = list else {
        let message = format!(
            "address group {} has no address of the rule's ethertype",
            quote(word.value)
        );
        findings
            .warning("never-matches", at, message)
            .help("the rule allows nothing and is left out");
        return None;
    };
    Some(Located {
        value: Peer::PrefixList(list.clone()),
        at,
    })
}
