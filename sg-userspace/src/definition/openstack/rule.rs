//! A rule: whom, of which ethertype (facts 7.40, 7.41).

use std::collections::{BTreeMap, HashMap, VecDeque};

use ipnet::IpNet;
use sg_common::verdict::Direction;

use super::super::document::{Node, fields};
use super::super::escape::quote;
use super::super::findings::Findings;
use super::super::text;
use super::super::tree::{At, Entry, Group, Located};
use super::protocol::{Range, traffic};
use super::words::{Known, Meaning, ambiguous};
use super::{DESCRIPTION, ID, family_of, has, prefix, present, wrong_type};
use crate::model::{Family, Peer, Traffic};

/// Columns of the command line's lists.
const COLUMNS: [&str; 7] = [
    "Direction",
    "Ethertype",
    "IP Protocol",
    "IP Range",
    "Port Range",
    "Remote Security Group",
    "Remote Address Group",
];

/// A rule and where it belongs.
struct Rule {
    direction: Direction,
    entry: Entry,
}

/// What a rule says, whatever its fields are called.
#[derive(PartialEq)]
struct Content {
    place: usize,
    direction: Direction,
    traffic: Traffic,
    peer: Peer,
}

/// Rules of a group's members of one family, by what one of the other family has in common with them: then the two
/// are one. Places among the entries by description.
pub(super) type Halves =
    HashMap<(usize, Direction, Traffic, String, Family), BTreeMap<Option<String>, VecDeque<usize>>>;

/// Reads rules into their groups.
pub(super) struct Rules<'k> {
    known: &'k Known,
    /// By id, and where it stands: a rule may stand in its group and in a list. `None`: it could not be read.
    seen: HashMap<String, (At, Option<Content>)>,
    halves: Halves,
}

impl<'k> Rules<'k> {
    pub(super) fn new(known: &'k Known) -> Self {
        Self {
            known,
            seen: HashMap::new(),
            halves: Halves::new(),
        }
    }

    /// Reads one of the group at the place.
    pub(super) fn read(
        &mut self,
        node: &Node<'_>,
        place: usize,
        groups: &mut [Group],
        findings: &mut Findings,
    ) {
        if node.map().is_none() {
            wrong_type("a rule", node, "an object", findings);
            return;
        }
        let id = fields::text(node, present(node, &ID), findings);
        let id = id.filter(|id| !id.value.is_empty());
        let known = id.and_then(|id| self.seen.get(id.value));
        if let (Some(id), Some((first, known))) = (id, known) {
            let again = read(node, self.known, &mut Findings::new(false));
            let again = again.map(|rule| content(&rule, place));
            // Lists of the command line do not tell all that the first may have told.
            let tells_less = again.is_none() && is_row(node);
            if known.is_some() && *known != again && !tells_less {
                let message = format!("two rules have the id {}", quote(id.value));
                findings
                    .error("duplicate-id", id.at, message)
                    .related(*first, "another")
                    .help("they differ: leave out the one that no longer holds");
            }
            return;
        }
        let rule = read(node, self.known, findings);
        if let Some(id) = id {
            let content = rule.as_ref().map(|rule| content(rule, place));
            self.seen.insert(id.value.to_owned(), (id.at, content));
        }
        let Some(Rule { direction, entry }) = rule else {
            return;
        };
        let group = &mut groups[place];
        let entries = match direction {
            Direction::Ingress => &mut group.ingress,
            Direction::Egress => group.egress.get_or_insert_default(),
        };
        add(&mut self.halves, place, direction, entries, entry);
    }
}

fn content(rule: &Rule, place: usize) -> Content {
    Content {
        place,
        direction: rule.direction,
        traffic: rule.entry.traffic[0].value,
        peer: rule.entry.peers[0].value.clone(),
    }
}

