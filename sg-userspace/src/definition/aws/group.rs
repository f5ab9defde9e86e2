//! Groups, of `describe-security-groups` and of the rules that name them.

use std::collections::{HashMap, HashSet};

use sg_common::verdict::Direction;

use super::super::document::{Node, fields};
use super::super::escape::quote;
use super::super::findings::Findings;
use super::super::text;
use super::super::tree::{Entry, Group, Located};
use super::{Answers, distinct, rule, text_of};
use crate::model::OnRevoke;

/// Rules of a group by [`Direction`].
type Rules = [Vec<Entry>; 2];

/// What `describe-security-group-rules` says of something.
enum Rows<T> {
    /// Nothing.
    None,
    /// Some of it: there are pages that are not here.
    Part(T),
    /// All.
    Whole(T),
}

/// All groups.
pub(super) fn read(answers: &Answers<'_, '_>, findings: &mut Findings) -> Vec<Group> {
    let mut rows = rows(answers, findings);
    let described = distinct(&answers.groups, "GroupId", "sg-", findings);
    let mut groups = Vec::with_capacity(described.len());
    for (id, node) in described {
        let rules = rows.by_group.remove(&id.value).map(|(_, rules)| rules);
        let rules = match answers.has_all_rules() {
            true => Rows::Whole(rules.unwrap_or_default()),
            false => rules.map_or(Rows::None, Rows::Part),
        };
        groups.push(described_group(id, node, rules, findings));
    }
    let names = names(answers);
    for id in rows.order {
        if let Some((id, [ingress, egress])) = rows.by_group.remove(&id) {
            let name = match names.get(id.value.as_str()) {
                Some(name) => text::name_of(name),
                None => text::name_of(&id.value),
            };
            groups.push(Group {
                name: Located {
                    value: name,
                    at: id.at,
                },
                ids: vec![id],
                description: None,
                on_revoke: OnRevoke::Keep,
                ingress,
                egress: Some(egress),
            });
        }
    }
    groups
}

/// Rules of `describe-security-group-rules`.
#[derive(Default)]
struct AllRows {
    /// Ids of groups as they come.
    order: Vec<String>,
    by_group: HashMap<String, (Located<String>, Rules)>,
}

fn rows(answers: &Answers<'_, '_>, findings: &mut Findings) -> AllRows {
    let mut rows = AllRows::default();
    for (_, node) in distinct(&answers.rules, "SecurityGroupRuleId", "sgr-", findings) {
        let group = text_of(node, "GroupId", findings);
        let is_egress = fields::boolean(node, "IsEgress", findings);
        for (key, is_there) in [
            ("GroupId", group.is_some()),
            ("IsEgress", is_egress.is_some()),
        ] {
            if !is_there && node.get(key).is_none() {
                fields::missing(node, key, findings);
            }
        }
        let (Some(group), Some(is_egress)) = (group, is_egress) else {
            continue;
        };
        let Some(group) = text::id(findings, group, "sg-") else {
            continue;
        };
        let entry = rule::row(node, findings);
        let (_, rules) = rows.by_group.entry(group.value.clone()).or_insert_with(|| {
            rows.order.push(group.value.clone());
            (group, Rules::default())
        });
        let direction = match is_egress.value {
            true => Direction::Egress,
            false => Direction::Ingress,
        };
        rules[direction as usize].extend(entry);
    }
    rows
}

fn described_group(
    id: Located<String>,
    node: &Node<'_>,
    rows: Rows<Rules>,
    findings: &mut Findings,
) -> Group {
    let name = match text_of(node, "GroupName", findings) {
        Some(name) => text::carried_name(findings, name),
        None => Located {
            value: text::name_of(&id.value),
            at: id.at,
        },
    };
    let description = text_of(node, "Description", findings);
    let description = description.map(|text| text::carried_group_description(findings, text));
    let on_revoke = on_revoke(node, findings);
    let [by_ingress, by_egress] = match rows {
        Rows::None => [Rows::None, Rows::None],
        Rows::Part([ingress, egress]) => [Rows::Part(ingress), Rows::Part(egress)],
        Rows::Whole([ingress, egress]) => [Rows::Whole(ingress), Rows::Whole(egress)],
    };
    let ingress = rules(node, &name, Direction::Ingress, by_ingress, findings);
    let egress = rules(node, &name, Direction::Egress, by_egress, findings);
    Group {
        name,
        ids: vec![id],
        description,
        on_revoke,
        ingress,
        egress: Some(egress),
    }
}

