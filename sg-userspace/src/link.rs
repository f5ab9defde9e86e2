//! A network device as rtnetlink describes it, and whether a group can be attached to it.

use std::{collections::BTreeMap, io, net::IpAddr};

use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::{
    netlink::{self, NetlinkError, Requests, Scope},
    state::HookInForce,
};

pub mod vlan;

use vlan::StrippedTags;

/// How the reason for TC begins where it is tags.
pub(crate) const UNSEEN_TAGS: &str = "XDP would not see the VLAN tags of the device";

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Name in its namespace.
    pub name: String,
    /// Index in its namespace.
    pub ifindex: u32,
    /// What made it (`veth`, `tun`, `bridge`, …); `None` for most physical devices.
    pub kind: Option<String>,
    /// Whether frames carry an Ethernet header.
    pub ethernet: bool,
    /// Whether it is the loopback device.
    pub loopback: bool,
    /// Whether it is set up.
    pub up: bool,
    /// Whether the device it is paired with or stands on lies in another network namespace.
    pub peer_elsewhere: bool,
    /// The other end, where the device is one of a pair.
    pub peer: Option<Peer>,
    /// Its Ethernet address.
    pub mac: Option<[u8; 6]>,
    /// Largest packet in bytes, without the Ethernet header.
    pub mtu: u32,
    /// Addresses, both families, link-local ones included.
    pub addresses: Vec<IpAddr>,
    /// Tags in use that XDP would not see.
    pub stripped_tags: Option<StrippedTags>,
}

/// The other end of a pair of devices (veth, netkit).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Index in its namespace.
    pub ifindex: u32,
    /// The id that the device's namespace has for the peer's (`IFLA_LINK_NETNSID`); `None`: they are the same.
    pub netnsid: Option<i32>,
}

/// Why a device is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// There is no such device.
    #[error("no device {device} in this network namespace (`ip link` lists them)")]
    Missing {
        /// The device.
        device: String,
    },
    /// rtnetlink did not answer.
    #[error("cannot read device {device}")]
    Netlink {
        /// The device.
        device: String,
        /// Why.
        source: NetlinkError,
    },
    /// The driver did not say what it does to packets.
    #[error("cannot read which offloads of {device} are on")]
    Offloads {
        /// The device.
        device: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Frames without an Ethernet header cannot be judged.
    #[error(
        "{device} carries no Ethernet header ({kind}); attach to the device its traffic comes through"
    )]
    NotEthernet {
        /// The device.
        device: String,
        /// What it is.
        kind: String,
    },
    /// The loopback device carries the host's own traffic.
    #[error("{device} is the loopback device: nothing from outside passes it")]
    Loopback {
        /// The device.
        device: String,
    },
    /// Bridged frames do not pass the bridge's own hooks.
    #[error("{device} is a bridge: forwarded frames do not pass it. Attach to its ports")]
    Bridge {
        /// The device.
        device: String,
    },
}

impl Link {
    /// Reads a device of the calling thread's network namespace, by name.
    ///
    /// # Errors
    /// [`LinkError::Missing`], [`LinkError::Netlink`] and [`LinkError::Offloads`].
    pub fn read(device: &str) -> Result<Self, LinkError> {
        let mut read = Self::read_all(&[device]);
        read.pop().expect("each device is answered")
    }

    /// The same of several devices, in their order. Where nothing can be asked, the first answer says so and is the
    /// only one.
    pub fn read_all(devices: &[&str]) -> Vec<Result<Self, LinkError>> {
        let queries = devices.iter().map(|device| {
            let mut query = LinkMessage::default();
            let name = LinkAttribute::IfName((*device).to_owned());
            query.attributes.push(name);
            (query, *device)
        });
        Self::ask_all(queries.collect())
    }

    /// By index, whatever it is called now; `device` is its name in messages.
    ///
    /// # Errors
    /// As [`Link::read`].
    pub fn read_at(ifindex: u32, device: &str) -> Result<Self, LinkError> {
        let mut query = LinkMessage::default();
        query.header.index = ifindex;
        let mut read = Self::ask_all(vec![(query, device)]);
        read.pop().expect("each query is answered")
    }

