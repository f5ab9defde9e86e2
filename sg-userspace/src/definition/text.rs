//! Values that every kind of file writes as text: names, descriptions (facts 1.31, 1.32), addresses and prefixes.

use std::net::IpAddr;

use ipnet::IpNet;

use super::escape::quote;
use super::findings::Findings;
use super::tree::{At, Located};
use crate::model::OnRevoke;

/// Tag of a group that says what becomes of tracked flows.
pub(super) const ON_REVOKE: &str = "sgctl:on_revoke";

/// Characters of a name or description.
const MAX: usize = 255;
/// What may stand in a group's name and description beside ASCII letters and digits (fact 1.32).
const OF_GROUPS: &str = " ._-:/()#,@[]+=&;{}!$*";
/// What may stand in a rule's description beside ASCII letters and digits (fact 1.31).
const OF_RULES: &str = " ._-:/()#,@[]+=;{}!$*";

/// How ids begin: what begins so is no name, lest a reference to what is not here finds something of that name.
const OF_IDS: [&str; 3] = ["sg-", "pl-", "eni-"];

/// Checks the name of a group, list or interface, which stands in `place`.
pub(super) fn check_name(findings: &mut Findings, place: &str, name: &Located<String>) {
    let text = name.value.as_str();
    if let Some(fault) = fault_of_name(text) {
        let message = format!("the name {} in `{place}` {fault}", quote(text));
        invalid(findings, name.at, message).help(help(OF_GROUPS));
    }
}

/// Whether a group, list or interface may be called so in TOML.
pub fn is_name(text: &str) -> bool {
    fault_of_name(text).is_none()
}

fn fault_of_name(text: &str) -> Option<String> {
    if text.is_empty() {
        Some("is empty".to_string())
    } else if text.trim() != text {
        Some("begins or ends with a space".into())
    } else if let Some(prefix) = prefix_of_id(text) {
        Some(format!("begins with `{prefix}`, which is for ids"))
    } else {
        fault_of(text, OF_GROUPS)
    }
}

/// What an id begins with, if a text begins with it, in whichever case.
fn prefix_of_id(text: &str) -> Option<&'static str> {
    let text = text.to_ascii_lowercase();
    let mut prefixes = OF_IDS.into_iter();
    prefixes.find(|prefix| text.starts_with(prefix))
}

/// A group's description.
pub(super) fn group_description(findings: &mut Findings, text: Located<&str>) -> Option<String> {
    description(findings, text, OF_GROUPS)
}

/// A rule's description.
pub(super) fn rule_description(findings: &mut Findings, text: Located<&str>) -> Option<String> {
    description(findings, text, OF_RULES)
}

/// A comment as the description of a rule: what is not allowed there becomes `_`, what is too long is cut.
pub(super) fn rule_comment(text: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || OF_RULES.contains(c);
    let plain = |c| if allowed(c) { c } else { '_' };
    let text: String = text.trim().chars().map(plain).take(MAX).collect();
    let says_something = text.contains(|c: char| c.is_ascii_alphanumeric());
    says_something.then_some(text)
}

fn description(findings: &mut Findings, text: Located<&str>, allowed: &str) -> Option<String> {
    if let Some(fault) = fault_of(text.value, allowed) {
        invalid(findings, text.at, format!("the description {fault}")).help(help(allowed));
        return None;
    }
    Some(text.value.into())
}

/// The name that a thing has in a cloud; what may not stand in a name here becomes `_`, which is said.
pub(super) fn carried_name(findings: &mut Findings, name: Located<&str>) -> Located<String> {
    let value = name_of(name.value);
    if value != name.value {
        let message = format!(
            "the name {} is taken as {}",
            quote(name.value),
            quote(&value)
        );
        findings
            .warning("renamed", name.at, message)
            .help(help(OF_GROUPS));
    }
    Located { value, at: name.at }
}

/// What may stand in a name, of any text.
pub(super) fn name_of(text: &str) -> String {
    let mut value = carried(text.trim(), OF_GROUPS);
    if value.is_empty() {
        value.push('_');
    }
    if let Some(prefix) = prefix_of_id(&value) {
        value.replace_range(prefix.len() - 1..prefix.len(), "_");
    }
    value.truncate(value.trim_end().len());
    value
}

