//! The devices a definition names, as they are: found, examined, told apart.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    net::IpAddr,
    sync::Arc,
};

use crate::{
    link::{Link, LinkError},
    model::{Hook, InterfaceSettings, Model, Orientation},
    netns::{Netns, NetnsError},
};

/// An interface of the definition with the device it means.
#[derive(Debug)]
pub struct Target {
    /// Name in the definition.
    pub name: String,
    /// The namespace it is in, opened once for all that are in it.
    pub netns: Arc<Netns>,
    /// The device.
    pub link: Link,
    /// Which side it is.
    pub orientation: Orientation,
    /// The hook asked for.
    pub hook: Hook,
}

/// Why an interface cannot be enforced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// Its namespace is not there.
    #[error("interface {interface}")]
    Netns {
        /// The interface.
        interface: String,
        /// Why.
        source: NetnsError,
    },
    /// Its device is not there or cannot be judged.
    #[error("interface {interface}")]
    Link {
        /// The interface.
        interface: String,
        /// Why.
        source: LinkError,
    },
    /// It may be either side.
    #[error(
        "interface {interface}: {device} is a {kind}; say which side it is with `orientation = \"own\"` (the workload's own NIC) or `orientation = \"host\"` (the host's end of it)"
    )]
    OrientationMissing {
        /// The interface.
        interface: String,
        /// Its device.
        device: String,
        /// What the device is.
        kind: &'static str,
    },
    /// It has no workload behind it.
    #[error(
        "interface {interface}: `orientation = \"host\"` is for the host's end of a veth or tap, and {device} is {kind}"
    )]
    OrientationWrong {
        /// The interface.
        interface: String,
        /// Its device.
        device: String,
        /// What the device is.
        kind: String,
    },
    /// Two interfaces are one device.
    #[error("interfaces {first} and {second} are the same device {device}")]
    Twice {
        /// One interface.
        first: String,
        /// The other.
        second: String,
        /// The device.
        device: String,
    },
}

/// Finds the devices of a definition; `default_netns` is where those are that name no namespace.
///
/// # Errors
/// The first [`TargetError`]; nothing has been touched.
pub fn find(model: &Model, default_netns: Option<&str>) -> Result<Vec<Target>, TargetError> {
    let mut targets: Vec<Target> = Vec::new();
    for found in examine(model, default_netns).into_values() {
        add(&mut targets, found?)?;
    }
    Ok(targets)
}

/// The same of those devices that are there; and why the others are not, by interface.
///
/// # Errors
/// The first [`TargetError`] that is another reason than that.
pub fn find_present(
    model: &Model,
    default_netns: Option<&str>,
) -> Result<(Vec<Target>, BTreeMap<String, String>), TargetError> {
    let mut targets: Vec<Target> = Vec::new();
    let mut absent = BTreeMap::new();
    for (name, found) in examine(model, default_netns) {
        match found {
            Ok(target) => add(&mut targets, target)?,
            Err(TargetError::Link {
                source: missing @ LinkError::Missing { .. },
                ..
            }) => {
                absent.insert(name.to_owned(), missing.to_string());
            }
            Err(TargetError::Netns {
                source: NetnsError::Open { path, source },
                ..
            }) if source.kind() == io::ErrorKind::NotFound => {
                let missing = NetnsError::Open { path, source };
                absent.insert(name.to_owned(), missing.to_string());
            }
            Err(error) => return Err(error),
        }
    }
    Ok((targets, absent))
}

fn add(targets: &mut Vec<Target>, target: Target) -> Result<(), TargetError> {
    let same = targets.iter().find(|other| {
        other.link.ifindex == target.link.ifindex
            && other.netns.identity().is(target.netns.identity())
    });
    if let Some(other) = same {
        return Err(TargetError::Twice {
            first: other.name.clone(),
            second: target.name,
            device: target.link.name,
        });
    }
    targets.push(target);
    Ok(())
}

/// Addresses of the devices that are their workload's own.
pub fn addresses(targets: &[Target]) -> BTreeMap<String, Vec<IpAddr>> {
    targets
        .iter()
        .filter(|target| target.orientation == Orientation::Own)
        .map(|target| (target.name.clone(), target.link.addresses.clone()))
        .collect()
}