    fn ask_all(queries: Vec<(LinkMessage, &str)>) -> Vec<Result<Self, LinkError>> {
        let failed = |device: &str, source| LinkError::Netlink {
            device: device.to_owned(),
            source,
        };
        let mut requests = match Requests::open(NETLINK_ROUTE) {
            Ok(requests) => requests,
            Err(source) => {
                let (_, first) = queries[0];
                return vec![Err(failed(first, source))];
            }
        };
        let tags = vlan::may_exist();
        let several = queries.len() >= SEVERAL;
        let asked = queries
            .into_iter()
            .map(|(query, device)| (device, Self::ask(&mut requests, query, device)));
        let asked: Vec<_> = asked.collect();
        // After the devices, so that none of them is an earlier one's.
        let mut known = if several {
            all_addresses(&mut requests)
        } else {
            None
        };
        let complete = |(device, link): (&str, Result<Self, LinkError>)| {
            let mut link = link?;
            link.addresses = match &mut known {
                Some(known) => known.remove(&link.ifindex).unwrap_or_default(),
                None => addresses(link.ifindex).map_err(|source| failed(device, source))?,
            };
            if tags {
                link.stripped_tags = StrippedTags::read(&link.name, link.ifindex)?;
            }
            Ok(link)
        };
        asked.into_iter().map(complete).collect()
    }

    /// All but the addresses and the tags.
    fn ask(
        requests: &mut Requests,
        mut query: LinkMessage,
        device: &str,
    ) -> Result<Self, LinkError> {
        let failed = |source| LinkError::Netlink {
            device: device.to_owned(),
            source,
        };
        query
            .attributes
            .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let answers = match requests.ask(RouteNetlinkMessage::GetLink(query), Scope::One) {
            Ok(answers) => answers,
            Err(NetlinkError::Refused(error))
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENODEV | libc::EINVAL | libc::ERANGE)
                ) =>
            {
                return Err(LinkError::Missing {
                    device: device.to_owned(),
                });
            }
            Err(source) => return Err(failed(source)),
        };
        let message = answers
            .into_iter()
            .find_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(link) => Some(link),
                _ => None,
            })
            .ok_or_else(|| LinkError::Missing {
                device: device.to_owned(),
            })?;
        Ok(Self::from_message(&message, device))
    }

    fn from_message(message: &LinkMessage, device: &str) -> Self {
        let mut link = Self {
            name: device.to_owned(),
            ifindex: message.header.index,
            kind: None,
            ethernet: message.header.link_layer_type == LinkLayerType::Ether,
            loopback: message.header.flags.contains(LinkFlags::Loopback),
            up: message.header.flags.contains(LinkFlags::Up),
            peer_elsewhere: false,
            peer: None,
            mac: None,
            mtu: 0,
            addresses: Vec::new(),
            stripped_tags: None,
        };
        let (mut other, mut netnsid) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().ok(),
                LinkAttribute::Link(ifindex) => other = Some(*ifindex),
                LinkAttribute::LinkNetNsId(id) => netnsid = Some(*id),
                LinkAttribute::LinkInfo(infos) => {
                    for info in infos {
                        if let LinkInfo::Kind(kind) = info {
                            link.kind = Some(kind.to_string());
                        }
                    }
                }
                _ => {}
            }
        }
        link.peer_elsewhere = netnsid.is_some();
        if ["veth", "netkit"].iter().any(|kind| link.is_kind(kind)) {
            link.peer = other.map(|ifindex| Peer { ifindex, netnsid });
        }
        link
    }

    /// Whether groups can be enforced here at all.
    ///
    /// # Errors
    /// [`LinkError::Loopback`], [`LinkError::NotEthernet`], [`LinkError::Bridge`].
    pub fn check(&self) -> Result<(), LinkError> {
        let device = self.name.clone();
        if self.loopback {
            return Err(LinkError::Loopback { device });
        }
        if !self.ethernet {
            return Err(LinkError::NotEthernet {
                device,
                kind: self.kind.clone().unwrap_or_else(|| "raw".to_owned()),
            });
        }
        if self.is_kind("bridge") {
            return Err(LinkError::Bridge { device });
        }
        Ok(())
    }

    /// Whether the definition must say which side this is: a tap, or a veth whose peer lies in
    /// another namespace, may be the workload's own NIC or the host's end of it.
    pub fn orientation_ambiguous(&self) -> bool {
        self.is_kind("tun") || (self.is_kind("veth") && self.peer_elsewhere)
    }

    /// Whether a workload can be at the other end of the device.
    pub fn has_workload_behind(&self) -> bool {
        ["veth", "tun", "macvtap", "netkit"]
            .iter()
            .any(|kind| self.is_kind(kind))
    }

    /// Why ingress is better by TC than by native XDP, if it is.
    pub fn reason_for_tc(&self) -> Option<String> {
        if let Some(stripped) = &self.stripped_tags {
            return Some(format!("{UNSEEN_TAGS}: {stripped}"));
        }
        // Their peer is software on this machine.
        let kind = self
            .kind
            .as_deref()
            .filter(|kind| ["veth", "tun"].contains(kind))?;
        Some(format!(
            "native XDP on a {kind} would switch its peer's segmentation off"
        ))
    }

    /// What a reader should know about enforcement here, with ingress by this hook.
    pub fn cautions(&self, hook: HookInForce) -> Vec<String> {
        let mut cautions = Vec::new();
        let kind = self.kind.as_deref().unwrap_or_default();
        if matches!(kind, "bond" | "team" | "vlan" | "macvlan" | "ipvlan") {
            cautions.push(format!(
                "{} is a {kind}: traffic of the device below that does not pass it is not judged",
                self.name
            ));
        }
        if let Some(stripped) = &self.stripped_tags
            && hook != HookInForce::Tc
        {
            cautions.push(format!(
                "ingress by {} does not see the VLAN tags of {} and judges frames of the VLANs as untagged ones: {stripped}. Run `{}`, or say `hook = \"tc\"` and apply again",
                hook.name(),
                self.name,
                stripped.remedy(&self.name)
            ));
        }
        cautions
    }

    fn is_kind(&self, kind: &str) -> bool {
        self.kind.as_deref() == Some(kind)
    }
}

