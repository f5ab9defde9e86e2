//! What OpenStack's Neutron answers, and what `openstack … -f json` prints of it (facts 7.40–7.44).
//!
//! Groups carry their rules, or rules stand in lists of their own; address groups become prefix lists, ports
//! network interfaces. A rule without a remote means everywhere in its own ethertype, and a group only
//! lets out what its rules say: the rules that Neutron gives a new group stand in its answers like any others.

use ipnet::IpNet;

use super::document::{Node, Value, fields};
use super::escape::quote;
use super::findings::Findings;
use super::read::Input;
use super::text;
use super::tree::{File, Group, Located, PrefixList};
use crate::model::{Family, OnRevoke};
use words::{Known, Meaning, Words, ambiguous};

mod port;
mod protocol;
mod rule;
#[cfg(test)]
mod tests;
mod words;

/// Keys of a group's own list of rules: Neutron's, and that of the command line.
const RULES: [&str; 2] = ["security_group_rules", "rules"];
/// Keys of ids, names and descriptions: Neutron's, and those of the command line's lists.
const ID: [&str; 2] = ["id", "ID"];
const NAME: [&str; 2] = ["name", "Name"];
const DESCRIPTION: [&str; 2] = ["description", "Description"];

/// Reads all files of the kind; what they say together is one tree.
pub(super) fn read(inputs: &[Input<'_>], findings: &mut Findings) -> File {
    let mut documents = Documents::default();
    for input in inputs {
        match &input.document {
            Some(document) => documents.add(document, findings),
            None => {
                let at = super::tree::At {
                    file: input.file,
                    start: 0,
                    end: 0,
                };
                findings
                    .error(super::findings::SYNTAX, at, "this is not JSON")
                    .help("`openstack … -f json` prints it");
            }
        }
    }
    let mut file = File::default();
    let lists = documents.address_groups(&mut file, findings);
    let known = documents.groups(lists, &mut file, findings);
    file.remote_interfaces = documents
        .ports
        .iter()
        .filter_map(|node| port::read(node, &known, findings))
        .collect();
    file
}

/// What the documents hold.
#[derive(Default)]
struct Documents<'n, 's> {
    groups: Vec<&'n Node<'s>>,
    /// Rules that stand in no group.
    rules: Vec<&'n Node<'s>>,
    /// Whether there is a list of such, however short.
    has_rules: bool,
    address_groups: Vec<&'n Node<'s>>,
    ports: Vec<&'n Node<'s>>,
}

/// Kinds of things.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Group,
    Rule,
    AddressGroup,
    Port,
}

/// Keys under which things stand, alone or many.
const WRAPPERS: [(&str, Kind); 8] = [
    ("security_groups", Kind::Group),
    ("security_group", Kind::Group),
    ("security_group_rules", Kind::Rule),
    ("security_group_rule", Kind::Rule),
    ("address_groups", Kind::AddressGroup),
    ("address_group", Kind::AddressGroup),
    ("ports", Kind::Port),
    ("port", Kind::Port),
];

/// Keys that tell what a thing is that stands under none of those.
const OWN: [(&str, Kind); 13] = [
    ("rules", Kind::Group),
    ("stateful", Kind::Group),
    ("direction", Kind::Rule),
    ("IP Protocol", Kind::Rule),
    ("security_group_id", Kind::Rule),
    ("addresses", Kind::AddressGroup),
    ("Addresses", Kind::AddressGroup),
    ("fixed_ips", Kind::Port),
    ("Fixed IP Addresses", Kind::Port),
    ("mac_address", Kind::Port),
    ("MAC Address", Kind::Port),
    // Only groups have rules and a name.
    ("security_group_rules", Kind::Group),
    ("Project", Kind::Group),
];

impl<'n, 's> Documents<'n, 's> {
    fn add(&mut self, document: &'n Node<'s>, findings: &mut Findings) {
        let Some(entries) = document.map() else {
            for node in document.list().unwrap_or_default() {
                self.add_one(node, findings);
            }
            return;
        };
        if first(document, &NAME).is_some() && first(document, &RULES).is_some() {
            self.groups.push(document);
            return;
        }
        let mut known = false;
        for (key, value) in entries {
            let wrapper = WRAPPERS.iter().find(|(own, _)| *own == key.value);
            if let Some((name, kind)) = wrapper {
                known = true;
                self.has_rules |= *kind == Kind::Rule;
                match &value.value {
                    Value::List(nodes) => {
                        for node in nodes {
                            self.push(*kind, node);
                        }
                    }
                    Value::Map(_) => self.push(*kind, value),
                    Value::Null => {}
                    _ => wrong_type(name, value, "a list or an object", findings),
                }
            } else if key.value.ends_with("_links") {
                next_page(key.at, value, findings);
            }
        }
        if !known {
            self.add_one(document, findings);
        }
    }

