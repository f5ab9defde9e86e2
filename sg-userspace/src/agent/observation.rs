//! The devices a definition names, as they are at one moment.

use std::{collections::BTreeMap, io::ErrorKind, net::IpAddr};

use crate::{
    link::{Link, LinkError, vlan::StrippedTags},
    model::{Interface, Model},
    netns::{Netns, NetnsError, NetnsIdentity},
    session::Context,
};

/// A device, as far as a change of it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Device and inode number of its namespace.
    pub(super) netns: (u64, u64),
    pub(super) ifindex: u32,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) stripped_tags: Option<StrippedTags>,
}

/// The devices of a definition: `None` where there is none. What cannot be examined is left out:
/// applying will say why.
pub(super) fn observe_all(context: &Context, model: &Model) -> BTreeMap<String, Option<Seen>> {
    let interfaces = model.interfaces.iter();
    let seen = interfaces.filter_map(|(name, interface)| {
        let seen = observe(context, interface)?;
        Some((name.clone(), seen))
    });
    seen.collect()
}

/// The device of one interface; outer `None`: it cannot be examined.
pub(super) fn observe(context: &Context, interface: &Interface) -> Option<Option<Seen>> {
    let netns = match open(context, interface) {
        Ok(netns) => netns,
        Err(NetnsError::Open { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return Some(None);
        }
        // The name is made before the namespace is mounted there.
        Err(NetnsError::NotNamespace { .. }) => return Some(None),
        Err(_) => return None,
    };
    match netns.run(|| Link::read(&interface.settings.device)) {
        Ok(Ok(link)) => Some(Some(Seen {
            netns: key(netns.identity()),
            ifindex: link.ifindex,
            addresses: link.addresses,
            stripped_tags: link.stripped_tags,
        })),
        Ok(Err(LinkError::Missing { .. })) => Some(None),
        Ok(Err(_)) | Err(_) => None,
    }
}

/// What tells a namespace apart.
pub(super) fn key(identity: &NetnsIdentity) -> (u64, u64) {
    (identity.device, identity.inode)
}

/// The namespace of an interface.
pub(super) fn open(context: &Context, interface: &Interface) -> Result<Netns, NetnsError> {
    let name = interface.settings.netns.as_deref();
    Netns::open(name.or(context.netns.as_deref()))
}
