//! One name for each thing, and one meaning for each word that refers to one.
//!
//! TOML knows groups and lists by name; clouds by id, with names that need not be unique. Before names are looked
//! up, things get unique names, and ids in references are replaced by those.

use std::collections::{BTreeMap, HashMap};

use super::escape::quote;
use super::findings::Findings;
use super::tree::{At, Definition, Endpoint, Located};
use crate::model::{Ids, Peer};

/// Makes names of groups and lists unique, where ids tell them apart, and has all references use them.
pub(super) fn settle(definition: &mut Definition, findings: &mut Findings) -> Ids {
    let groups = definition
        .files
        .iter_mut()
        .flat_map(|file| &mut file.groups);
    let groups = Words::settle(
        "group",
        groups.map(|group| (&mut group.name, &*group.ids)),
        Ids::derived_group,
        findings,
    );
    let lists = definition
        .files
        .iter_mut()
        .flat_map(|file| &mut file.prefix_lists);
    let lists = Words::settle(
        "prefix list",
        lists.map(|list| (&mut list.name, &*list.ids)),
        Ids::derived_prefix_list,
        findings,
    );
    for file in &mut definition.files {
        for group in &mut file.groups {
            for entry in group
                .ingress
                .iter_mut()
                .chain(group.egress.iter_mut().flatten())
            {
                for peer in &mut entry.peers {
                    match &mut peer.value {
                        Peer::Cidr(_) => {}
                        Peer::PrefixList(word) => lists.resolve(word, peer.at, findings),
                        Peer::Group(word) | Peer::GroupOf(word, _) => {
                            groups.resolve(word, peer.at, findings);
                        }
                    }
                }
            }
        }
        let of_interfaces = file
            .interfaces
            .iter_mut()
            .filter_map(|interface| interface.groups.as_mut());
        let of_others = file
            .remote_interfaces
            .iter_mut()
            .map(|interface| &mut interface.groups);
        for word in of_interfaces
            .chain(of_others)
            .flat_map(|words| &mut words.value)
        {
            groups.resolve(&mut word.value, word.at, findings);
        }
        for test in &mut file.expectations {
            for side in [&mut test.from, &mut test.to] {
                match &mut side.value {
                    Endpoint::Group(word) => groups.resolve(word, side.at, findings),
                    Endpoint::PrefixList(word) => lists.resolve(word, side.at, findings),
                    _ => {}
                }
            }
        }
        for members in &mut file.members {
            groups.resolve(&mut members.group.value, members.group.at, findings);
        }
    }
    Ids {
        groups: groups.first,
        prefix_lists: lists.first,
        interfaces: BTreeMap::new(),
    }
}

/// Words for things of one kind.
struct Words {
    kind: &'static str,
    /// Names by id, and the file that says it.
    ids: HashMap<String, (String, u32)>,
    /// The first id of each name.
    first: BTreeMap<String, String>,
    /// Words that mean several things.
    ambiguous: HashMap<String, Ambiguous>,
}

/// What a word means that means several things.
#[derive(Default)]
struct Ambiguous {
    /// Their names, which are unique: sorted.
    names: Vec<String>,
    /// Whether it is the id of one and the name of another.
    is_id: bool,
}

impl Words {
    fn settle<'t>(
        kind: &'static str,
        things: impl Iterator<Item = (&'t mut Located<String>, &'t [Located<String>])>,
        derived: fn(&str) -> String,
        findings: &mut Findings,
    ) -> Self {
        let mut words = Self {
            kind,
            ids: HashMap::new(),
            first: BTreeMap::new(),
            ambiguous: HashMap::new(),
        };
        let mut things: Vec<_> = things.collect();
        let mut same: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, (name, _)) in things.iter().enumerate() {
            // Fact 1.32: names of groups are compared without case.
            same.entry(name.value.to_ascii_lowercase())
                .or_default()
                .push(index);
        }
        // Those that they have in their files.
        let mut named: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, (name, _)) in things.iter().enumerate() {
            named.entry(name.value.clone()).or_default().push(index);
        }
        for indices in same.into_values().filter(|indices| indices.len() > 1) {
            let ids = indices.iter().map(|index| things[*index].1.first());
            let mut distinct: Vec<&str> = ids.flatten().map(|id| id.value.as_str()).collect();
            distinct.sort_unstable();
            distinct.dedup();
            // Otherwise they are one thing that is defined twice, which is found later.
            if distinct.len() < indices.len() {
                continue;
            }
            for index in indices {
                let (name, ids) = &mut things[index];
                let unique = format!("{} ({})", name.value, ids[0].value);
                let others = words.ambiguous.entry(name.value.clone()).or_default();
                others.names.push(unique.clone());
                name.value = unique;
            }
        }
        let mut places: HashMap<&str, At> = HashMap::new();
        for (index, (name, ids)) in things.iter().enumerate() {
            for id in *ids {
                if let Some(first) = places.insert(&id.value, id.at) {
                    let message = format!("the id {} is taken", quote(&id.value));
                    findings
                        .error("duplicate-id", id.at, message)
                        .related(first, "first here")
                        .help("all files together are one definition: leave one of the two out");
                    continue;
                }
                let known = (name.value.clone(), id.at.file);
                words.ids.insert(id.value.clone(), known);
                let namesakes = named.get(&id.value).into_iter().flatten();
                let mut others = namesakes.filter(|other| **other != index).peekable();
                if others.peek().is_some() {
                    let all = words.ambiguous.entry(id.value.clone()).or_default();
                    let others = others.map(|other| things[*other].0.value.clone());
                    all.names = others.chain([name.value.clone()]).collect();
                    all.is_id = true;
                }
                if is_address(&id.value)
                    || is_of_template(&id.value)
                    || id.value == derived(&name.value)
                {
                    continue;
                }
                words
                    .first
                    .entry(name.value.clone())
                    .or_insert_with(|| id.value.clone());
            }
        }
        for ambiguous in words.ambiguous.values_mut() {
            ambiguous.names.sort_unstable();
        }
        words
    }

    fn resolve(&self, word: &mut String, at: At, findings: &mut Findings) {
        // What a template calls a thing means nothing elsewhere.
        let known = self.ids.get(word.as_str());
        let known = known.filter(|(_, file)| *file == at.file || !is_of_template(word));
        if let Some(ambiguous) = self.ambiguous.get(word.as_str()) {
            ambiguous.report(self.kind, word, at, findings);
            // So that it is not said to be missing as well.
            word.clone_from(&ambiguous.names[0]);
        } else if let Some((name, _)) = known {
            word.clone_from(name);
        }
    }
}

