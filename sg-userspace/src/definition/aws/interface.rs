//! Network interfaces: who is in which group, and which of them is this host's (facts 1.22, 1.28, 3.21, 5.5, 7.5).

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use sg_common::layout::{TIMEOUTS, Timeout};

use super::super::document::{Node, fields};
use super::super::escape::quote;
use super::super::findings::Findings;
use super::super::text;
use super::super::tree::{Located, RemoteInterface};
use super::{Answers, distinct, text_of};
use crate::model::timeout_range;

/// Bits of the addresses of a delegated prefix that is taken address by address: AWS's IPv4 prefixes have 4, those
/// of IPv6 48.
const EXPANDED_BITS: u8 = 8;

/// All interfaces.
pub(super) fn read(answers: &Answers<'_, '_>, findings: &mut Findings) -> Vec<RemoteInterface> {
    let described = distinct(&answers.interfaces, "NetworkInterfaceId", "eni-", findings);
    let read = |(id, node)| interface(id, node, findings);
    described.into_iter().map(read).collect()
}

fn interface(id: Located<String>, node: &Node<'_>, findings: &mut Findings) -> RemoteInterface {
    let mac = text_of(node, "MacAddress", findings);
    let mac = mac.and_then(|text| text::mac(findings, text));
    let mut addresses = addresses(node, findings);
    let whole = delegated(&id.value, node, &mut addresses, findings);
    let mut seen = HashSet::with_capacity(addresses.len());
    addresses.retain(|address| seen.insert(address.value));
    let check = fields::boolean(node, "SourceDestCheck", findings);
    RemoteInterface {
        groups: groups(&id, node, findings),
        id,
        mac,
        addresses,
        // What it sends from addresses that are not listed would be taken for forged.
        source_dest_check: check.map(|check| check.value && whole),
        timeouts: timeouts(node, findings),
    }
}

/// Private addresses, primary and secondary; public ones that are associated with them are no members (fact 1.26).
fn addresses(node: &Node<'_>, findings: &mut Findings) -> Vec<Located<IpAddr>> {
    let mut texts = Vec::new();
    texts.extend(text_of(node, "PrivateIpAddress", findings));
    texts.extend(text_of(node, "Ipv6Address", findings));
    for (list, key) in [
        ("PrivateIpAddresses", "PrivateIpAddress"),
        ("Ipv6Addresses", "Ipv6Address"),
    ] {
        for address in fields::list(node, list, findings) {
            texts.extend(text_of(address, key, findings));
        }
    }
    let parsed = texts.into_iter();
    parsed
        .filter_map(|text| text::unicast_address(findings, text))
        .collect()
}

/// Adds the addresses of delegated prefixes; false if there is one with too many.
fn delegated(
    id: &str,
    node: &Node<'_>,
    addresses: &mut Vec<Located<IpAddr>>,
    findings: &mut Findings,
) -> bool {
    let mut whole = true;
    for (list, key) in [
        ("Ipv4Prefixes", "Ipv4Prefix"),
        ("Ipv6Prefixes", "Ipv6Prefix"),
    ] {
        for prefix in fields::list(node, list, findings) {
            let Some(text) = text_of(prefix, key, findings) else {
                continue;
            };
            let Some(net) = text::cidr(findings, text) else {
                continue;
            };
            if net.value.max_prefix_len() - net.value.prefix_len() <= EXPANDED_BITS {
                let all = hosts(net.value).map(|value| Located { value, at: net.at });
                addresses.extend(all);
                continue;
            }
            whole = false;
            let message = format!(
                "the prefix {} delegated to {} has too many addresses to be members of its groups",
                net.value,
                quote(id)
            );
            findings
                .warning("not-carried-over", net.at, message)
                .help("rules that refer to the groups do not match them: give the prefix as `cidr`; the interface's source and destination check is off");
        }
    }
    whole
}

/// Every address of a prefix: those at its ends belong to it as well.
fn hosts(net: IpNet) -> Box<dyn Iterator<Item = IpAddr>> {
    match net {
        IpNet::V4(net) => {
            let (first, last) = (u32::from(net.network()), u32::from(net.broadcast()));
            Box::new((first..=last).map(|bits| Ipv4Addr::from(bits).into()))
        }
        IpNet::V6(net) => {
            let (first, last) = (u128::from(net.network()), u128::from(net.broadcast()));
            Box::new((first..=last).map(|bits| Ipv6Addr::from(bits).into()))
        }
    }
}

/// The groups by id, or by name where there is none.
fn groups(
    id: &Located<String>,
    node: &Node<'_>,
    findings: &mut Findings,
) -> Located<Vec<Located<String>>> {
    let Some(list) = node.get("Groups") else {
        let message = format!("{} names no groups", quote(&id.value));
        findings.warning("not-carried-over", node.at, message).help(
            "it is a member of none; on this host nothing would pass it: leave `--query` out",
        );
        return Located {
            value: Vec::new(),
            at: node.at,
        };
    };
    let mut groups = Vec::new();
    for group in fields::list(node, "Groups", findings) {
        if let Some(word) = text_of(group, "GroupId", findings) {
            groups.extend(text::id(findings, word, "sg-"));
        } else if let Some(word) = text_of(group, "GroupName", findings) {
            groups.push(Located {
                value: text::name_of(word.value),
                at: word.at,
            });
        } else {
            fields::missing(group, "GroupId", findings);
        }
    }
    Located {
        value: groups,
        at: list.at,
    }
}

fn timeouts(node: &Node<'_>, findings: &mut Findings) -> [Option<u32>; TIMEOUTS] {
    let mut timeouts = [None; TIMEOUTS];
    let Some(configuration) = node.get("ConnectionTrackingConfiguration") else {
        return timeouts;
    };
    for (key, timeout) in [
        ("TcpEstablishedTimeout", Timeout::TcpEstablished),
        ("UdpStreamTimeout", Timeout::UdpStream),
        ("UdpTimeout", Timeout::Udp),
    ] {
        let Some(seconds) = fields::integer(configuration, key, findings) else {
            continue;
        };
        let range = timeout_range(timeout as usize);
        let fits = u32::try_from(seconds.value).ok();
        let fits = fits.filter(|seconds| range.contains(seconds));
        if fits.is_none() {
            let message = format!("{} of {} seconds", quote(key), seconds.value);
            findings
                .error("InvalidParameterValue", seconds.at, message)
                .help(format!("{} to {}", range.start(), range.end()));
        }
        timeouts[timeout as usize] = fits;
    }
    timeouts
}
