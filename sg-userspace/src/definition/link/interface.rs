//! Interfaces: groups that exist, figures that fit, no device twice.

use std::collections::{BTreeMap, HashMap};

use super::super::escape::quote;
use super::super::tree::{self, At, Located};
use super::Linker;
use crate::model::{Conntrack, Interface, MAX_GROUPS_PER_INTERFACE, Orientation};

impl<'d> Linker<'d, '_> {
    /// Interfaces with their groups.
    pub(super) fn interfaces(&mut self, conntrack: &Conntrack) -> BTreeMap<String, Interface> {
        let mut interfaces = BTreeMap::new();
        let mut places: HashMap<&str, At> = HashMap::new();
        let mut devices: HashMap<(Option<&str>, &str), At> = HashMap::new();
        let mut reserved = 0;
        for interface in self.files().flat_map(|file| &file.interfaces) {
            let name = &interface.name;
            if let Some(first) = places.insert(&name.value, name.at) {
                self.defined_twice("duplicate-name", "interface", name, first);
                continue;
            }
            let device = (
                interface.settings.netns.as_deref(),
                interface.device.value.as_str(),
            );
            if let Some(first) = devices.insert(device, interface.device.at) {
                let message = format!("device {} has an interface already", quote(device.1));
                self.findings
                    .error("duplicate-device", interface.device.at, message)
                    .related(first, "first here")
                    .help("one device in one network namespace is one interface");
            }
            self.check_figures(interface, conntrack, &mut reserved);
            self.check_addresses(interface);
            interfaces.insert(name.value.clone(), self.interface(interface));
        }
        interfaces
    }

    fn interface(&mut self, interface: &'d tree::Interface) -> Interface {
        let groups = interface
            .groups
            .as_ref()
            .map_or_else(Vec::new, |groups| self.groups_of(groups));
        let addresses = interface
            .addresses
            .as_ref()
            .map(|addresses| self.distinct(addresses, "duplicate-entry"));
        Interface {
            settings: interface.settings.clone(),
            groups,
            addresses,
        }
    }

    fn groups_of(&mut self, groups: &Located<Vec<Located<String>>>) -> Vec<String> {
        let mut names: Vec<String> = Vec::with_capacity(groups.value.len());
        for group in &groups.value {
            self.check_group(group);
            if names.contains(&group.value) {
                let message = format!("group {} is listed twice", quote(&group.value));
                self.findings.warning("duplicate-entry", group.at, message);
            } else {
                names.push(group.value.clone());
            }
        }
        if names.len() > MAX_GROUPS_PER_INTERFACE {
            let message = format!("{} groups on one interface", names.len());
            self.findings
                .error(
                    "SecurityGroupsPerInterfaceLimitExceeded",
                    groups.at,
                    message,
                )
                .help(format!("at most {MAX_GROUPS_PER_INTERFACE}; merge groups"));
        }
        names
    }

    /// Warns of a check that was asked for and has nothing to compare with.
    fn check_addresses(&mut self, interface: &tree::Interface) {
        let settings = &interface.settings;
        let unknown =
            settings.orientation == Some(Orientation::Host) && interface.addresses.is_none();
        if let (Some(true), Some(at)) = (settings.source_dest_check, interface.source_dest_check_at)
            && unknown
        {
            self.findings
                .warning(
                    "no-effect",
                    at,
                    "there is nothing to check: the workload's addresses are not known",
                )
                .help("list them in `addresses`; behind the host's end they cannot be asked for");
        }
    }

    fn check_figures(
        &mut self,
        interface: &tree::Interface,
        conntrack: &Conntrack,
        reserved: &mut u64,
    ) {
        let host = conntrack.allowance;
        let settings = &interface.settings;
        if let (Some(allowance), Some(at)) = (settings.allowance, interface.allowance_at)
            && allowance > host
        {
            let message = format!("allowance {allowance} is more than the host's {host}");
            self.findings
                .error("InvalidParameterValue", at, message)
                .help("lower it, or raise `allowance` of [conntrack]");
        }
        let Some(at) = interface.reserve_at else {
            return;
        };
        let reserve = settings.reserve;
        let own = settings.allowance.unwrap_or(host);
        let message = if reserve > own {
            format!("reserve {reserve} is more than the interface's allowance of {own}")
        } else {
            *reserved += u64::from(reserve);
            if *reserved <= u64::from(host) {
                return;
            }
            format!(
                "with this, interfaces reserve {reserved} flows: more than the host's allowance of {host}"
            )
        };
        self.findings
            .error("InvalidParameterValue", at, message)
            .help("lower it, or raise the allowance");
    }
}
