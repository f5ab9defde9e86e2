//! Which interfaces that a file tells of are devices of this host.

use std::net::IpAddr;

use super::escape::quote;
use super::findings::Findings;
use super::tree::{Definition, Interface, Located, Members, RemoteInterface};
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
    for interface in definition.files.iter().flat_map(|file| &file.interfaces) {
        check_id(interface, &remote, findings);
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
    for interface in remote {
        let by_id = definition
            .files
            .iter_mut()
            .flat_map(|file| &mut file.interfaces)
            .find(|own| {
                let id = own.id.as_ref().map(|id| &id.value);
                id == Some(&interface.id.value)
            });
        let own = match by_id {
            Some(own) => Some(own),
            None => match device(&interface, &devices) {
                None => None,
                Some(device) => {
                    if !interface.id.value.is_empty() {
                        let name = interface_of(definition, &device.name)
                            .map_or(&device.name, |own| &own.name.value);
                        ids.interfaces
                            .insert(name.clone(), interface.id.value.clone());
                    }
                    Some(own_interface(definition, &device.name, &interface))
                }
            },
        };
        match own {
            Some(own) => take_over(own, interface),
            None => definition.files[interface.id.at.file as usize]
                .members
                .extend(members(&interface)),
        }
    }
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

fn device<'d>(interface: &RemoteInterface, devices: &'d [Device]) -> Option<&'d Device> {
    if let Some(mac) = &interface.mac {
        return devices.iter().find(|device| device.mac == Some(mac.value));
    }
    let has = |address: &Located<IpAddr>| {
        devices
            .iter()
            .find(|device| device.addresses.contains(&address.value))
    };
    interface.addresses.iter().find_map(has)
}

fn interface_of<'d>(definition: &'d Definition, device: &str) -> Option<&'d Interface> {
    let mut interfaces = definition.files.iter().flat_map(|file| &file.interfaces);
    interfaces.find(|own| own.settings.netns.is_none() && own.device.value == device)
}

/// The interface of a device, made if there is none.
fn own_interface<'d>(
    definition: &'d mut Definition,
    device: &str,
    interface: &RemoteInterface,
) -> &'d mut Interface {
    if interface_of(definition, device).is_none() {
        let name = Located {
            value: device.to_owned(),
            at: interface.id.at,
        };
        let file = &mut definition.files[interface.id.at.file as usize];
        file.interfaces.push(Interface {
            id: None,
            groups: None,
            addresses: None,
            device: name.clone(),
            allowance_at: None,
            reserve_at: None,
            source_dest_check_at: None,
            own_timeouts: Default::default(),
            settings: InterfaceSettings::new(device),
            name,
        });
    }
    let mut interfaces = definition
        .files
        .iter_mut()
        .flat_map(|file| &mut file.interfaces);
    let found = interfaces.find(|own| own.settings.netns.is_none() && own.device.value == device);
    found.expect("it was there or has been made")
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
