//! What clouds' formats have no words for: the host's settings, its interfaces, members elsewhere.

use sg_common::layout::TIMEOUT_DEFAULTS;
use toml_edit::{DocumentMut, InlineTable, Item, Table, Value};

use super::ConvertedFile;
use super::toml::{array, parent, text};
use crate::definition::is_name;
use crate::model::{
    Conntrack, Hook, IcmpErrors, Interface, InterfaceSettings, Model, Orientation, Track,
};

/// The file beside those of a cloud, unless there is nothing to say.
pub(super) fn file(model: &Model, left_out: &mut Vec<String>) -> Option<ConvertedFile> {
    let mut document = DocumentMut::new();
    settings(model, &mut document);
    members(model, &mut document);
    interfaces(model, &mut document, left_out);
    (!document.is_empty()).then(|| ConvertedFile {
        name: "host.toml".into(),
        text: document.to_string(),
        holds: "interfaces, members elsewhere and settings of the host",
    })
}

/// Services and connection tracking.
pub(super) fn settings(model: &Model, document: &mut DocumentMut) {
    if !model.services.is_empty() {
        let services = model.services.iter();
        let services = services.map(|address| text(&address.to_string()));
        document.insert("services", array(services).into());
    }
    let default = Conntrack::default();
    let mut table = Table::new();
    if model.conntrack.allowance != default.allowance {
        let allowance = i64::from(model.conntrack.allowance);
        table.insert("allowance", Value::from(allowance).into());
    }
    if model.conntrack.accounting != default.accounting {
        let accounting = model.conntrack.accounting;
        table.insert("accounting", Value::from(accounting).into());
    }
    if !table.is_empty() {
        document.insert("conntrack", Item::Table(table));
    }
}

/// Members on other hosts.
pub(super) fn members(model: &Model, document: &mut DocumentMut) {
    for (group, addresses) in &model.members {
        let mut table = Table::new();
        let addresses = addresses.iter().map(|address| text(&address.to_string()));
        table.insert("addresses", array(addresses).into());
        parent(document, "members").insert(group, Item::Table(table));
    }
}

/// Enforced interfaces.
pub(super) fn interfaces(model: &Model, document: &mut DocumentMut, left_out: &mut Vec<String>) {
    for (name, of) in &model.interfaces {
        let id = model.ids.interfaces.get(name);
        let key = match is_name(name) {
            true => name.clone(),
            false => {
                let key = renamed(model, name);
                left_out.push(format!("the name of interface {name}, which is {key} now"));
                key
            }
        };
        let table = interface(&key, id, of);
        parent(document, "interfaces").insert(&key, Item::Table(table));
    }
}

/// A name for an interface that is called by its device, of which more is allowed.
fn renamed(model: &Model, name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let mut key: String = name.chars().map(plain).collect();
    while model.interfaces.contains_key(&key) || !is_name(&key) {
        key.push('_');
    }
    key
}

fn interface(name: &str, id: Option<&String>, interface: &Interface) -> Table {
    let settings = &interface.settings;
    let default = InterfaceSettings::new(name);
    let mut table = Table::new();
    let mut insert = |key: &str, value: Value| drop(table.insert(key, value.into()));
    if let Some(id) = id {
        insert("id", text(id));
    }
    if settings.device != default.device {
        insert("device", text(&settings.device));
    }
    if let Some(netns) = &settings.netns {
        insert("netns", text(netns));
    }
    insert(
        "groups",
        array(interface.groups.iter().map(|name| text(name))),
    );
    if let Some(orientation) = settings.orientation {
        let word = match orientation {
            Orientation::Own => "own",
            Orientation::Host => "host",
        };
        insert("orientation", text(word));
    }
    if let Some(addresses) = &interface.addresses {
        let addresses = addresses.iter().map(|address| text(&address.to_string()));
        insert("addresses", array(addresses));
    }
    if let Some(allowance) = settings.allowance {
        insert("allowance", i64::from(allowance).into());
    }
    if settings.reserve != default.reserve {
        insert("reserve", i64::from(settings.reserve).into());
    }
    if settings.hook != default.hook {
        let word = match settings.hook {
            Hook::Auto => "auto",
            Hook::Xdp => "xdp",
            Hook::XdpGeneric => "xdp-generic",
            Hook::Tc => "tc",
        };
        insert("hook", text(word));
    }
    if settings.track == Track::Always {
        insert("track", text("always"));
    }
    if settings.icmp_errors == IcmpErrors::Strict {
        insert("icmp_errors", text("strict"));
    }
    for (key, on, usual) in [
        ("tcp_loose", settings.tcp_loose, default.tcp_loose),
        ("dhcp", settings.dhcp, default.dhcp),
        ("mld", settings.mld, default.mld),
        ("nd_redirect", settings.nd_redirect, default.nd_redirect),
    ] {
        if on != usual {
            insert(key, on.into());
        }
    }
    if let Some(check) = settings.source_dest_check {
        insert("source_dest_check", check.into());
    }
    if !settings.ethertypes.is_empty() {
        let kinds = settings.ethertypes.iter();
        insert(
            "ethertypes",
            array(kinds.map(|kind| i64::from(*kind).into())),
        );
    }
    let timeouts: InlineTable = TIMEOUT_DEFAULTS
        .into_iter()
        .zip(settings.timeouts)
        .filter(|((_, usual), seconds)| usual != seconds)
        .map(|((name, _), seconds)| (name, i64::from(seconds)))
        .collect();
    if !timeouts.is_empty() {
        insert("timeouts", Value::InlineTable(timeouts));
    }
    table
}
