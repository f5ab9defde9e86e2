//! Prefix lists: their names from `describe-managed-prefix-lists`, their entries from
//! `get-managed-prefix-list-entries`, or both from `describe-prefix-lists` (facts 1.29, 7.6).

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;

use super::super::document::fields;
use super::super::escape::quote;
use super::super::findings::Findings;
use super::super::text;
use super::super::tree::{At, Group, Located, PrefixList};
use super::{Answers, Part, distinct, text_of};
use crate::model::Peer;

/// All lists whose entries are known.
pub(super) fn read(
    answers: &Answers<'_, '_>,
    groups: &[Group],
    findings: &mut Findings,
) -> Vec<PrefixList> {
    let mut entries = entries(answers, findings);
    let mut lists = Vec::new();
    let mut without = Vec::new();
    for (id, node) in distinct(&answers.prefix_lists, "PrefixListId", "pl-", findings) {
        let mut own = entries.by_list.remove(&id.value);
        if let Some(cidrs) = node.get("Cidrs") {
            let at = cidrs.at;
            let cidrs = fields::texts(node, "Cidrs", findings).into_iter();
            let nets = cidrs.filter_map(|text| text::cidr(findings, text));
            let nets: Vec<_> = nets.collect();
            let answer = Answer {
                at,
                is_elements: false,
                nets,
            };
            let list = own.get_or_insert_with(|| List::new(id.clone()));
            list.answers.push(answer);
        }
        let Some(entries) = own.map(|own| own.settle(findings)) else {
            // Every region has some of AWS's own.
            if text_of(node, "OwnerId", findings).is_none_or(|owner| owner.value != "AWS") {
                without.push(id);
            }
            continue;
        };
        if let Some(family) = text_of(node, "AddressFamily", findings) {
            check_family(family, &entries, findings);
        }
        let name = text_of(node, "PrefixListName", findings);
        let name = name.map(|name| text::carried_name(findings, name));
        lists.push(PrefixList {
            name: name.unwrap_or_else(|| name_of(&id)),
            ids: vec![id],
            entries,
        });
    }
    for id in entries.order {
        if let Some(list) = entries.by_list.remove(&id) {
            let id = list.id.clone();
            let entries = list.settle(findings);
            lists.push(PrefixList {
                name: name_of(&id),
                ids: vec![id],
                entries,
            });
        }
    }
    report_unused(&without, groups, findings);
    lists
}

/// What a list is called of which only the id is known.
fn name_of(id: &Located<String>) -> Located<String> {
    Located {
        value: text::name_of(&id.value),
        at: id.at,
    }
}

/// Entries by the id of their list.
#[derive(Default)]
struct Entries {
    /// Ids as they come.
    order: Vec<String>,
    by_list: HashMap<String, List>,
}

/// What all answers say of one list.
struct List {
    id: Located<String>,
    /// Entries of pages that others follow.
    pages: Vec<Located<IpNet>>,
    /// Answers that are whole, or last pages.
    answers: Vec<Answer>,
}

struct Answer {
    at: At,
    /// Whether it is elements of a file that `--query` left.
    is_elements: bool,
    nets: Vec<Located<IpNet>>,
}

impl List {
    fn new(id: Located<String>) -> Self {
        Self {
            id,
            pages: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// All entries. Only pages are joined: of answers that differ one is left over from another time, and their
    /// union would keep what was removed.
    fn settle(self, findings: &mut Findings) -> Vec<Located<IpNet>> {
        let nets = |answer: &Answer| -> HashSet<IpNet> {
            answer.nets.iter().map(|net| net.value).collect()
        };
        if let Some((first, others)) = self.answers.split_first() {
            let said = nets(first);
            if let Some(other) = others.iter().find(|other| nets(other) != said) {
                let message = format!(
                    "the entries of {} are given twice, and differently",
                    quote(&self.id.value)
                );
                findings
                    .error("duplicate-id", other.at, message)
                    .related(first.at, "first here")
                    .help(
                        "the files are of different times: fetch them anew, and leave old ones out",
                    );
            }
        }
        let mut entries = self.pages;
        // Others say the same.
        entries.extend(
            self.answers
                .into_iter()
                .next()
                .map(|first| first.nets)
                .into_iter()
                .flatten(),
        );
        entries
    }
}

/// Entries of one list may stand in several files, page by page.
fn entries(answers: &Answers<'_, '_>, findings: &mut Findings) -> Entries {
    let mut entries = Entries::default();
    for page in &answers.entries {
        let Some(id) = text::id(findings, page.list, "pl-") else {
            continue;
        };
        let list = entries.by_list.entry(id.value.clone()).or_insert_with(|| {
            entries.order.push(id.value.clone());
            List::new(id)
        });
        let mut nets = Vec::with_capacity(page.nodes.len());
        for node in page.nodes {
            match text_of(node, "Cidr", findings) {
                Some(text) => nets.extend(text::cidr(findings, text)),
                None if node.get("Cidr").is_none() => fields::missing(node, "Cidr", findings),
                None => {}
            }
        }
        let at = page.nodes.first().map_or(page.list.at, |node| node.at);
        let is_elements = page.part == Part::Element;
        match list.answers.last_mut() {
            _ if page.part == Part::Page => list.pages.extend(nets),
            Some(last) if is_elements && last.is_elements && last.at.file == at.file => {
                last.nets.extend(nets);
            }
            _ => list.answers.push(Answer {
                at,
                is_elements,
                nets,
            }),
        }
    }
    entries
}

/// A list has entries of one family.
fn check_family(family: Located<&str>, entries: &[Located<IpNet>], findings: &mut Findings) {
    let ipv6 = match family.value {
        "IPv4" => false,
        "IPv6" => true,
        other => {
            let message = format!("{} is no address family", quote(other));
            findings
                .error("InvalidParameterValue", family.at, message)
                .help("IPv4 or IPv6");
            return;
        }
    };
    let other = entries
        .iter()
        .find(|net| matches!(net.value, IpNet::V6(_)) != ipv6);
    if let Some(entry) = other {
        let message = format!("{} is in a list of {}", entry.value, family.value);
        findings
            .error("InvalidParameterValue", entry.at, message)
            .related(family.at, "the list says it here");
    }
}

/// Lists without entries that no rule refers to. Where a rule does, that is found later.
fn report_unused(without: &[Located<String>], groups: &[Group], findings: &mut Findings) {
    let mut used = HashSet::new();
    for group in groups {
        let entries = group.ingress.iter().chain(group.egress.iter().flatten());
        for peer in entries.flat_map(|entry| &entry.peers) {
            if let Peer::PrefixList(id) = &peer.value {
                used.insert(id.as_str());
            }
        }
    }
    let mut unused = without
        .iter()
        .filter(|id| !used.contains(id.value.as_str()));
    let Some(first) = unused.next() else { return };
    let message = match unused.count() {
        0 => format!(
            "the prefix list {} is left out: its entries are not here",
            quote(&first.value)
        ),
        more => format!(
            "the prefix list {} and {more} more are left out: their entries are not here",
            quote(&first.value)
        ),
    };
    findings
        .warning("not-carried-over", first.at, message)
        .help("no rule refers to them; `sgctl import aws` shows how to fetch entries");
}
