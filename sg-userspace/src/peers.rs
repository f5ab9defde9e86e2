//! The other end of a pair of devices, wherever it is.
//!
//! The kernel names its namespace by an id that means something in the device's own only (`IFLA_LINK_NETNSID`), and
//! nothing leads from there to the namespace. So those that can be found are asked which id they have
//! (`RTM_GETNSID`): named ones first, then those of processes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use netlink_packet_route::{
    RouteNetlinkMessage,
    nsid::{NsidAttribute, NsidMessage},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::{
    link::{Link, LinkError},
    netlink::{self, Scope},
    netns::{Netns, NetnsError, NetnsIdentity},
};

/// Why the other end is not seen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// The device is no such pair: behind a tap is another machine.
    #[error("its other end is not a device of this machine")]
    None,
    /// No namespace that can be seen has it.
    #[error(
        "the network namespace of its other end is none that can be seen (named in /run/netns, or of a process)"
    )]
    Hidden,
    /// Its namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// It cannot be read.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// Namespaces by their ids, remembered as long as it takes to attach interfaces.
#[derive(Debug, Default)]
pub struct Peers {
    /// By the namespace that knows the id.
    known: Vec<(NetnsIdentity, Known)>,
}

#[derive(Debug, Default)]
struct Known {
    namespaces: BTreeMap<i32, NetnsIdentity>,
    looked_at: usize,
}

impl Peers {
    /// The other end of `link`, a device of `netns`.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub fn find(&mut self, netns: &Netns, link: &Link) -> Result<(Netns, Link), PeerError> {
        let peer = link.peer.ok_or(PeerError::None)?;
        let identity = match peer.netnsid {
            None => netns.identity().clone(),
            Some(id) => self.namespace(netns, id)?.ok_or(PeerError::Hidden)?,
        };
        let there = Netns::reopen(&identity)?;
        let name = format!("{}, the other end of {}", peer.ifindex, link.name);
        let device = there.run(|| Link::read_at(peer.ifindex, &name))??;
        // The id may have gone to another namespace, whose device of that index is somebody else's.
        let back = device.peer;
        if back.is_none_or(|back| back.ifindex != link.ifindex) {
            return Err(PeerError::Hidden);
        }
        Ok((there, device))
    }

    /// The namespace that has this id in `netns`.
    fn namespace(&mut self, netns: &Netns, id: i32) -> Result<Option<NetnsIdentity>, NetnsError> {
        let place = self
            .known
            .iter()
            .position(|(one, _)| one.is(netns.identity()));
        let place = place.unwrap_or_else(|| {
            self.known
                .push((netns.identity().clone(), Known::default()));
            self.known.len() - 1
        });
        let known = &mut self.known[place].1;
        for places in &PLACES[known.looked_at..] {
            if known.namespaces.contains_key(&id) {
                break;
            }
            let found: Vec<PathBuf> = places();
            netns.run(|| known.look_at(&found))?;
            known.looked_at += 1;
        }
        Ok(known.namespaces.get(&id).cloned())
    }
}

/// Where namespaces are found.
const PLACES: [fn() -> Vec<PathBuf>; 2] = [named, of_processes];

fn named() -> Vec<PathBuf> {
    let names = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let named = names.map(|entry| entry.path());
    // The first process's has a device's other end more often than any.
    named.chain([PathBuf::from("/proc/1/ns/net")]).collect()
}

fn of_processes() -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter(|entry| {
        let name = entry.file_name();
        name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
    });
    processes.map(|entry| entry.path().join("ns/net")).collect()
}

impl Known {
    /// Asks the calling thread's namespace for the ids of others. Those that are gone meanwhile, or that nobody lets
    /// us see, are passed over.
    fn look_at(&mut self, places: &[PathBuf]) {
        let mut seen = BTreeSet::new();
        for place in places {
            let Some(Ok(netns)) = place.to_str().map(|place| Netns::open(Some(place))) else {
                continue;
            };
            let key = (netns.identity().device, netns.identity().inode);
            if !seen.insert(key) {
                continue;
            }
            if let Some(id) = id_of(&netns) {
                self.namespaces
                    .entry(id)
                    .or_insert_with(|| netns.identity().clone());
            }
        }
    }
}

/// The id of a namespace in the calling thread's; `None`: it has none.
fn id_of(netns: &Netns) -> Option<i32> {
    let mut question = NsidMessage::default();
    question.attributes = vec![NsidAttribute::Fd(netns.descriptor() as u32)];
    let question = RouteNetlinkMessage::GetNsId(question);
    let answers = netlink::request(NETLINK_ROUTE, question, Scope::One).ok()?;
    answers.into_iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewNsId(answer) => {
            answer
                .attributes
                .into_iter()
                .find_map(|attribute| match attribute {
                    NsidAttribute::Id(id) if id >= 0 => Some(id),
                    _ => None,
                })
        }
        _ => None,
    })
}