/// The rules of one direction: those with ids where all of them are here, or any, else the group's permissions.
/// That there are none lets nothing through, either way (fact 7.52).
fn rules(
    node: &Node<'_>,
    name: &Located<String>,
    direction: Direction,
    rows: Rows<Vec<Entry>>,
    findings: &mut Findings,
) -> Vec<Entry> {
    let key = match direction {
        Direction::Ingress => "IpPermissions",
        Direction::Egress => "IpPermissionsEgress",
    };
    let has_key = node.map().unwrap_or_default().iter();
    let has_key = has_key.map(|(key, _)| &*key.value).any(|own| own == key);
    let is_whole = matches!(rows, Rows::Whole(_));
    let (Rows::Whole(rows) | Rows::Part(rows)) = rows else {
        if !has_key {
            let what = match direction {
                Direction::Ingress => "nothing comes in",
                Direction::Egress => "nothing leaves but replies",
            };
            let message = format!("group {} has no {}: {what}", quote(&name.value), quote(key));
            findings
                .warning("missing-key", name.at, message)
                .help("the AWS CLI prints it even if it is empty: leave `--query` out");
        }
        return permissions(node, key, findings);
    };
    if !has_key {
        return rows;
    }
    // What is wrong is said of the rows, where there are any.
    let mut unsaid = Findings::default();
    let by_rows = is_whole || !rows.is_empty();
    let permissions = match rows.is_empty() {
        true => permissions(node, key, findings),
        false => permissions(node, key, &mut unsaid),
    };
    compare(name, direction, by_rows, [&rows, &permissions], findings);
    if by_rows { rows } else { permissions }
}

fn permissions(node: &Node<'_>, key: &str, findings: &mut Findings) -> Vec<Entry> {
    let mut entries = Vec::new();
    let owner = text_of(node, "OwnerId", findings).map(|owner| owner.value);
    for permission in fields::list(node, key, findings) {
        rule::permission(permission, owner, &mut entries, findings);
    }
    entries
}

/// Says that the two sources of a group's rules disagree.
fn compare(
    name: &Located<String>,
    direction: Direction,
    by_rows: bool,
    [rows, permissions]: [&[Entry]; 2],
    findings: &mut Findings,
) {
    let of_rows: Vec<_> = rows.iter().filter_map(rule::identity).collect();
    let of_permissions: Vec<_> = permissions.iter().filter_map(rule::identity).collect();
    let (by_row, by_permission): (HashSet<_>, HashSet<_>) = (
        of_rows.iter().map(|(_, identity)| identity).collect(),
        of_permissions
            .iter()
            .map(|(_, identity)| identity)
            .collect(),
    );
    let only_rows = of_rows
        .iter()
        .filter(|(_, own)| !by_permission.contains(own));
    let only_permissions = of_permissions
        .iter()
        .filter(|(_, own)| !by_row.contains(own));
    let mut differing = only_rows.chain(only_permissions).map(|(at, _)| *at);
    let Some(first) = differing.next() else {
        return;
    };
    let taken = match by_rows {
        true => "the former is taken",
        false => "the latter is taken",
    };
    let message = format!(
        "the {} rules of group {} differ between describe-security-group-rules and describe-security-groups: {taken}",
        direction.name(),
        quote(&name.value)
    );
    findings
        .warning("sources-disagree", name.at, message)
        .related(first, "this is in one of the two only")
        .help("the files are of different times, or incomplete: fetch them anew");
}

/// What becomes of flows, as the group's tag says.
fn on_revoke(node: &Node<'_>, findings: &mut Findings) -> OnRevoke {
    let mut found = OnRevoke::default();
    for tag in fields::list(node, "Tags", findings) {
        let key = fields::text(tag, "Key", findings);
        if key.is_some_and(|key| key.value == text::ON_REVOKE)
            && let Some(value) = fields::text(tag, "Value", findings)
        {
            found = text::on_revoke(findings, value);
        }
    }
    found
}

/// Names of groups by id, as interfaces tell them.
fn names<'n>(answers: &Answers<'n, '_>) -> HashMap<&'n str, &'n str> {
    let mut names = HashMap::new();
    // What is wrong there is said where interfaces are read.
    let mut unsaid = Findings::default();
    for interface in &answers.interfaces {
        for group in fields::list(interface, "Groups", &mut unsaid) {
            let id = text_of(group, "GroupId", &mut unsaid);
            let name = text_of(group, "GroupName", &mut unsaid);
            if let (Some(id), Some(name)) = (id, name) {
                names.insert(id.value, name.value);
            }
        }
    }
    names
}
