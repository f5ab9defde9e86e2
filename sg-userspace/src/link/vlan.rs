//! VLAN sub-interfaces whose tags the device takes off.
//!
//! A NIC that strips tags puts them into the packet's metadata: TC finds them there and drops the
//! frame as `vlan_tag`, XDP sees a frame without a tag and would judge it by the rules of the untagged
//! network.

use std::{collections::BTreeSet, fmt, path::Path};

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoKind, InfoVlan, LinkAttribute, LinkInfo, LinkMessage, VlanProtocol},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::LinkError;
use crate::{
    ethtool,
    netlink::{self, NetlinkError, Scope},
};

/// What strips tags of one kind.
#[derive(Debug, PartialEq, Eq)]
pub struct Offload {
    protocol: VlanProtocol,
    /// Name in the kernel.
    kernel: &'static str,
    /// Name that `ethtool -k` prints.
    shown: &'static str,
    /// Name that `ethtool -K` takes.
    key: &'static str,
}

static OFFLOADS: [Offload; 2] = [
    Offload {
        protocol: VlanProtocol::Ieee8021Q,
        kernel: "rx-vlan-hw-parse",
        shown: "rx-vlan-offload",
        key: "rxvlan",
    },
    Offload {
        protocol: VlanProtocol::Ieee8021Ad,
        kernel: "rx-vlan-stag-hw-parse",
        shown: "rx-vlan-stag-hw-parse",
        key: "rx-vlan-stag-hw-parse",
    },
];

/// Names that a message lists at most.
const LISTED: usize = 3;

/// Tags that XDP on a device does not see, though the host makes use of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StrippedTags {
    /// The device's VLAN sub-interfaces that are concerned, ascending; at least one.
    pub vlans: Vec<String>,
    /// What strips them.
    pub offloads: Vec<&'static Offload>,
}

impl StrippedTags {
    /// Those of a device of the calling thread's network namespace; `None` where XDP sees all tags
    /// that are used.
    ///
    /// What cannot be seen: VLAN sub-interfaces that were moved to another network namespace (no list
    /// of that device's namespace holds them), and other users of tags, such as a bridge or bond that
    /// the device is a port of.
    ///
    /// # Errors
    /// [`LinkError::Netlink`], [`LinkError::Offloads`].
    pub(super) fn read(device: &str, ifindex: u32) -> Result<Option<Self>, LinkError> {
        let above = above(ifindex, "vlan").map_err(|source| LinkError::Netlink {
            device: device.to_owned(),
            source,
        })?;
        let vlans: Vec<_> = above.iter().filter_map(vlan).collect();
        if vlans.is_empty() {
            return Ok(None);
        }
        let active = ethtool::active(device).map_err(|source| LinkError::Offloads {
            device: device.to_owned(),
            source,
        })?;
        Ok(Self::of(&vlans, &active))
    }

    /// The same from what is known of the device.
    fn of(vlans: &[(String, VlanProtocol)], active: &BTreeSet<String>) -> Option<Self> {
        let mut stripped = Self {
            vlans: Vec::new(),
            offloads: Vec::new(),
        };
        for offload in &OFFLOADS {
            let concerned = vlans
                .iter()
                .filter(|(_, protocol)| *protocol == offload.protocol);
            let before = stripped.vlans.len();
            if active.contains(offload.kernel) {
                stripped
                    .vlans
                    .extend(concerned.map(|(name, _)| name.clone()));
            }
            if stripped.vlans.len() > before {
                stripped.offloads.push(offload);
            }
        }
        stripped.vlans.sort_unstable();
        (!stripped.vlans.is_empty()).then_some(stripped)
    }

    /// The command that makes the tags visible.
    pub fn remedy(&self, device: &str) -> String {
        let off: Vec<String> = self
            .offloads
            .iter()
            .map(|offload| format!("{} off", offload.key))
            .collect();
        format!("ethtool -K {device} {}", off.join(" "))
    }
}

impl fmt::Display for StrippedTags {
    /// Both facts.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.offloads.iter().map(|offload| offload.shown).collect();
        let are = if names.len() == 1 { "is" } else { "are" };
        let listed = self.vlans.len().min(LISTED);
        write!(
            out,
            "{} {are} on and there are VLAN sub-interfaces ({}",
            names.join(" and "),
            self.vlans[..listed].join(", ")
        )?;
        match self.vlans.len() - listed {
            0 => out.write_str(")"),
            more => write!(out, " and {more} more)"),
        }
    }
}

/// Whether the calling thread's network namespace can have VLAN sub-interfaces: false as long as the
/// kernel's VLAN module is not there. Asked in that case the kernel would list all devices instead of
/// none, for each of them.
pub(super) fn may_exist() -> bool {
    // `vlan_proc_init` makes the directory in every namespace; a restricted /proc shows neither.
    let net = Path::new("/proc/thread-self/net");
    net.join("vlan").exists() || !net.join("dev").exists()
}