/// The description that a group has in a cloud, changed in the same way.
pub(super) fn carried_group_description(findings: &mut Findings, text: Located<&str>) -> String {
    carried_description(findings, text, OF_GROUPS)
}

/// The description that a rule has in a cloud, changed in the same way.
pub(super) fn carried_rule_description(findings: &mut Findings, text: Located<&str>) -> String {
    carried_description(findings, text, OF_RULES)
}

fn carried_description(findings: &mut Findings, text: Located<&str>, allowed: &str) -> String {
    let value = carried(text.value, allowed);
    if value != text.value {
        let fault = fault_of(text.value, allowed).unwrap_or_default();
        findings
            .warning(
                "renamed",
                text.at,
                format!("the description is changed: it {fault}"),
            )
            .help(help(allowed));
    }
    value
}

fn carried(text: &str, allowed: &str) -> String {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || allowed.contains(c);
    let replaced = |c: char| if is_allowed(c) { c } else { '_' };
    text.chars().map(replaced).take(MAX).collect()
}

/// The value of the tag by which a group of a cloud says what becomes of tracked flows.
pub(super) fn on_revoke(findings: &mut Findings, text: Located<&str>) -> OnRevoke {
    match text.value {
        "keep" => OnRevoke::Keep,
        "reevaluate" => OnRevoke::Reevaluate,
        other => {
            let message = format!("{} is no value of `{ON_REVOKE}`", quote(other));
            invalid(findings, text.at, message).help("`keep` or `reevaluate`");
            OnRevoke::default()
        }
    }
}

/// An Ethernet address: six bytes in hexadecimal with `:` or `-` between them.
pub(super) fn mac(findings: &mut Findings, text: Located<&str>) -> Option<Located<[u8; 6]>> {
    let mut bytes = [0; 6];
    let mut parts = text.value.split([':', '-']);
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.len() == 2);
        let parsed = part.and_then(|part| u8::from_str_radix(part, 16).ok());
        *byte = match parsed {
            Some(parsed) => parsed,
            None => {
                let message = format!("{} is not an Ethernet address", quote(text.value));
                invalid(findings, text.at, message);
                return None;
            }
        };
    }
    if parts.next().is_some() {
        let message = format!("{} is not an Ethernet address", quote(text.value));
        invalid(findings, text.at, message);
        return None;
    }
    Some(Located {
        value: bytes,
        at: text.at,
    })
}

/// An id such as `sg-0123456789abcdef0`; those of other clouds have other shapes, so that only a prefix that
/// belongs to something else is refused.
pub(super) fn id(
    findings: &mut Findings,
    text: Located<&str>,
    prefix: &str,
) -> Option<Located<String>> {
    const PREFIXES: [&str; 4] = ["sg-", "sgr-", "pl-", "eni-"];
    let id = text.value;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    let of_another = PREFIXES
        .iter()
        .any(|other| *other != prefix && id.starts_with(other));
    if id.is_empty() || id.len() > MAX || !id.bytes().all(plain) || of_another {
        invalid(findings, text.at, format!("{} is not an id for this", quote(id)))
            .help(format!("{prefix} and up to 17 hexadecimal digits, or another cloud's id of letters, digits and `-_.:`"));
        return None;
    }
    Some(Located {
        value: id.into(),
        at: text.at,
    })
}

fn fault_of(text: &str, allowed: &str) -> Option<String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || allowed.contains(c);
    if let Some(character) = text.chars().find(|character| !is_allowed(*character)) {
        return Some(format!("contains `{character}`"));
    }
    let length = text.chars().count();
    (length > MAX).then(|| format!("has {length} characters"))
}

fn help(allowed: &str) -> String {
    format!("up to {MAX} of a-z, A-Z, 0-9, space and {}", allowed.trim())
}

/// A prefix; host bits are cut with a warning (fact 1.20).
pub(super) fn cidr(findings: &mut Findings, text: Located<&str>) -> Option<Located<IpNet>> {
    let Located { value: text, at } = text;
    let Some((address, len)) = text.split_once('/') else {
        not_a_prefix(findings, text, at);
        return None;
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return malformed(
            findings,
            at,
            format!("{} is not an address", quote(address)),
        );
    };
    refuse_mapped(findings, address, at)?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let digits = !len.is_empty() && len.bytes().all(|byte| byte.is_ascii_digit());
    // What has too many digits for 16 bits is too long as well.
    let net = match len.parse::<u16>() {
        _ if !digits => {
            let message = format!("{} is not a prefix length", quote(len));
            return malformed(findings, at, message);
        }
        Ok(len) if len <= longest => IpNet::new(address, len as u8).ok()?,
        _ => {
            let message = format!("prefix length {} is too long", quote(len));
            invalid(findings, at, message).help(format!("at most {longest} for this family"));
            return None;
        }
    };
    let value = net.trunc();
    if value != net {
        findings
            .warning(
                "host-bits",
                at,
                format!("{} has bits beyond its prefix", quote(text)),
            )
            .help(format!("it is taken as {value}; write that"));
    }
    Some(Located { value, at })
}

