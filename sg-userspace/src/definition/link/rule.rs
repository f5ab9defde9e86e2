//! Groups and rules: ids, duplicates, peers that exist.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use ipnet::IpNet;
use sg_common::verdict::Direction;

use super::super::escape::quote;
use super::super::findings::Findings;
use super::super::tree::{self, At, DefaultEgress, Entry, Located, Quotas};
use super::Linker;
use crate::model::{Group, Model, Origin, Peer, Rule, RuleId, Traffic};

/// Rules that exist, to find those that are there already.
#[derive(Default)]
struct Known<'d> {
    identities: HashMap<(&'d str, Direction, Traffic, Peer), At>,
    ids: HashMap<RuleId, At>,
}

impl<'d> Linker<'d, '_> {
    /// Groups with their rules.
    pub(super) fn groups(&mut self) -> BTreeMap<String, Group> {
        let mut known = Known::default();
        let mut groups = BTreeMap::new();
        for file in self.files() {
            let default = self.default_egress(file);
            for group in &file.groups {
                let linked = self.group(group, default, file.unsettled_egress, &mut known);
                // Of two groups with one name neither counts: that is an error already.
                groups.insert(group.name.value.clone(), linked);
            }
        }
        groups
    }

    fn group(
        &mut self,
        group: &'d tree::Group,
        default: DefaultEgress,
        help: Option<&str>,
        known: &mut Known<'d>,
    ) -> Group {
        let name = &group.name;
        let ingress = self.rules(&name.value, Direction::Ingress, &group.ingress, known);
        let egress = match (&group.egress, default) {
            (Some(entries), _) => self.rules(&name.value, Direction::Egress, entries, known),
            (None, DefaultEgress::Allow) => everywhere(&name.value),
            (None, DefaultEgress::Deny) => Vec::new(),
            (None, DefaultEgress::Explicit) => {
                missing_egress(name, help, self.findings);
                Vec::new()
            }
        };
        Group {
            description: group.description.clone(),
            on_revoke: group.on_revoke,
            ingress,
            egress,
        }
    }

    fn rules(
        &mut self,
        group: &'d str,
        direction: Direction,
        entries: &'d [Entry],
        known: &mut Known<'d>,
    ) -> Vec<Rule> {
        let mut rules = Vec::with_capacity(entries.len());
        known.identities.reserve(entries.len());
        known.ids.reserve(entries.len());
        for entry in entries {
            self.check_peers(entry);
            let count = entry.traffic.len() * entry.peers.len();
            if let Some(id) = entry.id.as_ref().filter(|_| count > 1) {
                self.findings
                    .error("InvalidParameterValue", id.at, format!("`id` on an entry that is {count} rules"))
                    .help("an entry with several ports or peers is as many rules: split it, or leave `id` out");
                continue;
            }
            let description: Option<Arc<str>> = entry.description.as_deref().map(Arc::from);
            for traffic in &entry.traffic {
                for peer in &entry.peers {
                    warn_if_dead(traffic.value, peer, self.findings);
                    // An entry of one rule is pointed at whole; else at what tells its rules apart.
                    let at = match (entry.traffic.len() > 1, entry.peers.len() > 1) {
                        (_, true) => peer.at,
                        (true, false) => traffic.at,
                        (false, false) => entry.at,
                    };
                    let identity = (group, direction, traffic.value, peer.value.clone());
                    if let Some(first) = known.identities.get(&identity) {
                        self.duplicate(&identity, at, *first);
                        continue;
                    }
                    let id = match &entry.id {
                        Some(id) => id.value,
                        None => RuleId::derive(group, direction, &traffic.value, &peer.value),
                    };
                    let id_at = entry.id.as_ref().map_or(at, |id| id.at);
                    known.identities.insert(identity, at);
                    self.check_id(id, id_at, known);
                    rules.push(Rule {
                        id,
                        traffic: traffic.value,
                        peer: peer.value.clone(),
                        description: description.clone(),
                        origin: Some(self.origin(at)),
                    });
                }
            }
        }
        rules
    }

    fn check_peers(&mut self, entry: &Entry) {
        for peer in &entry.peers {
            let named = |name: &String| Located {
                value: name.clone(),
                at: peer.at,
            };
            match &peer.value {
                Peer::Cidr(_) => {}
                Peer::PrefixList(name) => {
                    self.check_prefix_list(&named(name));
                }
                Peer::Group(name) | Peer::GroupOf(name, _) => {
                    self.check_reference(name, peer.at);
                }
            }
        }
    }

    /// Fact 1.39 refuses what is there already; harmless here unless AWS's rules are asked for.
    fn duplicate(&mut self, identity: &(&str, Direction, Traffic, Peer), at: At, first: At) {
        let (_, direction, traffic, peer) = identity;
        let peer = match peer {
            Peer::Cidr(net) => net.to_string(),
            Peer::PrefixList(name) => format!("prefix list {name}"),
            Peer::Group(name) => format!("group {name}"),
            Peer::GroupOf(name, family) => format!("group {name} ({})", family.name()),
        };
        let severity = self.quota_severity();
        let message = format!(
            "the {} rule \"peer: {peer}, {traffic}, ALLOW\" already exists",
            direction.name()
        );
        self.findings
            .add(severity, "InvalidPermission.Duplicate", at, message)
            .related(first, "first here")
            .help("remove one of the two; the first one counts");
    }

    fn check_id(&mut self, id: RuleId, at: At, known: &mut Known<'_>) {
        if let Some(first) = known.ids.insert(id, at) {
            self.findings
                .error("duplicate-id", at, format!("the rule id {id} is taken"))
                .related(first, "first here")
                .help("give another `id`, or none");
        }
    }

    fn origin(&self, at: At) -> Origin {
        let source = &self.sources[at.file as usize];
        Origin {
            file: Arc::clone(&source.name),
            line: source.position(at.start as usize).line as u32,
        }
    }

    pub(super) fn quota_severity(&self) -> super::super::Severity {
        match self.quotas {
            Quotas::Warn => super::super::Severity::Warning,
            Quotas::Aws => super::super::Severity::Error,
        }
    }

    /// Warns of groups that rules refer to and nobody can be in.
    pub(super) fn unpopulated_groups(&mut self, model: &Model) {
        if self.findings.is_broken() {
            return;
        }
        let mut referred: BTreeMap<&str, At> = BTreeMap::new();
        let groups = self.files().flat_map(|file| &file.groups);
        for entry in
            groups.flat_map(|group| group.ingress.iter().chain(group.egress.iter().flatten()))
        {
            for peer in &entry.peers {
                if let Some(name) = peer.value.group() {
                    referred.entry(name).or_insert(peer.at);
                }
            }
        }
        let carried: HashSet<&str> = model
            .interfaces
            .values()
            .flat_map(|interface| interface.groups.iter().map(String::as_str))
            .collect();
        for (name, at) in referred {
            let elsewhere = model
                .members
                .get(name)
                .is_some_and(|members| !members.is_empty());
            if !carried.contains(name) && !elsewhere && model.groups.contains_key(name) {
                self.findings
                    .warning(
                        "no-members",
                        at,
                        format!("group {} has no members: this matches nothing", quote(name)),
                    )
                    .help(format!(
                        "attach it to an interface, or list members in [members.{name}]"
                    ));
            }
        }
    }
}

