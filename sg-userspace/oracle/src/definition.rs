//! A policy as the definition file that says it.

use std::{fmt::Write as _, net::IpAddr};

use crate::policy::{Group, Interface, Peer, Policy, Prefix, Rule, What};

/// The definition, one file in TOML. Devices are named after their interfaces.
pub fn definition(policy: &Policy) -> String {
    let mut text = String::new();
    if !policy.services.is_empty() {
        line(&mut text, "services", &addresses(&policy.services));
    }
    let _ = writeln!(text, "[conntrack]\nallowance = {}", policy.allowance);
    for (name, entries) in &policy.lists {
        let entries: Vec<String> = entries.iter().map(|entry| quoted(prefix(*entry))).collect();
        let _ = writeln!(text, "[prefix_lists.{name}]");
        line(&mut text, "entries", &array(&entries));
    }
    for (name, one) in &policy.groups {
        group(&mut text, name, one);
    }
    for (name, one) in &policy.interfaces {
        interface(&mut text, name, one);
    }
    text
}

fn line(text: &mut String, key: &str, value: &str) {
    let _ = writeln!(text, "{key} = {value}");
}

fn quoted(text: impl std::fmt::Display) -> String {
    format!("\"{text}\"")
}

fn array(elements: &[String]) -> String {
    format!("[{}]", elements.join(", "))
}

fn addresses(addresses: &[IpAddr]) -> String {
    array(&addresses.iter().map(quoted).collect::<Vec<_>>())
}

fn prefix(Prefix(address, length): Prefix) -> String {
    format!("{address}/{length}")
}

fn group(text: &mut String, name: &str, group: &Group) {
    let _ = writeln!(text, "[groups.{name}]");
    if group.reevaluate {
        line(text, "on_revoke", "\"reevaluate\"");
    }
    for (key, rules) in [("ingress", &group.ingress), ("egress", &group.egress)] {
        let rules: Vec<String> = rules
            .iter()
            .map(|rule| format!("\n  {}", entry(rule)))
            .collect();
        line(text, key, &array(&rules));
    }
    if !group.members.is_empty() {
        let _ = writeln!(text, "[members.{name}]");
        line(text, "addresses", &addresses(&group.members));
    }
}

fn entry(rule: &Rule) -> String {
    let peer = match &rule.peer {
        Peer::Prefix(net) => format!("cidr = \"{}\"", prefix(*net)),
        Peer::List(name) => format!("prefix_list = \"{name}\""),
        Peer::Group(name) => format!("group = \"{name}\""),
    };
    let what = match rule.what {
        What::All => "protocol = \"all\"".into(),
        What::Tcp(low, high) => ports("tcp", low, high),
        What::Udp(low, high) => ports("udp", low, high),
        What::Icmp(kind, code) => icmp("icmp", kind, code),
        What::Icmpv6(kind, code) => icmp("icmpv6", kind, code),
        What::Number(number) => format!("protocol = {number}"),
    };
    format!("{{ {what}, {peer} }}")
}

fn ports(protocol: &str, low: u16, high: u16) -> String {
    if low == high {
        format!("protocol = \"{protocol}\", ports = {low}")
    } else {
        format!("protocol = \"{protocol}\", ports = \"{low}-{high}\"")
    }
}

fn icmp(protocol: &str, kind: Option<u8>, code: Option<u8>) -> String {
    let number = |value: Option<u8>| value.map_or(-1, i16::from);
    let kind = number(kind);
    match code {
        None => format!("protocol = \"{protocol}\", type = {kind}"),
        Some(code) => format!("protocol = \"{protocol}\", type = {kind}, code = {code}"),
    }
}

fn interface(text: &mut String, name: &str, one: &Interface) {
    let _ = writeln!(text, "[interfaces.{name}]");
    let orientation = if one.host { "host" } else { "own" };
    line(text, "orientation", &quoted(orientation));
    line(
        text,
        "groups",
        &array(&one.groups.iter().map(quoted).collect::<Vec<_>>()),
    );
    if let Some(own) = &one.addresses {
        line(text, "addresses", &addresses(own));
    }
    let switches = [
        ("source_dest_check", one.source_dest_check, one.host),
        ("tcp_loose", one.tcp_loose, false),
        ("dhcp", one.dhcp, true),
        ("mld", one.mld, true),
        ("nd_redirect", one.nd_redirect, false),
    ];
    for (key, value, default) in switches {
        if value != default {
            line(text, key, &value.to_string());
        }
    }
    if one.track_always {
        line(text, "track", "\"always\"");
    }
    if one.icmp_strict {
        line(text, "icmp_errors", "\"strict\"");
    }
    if !one.ethertypes.is_empty() {
        let kinds: Vec<String> = one
            .ethertypes
            .iter()
            .map(|kind| format!("{kind:#06x}"))
            .collect();
        line(text, "ethertypes", &array(&kinds));
    }
    if let Some(allowance) = one.allowance {
        line(text, "allowance", &allowance.to_string());
    }
    if one.reserve != 0 {
        line(text, "reserve", &one.reserve.to_string());
    }
    if !one.timeouts.is_empty() {
        let lives: Vec<String> = one
            .timeouts
            .iter()
            .map(|(name, seconds)| format!("{name} = {seconds}"))
            .collect();
        let _ = writeln!(text, "timeouts = {{ {} }}", lives.join(", "));
    }
}