    fn add_one(&mut self, node: &'n Node<'s>, findings: &mut Findings) {
        if let Some((_, kind)) = OWN.iter().find(|(key, _)| has(node, key)) {
            self.has_rules |= *kind == Kind::Rule;
            self.push(*kind, node);
            return;
        }
        findings
            .warning(
                "not-carried-over",
                node.at,
                "this is neither a group, a rule, an address group nor a port, and is left out",
            )
            .help("networks and subnets have no part in what groups allow");
    }

    fn push(&mut self, kind: Kind, node: &'n Node<'s>) {
        match kind {
            Kind::Group => self.groups.push(node),
            Kind::Rule => self.rules.push(node),
            Kind::AddressGroup => self.address_groups.push(node),
            Kind::Port => self.ports.push(node),
        }
    }

    /// Address groups as prefix lists: of one that mixes families, a list for each, since a rule means one family.
    fn address_groups(&self, file: &mut File, findings: &mut Findings) -> Words<AddressGroup> {
        let mut known = Words::default();
        for node in &self.address_groups {
            let Some((name, id)) = name_and_id(node, findings) else {
                continue;
            };
            let key = present(node, &["addresses", "Addresses"]);
            let given = fields::texts(node, key, findings).into_iter();
            let entries: Vec<Located<IpNet>> =
                given.filter_map(|text| prefix(text, findings)).collect();
            let mut group = AddressGroup::default();
            let families: Vec<Family> = [Family::Ipv4, Family::Ipv6]
                .into_iter()
                .filter(|family| entries.iter().any(|net| family_of(net.value) == *family))
                .collect();
            for family in [Family::Ipv4, Family::Ipv6] {
                let of_family = entries.iter().filter(|net| family_of(net.value) == family);
                let list = match families[..] {
                    [Family::Ipv4, Family::Ipv6] => PrefixList {
                        name: Located {
                            value: format!("{} ({})", name.value, family.name()),
                            at: name.at,
                        },
                        // So that names that are not unique stay apart.
                        ids: id
                            .iter()
                            .map(|id| Located {
                                value: format!("{}.{}", id.value, family.name()),
                                at: id.at,
                            })
                            .collect(),
                        entries: of_family.copied().collect(),
                    },
                    [only] if only != family => continue,
                    [] if family == Family::Ipv6 => continue,
                    _ => PrefixList {
                        name: name.clone(),
                        ids: id.clone().into_iter().collect(),
                        entries: of_family.copied().collect(),
                    },
                };
                // By id where there is one: names need not be unique.
                let word = list.ids.first().unwrap_or(&list.name).value.clone();
                group.lists[usize::from(family.is_ipv6())] = Some(word);
                file.prefix_lists.push(list);
            }
            known.insert(text_of(&id), &name.value, &group);
        }
        known
    }

