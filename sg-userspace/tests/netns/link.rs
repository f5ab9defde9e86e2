//! A workload and its peer on one link, enforced at the workload's end or at the other.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    thread,
    time::Duration,
};

use crate::{
    common::netns::{Answer, Enforcer, Namespace, eventually, veth},
    counters::Counters,
};

/// IPv4 and IPv6, where a test does the same with both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// The workload.
    pub(crate) fn workload(self) -> IpAddr {
        self.address(1)
    }

    /// Its peer.
    pub(crate) fn peer(self) -> IpAddr {
        self.address(2)
    }

    /// The peer's other address, which the rules do not know.
    pub(crate) fn stranger(self) -> IpAddr {
        self.address(3)
    }

    /// Number `host` of the link's network.
    pub(crate) fn address(self, host: u8) -> IpAddr {
        match self {
            Family::V4 => Ipv4Addr::new(10, 77, 0, host).into(),
            Family::V6 => Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, host.into()).into(),
        }
    }

    /// Any address, as a rule spells it.
    pub(crate) fn any(self) -> &'static str {
        match self {
            Family::V4 => "0.0.0.0/0",
            Family::V6 => "::/0",
        }
    }
}

/// Which end of the link is enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Orientation {
    /// The workload's NIC.
    Own,
    /// The host's end, in the peer's namespace.
    Host,
}

/// The workload, its peer, and an enforcer between them. The device is eth0 on both sides.
pub(crate) struct Link {
    pub(crate) enforcer: Enforcer,
    pub(crate) workload: Namespace,
    pub(crate) peer: Namespace,
    pub(crate) orientation: Orientation,
    hook: &'static str,
}

impl Link {
    pub(crate) fn new(orientation: Orientation, hook: &'static str) -> Self {
        let link = Self {
            enforcer: Enforcer::new(),
            workload: Namespace::new("workload"),
            peer: Namespace::new("peer"),
            orientation,
            hook,
        };
        veth(&link.workload, &link.peer, "eth0", 10);
        for (namespace, host) in [(&link.workload, 1), (&link.peer, 2)] {
            namespace.ip(&format!("addr add 10.77.0.{host}/24 dev eth0"));
            namespace.ip(&format!("addr add fd77::{host}/64 dev eth0 nodad"));
            namespace.ip(&format!("addr add fe80::77:{host}/64 dev eth0 nodad"));
        }
        // Deprecated addresses are used by those only that ask for them.
        link.peer.ip("addr add 10.77.0.3/24 dev eth0");
        link.peer
            .ip("addr add fd77::3/64 dev eth0 nodad preferred_lft 0");
        link
    }

    /// Enforces these rules on the workload, with more keys of its interface.
    #[track_caller]
    pub(crate) fn enforce(&self, ingress: &str, egress: &str, more: &str) -> Answer {
        let groups = format!("[groups.g]\ningress = [{ingress}]\negress = [{egress}]\n");
        self.enforcer
            .apply(&(groups + &self.interface("[\"g\"]", more)), &[])
            .ok()
    }

    /// Enforces no group at all.
    #[track_caller]
    pub(crate) fn deny_all(&self) -> Answer {
        self.enforcer.apply(&self.interface("[]", ""), &[]).ok()
    }

    /// The interface `w` of a definition.
    pub(crate) fn interface(&self, groups: &str, more: &str) -> String {
        let (orientation, netns) = match self.orientation {
            Orientation::Own => ("own", &self.workload.name),
            Orientation::Host => ("host", &self.peer.name),
        };
        format!(
            "[interfaces.w]\ndevice = \"eth0\"\nnetns = \"{netns}\"\norientation = \"{orientation}\"\n\
             addresses = [\"10.77.0.1\", \"fd77::1\"]\nhook = \"{}\"\ngroups = {groups}\n{more}\n",
            self.hook
        )
    }

    /// The namespace of the enforced device.
    pub(crate) fn enforced(&self) -> &Namespace {
        match self.orientation {
            Orientation::Own => &self.workload,
            Orientation::Host => &self.peer,
        }
    }

    /// Waits until all connections but `open` have ended and their last packets have come.
    #[track_caller]
    pub(crate) fn settle(&self, open: usize) {
        eventually("the end of every connection", || {
            let now = self.counters();
            let states = ["syn_sent", "syn_received", "established", "last_ack"];
            let live = states.map(|state| now.get(&format!("conntrack_tcp_{state}")));
            live.iter().sum::<u64>() == open as u64
        });
    }

    pub(crate) fn counters(&self) -> Counters {
        Counters::read(&self.enforcer, "w")
    }

    /// The same when nothing comes any more: connections that are closed acknowledge it a little later.
    pub(crate) fn counters_at_rest(&self) -> Counters {
        let mut last = self.counters();
        for _ in 0..100 {
            thread::sleep(Duration::from_millis(50));
            let now = self.counters();
            if now.packets() == last.packets() {
                break;
            }
            last = now;
        }
        last
    }
}

/// A rule.
pub(crate) fn rule(protocol: &str, ports: &str, cidr: &str) -> String {
    format!("{{ protocol = \"{protocol}\", ports = {ports}, cidr = \"{cidr}\" }}, ")
}

/// A rule for each family's any address.
pub(crate) fn anyone(protocol: &str, ports: &str) -> String {
    Family::ALL
        .map(|family| rule(protocol, ports, family.any()))
        .concat()
}

/// Rules that let these addresses ping.
pub(crate) fn echo_from(addresses: [IpAddr; 2]) -> String {
    addresses
        .map(|address| match address {
            IpAddr::V4(_) => {
                format!("{{ protocol = \"icmp\", type = 8, cidr = \"{address}/32\" }}, ")
            }
            IpAddr::V6(_) => {
                format!("{{ protocol = \"icmpv6\", type = 128, cidr = \"{address}/128\" }}, ")
            }
        })
        .concat()
}
