//! Groups and their rules.

use std::collections::HashMap;

use sg_common::verdict::Direction;

use super::super::document::{Node, Value, fields};
use super::super::escape::quote;
use super::super::names;
use super::super::permission::Permission;
use super::super::text;
use super::super::tree::{At, Entry, Group, Located};
use super::{Reader, Resource};
use crate::model::{OnRevoke, Peer, Traffic};

pub(super) const KINDS: [&str; 3] = [GROUP, INGRESS, EGRESS];
const GROUP: &str = "AWS::EC2::SecurityGroup";
const INGRESS: &str = "AWS::EC2::SecurityGroupIngress";
const EGRESS: &str = "AWS::EC2::SecurityGroupEgress";

impl Reader<'_> {
    /// All groups.
    pub(super) fn groups(&mut self, resources: &[Resource<'_>]) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for resource in resources.iter().filter(|resource| resource.kind == GROUP) {
            let group = self.group(resource);
            places.insert(resource.word.clone(), groups.len());
            groups.push(group);
        }
        let defaults: Vec<Option<At>> = groups
            .iter()
            .map(|group| Some(default_egress(group.egress.as_deref()?)?.at))
            .collect();
        for resource in resources {
            let direction = match resource.kind.as_str() {
                INGRESS => Direction::Ingress,
                EGRESS => Direction::Egress,
                _ => continue,
            };
            let properties = &resource.properties;
            let key = ["GroupId", "GroupName"]
                .into_iter()
                .find(|key| properties.get(key).is_some());
            let Some(key) = key else {
                fields::missing(properties, "GroupId", self.findings);
                continue;
            };
            let Some(word) = fields::text(properties, key, self.findings) else {
                continue;
            };
            // By name where it is in the default VPC.
            let named = match key {
                "GroupName" => self.group_named(word),
                _ => Some(word.value.to_owned()),
            };
            let Some(named) = named else { continue };
            let Some(&place) = places.get(&named) else {
                let message = format!("is a rule of {}, which is not here", quote(word.value));
                self.not_carried_over(
                    resource,
                    &message,
                    "give the template that defines the group as well, or its dump by `aws ec2 describe-security-groups`",
                );
                continue;
            };
            let entry = self.rule(properties, direction);
            let entry = entry.map(|entry| Entry {
                at: resource.at,
                ..entry
            });
            let group = &mut groups[place];
            match direction {
                Direction::Ingress => group.ingress.extend(entry),
                Direction::Egress => {
                    if let Some(default) = defaults[place] {
                        self.warn_of_revocation(resource, default);
                    }
                    // What is given on its own replaces the default, too: AWS takes that away when the rule is
                    // made (https://github.com/aws-cloudformation/cfn-language-discussion/issues/157,
                    // https://github.com/aws/aws-cdk/issues/3355).
                    group.egress.get_or_insert_default().extend(entry);
                }
            }
        }
        groups
    }

    /// Learns what groups are called in AWS.
    pub(super) fn learn_names(&mut self, resources: &[Resource<'_>]) {
        for resource in resources.iter().filter(|resource| resource.kind == GROUP) {
            match resource.properties.get("GroupName").map(|node| &node.value) {
                Some(Value::String(name) | Value::Number(name)) => {
                    let word = Some(resource.word.clone());
                    self.named
                        .entry(name.clone().into_owned())
                        .and_modify(|known| *known = None)
                        .or_insert(word);
                }
                _ => {
                    self.unnamed.insert(resource.logical.clone());
                }
            }
        }
    }

    /// What stands for the group of this name; a logical name is none.
    pub(super) fn group_named(&mut self, name: Located<&str>) -> Option<String> {
        match self.named.get(name.value) {
            Some(Some(word)) => Some(word.clone()),
            Some(None) => {
                let message = format!("several groups are called {}", quote(name.value));
                self.findings
                    .error("ambiguous-name", name.at, message)
                    .help("use the id: `!GetAtt GROUP.GroupId`");
                None
            }
            None if self.unnamed.contains(name.value) => {
                let message = format!("no group has the `GroupName` {}", quote(name.value));
                self.findings
                    .error("InvalidGroup.NotFound", name.at, message)
                    .help(format!(
                        "the group that the template calls so is `!GetAtt {}.GroupId`",
                        name.value
                    ));
                None
            }
            None => Some(name.value.to_owned()),
        }
    }

    /// What stands for the group of this id, which is no name.
    pub(super) fn group_of_id(&mut self, id: Located<&str>) -> Option<String> {
        self.id(id, "sg-")
    }

    fn id(&mut self, id: Located<&str>, prefix: &str) -> Option<String> {
        if names::is_of_template(id.value) || id.value.starts_with(prefix) {
            return Some(id.value.to_owned());
        }
        let message = format!("{} is not an id for this", quote(id.value));
        self.findings
            .error("InvalidParameterValue", id.at, message)
            .help(format!(
                "`{prefix}…`, or `!Ref` of what the template defines"
            ));
        None
    }

    fn warn_of_revocation(&mut self, resource: &Resource<'_>, default: At) {
        self.findings
            .warning(
                "default-egress-revoked",
                resource.at,
                "AWS may take away the group's rule for everything out when it makes this one",
            )
            .related(default, "that rule")
            .help("here both count; where one allows everything out the other is not needed");
    }

    fn group(&mut self, resource: &Resource<'_>) -> Group {
        let properties = &resource.properties;
        let name = match properties.get("GroupName").map(|node| &node.value) {
            Some(Value::Unknown(what)) => {
                let message = format!(
                    "the name of {} is not known from this file: {}",
                    quote(&resource.logical),
                    quote(what)
                );
                self.findings
                    .warning("renamed", resource.at, message)
                    .help(format!("it is called {} here", quote(&resource.logical)));
                None
            }
            _ => fields::text(properties, "GroupName", self.findings),
        };
        let name = name.unwrap_or(Located {
            value: &resource.logical,
            at: resource.at,
        });
        let description = match properties.get("GroupDescription").map(|node| &node.value) {
            // Text for people need not be known.
            Some(Value::Unknown(_)) => None,
            _ => fields::text(properties, "GroupDescription", self.findings)
                .filter(|text| !text.value.is_empty()),
        };
        let egress = self.rules(properties, "SecurityGroupEgress", Direction::Egress);
        Group {
            name: text::carried_name(self.findings, name),
            ids: vec![Located {
                value: resource.word.clone(),
                at: resource.at,
            }],
            description: description
                .map(|text| text::carried_group_description(self.findings, text)),
            on_revoke: self.on_revoke(properties),
            ingress: self
                .rules(properties, "SecurityGroupIngress", Direction::Ingress)
                .unwrap_or_default(),
            egress,
        }
    }

    fn on_revoke(&mut self, properties: &Node<'_>) -> OnRevoke {
        let tags = match properties.get("Tags").map(|node| &node.value) {
            Some(Value::List(tags)) => tags,
            _ => return OnRevoke::default(),
        };
        let is_own = |tag: &&Node<'_>| {
            let own = Value::String(text::ON_REVOKE.into());
            tag.get("Key").is_some_and(|key| key.value == own)
        };
        let tag = tags.iter().find(is_own);
        let value = tag.and_then(|tag| fields::text(tag, "Value", self.findings));
        value.map_or(OnRevoke::default(), |value| {
            text::on_revoke(self.findings, value)
        })
    }

    /// Rules of a group; `None` if it gives none, for which AWS's default of that direction stands: an empty list
    /// adds no rule, as a missing one.
    fn rules(
        &mut self,
        properties: &Node<'_>,
        key: &str,
        direction: Direction,
    ) -> Option<Vec<Entry>> {
        let given = properties.get(key)?;
        // One rule may stand without a list around it.
        let rules = match &given.value {
            Value::Map(_) => std::slice::from_ref(given),
            Value::Unknown(_) => {
                // Says so; what may leave is not known then either.
                fields::list(properties, key, self.findings);
                return Some(Vec::new());
            }
            _ => fields::list(properties, key, self.findings),
        };
        let entries: Vec<Entry> = rules
            .iter()
            .filter_map(|rule| self.rule(rule, direction))
            .collect();
        (!rules.is_empty()).then_some(entries)
    }

    fn rule(&mut self, rule: &Node<'_>, direction: Direction) -> Option<Entry> {
        match &rule.value {
            Value::Map(_) => {}
            Value::Unknown(what) => {
                let message = format!("a rule is not known from this file: {}", quote(what));
                self.findings
                    .error("unknown-value", rule.at, message)
                    .help(super::HELP);
                return None;
            }
            _ => {
                let message = format!("a rule must be an object, not {}", rule.kind());
                self.findings.error("wrong-type", rule.at, message);
                return None;
            }
        }
        let traffic = self.traffic(rule);
        let (list, group) = match direction {
            Direction::Ingress => ("SourcePrefixListId", "SourceSecurityGroupId"),
            Direction::Egress => ("DestinationPrefixListId", "DestinationSecurityGroupId"),
        };
        let mut peers = Vec::new();
        for key in ["CidrIp", "CidrIpv6"] {
            let cidr = fields::text(rule, key, self.findings);
            if let Some(net) = cidr.and_then(|cidr| text::cidr(self.findings, cidr)) {
                if net.value.addr().is_ipv4() == (key == "CidrIp") {
                    peers.push(Located {
                        value: Peer::Cidr(net.value),
                        at: net.at,
                    });
                } else {
                    let message =
                        format!("{} is of the other family", quote(&net.value.to_string()));
                    self.findings
                        .error("InvalidParameterValue", net.at, message)
                        .help("IPv4 stands in CidrIp, IPv6 in CidrIpv6");
                }
            }
        }
        if let Some(list) = fields::text(rule, list, self.findings) {
            peers.extend(self.id(list, "pl-").map(|word| Located {
                value: Peer::PrefixList(word),
                at: list.at,
            }));
        }
        if let Some(group) = fields::text(rule, group, self.findings) {
            peers.extend(self.group_of_id(group).map(|word| Located {
                value: Peer::Group(word),
                at: group.at,
            }));
        }
        if direction == Direction::Ingress
            && let Some(name) = fields::text(rule, "SourceSecurityGroupName", self.findings)
        {
            let word = match is_of_another(rule) {
                false => self.group_named(name),
                true => {
                    let message = format!("group {} is of another account", quote(name.value));
                    self.findings
                        .warning("not-carried-over", name.at, message)
                        .help("a name does not tell which group it is: give `SourceSecurityGroupId`; here the rule allows nothing");
                    None
                }
            };
            peers.extend(word.map(|word| Located {
                value: Peer::Group(word),
                at: name.at,
            }));
        }
        let given = ["CidrIp", "CidrIpv6", list, group, "SourceSecurityGroupName"]
            .iter()
            .filter(|key| rule.get(key).is_some())
            .count();
        if given == 0 {
            self.findings
                .warning(
                    "no-effect",
                    rule.at,
                    "this names no source or destination: it is no rule",
                )
                .help("everywhere is `CidrIp: 0.0.0.0/0` and `CidrIpv6: ::/0`, each a rule of its own");
        } else if given > 1 {
            self.findings
                .error(
                    "InvalidParameterValue",
                    rule.at,
                    format!("a rule has one source or destination, not {given}"),
                )
                .help("make a rule for each");
            return None;
        }
        let description = match rule.get("Description").map(|node| &node.value) {
            Some(Value::Unknown(_)) => None,
            _ => fields::text(rule, "Description", self.findings)
                .filter(|text| !text.value.is_empty())
                .map(|text| text::carried_rule_description(self.findings, text)),
        };
        let traffic = traffic?;
        (!peers.is_empty()).then(|| Entry {
            at: rule.at,
            id: None,
            traffic: vec![traffic],
            peers,
            description,
        })
    }

    fn traffic(&mut self, rule: &Node<'_>) -> Option<Located<Traffic>> {
        if rule.get("IpProtocol").is_none() {
            fields::missing(rule, "IpProtocol", self.findings);
        }
        let protocol = fields::text(rule, "IpProtocol", self.findings);
        let from = fields::integer(rule, "FromPort", self.findings);
        let to = fields::integer(rule, "ToPort", self.findings);
        let is_wrong =
            |key, value: Option<Located<i64>>| rule.get(key).is_some() && value.is_none();
        if is_wrong("FromPort", from) || is_wrong("ToPort", to) {
            return None;
        }
        let protocol = protocol?;
        let permission = Permission {
            protocol,
            from,
            to,
            at: rule.at,
        };
        let value = permission.traffic(self.findings)?;
        Some(Located {
            value,
            at: protocol.at,
        })
    }
}

/// Whether a rule names the account of its group, and it may be another than that of the template.
fn is_of_another(rule: &Node<'_>) -> bool {
    let owner = rule.get("SourceSecurityGroupOwnerId");
    owner.is_some_and(|owner| owner.value != Value::Unknown("AWS::AccountId".into()))
}

/// The rule by which a group lets everything out, if it has one.
fn default_egress(entries: &[Entry]) -> Option<&Entry> {
    entries.iter().find(|entry| {
        let all = entry
            .traffic
            .iter()
            .any(|traffic| traffic.value == Traffic::All);
        let everywhere = entry.peers.iter().any(
            |peer| matches!(peer.value, Peer::Cidr(net) if net.prefix_len() == 0 && net.addr().is_ipv4()),
        );
        all && everywhere
    })
}
