//! The devices on which interfaces that a file tells of are found.

use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkMessage},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::{
    definition::Device,
    netlink::{self, NetlinkError, Scope},
    netns::Netns,
};

/// The devices of a network namespace, by name or path, or of the calling thread's; without loopback.
///
/// # Errors
/// A namespace that cannot be entered, or rtnetlink that does not answer, as one sentence.
pub fn devices(netns: Option<&str>) -> Result<Vec<Device>, String> {
    let place = Netns::open(netns).map_err(|error| error.to_string())?;
    let listed = place.run(list).map_err(|error| error.to_string())?;
    listed.map_err(|error| error.to_string())
}

fn list() -> Result<Vec<Device>, NetlinkError> {
    let links = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let addresses = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let mut devices = Vec::new();
    for answer in netlink::request(NETLINK_ROUTE, links, Scope::All)? {
        if let RouteNetlinkMessage::NewLink(link) = answer
            && !link.header.flags.contains(LinkFlags::Loopback)
        {
            let mut device = Device {
                name: String::new(),
                mac: None,
                addresses: Vec::new(),
            };
            for attribute in link.attributes {
                match attribute {
                    LinkAttribute::IfName(name) => device.name = name,
                    LinkAttribute::Address(mac) => device.mac = mac.as_slice().try_into().ok(),
                    _ => {}
                }
            }
            devices.push((link.header.index, device));
        }
    }
    for answer in netlink::request(NETLINK_ROUTE, addresses, Scope::All)? {
        if let RouteNetlinkMessage::NewAddress(address) = answer
            && let Some((_, device)) = devices
                .iter_mut()
                .find(|(index, _)| *index == address.header.index)
        {
            // On point-to-point devices `Address` is the other side's.
            let own = address
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    AddressAttribute::Local(own) => Some(*own),
                    _ => None,
                });
            let any = address
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    AddressAttribute::Address(any) => Some(*any),
                    _ => None,
                });
            device.addresses.extend(own.or(any));
        }
    }
    Ok(devices.into_iter().map(|(_, device)| device).collect())
}
