//! A workload in one namespace, somebody who talks to it in another, and definitions for them.

#![allow(dead_code, reason = "a test program uses what it needs of it")]

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    ethtool::set_send_queues,
    netns::{Namespace, veth},
};

pub(crate) const NEAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub(crate) const FAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
pub(crate) const NEAR6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
pub(crate) const FAR6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);

/// A workload and somebody who talks to it, on a veth pair called eth0 with ifindex 10.
pub(crate) struct Pair {
    pub(crate) near: Namespace,
    pub(crate) far: Namespace,
}

impl Pair {
    pub(crate) fn new() -> Self {
        let pair = Self {
            near: Namespace::new("near"),
            far: Namespace::new("far"),
        };
        veth(&pair.near, &pair.far, "eth0", 10);
        pair.near.ip(&format!("addr add {NEAR}/24 dev eth0"));
        pair.far.ip(&format!("addr add {FAR}/24 dev eth0"));
        pair.near.ip(&format!("addr add {NEAR6}/64 dev eth0 nodad"));
        pair.far.ip(&format!("addr add {FAR6}/64 dev eth0 nodad"));
        pair
    }

    /// One whose workload's NIC refuses native XDP: its peer sends by more queues than it receives by.
    pub(crate) fn without_native_xdp() -> Self {
        let pair = Self::new();
        set_send_queues(&pair.far, 2);
        pair
    }

    /// An interface table for the workload's NIC.
    pub(crate) fn interface(&self, name: &str, groups: &str, more: &str) -> String {
        format!(
            "[interfaces.{name}]\ndevice = \"eth0\"\nnetns = \"{}\"\norientation = \"own\"\ngroups = {groups}\n{more}\n",
            self.near.name
        )
    }
}

/// Ingress on one TCP port from anywhere; nothing goes out but replies.
pub(crate) fn web(group: &str, port: u16) -> String {
    format!(
        "[groups.{group}]\ningress = [{{ protocol = \"tcp\", ports = {port}, cidr = [\"0.0.0.0/0\", \"::/0\"] }}]\negress = []\n"
    )
}

/// Nothing at all, in either direction.
pub(crate) fn denies_all(group: &str) -> String {
    format!("[groups.{group}]\ningress = []\negress = []\n")
}
