//! The whole model in our own format.

use ipnet::IpNet;
use sg_common::verdict::Direction;
use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, Value};

use super::clouds::has_own_id;
use super::{Converted, ConvertedFile, host};
use crate::model::{Group, Icmp, Model, OnRevoke, Peer, Ports, Rule, Traffic};

/// Elements of an array that stand on one line.
const ON_ONE_LINE: usize = 4;

pub(super) fn convert(model: &Model) -> Converted {
    let mut document = DocumentMut::new();
    let mut converted = Converted::default();
    host::settings(model, &mut document);
    if !model.prefix_lists.is_empty() {
        let lists = parent(&mut document, "prefix_lists");
        for (name, nets) in &model.prefix_lists {
            let mut list = Table::new();
            if let Some(id) = model.ids.prefix_lists.get(name) {
                list.insert("id", text(id).into());
            }
            let nets = nets.iter().map(|net| text(&net.to_string()));
            list.insert("entries", array(nets).into());
            lists.insert(name, Item::Table(list));
        }
    }
    if !model.groups.is_empty() {
        let groups = parent(&mut document, "groups");
        for (name, of) in &model.groups {
            let id = model.ids.groups.get(name);
            groups.insert(name, Item::Table(group(name, id, of)));
        }
    }
    host::members(model, &mut document);
    host::interfaces(model, &mut document, &mut converted.left_out);
    converted.files.push(ConvertedFile {
        name: "definition.toml".into(),
        text: document.to_string(),
        holds: "everything",
    });
    converted
}

/// A table that only holds others.
pub(super) fn parent<'d>(document: &'d mut DocumentMut, key: &str) -> &'d mut Table {
    let mut table = Table::new();
    table.set_implicit(true);
    let item = document.entry(key).or_insert(Item::Table(table));
    item.as_table_mut().expect("it was made as a table")
}

pub(super) fn text(text: &str) -> Value {
    Value::from(text)
}

/// Values in brackets, one a line if they are many or long.
pub(super) fn array(values: impl IntoIterator<Item = Value>) -> Value {
    let mut array: Array = values.into_iter().collect();
    let has_tables = array.iter().any(Value::is_inline_table);
    if has_tables || array.len() > ON_ONE_LINE {
        for value in array.iter_mut() {
            value.decor_mut().set_prefix("\n  ");
        }
        array.set_trailing_comma(true);
        array.set_trailing("\n");
    }
    Value::Array(array)
}

fn group(name: &str, id: Option<&String>, group: &Group) -> Table {
    let mut table = Table::new();
    if let Some(id) = id {
        table.insert("id", text(id).into());
    }
    if let Some(description) = &group.description {
        table.insert("description", text(description).into());
    }
    if group.on_revoke == OnRevoke::Reevaluate {
        table.insert("on_revoke", text("reevaluate").into());
    }
    for direction in Direction::ALL {
        let rules = group.rules(direction).iter();
        let rules = rules.map(|one| Value::InlineTable(rule(name, direction, one)));
        table.insert(direction.name(), array(rules).into());
    }
    table
}

fn rule(group: &str, direction: Direction, rule: &Rule) -> InlineTable {
    let mut table = InlineTable::new();
    traffic(&rule.traffic, &mut table);
    match &rule.peer {
        Peer::Cidr(net) => insert_net(&mut table, net),
        Peer::PrefixList(name) => drop(table.insert("prefix_list", text(name))),
        Peer::Group(name) => drop(table.insert("group", text(name))),
        Peer::GroupOf(name, family) => {
            table.insert("group", text(name));
            table.insert("family", text(family.name()));
        }
    }
    if let Some(description) = &rule.description {
        table.insert("description", text(description));
    }
    if !has_own_id(group, direction, rule) {
        table.insert("id", text(&rule.id.to_string()));
    }
    table
}

fn insert_net(table: &mut InlineTable, net: &IpNet) {
    table.insert("cidr", text(&net.to_string()));
}

fn traffic(traffic: &Traffic, table: &mut InlineTable) {
    let mut protocol = |name: Value| drop(table.insert("protocol", name));
    match traffic {
        Traffic::All => protocol(text("all")),
        Traffic::Tcp(range) => {
            protocol(text("tcp"));
            table.insert("ports", ports(range));
        }
        Traffic::Udp(range) => {
            protocol(text("udp"));
            table.insert("ports", ports(range));
        }
        Traffic::Icmp(kind) => {
            protocol(text("icmp"));
            icmp(kind, table);
        }
        Traffic::Icmpv6(kind) => {
            protocol(text("icmpv6"));
            icmp(kind, table);
        }
        Traffic::Protocol(number) => protocol(i64::from(*number).into()),
    }
}

fn ports(range: &Ports) -> Value {
    if range.from == range.to {
        i64::from(range.from).into()
    } else {
        text(&range.to_string())
    }
}

fn icmp(icmp: &Icmp, table: &mut InlineTable) {
    let (kind, code) = match *icmp {
        Icmp::Any => (-1, None),
        Icmp::Type(kind) => (i64::from(kind), None),
        Icmp::Code(kind, code) => (i64::from(kind), Some(i64::from(code))),
    };
    table.insert("type", kind.into());
    if let Some(code) = code {
        table.insert("code", code.into());
    }
}
