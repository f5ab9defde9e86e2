//! Where the flows of an interface are seen, and which of all that are seen there are its own.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use sg_common::layout::TIMEOUTS;

use crate::{
    control::Flow,
    flows::Side,
    link::Link,
    model::Orientation,
    netlink::NetlinkError,
    netns::Netns,
    nf_conntrack::{Ends, Tracked},
    peers::Peers,
    resolve::ResolvedInterface,
    route, sockets,
    status::chain,
    target::Target,
};

use super::{Candidate, Source};

/// What is known of an interface's flows without looking at any.
pub(super) struct Sight {
    orientation: Orientation,
    ifindex: u32,
    /// The workload's.
    addresses: Vec<IpAddr>,
    /// They are those of the workload's end, and nobody else's word.
    claimed: bool,
    /// No other address passes.
    checked: bool,
    /// The workload's namespace, of a `host` interface.
    pub(super) behind: Option<Behind>,
    routes: Arc<Mutex<Routes>>,
    /// Why the workload behind a `host` interface cannot be looked at.
    pub(super) hidden: Option<String>,
}

/// By which device of a namespace packets for an address leave, as far as anybody asked.
pub(super) type Routes = HashMap<IpAddr, Option<u32>>;

/// The workload's end of the link.
pub(super) struct Behind {
    pub(super) netns: Netns,
    addresses: Vec<IpAddr>,
}

impl Sight {
    pub(super) fn of(
        target: &Target,
        resolved: Option<&ResolvedInterface>,
        peers: &mut Peers,
        routes: Arc<Mutex<Routes>>,
    ) -> Self {
        // Those of an `own` device may have been read from it.
        let listed = resolved.and_then(|interface| interface.addresses.clone());
        let checked = listed.is_some()
            && resolved.is_some_and(|interface| interface.settings.checks_addresses());
        let mut sight = Self {
            orientation: target.orientation,
            ifindex: target.link.ifindex,
            addresses: listed.clone().unwrap_or_default(),
            claimed: false,
            checked,
            behind: None,
            routes,
            hidden: None,
        };
        match target.orientation {
            Orientation::Own if checked => {}
            Orientation::Own => sight.addresses.extend(&target.link.addresses),
            Orientation::Host => match peers.find(&target.netns, &target.link) {
                Ok((netns, link)) => sight.look_behind(netns, &link, listed.is_some()),
                Err(error) => sight.hidden = Some(chain(&error)),
            },
        }
        sight.addresses.sort_unstable();
        sight.addresses.dedup();
        sight
    }

    fn look_behind(&mut self, netns: Netns, link: &Link, listed: bool) {
        if !listed {
            self.claimed = true;
            self.addresses.clone_from(&link.addresses);
        }
        self.behind = Some(Behind {
            netns,
            addresses: self.addresses.clone(),
        });
    }

    /// Flows of the calling thread's namespace that are an `own` interface's, by sockets.
    pub(super) fn sockets_here(
        &self,
        timeouts: &[u32; TIMEOUTS],
    ) -> Result<Vec<Candidate>, NetlinkError> {
        let mut found: Vec<sockets::OwnFlow> = sockets::flows()?.into_iter().collect();
        found.retain(|one| self.is_own(&one.flow));
        let candidate = |one| Candidate::of_socket(&one, Source::Sockets, timeouts);
        Ok(found.into_iter().map(candidate).collect())
    }

    /// Whether the workload's device is seen, and has no address by which its flows could be told.
    pub(super) fn is_bare(&self) -> bool {
        let behind = self.behind.as_ref();
        behind.is_some_and(|behind| behind.addresses.is_empty())
    }

    /// Flows of the workload behind a `host` interface, by its sockets.
    pub(super) fn sockets_behind(
        &self,
        timeouts: &[u32; TIMEOUTS],
    ) -> Result<Vec<Candidate>, String> {
        let Some(behind) = &self.behind else {
            // Has been said.
            return Ok(Vec::new());
        };
        if behind.addresses.is_empty() {
            return Ok(Vec::new());
        }
        let found = behind
            .netns
            .run(|| sockets::own_flows(&behind.addresses))
            .map_err(|error| chain(&error))?
            .map_err(|error| chain(&error))?;
        let candidate = |one| Candidate::of_socket(&one, Source::WorkloadSockets, timeouts);
        Ok(found.into_iter().map(candidate).collect())
    }

