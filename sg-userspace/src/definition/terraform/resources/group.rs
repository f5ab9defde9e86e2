//! `aws_security_group` and `aws_default_security_group` with all their rules.

use std::collections::{HashMap, HashSet};

use sg_common::verdict::Direction;

use super::super::super::document::{Node, Value, fields};
use super::super::super::escape::quote;
use super::super::super::text;
use super::super::super::tree::{At, Entry, Group, Located};
use super::super::{Meaning, Resource};
use super::Reader;
use crate::model::{OnRevoke, Peer, Traffic};

pub(super) const KINDS: [&str; 2] = ["aws_security_group", DEFAULT];
pub(super) const DEFAULT: &str = "aws_default_security_group";

/// A group while its rules are collected.
struct Collected<'r, 's> {
    resource: &'r Resource<'s>,
    group: Group,
    /// By [`Direction`].
    rules: [Rules; 2],
}

/// Rules of one direction.
#[derive(Default)]
struct Rules {
    /// Those of its blocks; `None`: it does not say.
    in_line: Option<Vec<Entry>>,
    /// Those of resources of their own.
    separate: Vec<Entry>,
    /// Whether there are such resources, good or bad.
    has_separate: bool,
}

impl Reader<'_> {
    /// All groups.
    pub(super) fn groups(&mut self, resources: &[Resource<'_>]) -> Vec<Group> {
        let mut collected: Vec<Collected<'_, '_>> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        let of_kind = |resource: &&Resource<'_>| KINDS.contains(&resource.kind.as_str());
        for resource in resources.iter().filter(of_kind) {
            let ids = self.ids(resource, "id", "sg-");
            let own = ids
                .first()
                .map_or(resource.address.clone(), |id| id.value.clone());
            for id in &ids {
                self.groups.insert(id.value.clone(), own.clone());
            }
            places.insert(own, collected.len());
            collected.push(self.group(resource, ids));
        }
        for group in &mut collected {
            for direction in Direction::ALL {
                group.rules[direction as usize].in_line = self.in_line(group.resource, direction);
            }
        }
        for resource in resources {
            let Some((word, direction, entry)) = self.separate_rule(resource) else {
                continue;
            };
            let own = self.groups.get(&word.value);
            match own.and_then(|own| places.get(own)) {
                Some(&index) => {
                    let rules = &mut collected[index].rules[direction as usize];
                    rules.has_separate = true;
                    rules.separate.extend(entry);
                }
                None => {
                    let message = format!("is a rule of {}, which is not here", quote(&word.value));
                    self.not_carried_over(
                        resource,
                        &message,
                        "give the files that define the group as well, or its dump by `aws ec2 describe-security-groups`",
                    );
                }
            }
        }
        let finish = |collected| self.finish(collected);
        collected.into_iter().map(finish).collect()
    }

    fn group<'r, 's>(
        &mut self,
        resource: &'r Resource<'s>,
        ids: Vec<Located<String>>,
    ) -> Collected<'r, 's> {
        let attributes = &resource.attributes;
        let description = fields::text(attributes, "description", self.findings)
            .filter(|text| !text.value.is_empty())
            .map(|text| text::carried_group_description(self.findings, text));
        let group = Group {
            name: self.name(resource),
            ids,
            description,
            on_revoke: self.on_revoke(attributes),
            ingress: Vec::new(),
            egress: None,
        };
        Collected {
            resource,
            group,
            rules: Default::default(),
        }
    }

    /// Its name; where Terraform makes one up, the address within its kind.
    fn name(&mut self, resource: &Resource<'_>) -> Located<String> {
        if resource.kind == DEFAULT {
            // Fact 1.34.
            return Located {
                value: "default".into(),
                at: resource.at,
            };
        }
        let label = resource.address.replacen("aws_security_group.", "", 1);
        let label = text::name_of(&label.replace('"', ""));
        if let Some(node) = resource.attributes.get("name") {
            match &node.value {
                Value::String(name) if !name.is_empty() => {
                    let name = Located {
                        value: &**name,
                        at: node.at,
                    };
                    return text::carried_name(self.findings, name);
                }
                Value::Unknown(what) if self.meaning == Meaning::Configuration => {
                    let message = format!(
                        "the group's name is not known from this file: {}",
                        quote(what)
                    );
                    self.findings
                        .warning("renamed", node.at, message)
                        .help(format!("it is called {} here", quote(&label)));
                }
                _ => {}
            }
        }
        Located {
            value: label,
            at: resource.at,
        }
    }

    /// The tag by which a group says what becomes of tracked flows.
    fn on_revoke(&mut self, attributes: &Node<'_>) -> OnRevoke {
        let tags = ["tags", "tags_all"].iter().find_map(|key| {
            let tags = attributes.get(key)?;
            tags.get(text::ON_REVOKE).map(|_| tags)
        });
        let Some(value) = tags.and_then(|tags| fields::text(tags, text::ON_REVOKE, self.findings))
        else {
            return OnRevoke::default();
        };
        text::on_revoke(self.findings, value)
    }

    /// The entries of its blocks.
    fn in_line(&mut self, resource: &Resource<'_>, direction: Direction) -> Option<Vec<Entry>> {
        let key = direction.name();
        resource.attributes.get(key)?;
        let own = self.groups.get(&resource.address).or_else(|| {
            let id = resource.attributes.get("id")?;
            match &id.value {
                Value::String(id) => self.groups.get(&**id),
                _ => None,
            }
        });
        let own = own.unwrap_or(&resource.address).clone();
        let blocks = fields::list(&resource.attributes, key, self.findings);
        let entries = blocks.iter().filter_map(|block| self.block(block, &own));
        Some(entries.collect())
    }

    fn finish(&mut self, collected: Collected<'_, '_>) -> Group {
        let Collected {
            resource,
            mut group,
            rules: [ingress, egress],
        } = collected;
        let known = self.meaning == Meaning::State || resource.kind == DEFAULT;
        group.ingress = self.merge(resource, ingress).unwrap_or_default();
        group.egress = self.merge(resource, egress).or(known.then(Vec::new));
        group
    }

    /// The rules of both places; `None`: there is neither.
    fn merge(&mut self, resource: &Resource<'_>, rules: Rules) -> Option<Vec<Entry>> {
        let Rules {
            in_line,
            mut separate,
            has_separate,
        } = rules;
        let Some(in_line) = in_line else {
            return has_separate.then_some(separate);
        };
        if self.meaning == Meaning::State {
            // A state lists in a group the rules of other resources as well, as of its last refresh.
            let known: HashSet<(Traffic, Peer)> = separate
                .iter()
                .flat_map(|entry| self.identities(entry))
                .map(|(identity, _)| identity)
                .collect();
            for entry in in_line {
                let identities = self.identities(&entry);
                let more = identities
                    .into_iter()
                    .filter(|(identity, _)| !known.contains(identity));
                separate.extend(more.map(|(_, single)| single));
            }
            return Some(separate);
        }
        if let (Some(first), false) = (separate.first(), in_line.is_empty()) {
            self.mixed(resource, first.at, in_line[0].at);
        }
        let mut entries = in_line;
        entries.append(&mut separate);
        Some(entries)
    }

    /// Fact 7.18.
    fn mixed(&mut self, resource: &Resource<'_>, separate: At, in_line: At) {
        let message = format!(
            "{} has rules in blocks and in resources of their own: in AWS they undo each other",
            quote(&resource.address)
        );
        self.findings
            .warning("mixed-rules", separate, message)
            .related(in_line, "a block")
            .help("both count here; move all of them to one place");
    }

    /// The rules that an entry stands for, by what tells them apart (fact 1.38).
    fn identities(&self, entry: &Entry) -> Vec<((Traffic, Peer), Entry)> {
        let mut rules = Vec::new();
        for traffic in &entry.traffic {
            for peer in &entry.peers {
                let canonical = match &peer.value {
                    Peer::Group(word) => Peer::Group(self.groups.get(word).unwrap_or(word).clone()),
                    other => other.clone(),
                };
                let single = Entry {
                    at: entry.at,
                    id: entry.id,
                    traffic: vec![*traffic],
                    peers: vec![peer.clone()],
                    description: entry.description.clone(),
                };
                rules.push(((traffic.value, canonical), single));
            }
        }
        rules
    }
}
