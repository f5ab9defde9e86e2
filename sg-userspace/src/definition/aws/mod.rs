//! What `aws ec2 describe-…` prints, and boto3's answers written as JSON (facts 7.1–7.6).
//!
//! Files are collected by what they list, whatever they are called and however the lists are wrapped; then groups,
//! interfaces and prefix lists are made of all of them together.

use std::collections::HashMap;

use super::document::{Node, Value, fields};
use super::escape::quote;
use super::findings::{Findings, SYNTAX};
use super::read::Input;
use super::text;
use super::tree::{At, File, Located};

mod group;
mod interface;
mod prefix_list;
mod rule;
#[cfg(test)]
mod tests;

pub(super) fn read(inputs: &[Input<'_>], findings: &mut Findings) -> File {
    let mut answers = Answers::default();
    for input in inputs {
        match &input.document {
            Some(document) => {
                answers.file = list_of_file(&input.source.name);
                answers.document(document, findings);
            }
            None => {
                let at = At {
                    file: input.file,
                    start: 0,
                    end: 0,
                };
                findings
                    .error(SYNTAX, at, "this is not JSON")
                    .help("the AWS CLI prints it with `--output json`");
            }
        }
    }
    answers.report_missing_pages(findings);
    let groups = group::read(&answers, findings);
    let prefix_lists = prefix_list::read(&answers, &groups, findings);
    File {
        groups,
        prefix_lists,
        remote_interfaces: interface::read(&answers, findings),
        ..File::default()
    }
}

/// Kinds of lists that calls answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Groups,
    Rules,
    Interfaces,
    PrefixLists,
    Entries,
}

impl Kind {
    const ALL: [Self; 5] = [
        Self::Groups,
        Self::Rules,
        Self::Interfaces,
        Self::PrefixLists,
        Self::Entries,
    ];

    /// Under what an answer has the list.
    const fn key(self) -> &'static str {
        match self {
            Self::Groups => "SecurityGroups",
            Self::Rules => "SecurityGroupRules",
            Self::Interfaces => "NetworkInterfaces",
            Self::PrefixLists => "PrefixLists",
            Self::Entries => "Entries",
        }
    }

    /// The kind of list that has such elements.
    fn of_element(element: &Node<'_>) -> Option<Self> {
        // Rules name their group, interfaces theirs, so that the order matters.
        const KEYS: [(&str, Kind); 5] = [
            ("SecurityGroupRuleId", Kind::Rules),
            ("NetworkInterfaceId", Kind::Interfaces),
            ("PrefixListId", Kind::PrefixLists),
            ("Cidr", Kind::Entries),
            ("GroupId", Kind::Groups),
        ];
        let known = KEYS.iter().find(|(key, _)| element.get(key).is_some());
        known.map(|(_, kind)| *kind)
    }
}

/// What all files list.
#[derive(Default)]
struct Answers<'n, 's> {
    groups: Vec<&'n Node<'s>>,
    rules: Vec<&'n Node<'s>>,
    interfaces: Vec<&'n Node<'s>>,
    prefix_lists: Vec<&'n Node<'s>>,
    entries: Vec<Entries<'n, 's>>,
    pages: [Pages; Kind::ALL.len()],
    /// The prefix list that the name of the file at hand speaks of.
    file: Option<&'n str>,
}

/// Entries of a prefix list.
struct Entries<'n, 's> {
    list: Located<&'n str>,
    nodes: &'n [Node<'s>],
    part: Part,
}

/// What part of an answer is at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// A page that others follow.
    Page,
    /// An answer, or its last page.
    Last,
    /// One of the elements that `--query` left.
    Element,
}

/// Answers of one kind.
#[derive(Clone, Copy, Default)]
struct Pages {
    /// Where the first stands that is followed by another.
    continued: Option<At>,
    /// Whether one is not.
    last: bool,
}

impl<'n, 's> Answers<'n, 's> {
    /// An answer, a list of answers such as pages, or what `--query` left of one.
    fn document(&mut self, node: &'n Node<'s>, findings: &mut Findings) {
        match node.list() {
            Some(nodes) => {
                for node in nodes {
                    self.object(node, findings);
                }
            }
            None => self.object(node, findings),
        }
    }

    fn object(&mut self, node: &'n Node<'s>, findings: &mut Findings) {
        let has = |kind: &Kind| {
            let keys = node.map().unwrap_or_default().iter();
            keys.map(|(key, _)| &*key.value)
                .any(|key| key == kind.key())
        };
        let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(has).collect();
        for kind in &kinds {
            self.page(node, *kind, findings);
        }
        if !kinds.is_empty() {
            return;
        }
        match Kind::of_element(node) {
            Some(kind) => {
                let elements = std::slice::from_ref(node);
                self.elements(kind, Part::Element, node, elements, findings);
            }
            None if node.map().is_some_and(<[_]>::is_empty) => {}
            None => {
                let message = match node.map() {
                    Some(_) => "this is no group, rule, interface or prefix list".to_owned(),
                    None => format!("an object is expected, not {}", node.kind()),
                };
                findings
                    .error("wrong-type", node.at, message)
                    .help("leave `--query` out, or keep the fields that AWS names");
            }
        }
    }

    fn page(&mut self, node: &'n Node<'s>, kind: Kind, findings: &mut Findings) {
        let token = node.get("NextToken");
        let token = token.filter(|token| token.value != Value::String("".into()));
        let part = match token {
            Some(_) => Part::Page,
            None => Part::Last,
        };
        let pages = &mut self.pages[kind as usize];
        match token {
            Some(token) if pages.continued.is_none() => pages.continued = Some(token.at),
            Some(_) => {}
            None => pages.last = true,
        }
        let elements = fields::list(node, kind.key(), findings);
        self.elements(kind, part, node, elements, findings);
    }

