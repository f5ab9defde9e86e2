//! Ports: whose groups, which addresses.

use std::net::IpAddr;

use sg_common::layout::TIMEOUTS;

use super::super::document::{Node, fields};
use super::super::escape::quote;
use super::super::findings::Findings;
use super::super::text;
use super::super::tree::{Located, RemoteInterface};
use super::words::Known;
use super::{ID, prefix, present, wrong_type};

/// Reads one; `None` if nothing is enforced on it.
pub(super) fn read(
    node: &Node<'_>,
    known: &Known,
    findings: &mut Findings,
) -> Option<RemoteInterface> {
    if node.map().is_none() {
        wrong_type("a port", node, "an object", findings);
        return None;
    }
    let id = fields::text(node, present(node, &ID), findings);
    let id = match id.and_then(|id| text::id(findings, id, "eni-")) {
        Some(id) => id,
        None => Located {
            value: String::new(),
            at: node.at,
        },
    };
    // Ports of routers, of DHCP and the like: Neutron has no groups on them.
    let owner = fields::text(
        node,
        present(node, &["device_owner", "Device Owner"]),
        findings,
    );
    if owner.is_some_and(|owner| owner.value.starts_with("network:")) {
        return None;
    }
    let security = fields::boolean(node, "port_security_enabled", findings);
    if let Some(off) = security.filter(|security| !security.value) {
        let message = format!("port {} has its port security off", quote(&id.value));
        findings
            .warning("not-carried-over", off.at, message)
            .help("nothing is enforced on it, here neither, and it is a member of no group");
        return None;
    }
    let key = present(
        node,
        &["security_groups", "security_group_ids", "Security Groups"],
    );
    let Some(groups) = node.get(key) else {
        let message = format!("port {} stands here without its groups", quote(&id.value));
        findings
            .error("unknown-value", node.at, message)
            .help("`openstack port list --long -f json` prints them, and so does Neutron's API");
        return None;
    };
    let is_id = key != "Security Groups";
    let words = fields::texts(node, key, findings).into_iter();
    let words: Vec<_> = words
        .filter_map(|word| known.group(word, is_id, findings))
        .collect();
    let mac = fields::text(
        node,
        present(node, &["mac_address", "MAC Address"]),
        findings,
    );
    Some(RemoteInterface {
        mac: mac.and_then(|mac| text::mac(findings, mac)),
        addresses: addresses(node, findings),
        groups: Located {
            value: words,
            at: groups.at,
        },
        // Neutron lets no address out that is not the port's (fact 7.44).
        source_dest_check: security.map(|security| security.value),
        timeouts: [None; TIMEOUTS],
        id,
    })
}

/// Fixed addresses and allowed pairs: both may be sent from, and both are members of the port's groups.
fn addresses(node: &Node<'_>, findings: &mut Findings) -> Vec<Located<IpAddr>> {
    let mut addresses: Vec<Located<IpAddr>> = Vec::new();
    let fixed = present(node, &["fixed_ips", "Fixed IP Addresses"]);
    for entry in fields::list(node, fixed, findings) {
        let text = fields::text(entry, "ip_address", findings);
        addresses.extend(text.and_then(|text| text::unicast_address(findings, text)));
    }
    for entry in fields::list(node, "allowed_address_pairs", findings) {
        let text = fields::text(entry, "ip_address", findings);
        let Some(net) = text.and_then(|text| prefix(text, findings)) else {
            continue;
        };
        if net.value.prefix_len() != net.value.max_prefix_len() {
            let message = format!("the allowed addresses {} of a port", net.value);
            findings
                .warning("not-carried-over", net.at, message)
                .help("members and addresses of interfaces are single addresses here: list those that are used in TOML");
            continue;
        }
        addresses.push(Located {
            value: net.value.addr(),
            at: net.at,
        });
    }
    let mut seen = std::collections::HashSet::new();
    addresses.retain(|address| seen.insert(address.value));
    addresses
}
