//! Groups and their rules.

use toml::de::DeValue;

use super::super::escape::quote;
use super::super::tree::{At, Entry, Group, Located};
use super::value::{Parser, Table, Value};
use crate::model::{Family, Icmp, OnRevoke, Peer, Ports, Traffic, protocol};

/// Keys of a group.
pub(super) const KEYS: &[&str] = &["id", "description", "on_revoke", "ingress", "egress"];

/// Keys of an entry.
const ENTRY: &[&str] = &[
    "protocol",
    "ports",
    "type",
    "code",
    "cidr",
    "prefix_list",
    "group",
    "family",
    "description",
    "id",
];

/// What an entry says, key by key.
#[derive(Default)]
struct Parts<'a> {
    protocol: Option<Value<'a>>,
    ports: Option<Value<'a>>,
    kind: Option<Value<'a>>,
    code: Option<Value<'a>>,
    family: Option<Value<'a>>,
    /// `cidr`, `prefix_list`, `group`: at most one may be given (fact 1.19).
    peers: Vec<(&'static str, Value<'a>)>,
}

/// Protocol of an entry, before its ports are known.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Protocol {
    All,
    Number(u8),
}

impl Protocol {
    /// `None`: all.
    pub(super) fn number(self) -> Option<u8> {
        match self {
            Self::All => None,
            Self::Number(number) => Some(number),
        }
    }
}

