//! [`Definition`] to [`Model`]: names meet what they name.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::Severity;
use super::escape::{escape, quote};
use super::findings::Findings;
use super::parse::nearest;
use super::source::Source;
use super::tree::{
    At, DefaultEgress, Definition, Endpoint, File, Located, Quotas, StaleReferences,
};
use crate::model::{Conntrack, DEFAULT_ALLOWANCE, Ids, Model};

mod interface;
mod quota;
mod rule;

/// Links all files. The model is whole only if no error is found.
pub(super) fn link(
    definition: &Definition,
    ids: Ids,
    sources: &[Source],
    findings: &mut Findings,
) -> Model {
    let mut linker = Linker {
        definition,
        sources,
        findings,
        places: Places::default(),
        quotas: Quotas::Warn,
        stale: Severity::Warning,
        comparisons: COMPARISONS,
    };
    linker.places = linker.places();
    linker.quotas = linker
        .once("quotas", |file| file.quotas.as_ref())
        .unwrap_or(Quotas::Warn);
    if linker.once("stale_references", |file| file.stale_references.as_ref())
        == Some(StaleReferences::Error)
    {
        linker.stale = Severity::Error;
    }
    let conntrack = linker.conntrack();
    let model = Model {
        groups: linker.groups(),
        prefix_lists: linker.prefix_lists(),
        interfaces: linker.interfaces(&conntrack),
        members: linker.members(),
        services: linker.services(),
        conntrack,
        ids,
    };
    linker.check_expectations(&model);
    linker.unpopulated_groups(&model);
    linker.check_quotas();
    model
}

struct Linker<'d, 'f> {
    definition: &'d Definition,
    sources: &'d [Source],
    findings: &'f mut Findings,
    places: Places<'d>,
    quotas: Quotas,
    /// What a rule that refers to an unknown group is.
    stale: Severity,
    /// Names that may still be compared with one that is unknown.
    comparisons: usize,
}

/// Names that are compared with unknown ones altogether: a tenth of a second.
const COMPARISONS: usize = 200_000;

/// Where each name is defined.
#[derive(Default)]
struct Places<'d> {
    groups: BTreeMap<&'d str, At>,
    prefix_lists: BTreeMap<&'d str, At>,
}