/// From so many devices on the addresses of all of the namespace are listed once, not those of each.
const SEVERAL: usize = 8;

fn addresses(ifindex: u32) -> Result<Vec<IpAddr>, NetlinkError> {
    let mut question = AddressMessage::default();
    question.header.index = ifindex;
    // Not all of the namespace: where there are many devices that takes long, for each of them.
    let answers = netlink::request(
        NETLINK_ROUTE,
        RouteNetlinkMessage::GetAddress(question),
        Scope::Named,
    )?;
    Ok(by_index(&answers).remove(&ifindex).unwrap_or_default())
}

/// Addresses of all devices, by index; `None` if they cannot be listed, or not all of them.
fn all_addresses(requests: &mut Requests) -> Option<BTreeMap<u32, Vec<IpAddr>>> {
    let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let answers = requests.ask(question, Scope::All).ok()?;
    (!requests.was_interrupted()).then(|| by_index(&answers))
}

/// Addresses of each device, ascending.
fn by_index(answers: &[RouteNetlinkMessage]) -> BTreeMap<u32, Vec<IpAddr>> {
    let mut found: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
    for answer in answers {
        if let RouteNetlinkMessage::NewAddress(address) = answer
            && let Some(own) = own_address(address)
        {
            found.entry(address.header.index).or_default().push(own);
        }
    }
    for addresses in found.values_mut() {
        addresses.sort_unstable();
        addresses.dedup();
    }
    found
}

/// `IFA_LOCAL` where there is one: on a point-to-point device `IFA_ADDRESS` is the other end.
fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let local = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
    local.or_else(|| {
        message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            })
    })
}