impl Ambiguous {
    fn report(&self, kind: &str, word: &str, at: At, findings: &mut Findings) {
        /// Names in one finding: there may be thousands, and as many references.
        const LISTED: usize = 5;
        let mut names = self.names[..self.names.len().min(LISTED)].join(", ");
        if let Some(more @ 1..) = self.names.len().checked_sub(LISTED) {
            names += &format!(" and {more} more");
        }
        let (message, help) = match self.is_id {
            true => (
                format!(
                    "{} is the id of one {kind} and the name of another",
                    quote(word)
                ),
                format!("give one of them another name or id: {names}"),
            ),
            false => (
                format!("several {kind}s are called {}", quote(word)),
                format!("use the id: {names}"),
            ),
        };
        findings.error("ambiguous-name", at, message).help(help);
    }
}

/// Whether a word is how Terraform calls a thing, and no id that a cloud gave it.
fn is_address(word: &str) -> bool {
    word.starts_with("aws_") || word.contains(".aws_")
}

const OF_TEMPLATE: &str = "cfn:";

/// What stands for a thing that a template calls by a logical name: no id that a cloud gives.
pub(super) fn word_of_template(file: &str, name: &str) -> String {
    format!("{OF_TEMPLATE}{file}#{name}")
}

/// Whether a word is such.
pub(super) fn is_of_template(word: &str) -> bool {
    word.starts_with(OF_TEMPLATE)
}

#[cfg(test)]
mod tests {
    use super::super::{Checked, Source, check};

    fn found(name: &str, text: &str) -> Vec<(&'static str, String)> {
        let Checked { diagnostics, .. } = check(&[Source::new(name, text.as_bytes().to_vec())]);
        let told = diagnostics.into_iter();
        told.map(|one| (one.code, one.help.unwrap_or_default()))
            .collect()
    }

    #[test]
    fn a_word_that_is_an_id_and_another_name_is_refused_where_it_is_used() {
        let text = |reference: &str| {
            format!(
                "[groups.a]\nid = \"db\"\negress = []\n[groups.db]\nid = \"other\"\negress = []\n\
                 [groups.c]\negress = []\ningress = [{{ protocol = \"all\", group = \"{reference}\" }}]\n\
                 [members.a]\naddresses = [\"10.0.0.1\"]\n[members.other]\naddresses = [\"10.0.0.2\"]\n"
            )
        };
        let codes = |reference: &str| {
            let found = found("f.toml", &text(reference));
            found.into_iter().map(|(code, _)| code).collect::<Vec<_>>()
        };
        assert_eq!(codes("db"), ["ambiguous-name"]);
        assert_eq!(codes("a"), [""; 0]);
        assert_eq!(codes("other"), [""; 0]);
    }

    #[test]
    fn many_things_of_one_name_are_refused_in_few_words() {
        const GROUPS: usize = 1000;
        let groups = (0..GROUPS).map(|number| {
            format!(
                "{{\"GroupId\": \"sg-{number:08x}\", \"GroupName\": \"default\", \"IpPermissionsEgress\": [], \
                 \"IpPermissions\": [{{\"IpProtocol\": \"-1\", \"UserIdGroupPairs\": [{{\"GroupName\": \"default\"}}]}}]}}"
            )
        });
        let groups: Vec<String> = groups.collect();
        let text = format!("{{\"SecurityGroups\": [{}]}}", groups.join(","));
        let found = found("f.json", &text);
        let ambiguous = found.iter().filter(|(code, _)| *code == "ambiguous-name");
        let helps: Vec<&String> = ambiguous.map(|(_, help)| help).collect();
        assert!(helps.len() > 100);
        assert!(
            helps
                .iter()
                .all(|help| help.matches("default (").count() == 5)
        );
        assert!(helps[0].ends_with(" and 995 more"), "{}", helps[0]);
    }
}