impl<'d> Linker<'d, '_> {
    fn files(&self) -> impl Iterator<Item = &'d File> + use<'d> {
        self.definition.files.iter()
    }

    /// Notes where names are defined, and finds those defined twice.
    fn places(&mut self) -> Places<'d> {
        let mut places = Places::default();
        // Fact 1.32: names of groups are compared without case.
        let mut folded: HashMap<String, At> = HashMap::new();
        for group in self.files().flat_map(|file| &file.groups) {
            let name = &group.name;
            match folded.get(&name.value.to_ascii_lowercase()) {
                Some(first) => self.defined_twice("InvalidGroup.Duplicate", "group", name, *first),
                None => {
                    folded.insert(name.value.to_ascii_lowercase(), name.at);
                    places.groups.insert(&name.value, name.at);
                }
            }
        }
        for list in self.files().flat_map(|file| &file.prefix_lists) {
            match places.prefix_lists.get(list.name.value.as_str()) {
                Some(first) => {
                    self.defined_twice("duplicate-name", "prefix list", &list.name, *first);
                }
                None => {
                    places.prefix_lists.insert(&list.name.value, list.name.at);
                }
            }
        }
        places
    }

    fn defined_twice(&mut self, code: &'static str, kind: &str, name: &Located<String>, first: At) {
        let message = format!("{kind} {} is defined twice", quote(&name.value));
        self.findings
            .error(code, name.at, message)
            .related(first, "first here")
            .help("all files together are one definition: merge the two, or rename one");
    }

    /// A setting that stands once in all files.
    fn once<T: Copy + 'd>(
        &mut self,
        name: &str,
        setting: impl Fn(&'d File) -> Option<&'d Located<T>>,
    ) -> Option<T> {
        let mut given = self.files().filter_map(setting);
        let first = given.next()?;
        for second in given {
            self.findings
                .error(
                    "duplicate-name",
                    second.at,
                    format!("`{name}` is set twice"),
                )
                .related(first.at, "first here")
                .help("it holds for all files together: set it in one of them");
        }
        Some(first.value)
    }

    fn conntrack(&mut self) -> Conntrack {
        Conntrack {
            allowance: self
                .once("allowance", |file| file.allowance.as_ref())
                .unwrap_or(DEFAULT_ALLOWANCE),
            accounting: self
                .once("accounting", |file| file.accounting.as_ref())
                .unwrap_or(true),
        }
    }

    fn prefix_lists(&mut self) -> BTreeMap<String, Vec<IpNet>> {
        let mut lists = BTreeMap::new();
        for list in self.files().flat_map(|file| &file.prefix_lists) {
            let entries = self.distinct(&list.entries, "duplicate-entry");
            lists.insert(list.name.value.clone(), entries);
        }
        lists
    }

    fn members(&mut self) -> BTreeMap<String, Vec<IpAddr>> {
        let mut members: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        let mut places: HashMap<&str, At> = HashMap::new();
        for table in self.files().flat_map(|file| &file.members) {
            let group = &table.group;
            if table.derived {
                let known = members.entry(group.value.clone()).or_default();
                known.extend(table.addresses.iter().map(|address| address.value));
                continue;
            }
            if let Some(first) = places.insert(&group.value, group.at) {
                self.defined_twice("duplicate-name", "members table", group, first);
            }
            self.check_group(group);
            let addresses = self.distinct(&table.addresses, "duplicate-entry");
            members
                .entry(group.value.clone())
                .or_default()
                .extend(addresses);
        }
        for addresses in members.values_mut() {
            // Interfaces may have been told of twice.
            let mut seen = HashSet::with_capacity(addresses.len());
            addresses.retain(|address| seen.insert(*address));
        }
        members
    }

    fn services(&mut self) -> Vec<IpAddr> {
        let mut services: Vec<IpAddr> = self
            .files()
            .flat_map(|file| &file.services)
            .map(|service| service.value)
            .collect();
        services.sort_unstable();
        services.dedup();
        services
    }

    /// The values without repetitions, each of which is a warning.
    fn distinct<T: Copy + Eq + std::hash::Hash + std::fmt::Display>(
        &mut self,
        values: &[Located<T>],
        code: &'static str,
    ) -> Vec<T> {
        let mut seen: HashMap<T, At> = HashMap::with_capacity(values.len());
        let mut distinct = Vec::with_capacity(values.len());
        for value in values {
            if let Some(first) = seen.get(&value.value) {
                self.findings
                    .warning(code, value.at, format!("{} is listed twice", value.value))
                    .related(*first, "first here");
                continue;
            }
            seen.insert(value.value, value.at);
            distinct.push(value.value);
        }
        distinct
    }

    /// Whether the group exists; where it must.
    fn check_group(&mut self, name: &Located<String>) -> bool {
        if self.places.groups.contains_key(name.value.as_str()) {
            return true;
        }
        let help = self.near_group(name);
        let message = format!("there is no group {}", quote(&name.value));
        self.unknown(
            Severity::Error,
            "InvalidGroup.NotFound",
            name.at,
            message,
            help,
        );
        false
    }

    /// A rule may refer to a group that is gone: it matches nothing (fact 1.41), and that is said.
    fn check_reference(&mut self, name: &str, at: At) {
        if self.places.groups.contains_key(name) {
            return;
        }
        let name = Located {
            value: name.to_owned(),
            at,
        };
        let mut help = self.near_group(&name);
        if self.stale == Severity::Error {
            help.push_str(" (with `stale_references = \"warn\"` the rule matches nothing)");
        }
        let (code, message) = match self.stale {
            Severity::Error => ("InvalidGroup.NotFound", "there is no group"),
            _ => ("stale-rule", "this matches nothing: there is no group"),
        };
        let message = format!("{message} {}", quote(&name.value));
        self.unknown(self.stale, code, at, message, help);
    }

    /// Tests name what exists.
    fn check_expectations(&mut self, model: &Model) {
        let tests = self.files().flat_map(|file| &file.expectations);
        for side in tests.flat_map(|test| [&test.from, &test.to]) {
            let named = |name: &String| Located {
                value: name.clone(),
                at: side.at,
            };
            match &side.value {
                Endpoint::Group(name) => {
                    self.check_group(&named(name));
                }
                Endpoint::PrefixList(name) => {
                    self.check_prefix_list(&named(name));
                }
                Endpoint::Interface(name) if !model.interfaces.contains_key(name) => {
                    let message = format!("there is no interface {}", quote(name));
                    let help = "define it as [interfaces.NAME]".to_owned();
                    let code = "InvalidNetworkInterfaceID.NotFound";
                    self.unknown(Severity::Error, code, side.at, message, help);
                }
                _ => {}
            }
        }
    }

    fn near_group(&mut self, name: &Located<String>) -> String {
        if name.value.starts_with("sg-") {
            return "it is gone, of another account, or in a file that is not here; in TOML, a group with this `id` and [members.GROUP] stands for it".into();
        }
        let near = Self::nearest(&mut self.comparisons, &name.value, &self.places.groups);
        match near {
            Some(near) => format!("did you mean {}?", quote(near)),
            None => "define it as [groups.NAME]; it may be empty".into(),
        }
    }

    /// Whether the prefix list exists.
    fn check_prefix_list(&mut self, name: &Located<String>) -> bool {
        if self.places.prefix_lists.contains_key(name.value.as_str()) {
            return true;
        }
        let near = Self::nearest(
            &mut self.comparisons,
            &name.value,
            &self.places.prefix_lists,
        );
        let help = match near {
            // What is called by its id was not typed.
            _ if name.value.starts_with("pl-") => format!(
                "its entries are not here: `aws ec2 get-managed-prefix-list-entries --prefix-list-id {0} --output json > {0}.json` fetches them",
                escape(&name.value)
            ),
            Some(near) => format!("did you mean {}?", quote(near)),
            None => "define it as [prefix_lists.NAME]".into(),
        };
        let message = format!("there is no prefix list {}", quote(&name.value));
        let code = "InvalidPrefixListID.NotFound";
        self.unknown(Severity::Error, code, name.at, message, help);
        false
    }

    /// The name that was probably meant, as long as looking for such does not take too long.
    fn nearest(
        comparisons: &mut usize,
        text: &str,
        known: &BTreeMap<&'d str, At>,
    ) -> Option<&'d str> {
        *comparisons = comparisons.checked_sub(known.len())?;
        nearest(text, known.keys().copied())
    }

    fn unknown(
        &mut self,
        severity: Severity,
        code: &'static str,
        at: At,
        message: String,
        help: String,
    ) {
        // What is not TOML may hold the definition.
        if !self.findings.is_broken() {
            self.findings.add(severity, code, at, message).help(help);
        }
    }

    /// What a group of the file without `egress` means: its own default, or that of the TOML files beside where
    /// the file is of a kind that has none.
    fn default_egress(&self, file: &File) -> DefaultEgress {
        let own = file.egress.as_ref().map(|egress| egress.value);
        if own.is_some() || file.unsettled_egress.is_none() {
            return own.unwrap_or(DefaultEgress::Explicit);
        }
        let beside = self
            .files()
            .filter(|file| file.unsettled_egress.is_none())
            .filter_map(|file| file.egress.as_ref());
        let mut beside = beside.map(|egress| egress.value);
        match beside.next() {
            Some(first) if beside.all(|other| other == first) => first,
            _ => DefaultEgress::Explicit,
        }
    }
}