/// The rules that AWS gives a new group (fact 1.33).
fn everywhere(group: &str) -> Vec<Rule> {
    ["0.0.0.0/0", "::/0"]
        .map(|net| {
            let net: IpNet = net.parse().expect("a literal prefix");
            let peer = Peer::Cidr(net);
            Rule {
                id: RuleId::derive(group, Direction::Egress, &Traffic::All, &peer),
                traffic: Traffic::All,
                peer,
                description: None,
                origin: None,
            }
        })
        .into()
}

fn missing_egress(name: &Located<String>, help: Option<&str>, findings: &mut Findings) {
    if findings.is_broken() {
        return;
    }
    const HELP: &str = "write `egress = []` (nothing but replies) or `egress = [{ protocol = \"all\", cidr = [\"0.0.0.0/0\", \"::/0\"] }]` (everything, as AWS); `[defaults] egress = \"deny\"` or \"allow\" settles it for the file";
    let message = format!("group {} does not say what may leave", quote(&name.value));
    findings
        .error("missing-egress", name.at, message)
        .help(help.unwrap_or(HELP));
}

/// ICMP of one family with addresses of the other.
fn warn_if_dead(traffic: Traffic, peer: &Located<Peer>, findings: &mut Findings) {
    let (name, other) = match (traffic, &peer.value) {
        (Traffic::Icmp(_), Peer::Cidr(IpNet::V6(_))) => ("icmp", "icmpv6"),
        (Traffic::Icmpv6(_), Peer::Cidr(IpNet::V4(_))) => ("icmpv6", "icmp"),
        _ => return,
    };
    findings
        .warning(
            "never-matches",
            peer.at,
            format!("{name} never comes from or goes to these addresses"),
        )
        .help(format!("for this family the protocol is \"{other}\""));
}
