//! TOML to [`File`]: types, ranges, known keys.

use toml::de::DeTable;

use super::escape::quote;
use super::findings::{Findings, SYNTAX};
use super::source::Source;
use super::tree::{At, DefaultEgress, File, Located, Members, PrefixList, Quotas, StaleReferences};

mod address;
mod expectation;
mod group;
mod interface;
mod name;
mod value;

pub(super) use value::nearest;
use value::{Parser, Table, Value};

/// Keys of `[defaults]`.
const DEFAULTS: &[&str] = &["egress", "quotas", "stale_references"];
/// Keys of `[conntrack]`.
const CONNTRACK: &[&str] = &["allowance", "accounting"];

/// Tracked flows that `[conntrack] allowance` may name.
const ALLOWANCE: std::ops::RangeInclusive<i64> = 1024..=16_777_216;

/// Parses one file.
pub(super) fn parse(file: u32, source: &Source, findings: &mut Findings) -> File {
    let (document, errors) = DeTable::parse_recoverable(&source.text);
    syntax_errors(file, source, &errors, findings);
    let root = Table::new(document.get_ref(), located(file, 0..0), "the file");
    Parser::new(file, findings).root(root)
}

/// One error a line is enough; and where something is never closed, all that follows is swallowed
/// and only the first error means anything.
fn syntax_errors(file: u32, source: &Source, errors: &[toml::de::Error], findings: &mut Findings) {
    let mut errors: Vec<_> = errors
        .iter()
        .map(|error| (error.span().unwrap_or_default(), error.message()))
        .collect();
    errors.sort_by_key(|(range, _)| range.start);
    let swallowed = errors.iter().any(|(_, message)| {
        message.starts_with("unclosed array") || message.starts_with("unclosed inline")
    });
    let mut reported = 0;
    for (range, message) in errors {
        let at = located(file, range.clone());
        let line = source.position(range.start).line;
        if message == "duplicate key" {
            // Both are read, so nothing is missing for it.
            let key = source.text.get(range).unwrap_or_default();
            findings
                .error(SYNTAX, at, format!("{} is defined twice", quote(key)))
                .help("a key or table stands once in a file: merge the two, or rename one");
            continue;
        }
        if line == reported {
            continue;
        }
        reported = line;
        if swallowed {
            // What is amiss shows where the next thing begins; only an end of its own names it.
            let message = if message.starts_with("unclosed") {
                message
            } else {
                "this cannot stand inside an array or inline table"
            };
            findings
                .error(SYNTAX, at, message)
                .help("a `[` or `{` before this is not closed");
            findings.lines_are_broken(file, line..=usize::MAX);
            return;
        }
        findings.error(SYNTAX, at, message);
        findings.lines_are_broken(file, line..=line);
    }
}

fn located(file: u32, range: std::ops::Range<usize>) -> At {
    // Sources are no longer than 64 MiB.
    At {
        file,
        start: range.start as u32,
        end: range.end as u32,
    }
}

/// The tables that have such a key, as they are written.
fn tables_with(key: &str) -> Vec<&'static str> {
    let tables = [
        ("[defaults]", DEFAULTS),
        ("[conntrack]", CONNTRACK),
        ("[groups.NAME]", group::KEYS),
        ("[interfaces.NAME]", interface::KEYS),
    ];
    let having = tables.into_iter().filter(|(_, keys)| keys.contains(&key));
    having.map(|(table, _)| table).collect()
}

impl Parser<'_> {
    fn root(&mut self, table: Table<'_>) -> File {
        let mut file = File::default();
        for (key, value) in self.keys(
            &table,
            &[
                "defaults",
                "conntrack",
                "services",
                "groups",
                "prefix_lists",
                "interfaces",
                "members",
                "tests",
            ],
        ) {
            match key {
                "defaults" => self.defaults(value, &mut file),
                "conntrack" => self.conntrack(value, &mut file),
                "services" => file.services = self.services(value),
                "groups" => {
                    file.groups =
                        self.named(value, |parser, name, table| parser.group(name, table));
                }
                "prefix_lists" => {
                    file.prefix_lists =
                        self.named(value, |parser, name, table| parser.prefix_list(name, table));
                }
                "interfaces" => {
                    file.interfaces =
                        self.named(value, |parser, name, table| parser.interface(name, table));
                }
                "tests" => file.expectations = self.expectations(value),
                _ => {
                    file.members =
                        self.named(value, |parser, name, table| parser.members(name, table));
                }
            }
        }
        file
    }

    fn defaults(&mut self, value: Value<'_>, file: &mut File) {
        let Some(table) = self.table(value) else {
            return;
        };
        for (key, value) in self.keys(&table, DEFAULTS) {
            match key {
                "egress" => {
                    let words = [
                        ("explicit", DefaultEgress::Explicit),
                        ("allow", DefaultEgress::Allow),
                        ("deny", DefaultEgress::Deny),
                    ];
                    file.egress = self.choice(value, &words);
                }
                "quotas" => {
                    let words = [("warn", Quotas::Warn), ("aws", Quotas::Aws)];
                    file.quotas = self.choice(value, &words);
                }
                _ => {
                    let words = [
                        ("warn", StaleReferences::Warn),
                        ("error", StaleReferences::Error),
                    ];
                    file.stale_references = self.choice(value, &words);
                }
            }
        }
    }

    fn conntrack(&mut self, value: Value<'_>, file: &mut File) {
        let Some(table) = self.table(value) else {
            return;
        };
        for (key, value) in self.keys(&table, CONNTRACK) {
            if key == "allowance" {
                file.allowance = self.integer(value, ALLOWANCE).map(|allowance| Located {
                    value: allowance.value as u32,
                    at: allowance.at,
                });
            } else {
                file.accounting = self.boolean(value);
            }
        }
    }

    fn prefix_list(&mut self, name: Located<String>, table: Table<'_>) -> PrefixList {
        let (mut ids, mut entries) = (Vec::new(), Vec::new());
        for (key, value) in self.keys(&table, &["id", "entries"]) {
            if key == "id" {
                ids.extend(self.id(value, "pl-"));
                continue;
            }
            let elements = self.array(value);
            if elements.as_ref().is_some_and(Vec::is_empty) {
                let message = format!("prefix list {} is empty", quote(&name.value));
                self.findings
                    .warning("empty", name.at, message)
                    .help("rules that refer to it allow nothing");
            }
            for entry in elements.into_iter().flatten() {
                entries.extend(self.cidr(entry));
            }
        }
        self.require(
            &table,
            "entries",
            "`entries = []` is a list that matches nothing",
        );
        PrefixList { name, ids, entries }
    }

    fn members(&mut self, group: Located<String>, table: Table<'_>) -> Members {
        let mut addresses = Vec::new();
        for (_, value) in self.keys(&table, &["addresses"]) {
            for entry in self.array(value).into_iter().flatten() {
                addresses.extend(self.unicast_address(entry));
            }
        }
        self.require(&table, "addresses", "list the members' addresses");
        Members {
            group,
            addresses,
            derived: false,
        }
    }
}