/// Devices of a kind that stand on the device with this index, both in the calling thread's network
/// namespace.
///
/// # Errors
/// See [`NetlinkError`].
pub fn above(ifindex: u32, kind: &str) -> Result<Vec<LinkMessage>, NetlinkError> {
    let mut query = LinkMessage::default();
    // The kernel then lists devices of that kind only; where it knows no such kind, all.
    query
        .attributes
        .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(
            InfoKind::from(kind),
        )]));
    let answers = netlink::request(
        NETLINK_ROUTE,
        RouteNetlinkMessage::GetLink(query),
        Scope::All,
    )?;
    let links = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(link) if below(&link, kind) == Some(ifindex) => Some(link),
        _ => None,
    });
    Ok(links.collect())
}

/// Index of the device that one of a kind stands on, in the same network namespace. An index of
/// another namespace means nothing here.
pub(crate) fn below(link: &LinkMessage, kind: &str) -> Option<u32> {
    let mut index = None;
    let mut is_kind = false;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Link(below) => index = Some(*below),
            LinkAttribute::LinkNetNsId(_) => return None,
            LinkAttribute::LinkInfo(infos) => {
                is_kind = infos
                    .iter()
                    .any(|info| matches!(info, LinkInfo::Kind(found) if found.to_string() == kind));
            }
            _ => {}
        }
    }
    index.filter(|_| is_kind)
}

/// Name of a device.
pub fn name(link: &LinkMessage) -> Option<String> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        })
}

/// Name and tags of a VLAN sub-interface.
fn vlan(link: &LinkMessage) -> Option<(String, VlanProtocol)> {
    let infos = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => Some(infos),
            _ => None,
        });
    let data = infos?.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vlan(data)) => Some(data.as_slice()),
        _ => None,
    });
    let protocol = data.unwrap_or_default().iter().find_map(|one| match one {
        InfoVlan::Protocol(protocol) => Some(*protocol),
        _ => None,
    });
    Some((name(link)?, protocol.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A VLAN sub-interface as the kernel tells of it.
    fn message(
        name: &str,
        below: u32,
        elsewhere: bool,
        protocol: Option<VlanProtocol>,
    ) -> LinkMessage {
        let mut link = LinkMessage::default();
        let mut infos = vec![LinkInfo::Kind(InfoKind::Vlan)];
        if let Some(protocol) = protocol {
            let data = vec![InfoVlan::Id(5), InfoVlan::Protocol(protocol)];
            infos.push(LinkInfo::Data(InfoData::Vlan(data)));
        }
        link.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Link(below),
            LinkAttribute::LinkInfo(infos),
        ];
        if elsewhere {
            link.attributes.push(LinkAttribute::LinkNetNsId(3));
        }
        link
    }

    fn on(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_vlan_stands_on_a_device_of_its_own_namespace() {
        assert_eq!(below(&message("a.5", 7, false, None), "vlan"), Some(7));
        assert_eq!(below(&message("a.5", 7, true, None), "vlan"), None);
        assert_eq!(below(&message("a.5", 7, false, None), "macvlan"), None);
        let plain = message("a.5", 7, false, None);
        assert_eq!(
            vlan(&plain),
            Some(("a.5".to_owned(), VlanProtocol::Ieee8021Q))
        );
        let service = message("a.6", 7, false, Some(VlanProtocol::Ieee8021Ad));
        assert_eq!(
            vlan(&service),
            Some(("a.6".to_owned(), VlanProtocol::Ieee8021Ad))
        );
    }

    #[test]
    fn tags_are_stripped_by_the_offload_of_their_kind() {
        let customer = ("a.5".to_owned(), VlanProtocol::Ieee8021Q);
        let service = ("a.6".to_owned(), VlanProtocol::Ieee8021Ad);
        let both = [service.clone(), customer.clone()];
        let offloads = ["rx-vlan-hw-parse", "rx-vlan-stag-hw-parse"];
        for (vlans, active, expected) in [
            (&both[..0], &offloads[..], None),
            (&both, &[], None),
            (&both, &["rx-vlan-filter", "tx-vlan-hw-insert"], None),
            (&both[..1], &offloads[..1], None),
            (&both[1..], &offloads[1..], None),
            (&both, &offloads[..1], Some("rxvlan off")),
            (&both, &offloads[1..], Some("rx-vlan-stag-hw-parse off")),
            (
                &both,
                &offloads,
                Some("rxvlan off rx-vlan-stag-hw-parse off"),
            ),
        ] {
            let found = StrippedTags::of(vlans, &on(active));
            let remedy = found.as_ref().map(|found| found.remedy("a"));
            let expected = expected.map(|off| format!("ethtool -K a {off}"));
            assert_eq!(remedy, expected, "{vlans:?} {active:?}");
        }
        let found = StrippedTags::of(&both, &on(&offloads)).unwrap();
        assert_eq!(
            found.to_string(),
            "rx-vlan-offload and rx-vlan-stag-hw-parse are on and there are VLAN sub-interfaces (a.5, a.6)"
        );
    }

    #[test]
    fn many_vlans_are_not_all_named() {
        let vlans: Vec<_> = (1..=5)
            .map(|id| (format!("a.{id}"), VlanProtocol::Ieee8021Q))
            .collect();
        let found = StrippedTags::of(&vlans, &on(&["rx-vlan-hw-parse"])).unwrap();
        assert!(
            found.to_string().ends_with("(a.1, a.2, a.3 and 2 more)"),
            "{found}"
        );
    }
}