    /// Flows of the calling thread's namespace, the interface's, that netfilter tracks there.
    pub(super) fn tracked_here(&self, table: &[Tracked]) -> Vec<Candidate> {
        let mut found = Vec::new();
        for tracked in table {
            for (flow, opener) in views(tracked, self.orientation) {
                // Most of a flood is nothing yet, and routes take asking.
                let candidate = Candidate::of_netfilter(tracked, flow, opener);
                found.extend(candidate.filter(|_| self.is_own(&flow)));
            }
        }
        found
    }

    /// Flows of the workload's namespace that netfilter tracks there.
    pub(super) fn tracked_behind(&self, table: &[Tracked]) -> Vec<Candidate> {
        let addresses = self.behind.as_ref().map(|behind| &behind.addresses);
        let has = |address: &IpAddr| addresses.is_some_and(|addresses| addresses.contains(address));
        let mut found = Vec::new();
        for tracked in table {
            for (flow, opener) in views(tracked, Orientation::Own) {
                if has(&flow.local) && !has(&flow.remote) {
                    let mut candidate = Candidate::of_netfilter(tracked, flow, opener);
                    if let Some(candidate) = &mut candidate {
                        candidate.word = true;
                    }
                    found.extend(candidate);
                }
            }
        }
        found
    }

    /// Whether packets of a flow pass the interface: by its workload's addresses; where these do not tell, or are not
    /// all that may pass, by the route that packets take from here.
    fn is_own(&self, flow: &Flow) -> bool {
        let has = |address| self.addresses.contains(address);
        if has(&flow.remote) || flow.remote.is_loopback() || flow.local.is_loopback() {
            return false;
        }
        if has(&flow.local) {
            // Addresses that the workload has given itself may be its neighbours'.
            return !self.claimed || self.is_towards(flow.local);
        }
        match self.orientation {
            // An address of another device here, or of somebody whom this host forwards for.
            Orientation::Own => !self.checked && self.is_towards(flow.remote),
            Orientation::Host => {
                self.addresses.is_empty()
                    && self.is_towards(flow.local)
                    && !self.is_towards(flow.remote)
            }
        }
    }

    fn is_towards(&self, address: IpAddr) -> bool {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let device = routes
            .entry(address)
            .or_insert_with(|| route::device(address, None));
        *device == Some(self.ifindex)
    }
}

/// A flow of netfilter's table as an interface sees it, if it is on one side of the host or the other, with its
/// opener. Addresses are translated behind where a packet comes in and before where it goes out, so the opener's side
/// sees the ends of the original packets, and the other one those of the replies.
fn views(tracked: &Tracked, orientation: Orientation) -> [(Flow, Side); 2] {
    let Tracked {
        original, reply, ..
    } = tracked;
    let flow = |local: (IpAddr, u16), remote: (IpAddr, u16)| Flow {
        protocol: tracked.protocol,
        local: local.0,
        remote: remote.0,
        local_port: local.1,
        remote_port: remote.1,
    };
    let source = |ends: &Ends| (ends.source, ends.source_port);
    let destination = |ends: &Ends| (ends.destination, ends.destination_port);
    match orientation {
        Orientation::Own => [
            (flow(destination(reply), source(reply)), Side::Local),
            (flow(destination(original), source(original)), Side::Remote),
        ],
        Orientation::Host => [
            (flow(source(original), destination(original)), Side::Local),
            (flow(source(reply), destination(reply)), Side::Remote),
        ],
    }
}

/// Who opened flows, where netfilter has seen it: the host's own rather than the workload's.
pub(super) fn openers(found: &[Candidate]) -> BTreeMap<Flow, Side> {
    let mut openers = BTreeMap::new();
    for word in [true, false] {
        let tracked = |one: &&Candidate| one.source == Source::NfConntrack && one.word == word;
        let known = found.iter().filter(tracked);
        openers.extend(known.filter_map(|one| Some((one.flow, one.opener?))));
    }
    openers
}

#[cfg(test)]
mod tests;
