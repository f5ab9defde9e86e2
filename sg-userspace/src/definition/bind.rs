//! Which interfaces that a file tells of are devices of this host.

use std::collections::HashMap;
use std::net::IpAddr;

use super::escape::quote;
use super::findings::Findings;
use super::tree::{At, Definition, Interface, Located, Members, RemoteInterface};
use crate::model::{Ids, InterfaceSettings};

/// A device of this host by which an interface is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Name in its namespace.
    pub name: String,
    /// Ethernet address.
    pub mac: Option<[u8; 6]>,
    /// Addresses of both families.
    pub addresses: Vec<IpAddr>,
}

/// The devices of this host, or why they cannot be listed. Asked only if a file tells of interfaces.
pub type Devices<'d> = dyn Fn() -> Result<Vec<Device>, String> + 'd;

/// Makes interfaces of those that are found here, by the `id` of a `[interfaces.NAME]`, by Ethernet address or by
/// address; the addresses of all others are members of their groups.
pub(super) fn settle(
    definition: &mut Definition,
    devices: &Devices<'_>,
    ids: &mut Ids,
    findings: &mut Findings,
) {
    let mut remote = Vec::new();
    for file in &mut definition.files {
        remote.append(&mut file.remote_interfaces);
    }
    let mut named: HashMap<&str, At> = HashMap::new();
    for (_, interface) in places(definition) {
        check_id(interface, &remote, findings);
        if let Some(id) = &interface.id
            && let Some(first) = named.insert(&id.value, id.at)
        {
            let message = format!("the id {} is taken", quote(&id.value));
            findings
                .error("duplicate-id", id.at, message)
                .related(first, "first here");
        }
        if let Some(id) = &interface.id {
            ids.interfaces
                .insert(interface.name.value.clone(), id.value.clone());
        }
    }
    if remote.is_empty() {
        return;
    }
    let devices = match devices() {
        Ok(devices) => devices,
        Err(error) => {
            let message = format!("the devices of this host cannot be listed: {error}");
            findings.error("no-devices", remote[0].id.at, message);
            return;
        }
    };
    let found = find(definition, &remote, &devices);
    let mut taken: HashMap<Place, Taken> = HashMap::new();
    // The surest first: what an address tells never takes a device from what an Ethernet address tells.
    let mut order: Vec<usize> = (0..remote.len()).collect();
    order.sort_by_key(|index| found[*index].as_ref().map(|(by, _)| *by));
    let mut remote: Vec<Option<RemoteInterface>> = remote.into_iter().map(Some).collect();
    for index in order {
        let interface = remote[index].take().expect("each comes once");
        let file = interface.id.at.file as usize;
        let Some((by, place)) = &found[index] else {
            definition.files[file].members.extend(members(&interface));
            continue;
        };
        let place = match place {
            Found::Interface(place) => *place,
            Found::Device(device) => own_interface(definition, device, &interface),
        };
        let own = &mut definition.files[place.0].interfaces[place.1];
        if let Some(first) = taken.get(&place) {
            first.report(*by, own, &interface, findings);
            // It is on this host or not: its addresses are those of its groups.
            let rest = first.without(interface);
            definition.files[file].members.extend(members(&rest));
            continue;
        }
        taken.insert(place, Taken::new(*by, own, &interface));
        if *by != By::Id && !interface.id.value.is_empty() {
            ids.interfaces
                .insert(own.name.value.clone(), interface.id.value.clone());
        }
        take_over(own, interface);
    }
}

/// A file, and an interface in it.
type Place = (usize, usize);

/// By what an interface is found, the surest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum By {
    /// `id` in TOML.
    Id,
    /// Ethernet address.
    Mac,
    Address,
}

/// As what an interface is found.
enum Found<'d> {
    Interface(Place),
    Device(&'d Device),
}

fn find<'d>(
    definition: &Definition,
    remote: &[RemoteInterface],
    devices: &'d [Device],
) -> Vec<Option<(By, Found<'d>)>> {
    let mut by_id: HashMap<&str, Place> = HashMap::new();
    for (place, interface) in places(definition) {
        if let Some(id) = &interface.id {
            by_id.entry(&id.value).or_insert(place);
        }
    }
    let find = |interface: &RemoteInterface| {
        if let Some(place) = by_id.get(interface.id.value.as_str()) {
            return Some((By::Id, Found::Interface(*place)));
        }
        let (by, device) = device(interface, devices)?;
        Some((
            by,
            match place_of(definition, &device.name) {
                Some(place) => Found::Interface(place),
                None => Found::Device(device),
            },
        ))
    };
    remote.iter().map(find).collect()
}

