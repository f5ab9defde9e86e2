//! Where the kernel sends packets for an address.

use std::net::IpAddr;

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::netlink::{self, Scope};

/// Index of the device by which packets for `remote` leave the calling thread's namespace, from address `local` if it
/// is one of the namespace's. `None`: by none, because there is no route or the address is the namespace's own.
pub fn device(remote: IpAddr, local: Option<IpAddr>) -> Option<u32> {
    let (family, length) = match remote {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    let address = |address| match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    };
    let mut question = RouteMessage::default();
    question.header.address_family = family;
    question.header.destination_prefix_length = length;
    question.attributes = vec![RouteAttribute::Destination(address(remote))];
    if let Some(local) = local {
        question.header.source_prefix_length = length;
        question
            .attributes
            .push(RouteAttribute::Source(address(local)));
    }
    let question = RouteNetlinkMessage::GetRoute(question);
    let answers = netlink::request(NETLINK_ROUTE, question, Scope::One).ok()?;
    answers.into_iter().find_map(|answer| {
        let RouteNetlinkMessage::NewRoute(answer) = answer else {
            return None;
        };
        if answer.header.kind != RouteType::Unicast {
            return None;
        }
        answer
            .attributes
            .into_iter()
            .find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(index),
                _ => None,
            })
    })
}