    /// Groups with their rules; what words mean then.
    fn groups(
        &self,
        lists: Words<AddressGroup>,
        file: &mut File,
        findings: &mut Findings,
    ) -> Known {
        let mut known = Known {
            groups: Words::default(),
            lists,
        };
        let groups = &mut file.groups;
        let mut own: Vec<(usize, &Node<'_>)> = Vec::new();
        for node in &self.groups {
            let Some((name, id)) = name_and_id(node, findings) else {
                continue;
            };
            let place = groups.len();
            let word = id.as_ref().unwrap_or(&name).value.clone();
            known
                .groups
                .insert(text_of(&id), &name.value, &(place, word));
            let rules = first(node, &RULES);
            if rules.is_none() && !self.has_rules {
                let message = format!("group {} stands here without its rules", quote(&name.value));
                findings
                    .error("unknown-value", name.at, message)
                    .help("`openstack security group show -f json` prints them, and so does Neutron's API");
            }
            own.extend(rules.map(|rules| (place, rules)));
            groups.push(group(node, name, id, findings));
        }
        let mut of_lists: Vec<(usize, &Node<'_>)> = Vec::new();
        for node in &self.rules {
            let place = owner(node, &mut known.groups, groups, findings);
            of_lists.extend(place.map(|place| (place, *node)));
        }
        let mut rules = rule::Rules::new(&known);
        for (place, node) in own {
            match node.list() {
                Some(nodes) => {
                    for node in nodes {
                        rules.read(node, place, groups, findings);
                    }
                }
                None => wrong_type("security_group_rules", node, "a list", findings),
            }
        }
        for (place, node) in of_lists {
            rules.read(node, place, groups, findings);
        }
        known
    }
}

/// Whose rule it is that stands in no group: a place among the groups, of which there may be one more.
fn owner(
    node: &Node<'_>,
    known: &mut Words<(usize, String)>,
    groups: &mut Vec<Group>,
    findings: &mut Findings,
) -> Option<usize> {
    const ID: &str = "security_group_id";
    let key = present(node, &[ID, "Security Group"]);
    let Some(of) = fields::text(node, key, findings) else {
        if !has(node, key) {
            findings
                .error("missing-key", node.at, "the rule does not say whose it is")
                .help("list the rules of all groups: `openstack security group rule list -f json`");
        }
        return None;
    };
    let place = match key {
        ID => known.by_id(of.value),
        _ => match known.by_word(of.value) {
            Meaning::One(group) => Some(group),
            Meaning::Several => {
                ambiguous("group", of, findings);
                return None;
            }
            Meaning::None => None,
        },
    };
    if let Some((place, _)) = place {
        return Some(*place);
    }
    // A group that only its rules tell of.
    let id = text::id(findings, of, "sg-")?;
    let name = text::carried_name(findings, of);
    let place = groups.len();
    known.insert(Some(&id.value), &name.value, &(place, id.value.clone()));
    groups.push(Group {
        name,
        ids: vec![id],
        ..empty()
    });
    Some(place)
}

fn text_of(id: &Option<Located<String>>) -> Option<&str> {
    id.as_ref().map(|id| id.value.as_str())
}

/// An address group: what the list of each family is called, IPv4 first.
#[derive(Clone, Default)]
struct AddressGroup {
    lists: [Option<String>; 2],
}

fn empty() -> Group {
    let nowhere = super::tree::At {
        file: 0,
        start: 0,
        end: 0,
    };
    Group {
        name: Located {
            value: String::new(),
            at: nowhere,
        },
        ids: Vec::new(),
        description: None,
        on_revoke: OnRevoke::Keep,
        ingress: Vec::new(),
        // What no rule lets out stays in.
        egress: Some(Vec::new()),
    }
}

fn group(
    node: &Node<'_>,
    name: Located<String>,
    id: Option<Located<String>>,
    findings: &mut Findings,
) -> Group {
    let description = fields::text(node, present(node, &DESCRIPTION), findings)
        .filter(|text| !text.value.is_empty())
        .map(|text| text::carried_group_description(findings, text));
    if let Some(stateful) = fields::boolean(node, "stateful", findings)
        && !stateful.value
    {
        let message = format!("group {} is stateless", quote(&name.value));
        findings
            .warning("not-carried-over", stateful.at, message)
            .help("here it is stateful: replies to what its rules allow pass without a rule");
    }
    Group {
        name,
        ids: id.into_iter().collect(),
        description,
        ..empty()
    }
}

/// Name and id of a thing; what has no name is called by its id.
fn name_and_id(
    node: &Node<'_>,
    findings: &mut Findings,
) -> Option<(Located<String>, Option<Located<String>>)> {
    if node.map().is_none() {
        wrong_type("this", node, "an object", findings);
        return None;
    }
    let id = fields::text(node, present(node, &ID), findings);
    let id = id.and_then(|id| text::id(findings, id, "sg-"));
    let name = fields::text(node, present(node, &NAME), findings);
    let name = match (name.filter(|name| !name.value.is_empty()), &id) {
        (Some(name), _) => text::carried_name(findings, name),
        (None, Some(id)) => id.clone(),
        (None, None) => {
            fields::missing(node, "id", findings);
            return None;
        }
    };
    Some((name, id))
}

/// A prefix, or a single address, for which Neutron adds the length.
fn prefix(text: Located<&str>, findings: &mut Findings) -> Option<Located<IpNet>> {
    if text.value.contains('/') {
        return text::cidr(findings, text);
    }
    let address = text::address(findings, text)?;
    Some(Located {
        value: address.value.into(),
        at: address.at,
    })
}

fn family_of(net: IpNet) -> Family {
    match net {
        IpNet::V4(_) => Family::Ipv4,
        IpNet::V6(_) => Family::Ipv6,
    }
}

/// A list that goes on elsewhere.
fn next_page(at: super::tree::At, links: &Node<'_>, findings: &mut Findings) {
    let next = links.list().unwrap_or_default().iter().any(|link| {
        let rel = link.get("rel").map(|rel| &rel.value);
        rel == Some(&Value::String("next".into()))
    });
    if next {
        findings
            .warning(
                "not-carried-over",
                at,
                "the list goes on: this is not the last page",
            )
            .help("leave `limit` out of the request, or give the files of all pages");
    }
}

/// The first of these keys that is there; of none, the first of all, so that it can be asked for.
fn present<'k>(node: &Node<'_>, keys: &[&'k str]) -> &'k str {
    let found = keys.iter().find(|key| node.get(key).is_some());
    found.unwrap_or(&keys[0])
}

/// The value of the first of these keys that is there.
fn first<'n, 's>(node: &'n Node<'s>, keys: &[&str]) -> Option<&'n Node<'s>> {
    keys.iter().find_map(|key| node.get(key))
}

/// Whether the key is there, whatever its value.
fn has(node: &Node<'_>, key: &str) -> bool {
    let entries = node.map().unwrap_or_default();
    entries.iter().any(|(own, _)| own.value == key)
}

fn wrong_type(key: &str, value: &Node<'_>, expected: &str, findings: &mut Findings) {
    let message = format!("{} must be {expected}, not {}", quote(key), value.kind());
    findings.error("wrong-type", value.at, message);
}