/// An interface of a file that has taken a device.
struct Taken {
    by: By,
    at: At,
    id: String,
    /// Sorted; `None`: the definition of this host says the groups itself.
    groups: Option<Vec<String>>,
    addresses: Vec<IpAddr>,
}

impl Taken {
    fn new(by: By, own: &Interface, interface: &RemoteInterface) -> Self {
        Self {
            by,
            at: interface.id.at,
            id: interface.id.value.clone(),
            groups: own.groups.is_none().then(|| groups_of(interface)),
            addresses: interface.addresses.iter().map(|own| own.value).collect(),
        }
    }

    /// Says that another one is found as the same device, unless it says the same.
    fn report(
        &self,
        by: By,
        own: &Interface,
        interface: &RemoteInterface,
        findings: &mut Findings,
    ) {
        let all_known = |own: &Located<IpAddr>| self.addresses.contains(&own.value);
        let agree = match &self.groups {
            Some(groups) => *groups == groups_of(interface),
            None => true,
        };
        if agree && interface.id.value == self.id && interface.addresses.iter().all(all_known) {
            return;
        }
        // Whoever names the id has decided.
        let is_decided = self.by == By::Id && by == By::Address;
        let message = format!(
            "{} and {} are both found as {}",
            quote(&self.id),
            quote(&interface.id.value),
            quote(&own.name.value)
        );
        let finding = match agree || is_decided {
            true => findings.warning("duplicate-device", interface.id.at, message),
            false => findings.error("duplicate-device", interface.id.at, message),
        };
        finding.related(self.at, "the first is here").help(
            "the groups of the first are enforced; leave the other out, or name the right one by `id` in [interfaces.NAME]",
        );
    }

    /// What of another one is not of this one.
    fn without(&self, mut interface: RemoteInterface) -> RemoteInterface {
        let same =
            self.id == interface.id.value || self.groups.as_ref() == Some(&groups_of(&interface));
        interface
            .addresses
            .retain(|address| !(same && self.addresses.contains(&address.value)));
        interface
    }
}

fn groups_of(interface: &RemoteInterface) -> Vec<String> {
    let groups = interface.groups.value.iter();
    let mut groups: Vec<String> = groups.map(|group| group.value.clone()).collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

/// An id that stands for groups must be defined.
fn check_id(interface: &Interface, remote: &[RemoteInterface], findings: &mut Findings) {
    let Some(id) = &interface.id else { return };
    let known = remote.iter().any(|other| other.id.value == id.value);
    if known || interface.groups.is_some() || findings.is_broken() {
        return;
    }
    let message = format!("there is no network interface {}", quote(&id.value));
    findings
        .error("InvalidNetworkInterfaceID.NotFound", id.at, message)
        .help("give `groups`, or the file that describes the interface");
}

fn device<'d>(interface: &RemoteInterface, devices: &'d [Device]) -> Option<(By, &'d Device)> {
    if let Some(mac) = &interface.mac {
        let found = devices.iter().find(|device| device.mac == Some(mac.value));
        return found.map(|device| (By::Mac, device));
    }
    let has = |address: &Located<IpAddr>| {
        devices
            .iter()
            .find(|device| device.addresses.contains(&address.value))
    };
    let found = interface.addresses.iter().find_map(has);
    found.map(|device| (By::Address, device))
}

fn places(definition: &Definition) -> impl Iterator<Item = (Place, &Interface)> {
    let files = definition.files.iter().enumerate();
    files.flat_map(|(file, own)| {
        let interfaces = own.interfaces.iter().enumerate();
        interfaces.map(move |(index, interface)| ((file, index), interface))
    })
}

fn place_of(definition: &Definition, device: &str) -> Option<Place> {
    let mut places = places(definition);
    let own = places.find(|(_, own)| own.settings.netns.is_none() && own.device.value == device);
    own.map(|(place, _)| place)
}

/// The interface of a device, made if there is none.
fn own_interface(
    definition: &mut Definition,
    device: &Device,
    interface: &RemoteInterface,
) -> Place {
    if let Some(place) = place_of(definition, &device.name) {
        return place;
    }
    let name = Located {
        value: device.name.clone(),
        at: interface.id.at,
    };
    let file = interface.id.at.file as usize;
    let interfaces = &mut definition.files[file].interfaces;
    interfaces.push(Interface {
        id: None,
        groups: None,
        addresses: None,
        device: name.clone(),
        allowance_at: None,
        reserve_at: None,
        source_dest_check_at: None,
        own_timeouts: Default::default(),
        settings: InterfaceSettings::new(&device.name),
        name,
    });
    (file, interfaces.len() - 1)
}