/// Adds a rule; two that mean a group's members, one of each family, are one here.
pub(super) fn add(
    halves: &mut Halves,
    place: usize,
    direction: Direction,
    entries: &mut Vec<Entry>,
    entry: Entry,
) {
    let Peer::GroupOf(name, family) = &entry.peers[0].value else {
        entries.push(entry);
        return;
    };
    let traffic = entry.traffic[0].value;
    let key = |family| (place, direction, traffic, name.clone(), family);
    let other = match family {
        Family::Ipv4 => Family::Ipv6,
        Family::Ipv6 => Family::Ipv4,
    };
    if let Some(half) = halves.get_mut(&key(other)) {
        // Nothing that was written about a rule is lost.
        let description = match (&entry.description, half.first_key_value()) {
            (own, _) if half.contains_key(own) => Some(own.clone()),
            (None, Some((any, _))) => Some(any.clone()),
            (Some(_), _) => half.contains_key(&None).then_some(None),
            (None, None) => None,
        };
        let found = description.and_then(|description| {
            let places = half.get_mut(&description)?;
            let found = places.pop_front();
            if places.is_empty() {
                half.remove(&description);
            }
            found
        });
        if let Some(found) = found {
            let own = &mut entries[found];
            own.peers[0].value = Peer::Group(name.clone());
            own.description = own.description.take().or(entry.description);
            return;
        }
    }
    halves
        .entry(key(*family))
        .or_default()
        .entry(entry.description.clone())
        .or_default()
        .push_back(entries.len());
    entries.push(entry);
}

fn is_row(node: &Node<'_>) -> bool {
    COLUMNS.iter().any(|column| has(node, column))
}

/// Whether one of the keys is there, if with null. To take what is not there for null would be to allow everything.
fn check_told(node: &Node<'_>, keys: [&str; 2], findings: &mut Findings) -> Option<()> {
    if keys.iter().any(|key| has(node, key)) {
        return Some(());
    }
    let key = keys[usize::from(is_row(node))];
    let message = format!("the rule stands here without its {}", quote(key));
    findings
        .error("unknown-value", node.at, message)
        .help("give rules whole, without `-c` on the command line or `fields` in the request: null is everything");
    None
}

fn read(node: &Node<'_>, known: &Known, findings: &mut Findings) -> Option<Rule> {
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
    check_told(node, ["protocol", "IP Protocol"], findings)?;
    let key = present(node, &["protocol", "IP Protocol"]);
    let protocol = fields::text(node, key, findings);
    if protocol.is_none() && node.get(key).is_some() {
        return None;
    }
    let range = range(node, findings)?;
    let traffic = traffic(protocol, family, range, node.at, findings);
    let peer = peer(node, family, known, findings)?;
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
        check_told(node, ["port_range_min", SHOWN], findings)?;
        check_told(node, ["port_range_max", SHOWN], findings)?;
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
    known: &Known,
    findings: &mut Findings,
) -> Option<Located<Peer>> {
    let mut remote = |keys: &[&str]| {
        let key = present(node, keys);
        let text = fields::text(node, key, findings);
        let wrong = text.is_none() && node.get(key).is_some();
        (!wrong).then_some(text)
    };
    const NET: [&str; 2] = ["remote_ip_prefix", "IP Range"];
    const GROUP: [&str; 2] = ["remote_group_id", "Remote Security Group"];
    const LIST: [&str; 2] = ["remote_address_group_id", "Remote Address Group"];
    let net = remote(&NET)?;
    let group = remote(&GROUP)?;
    let list = remote(&LIST)?;
    let everywhere = match family {
        Family::Ipv4 => "0.0.0.0/0",
        Family::Ipv6 => "::/0",
    };
    // The command line's lists show no prefix as everywhere, whatever the remote is.
    let net = net.filter(|net| {
        let shown = has(node, "IP Range") && net.value == everywhere;
        !(shown && (group.is_some() || list.is_some()))
    });
    // Remotes exclude each other: what is not told matters where none is, or none but what lists show instead.
    let is_row = is_row(node);
    let is_open = net.is_none_or(|net| is_row && net.value == everywhere);
    if is_open && group.is_none() && list.is_none() {
        check_told(node, NET, findings)?;
        check_told(node, GROUP, findings)?;
        // Neutron may be without address groups; newer servers' are hidden by older clients.
        if is_row {
            check_told(node, LIST, findings)?;
        }
    }
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
        (None, Some(group), None) => {
            let group = known.group(group, node.get(GROUP[0]).is_some(), findings)?;
            Some(Located {
                value: Peer::GroupOf(group.value, family),
                at: group.at,
            })
        }
        (None, None, Some(list)) => {
            let is_id = node.get(LIST[0]).is_some();
            of_address_group(list, is_id, family, known, findings)
        }
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
    is_id: bool,
    family: Family,
    known: &Known,
    findings: &mut Findings,
) -> Option<Located<Peer>> {
    let at: At = word.at;
    let found = match known.lists.by_word(word.value) {
        _ if is_id => known.lists.by_id(word.value),
        Meaning::One(group) => Some(group),
        Meaning::Several => {
            ambiguous("address group", word, findings);
            return None;
        }
        Meaning::None => None,
    };
    let Some(group) = found else {
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