impl Parser<'_> {
    pub(super) fn group(&mut self, name: Located<String>, table: Table<'_>) -> Group {
        let mut group = Group {
            name,
            ids: Vec::new(),
            description: None,
            on_revoke: OnRevoke::Keep,
            ingress: Vec::new(),
            egress: None,
        };
        for (key, value) in self.keys(&table, KEYS) {
            match key {
                "id" => group.ids = self.id(value, "sg-").into_iter().collect(),
                "description" => group.description = self.group_description(value),
                "on_revoke" => {
                    let words = [
                        ("keep", OnRevoke::Keep),
                        ("reevaluate", OnRevoke::Reevaluate),
                    ];
                    if let Some(word) = self.choice(value, &words) {
                        group.on_revoke = word.value;
                    }
                }
                "ingress" => group.ingress = self.entries(value),
                _ => group.egress = Some(self.entries(value)),
            }
        }
        group
    }

    fn entries(&mut self, value: Value<'_>) -> Vec<Entry> {
        let mut entries = Vec::new();
        for element in self.array(value).into_iter().flatten() {
            if let Some(table) = self.entry_table(element, "the rule") {
                entries.push(self.entry(table));
            } else {
                self.wrong_type::<()>(element, "a table");
            }
        }
        entries
    }

    /// The table that an element of an array is.
    pub(super) fn entry_table<'a>(&self, element: Value<'a>, what: &'a str) -> Option<Table<'a>> {
        match element.inner {
            DeValue::Table(table) => Some(Table::new(table, element.at, what)),
            _ => None,
        }
    }

    fn entry(&mut self, table: Table<'_>) -> Entry {
        let mut entry = Entry {
            at: table.at,
            id: None,
            traffic: Vec::new(),
            peers: Vec::new(),
            description: None,
        };
        let mut parts = Parts::default();
        for (key, value) in self.keys(&table, ENTRY) {
            match key {
                "protocol" => parts.protocol = Some(value),
                "ports" => parts.ports = Some(value),
                "type" => parts.kind = Some(value),
                "code" => parts.code = Some(value),
                "family" => parts.family = Some(value),
                "description" => entry.description = self.rule_description(value),
                "id" => entry.id = self.rule_id(value),
                _ => parts.peers.push((key, value)),
            }
        }
        self.require(
            &table,
            "protocol",
            "one of \"tcp\", \"udp\", \"icmp\", \"icmpv6\", \"all\", or a protocol number",
        );
        if let Some(value) = parts.protocol
            && let Some(protocol) = self.protocol(value)
        {
            entry.traffic = self.traffic(protocol, value.at, &parts, table.at);
        }
        entry.peers = self.peers(&parts.peers, table);
        if let Some(value) = parts.family {
            self.of_family(value, &mut entry.peers);
        }
        entry
    }

    /// A group's members of one family only.
    fn of_family(&mut self, value: Value<'_>, peers: &mut Vec<Located<Peer>>) {
        let words = [("ipv4", Family::Ipv4), ("ipv6", Family::Ipv6)];
        let Some(family) = self.choice(value, &words) else {
            // Nothing is allowed to more than was asked for.
            peers.clear();
            return;
        };
        for peer in peers {
            match &mut peer.value {
                Peer::Group(name) => {
                    peer.value = Peer::GroupOf(std::mem::take(name), family.value);
                }
                Peer::Cidr(_) | Peer::PrefixList(_) | Peer::GroupOf(..) => {
                    self.invalid(value.at, "`family` belongs to `group`")
                        .help("prefixes are of the family that they are written in");
                    return;
                }
            }
        }
    }

    fn rule_id(&mut self, value: Value<'_>) -> Option<Located<crate::model::RuleId>> {
        let text = self.string(value)?;
        match text.value.parse() {
            Ok(value) => Some(Located { value, at: text.at }),
            Err(error) => {
                let message = format!("{} is not a rule id", quote(text.value));
                self.findings
                    .error("InvalidSecurityGroupRuleId.Malformed", text.at, message)
                    .help(format!(
                        "{error}; without `id` one is derived from the rule"
                    ));
                None
            }
        }
    }

    pub(super) fn protocol(&mut self, value: Value<'_>) -> Option<Protocol> {
        const WORDS: [(&str, Protocol); 6] = [
            ("tcp", Protocol::Number(protocol::TCP)),
            ("udp", Protocol::Number(protocol::UDP)),
            ("icmp", Protocol::Number(protocol::ICMP)),
            ("icmpv6", Protocol::Number(protocol::ICMPV6)),
            ("all", Protocol::All),
            ("-1", Protocol::All),
        ];
        let number = match value.inner {
            DeValue::Integer(_) => self.integer(value, -1..=255)?.value,
            DeValue::String(text) if plain_number(text).is_some_and(|number| number <= 255) => {
                plain_number(text)?.into()
            }
            DeValue::String(_) => return self.choice(value, &WORDS).map(|word| word.value),
            _ => return self.wrong_type(value, "a protocol name or number"),
        };
        // Only -1 does not fit.
        Some(u8::try_from(number).map_or(Protocol::All, Protocol::Number))
    }

    fn traffic(
        &mut self,
        protocol: Protocol,
        at: At,
        parts: &Parts<'_>,
        entry: At,
    ) -> Vec<Located<Traffic>> {
        let one = |value| vec![Located { value, at }];
        match protocol {
            Protocol::Number(number @ (protocol::TCP | protocol::UDP)) => {
                self.refuse_icmp_keys(parts, "tcp and udp have `ports`");
                let transport = if number == protocol::TCP {
                    Traffic::Tcp
                } else {
                    Traffic::Udp
                };
                self.ports(parts, entry)
                    .into_iter()
                    .map(|ports| Located {
                        value: transport(ports.value),
                        at: ports.at,
                    })
                    .collect()
            }
            Protocol::Number(protocol::ICMP) => {
                let icmp = self.icmp(parts, true, entry);
                icmp.map_or_else(Vec::new, |icmp| one(Traffic::Icmp(icmp)))
            }
            Protocol::Number(protocol::ICMPV6) => {
                let icmp = self.icmp(parts, false, entry);
                icmp.map_or_else(Vec::new, |icmp| one(Traffic::Icmpv6(icmp)))
            }
            Protocol::Number(number) => {
                self.ignore_ports(parts);
                one(Traffic::Protocol(number))
            }
            Protocol::All => {
                self.ignore_ports(parts);
                one(Traffic::All)
            }
        }
    }

    fn ports(&mut self, parts: &Parts<'_>, entry: At) -> Vec<Located<Ports>> {
        let Some(value) = parts.ports else {
            if self.lacks(entry, &["ports"]) {
                self.invalid(entry, "a rule of tcp or udp needs `ports`").help("ports = 443, ports = \"8000-8100\", or a list of these; every port is \"0-65535\"");
            }
            return Vec::new();
        };
        let elements = self.one_or_many(value);
        if elements.is_empty() && matches!(value.inner, DeValue::Array(_)) {
            self.empty(value);
        }
        let ports = elements
            .into_iter()
            .filter_map(|element| self.port_range(element));
        ports.collect()
    }

    fn port_range(&mut self, value: Value<'_>) -> Option<Located<Ports>> {
        let at = value.at;
        let text = match value.inner {
            DeValue::Integer(_) => {
                let port = self.integer(value, 0..=65535)?.value as u16;
                return Some(Located {
                    value: Ports::single(port),
                    at,
                });
            }
            DeValue::String(text) => text,
            _ if value.in_list => return self.wrong_type(value, "a port or a range"),
            _ => return self.wrong_type(value, "a port, a range or a list of these"),
        };
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let (Some(from), Some(to)) = (plain_number(from), plain_number(to)) else {
            self.invalid(at, format!("{} is not a port range", quote(text)))
                .help("a port from 0 to 65535, or two with `-` between them");
            return None;
        };
        if from > to {
            self.invalid(
                at,
                format!("the port range {} ends before it begins", quote(text)),
            )
            .help(format!("write \"{to}-{from}\""));
            return None;
        }
        Some(Located {
            value: Ports { from, to },
            at,
        })
    }

    /// Type and code (facts 1.11–1.15).
    fn icmp(&mut self, parts: &Parts<'_>, required: bool, entry: At) -> Option<Icmp> {
        if let Some(ports) = parts.ports {
            self.invalid(ports.at, "icmp has no ports")
                .help("give `type`, and `code` if need be");
            return None;
        }
        let Some(kind) = parts.kind else {
            if let Some(code) = parts.code {
                self.invalid(code.at, "`code` without `type`")
                    .help("give the type the code belongs to");
                return None;
            }
            if required && self.lacks(entry, &["type"]) {
                self.invalid(entry, "a rule of icmp needs `type`")
                    .help("type = 8 is echo request, type = -1 every type");
            }
            return (!required).then_some(Icmp::Any);
        };
        let kind = self.integer(kind, -1..=255)?.value;
        let code = match parts.code {
            None => None,
            Some(code) => Some(self.integer(code, -1..=255)?),
        };
        match (
            u8::try_from(kind),
            code.map(|code| (u8::try_from(code.value), code.at)),
        ) {
            (Err(_), Some((Ok(_), at))) => {
                self.invalid(at, "every type has every code")
                    .help("with type = -1 leave `code` out, or write code = -1");
                None
            }
            (Err(_), _) => Some(Icmp::Any),
            (Ok(kind), Some((Ok(code), _))) => Some(Icmp::Code(kind, code)),
            (Ok(kind), _) => Some(Icmp::Type(kind)),
        }
    }

    fn refuse_icmp_keys(&mut self, parts: &Parts<'_>, help: &str) {
        for value in [parts.kind, parts.code].into_iter().flatten() {
            self.invalid(
                value.at,
                format!("`{}` belongs to icmp and icmpv6", value.key),
            )
            .help(help);
        }
    }

    /// Fact 1.10: with every protocol, or one by number, ports play no part.
    fn ignore_ports(&mut self, parts: &Parts<'_>) {
        self.refuse_icmp_keys(parts, "leave it out");
        if let Some(ports) = parts.ports {
            self.findings
                .warning(
                    "ignored",
                    ports.at,
                    "`ports` is ignored: this protocol is allowed whole",
                )
                .help("leave `ports` out; only tcp and udp have them");
        }
    }

    fn peers(&mut self, given: &[(&str, Value<'_>)], table: Table<'_>) -> Vec<Located<Peer>> {
        const HELP: &str = "exactly one of `cidr`, `prefix_list` and `group`; everywhere is cidr = [\"0.0.0.0/0\", \"::/0\"]";
        let [(kind, value)] = *given else {
            if let Some((_, second)) = given.get(1) {
                self.invalid(second.at, "a rule has one kind of peer")
                    .help(HELP);
            } else if self.lacks(table.at, &["cidr", "prefix_list", "group"]) {
                self.findings
                    .error("missing-key", table.at, "the rule has no peer")
                    .help(HELP);
            }
            return Vec::new();
        };
        let elements = self.one_or_many(value);
        if elements.is_empty() && matches!(value.inner, DeValue::Array(_)) {
            self.empty(value);
        }
        let mut peers = Vec::with_capacity(elements.len());
        for element in elements {
            let peer = match kind {
                "cidr" => self.cidr(element).map(|net| Located {
                    value: Peer::Cidr(net.value),
                    at: net.at,
                }),
                "prefix_list" => self.string(element).map(|name| Located {
                    value: Peer::PrefixList(name.value.into()),
                    at: name.at,
                }),
                _ => self.string(element).map(|name| Located {
                    value: Peer::Group(name.value.into()),
                    at: name.at,
                }),
            };
            peers.extend(peer);
        }
        peers
    }

    /// Empty means nothing, never everything.
    fn empty(&mut self, value: Value<'_>) {
        self.findings
            .warning(
                "empty",
                value.at,
                format!("`{}` is empty: the entry allows nothing", value.key),
            )
            .help("remove the entry if that is meant");
    }
}

/// Decimal digits and nothing else: no sign, no space.
fn plain_number(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}