/// What the interface does not say itself it has from the file.
fn take_over(own: &mut Interface, interface: RemoteInterface) {
    own.groups.get_or_insert(interface.groups);
    if !interface.addresses.is_empty() {
        own.addresses.get_or_insert(interface.addresses);
    }
    if own.source_dest_check_at.is_none() {
        own.settings.source_dest_check = interface.source_dest_check;
    }
    for (index, seconds) in interface.timeouts.into_iter().enumerate() {
        if let Some(seconds) = seconds.filter(|_| !own.own_timeouts[index]) {
            own.settings.timeouts[index] = seconds;
        }
    }
}

fn members(interface: &RemoteInterface) -> impl Iterator<Item = Members> + '_ {
    interface.groups.value.iter().map(|group| Members {
        group: group.clone(),
        addresses: interface.addresses.clone(),
        derived: true,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Checked, Source, check_on};
    use super::*;

    const EGRESS: &str = "\"IpPermissions\": [], \"IpPermissionsEgress\": []";

    /// The groups of `eth0`, members of `b`, and what is found, of interfaces each of an id, a group and other fields.
    fn bound(
        interfaces: &[(&str, &str, &str)],
        toml: &str,
    ) -> (Vec<String>, Vec<IpAddr>, Vec<&'static str>) {
        let groups = ["a", "b"].map(|name| {
            format!("{{\"GroupId\": \"sg-{name}\", \"GroupName\": \"{name}\", {EGRESS}}}")
        });
        let interfaces = interfaces.iter().map(|(id, group, fields)| {
            format!("{{\"NetworkInterfaceId\": \"{id}\", \"Groups\": [{{\"GroupId\": \"sg-{group}\"}}], {fields}}}")
        });
        let interfaces: Vec<String> = interfaces.collect();
        let text = format!(
            "{{\"SecurityGroups\": [{}], \"NetworkInterfaces\": [{}]}}",
            groups.join(","),
            interfaces.join(",")
        );
        let devices = || {
            Ok(vec![Device {
                name: "eth0".into(),
                mac: Some([2, 0xfc, 0, 0, 0, 1]),
                addresses: vec!["192.0.2.2".parse().unwrap()],
            }])
        };
        let source = |name: &str, text: &str| Source::new(name, text.as_bytes().to_vec());
        let Checked {
            model, diagnostics, ..
        } = check_on(&[source("f.json", &text), source("h.toml", toml)], &devices);
        let codes = diagnostics.iter().map(|one| one.code).collect();
        let Some(model) = model else {
            return (Vec::new(), Vec::new(), codes);
        };
        let members = model.members.get("b").cloned().unwrap_or_default();
        (model.interfaces["eth0"].groups.clone(), members, codes)
    }

    const MAC: &str = "\"MacAddress\": \"02:fc:00:00:00:01\", \"PrivateIpAddress\": \"192.0.2.2\"";
    const ADDRESS: &str = "\"PrivateIpAddress\": \"192.0.2.2\"";

    #[test]
    fn two_interfaces_of_one_device_are_refused_if_their_groups_differ() {
        for both in [
            [("eni-1", "b", ADDRESS), ("eni-2", "a", MAC)],
            [("eni-1", "b", ADDRESS), ("eni-2", "a", ADDRESS)],
            [("eni-1", "b", MAC), ("eni-2", "a", MAC)],
        ] {
            assert_eq!(bound(&both, "").2, ["duplicate-device"], "{both:?}");
        }
        let same = [("eni-1", "a", ADDRESS), ("eni-2", "a", MAC)];
        assert_eq!(
            bound(&same, ""),
            (vec!["a".into()], vec![], vec!["duplicate-device"])
        );
    }

    #[test]
    fn who_names_the_id_has_decided() {
        let both = [("eni-1", "b", ADDRESS), ("eni-2", "a", ADDRESS)];
        let (groups, members, codes) = bound(&both, "[interfaces.eth0]\nid = \"eni-2\"\n");
        assert_eq!(
            (groups, codes),
            (vec!["a".to_owned()], vec!["duplicate-device"])
        );
        // It is somewhere else.
        assert_eq!(members, ["192.0.2.2".parse::<IpAddr>().unwrap()]);
        let twice = "[interfaces.eth0]\nid = \"eni-2\"\n[interfaces.eth1]\nid = \"eni-2\"\n";
        assert_eq!(bound(&[("eni-2", "a", MAC)], twice).2, ["duplicate-id"]);
    }
}