    fn elements(
        &mut self,
        kind: Kind,
        part: Part,
        parent: &'n Node<'s>,
        nodes: &'n [Node<'s>],
        findings: &mut Findings,
    ) {
        let list = match kind {
            Kind::Groups => &mut self.groups,
            Kind::Rules => &mut self.rules,
            Kind::Interfaces => &mut self.interfaces,
            Kind::PrefixLists => &mut self.prefix_lists,
            Kind::Entries => {
                self.entries(part, parent, nodes, findings);
                return;
            }
        };
        for node in nodes {
            if node.map().is_some() {
                list.push(node);
            } else {
                let message = format!(
                    "{} must hold objects, not {}",
                    quote(kind.key()),
                    node.kind()
                );
                findings.error("wrong-type", node.at, message);
            }
        }
    }

    /// Entries do not say whose they are: what stands around them does, or the name of the file.
    fn entries(
        &mut self,
        part: Part,
        parent: &'n Node<'s>,
        nodes: &'n [Node<'s>],
        findings: &mut Findings,
    ) {
        let wrapper = match fields::text(parent, "PrefixListId", findings) {
            Some(id) => Some(id),
            None => self.file.map(|value| Located {
                value,
                at: parent.at,
            }),
        };
        match wrapper {
            Some(list) => self.entries.push(Entries { list, nodes, part }),
            None => {
                findings
                    .error("missing-key", parent.at, "these entries are of a prefix list that is not named")
                    .help("call the file by the list's id, such as pl-0123456789abcdef0.json, or write {\"PrefixListId\": \"pl-…\", \"Entries\": […]}");
            }
        }
    }

    /// Whether the rows of `describe-security-group-rules` are all there are: a group that has none among them has
    /// no rules. An answer that a filter has limited cannot be told from a whole one, so it is taken as one: it
    /// lets less through, and where the groups are described, the difference is said.
    fn has_all_rules(&self) -> bool {
        let pages = self.pages[Kind::Rules as usize];
        let ended = pages.last || pages.continued.is_none();
        ended && (pages.last || !self.rules.is_empty())
    }

    /// Says which kinds of answers go on in a page that no file holds.
    fn report_missing_pages(&self, findings: &mut Findings) {
        for (kind, pages) in Kind::ALL.into_iter().zip(self.pages) {
            if let (Some(at), false) = (pages.continued, pages.last) {
                let message = format!("this is not the whole: there are more {}", kind.key());
                findings
                    .warning("not-carried-over", at, message)
                    .help("let the AWS CLI fetch all pages (leave out --max-items and --no-paginate), or put all of them here");
            }
        }
    }
}

/// The id in a file name such as `pl-0123.json` or `offices.pl-0123.entries.json`.
fn list_of_file(name: &str) -> Option<&str> {
    let name = name.rsplit('/').next()?;
    let mut places = name.rmatch_indices("pl-").map(|(start, _)| start);
    places.find_map(|start| {
        let own = |byte: &u8| byte.is_ascii_alphanumeric();
        let begins = !name.as_bytes()[..start].last().is_some_and(own);
        let digits = name.as_bytes()[start + 3..]
            .iter()
            .take_while(|byte| own(byte));
        let digits = digits.count();
        (begins && digits > 0).then(|| &name[start..start + 3 + digits])
    })
}

/// Things with their ids, those that several files describe in the same words once.
fn distinct<'n, 's>(
    nodes: &[&'n Node<'s>],
    key: &str,
    prefix: &str,
    findings: &mut Findings,
) -> Vec<(Located<String>, &'n Node<'s>)> {
    let mut known: HashMap<String, &Node<'_>> = HashMap::with_capacity(nodes.len());
    let mut distinct = Vec::with_capacity(nodes.len());
    for node in nodes {
        let Some(id) = fields::text(node, key, findings) else {
            if node.get(key).is_none() {
                fields::missing(node, key, findings);
            }
            continue;
        };
        let Some(id) = text::id(findings, id, prefix) else {
            continue;
        };
        match known.get(&id.value) {
            None => {
                known.insert(id.value.clone(), node);
                distinct.push((id, *node));
            }
            Some(first) if is_same(first, node) => {}
            Some(first) => {
                let message = format!("{} is described twice, and differently", quote(&id.value));
                findings
                    .error("duplicate-id", id.at, message)
                    .related(first.at, "first here")
                    .help("the files are of different times: fetch them anew");
            }
        }
    }
    distinct
}

/// Whether two values say the same, wherever they stand.
fn is_same(one: &Node<'_>, other: &Node<'_>) -> bool {
    match (&one.value, &other.value) {
        (Value::List(one), Value::List(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .zip(other)
                    .all(|(one, other)| is_same(one, other))
        }
        (Value::Map(one), Value::Map(other)) => {
            let of_other: HashMap<&str, &Node<'_>> = other
                .iter()
                .map(|(key, node)| (&*key.value, node))
                .collect();
            one.len() == other.len()
                && one.iter().all(|(key, node)| {
                    let other = of_other.get(&*key.value);
                    other.is_some_and(|other| is_same(node, other))
                })
        }
        (one, other) => one == other,
    }
}

/// Text that is not empty.
fn text_of<'n>(node: &'n Node<'_>, key: &str, findings: &mut Findings) -> Option<Located<&'n str>> {
    fields::text(node, key, findings).filter(|text| !text.value.is_empty())
}