/// Every interface of a definition. A namespace is entered once for all that are in it: entering takes a thread.
fn examine<'a>(
    model: &'a Model,
    default_netns: Option<&'a str>,
) -> BTreeMap<&'a str, Result<Target, TargetError>> {
    let in_netns = |name: &str, source| TargetError::Netns {
        interface: name.to_owned(),
        source,
    };
    let mut found = BTreeMap::new();
    let mut namespaces = BTreeMap::new();
    for (name, interface) in &model.interfaces {
        let place = interface.settings.netns.as_deref().or(default_netns);
        let (_, inside) = match namespaces.entry(place) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => match Netns::open(place) {
                Ok(netns) => new.insert((Arc::new(netns), Vec::new())),
                Err(source) => {
                    found.insert(name.as_str(), Err(in_netns(name, source)));
                    continue;
                }
            },
        };
        inside.push((name.as_str(), &interface.settings));
    }
    for (netns, interfaces) in namespaces.into_values() {
        let devices: Vec<&str> = interfaces
            .iter()
            .map(|(_, settings)| settings.device.as_str())
            .collect();
        let look = || Link::read_all(&devices);
        match netns.run(look) {
            Ok(links) => {
                for ((name, settings), link) in interfaces.into_iter().zip(links) {
                    found.insert(name, target(name, settings, &netns, link));
                }
            }
            Err(source) => {
                let (first, _) = interfaces[0];
                found.insert(first, Err(in_netns(first, source)));
            }
        }
    }
    found
}

fn target(
    name: &str,
    settings: &InterfaceSettings,
    netns: &Arc<Netns>,
    link: Result<Link, LinkError>,
) -> Result<Target, TargetError> {
    let on_link = |source| TargetError::Link {
        interface: name.to_owned(),
        source,
    };
    let link = link.map_err(on_link)?;
    link.check().map_err(on_link)?;
    Ok(Target {
        name: name.to_owned(),
        orientation: orientation(name, settings.orientation, &link)?,
        hook: settings.hook,
        netns: Arc::clone(netns),
        link,
    })
}

fn orientation(
    interface: &str,
    given: Option<Orientation>,
    link: &Link,
) -> Result<Orientation, TargetError> {
    match given {
        None if link.orientation_ambiguous() => Err(TargetError::OrientationMissing {
            interface: interface.to_owned(),
            device: link.name.clone(),
            kind: match link.kind.as_deref() {
                Some("veth") => "veth whose peer is in another network namespace",
                _ => "tap",
            },
        }),
        None => Ok(Orientation::Own),
        Some(Orientation::Host) if !link.has_workload_behind() => {
            Err(TargetError::OrientationWrong {
                interface: interface.to_owned(),
                device: link.name.clone(),
                kind: match &link.kind {
                    Some(kind) => format!("a {kind}"),
                    None => "a physical device".to_owned(),
                },
            })
        }
        Some(given) => Ok(given),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(kind: Option<&str>, peer_elsewhere: bool) -> Link {
        Link {
            name: "a".into(),
            ifindex: 2,
            kind: kind.map(str::to_owned),
            ethernet: true,
            loopback: false,
            up: true,
            peer_elsewhere,
            peer: None,
            mac: None,
            mtu: 1500,
            addresses: Vec::new(),
            stripped_tags: None,
        }
    }

    #[test]
    fn j6_orientation_is_asked_for_where_it_cannot_be_known() {
        for (kind, elsewhere) in [(Some("veth"), true), (Some("tun"), false)] {
            let found = orientation("a", None, &link(kind, elsewhere));
            assert!(matches!(found, Err(TargetError::OrientationMissing { .. })));
            for given in [Orientation::Own, Orientation::Host] {
                let found = orientation("a", Some(given), &link(kind, elsewhere));
                assert_eq!(found.unwrap(), given);
            }
        }
        for kind in [Some("veth"), Some("vlan"), None] {
            let found = orientation("a", None, &link(kind, false));
            assert_eq!(found.unwrap(), Orientation::Own);
        }
    }

    #[test]
    fn j6_host_needs_a_workload_behind_the_device() {
        for kind in [None, Some("bond"), Some("vlan")] {
            let found = orientation("a", Some(Orientation::Host), &link(kind, false));
            assert!(matches!(found, Err(TargetError::OrientationWrong { .. })));
        }
    }
}