/// The address of an interface or member.
pub(super) fn unicast_address(
    findings: &mut Findings,
    text: Located<&str>,
) -> Option<Located<IpAddr>> {
    let address = address(findings, text)?;
    let kind = match address.value {
        ip if ip.is_unspecified() => "the unspecified address",
        ip if ip.is_loopback() => "a loopback address",
        ip if ip.is_multicast() => "a multicast address",
        IpAddr::V4(ip) if ip.is_broadcast() => "the broadcast address",
        _ => return Some(address),
    };
    invalid(findings, address.at, format!("{} is {kind}", address.value))
        .help("give the address that the interface sends from");
    None
}

/// An address of any kind.
pub(super) fn address(findings: &mut Findings, text: Located<&str>) -> Option<Located<IpAddr>> {
    let Located { value: text, at } = text;
    let Ok(address) = text.parse::<IpAddr>() else {
        let message = format!("{} is not an address", quote(text));
        let finding = invalid(findings, at, message);
        if text.contains('/') {
            finding.help("addresses stand here without a prefix length");
        }
        return None;
    };
    refuse_mapped(findings, address, at)?;
    Some(Located { value: address, at })
}

/// `::ffff:a.b.c.d` never stands in a packet of either family.
fn refuse_mapped(findings: &mut Findings, address: IpAddr, at: At) -> Option<()> {
    if let IpAddr::V6(mapped) = address
        && let Some(plain) = mapped.to_ipv4_mapped()
    {
        invalid(
            findings,
            at,
            format!("{address} is an IPv4 address in IPv6 form"),
        )
        .help(format!("write the IPv4 form: {plain}"));
        return None;
    }
    Some(())
}

fn not_a_prefix(findings: &mut Findings, text: &str, at: At) {
    let message = format!("{} is not in CIDR form", quote(text));
    let finding = findings.error("InvalidPermission.Malformed", at, message);
    finding.help(match text.parse::<IpAddr>() {
        Ok(address) => format!("a single address is written {}", IpNet::from(address)),
        Err(_) => "write an address, `/` and a prefix length: 10.0.0.0/8".into(),
    });
}

fn malformed<T>(findings: &mut Findings, at: At, message: String) -> Option<T> {
    findings
        .error("InvalidPermission.Malformed", at, message)
        .help("write an address, `/` and a prefix length: 10.0.0.0/8, 2001:db8::/32");
    None
}

fn invalid(
    findings: &mut Findings,
    at: At,
    message: impl Into<String>,
) -> &mut super::findings::Finding {
    findings.error("InvalidParameterValue", at, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: At = At {
        file: 0,
        start: 0,
        end: 0,
    };

    #[test]
    fn what_begins_like_an_id_is_no_name() {
        for (text, name) in [
            ("sg-1", "sg_1"),
            ("PL-0aaa", "PL_0aaa"),
            (" eni-x", "eni_x"),
        ] {
            assert!(!is_name(text.trim()), "{text}");
            assert_eq!(name_of(text), name);
        }
        for text in ["sgr", "plan-b", "eni", "eni_0"] {
            assert!(is_name(text), "{text}");
            assert_eq!(name_of(text), text);
        }
    }

    #[test]
    fn an_ethernet_address_has_six_bytes() {
        let read = |value| {
            let mut findings = Findings::default();
            let found = mac(&mut findings, Located { value, at: AT });
            (found.is_some(), findings.has_errors())
        };
        assert_eq!(read("02:fc:00:00:00:01"), (true, false));
        for bad in [
            "02:fc:00:00:00",
            "02:fc:00:00:00:01:02",
            "",
            "02:fc:00:00:00:0g",
        ] {
            assert_eq!(read(bad), (false, true), "{bad}");
        }
    }
}
