//! The demo's network: a namespace for each interface of the definition, for a client and for an
//! outsider, each on its own link to a router.
//!
//! Every address is a route of its own and the router answers under the same link-local address on
//! every link, so that any addresses do and no subnet has to be agreed upon.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use sg_userspace::model::Model;
use sg_userspace::netns::Netns;

use super::teardown::Teardown;

/// What every namespace of the demo is called by first; no other is ever entered or removed.
pub(crate) const PREFIX: &str = "sgdemo-";

/// Joins the others. The agent runs in it too, so that whatever is left of a demo is found by
/// namespace.
pub(crate) const ROUTER: &str = "sgdemo-router";

/// Device of those that the definition does not name.
const DEVICE: &str = "eth0";

/// Those outside of the definition: nothing is enforced on them.
const OUTSIDE: [(&str, Ipv4Addr, Ipv6Addr); 2] = [
    (
        "client",
        Ipv4Addr::new(203, 0, 113, 10),
        Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 0x10),
    ),
    (
        "outsider",
        Ipv4Addr::new(10, 0, 9, 9),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 9, 0, 0, 0, 9),
    ),
];

/// The router's address on every link.
const GATEWAY4: &str = "169.254.1.1";
const GATEWAY6: &str = "fe80::1";

/// All nodes.
pub(crate) struct Topology {
    /// The enforced ones first.
    pub(crate) nodes: Vec<Node>,
}

/// A namespace with one device.
pub(crate) struct Node {
    /// Name of the interface in the definition, or of the outside.
    pub(crate) name: String,
    /// Its namespace.
    pub(crate) namespace: String,
    device: String,
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
}

impl Topology {
    /// The network that a definition takes.
    ///
    /// # Errors
    /// If the definition does not say enough, or means a namespace that is not the demo's.
    pub(crate) fn of(model: &Model) -> Result<Self> {
        let mut nodes = Vec::new();
        for (name, interface) in &model.interfaces {
            let settings = &interface.settings;
            let namespace = settings.netns.clone().unwrap_or_default();
            if !namespace.starts_with(PREFIX) || namespace.contains('/') || namespace == ROUTER {
                bail!("interface {name}: the demo takes only namespaces called {PREFIX}…");
            }
            let addresses = interface.addresses.as_deref().unwrap_or_default();
            let ipv4 = addresses.iter().find_map(|address| match address {
                IpAddr::V4(address) => Some(*address),
                IpAddr::V6(_) => None,
            });
            let ipv6 = addresses.iter().find_map(|address| match address {
                IpAddr::V6(address) => Some(*address),
                IpAddr::V4(_) => None,
            });
            let missing =
                || format!("interface {name}: the demo needs an IPv4 and an IPv6 address");
            nodes.push(Node {
                name: name.clone(),
                namespace,
                device: settings.device.clone(),
                ipv4: ipv4.with_context(missing)?,
                ipv6: ipv6.with_context(missing)?,
            });
        }
        nodes.extend(OUTSIDE.map(|(name, ipv4, ipv6)| Node {
            name: name.to_owned(),
            namespace: format!("{PREFIX}{name}"),
            device: DEVICE.to_owned(),
            ipv4,
            ipv6,
        }));
        let distinct: BTreeSet<&str> = nodes.iter().map(|node| node.namespace.as_str()).collect();
        if distinct.len() != nodes.len() {
            bail!("the demo needs a namespace for each interface");
        }
        Ok(Self { nodes })
    }

    /// The node called `name`.
    ///
    /// # Errors
    /// If the definition has no such interface.
    pub(crate) fn node(&self, name: &str) -> Result<&Node> {
        self.nodes
            .iter()
            .find(|node| node.name == name)
            .with_context(|| format!("the definition has no interface called {name}"))
    }

    /// Every namespace of the demo.
    pub(crate) fn namespaces(&self) -> Vec<String> {
        let nodes = self.nodes.iter().map(|node| node.namespace.clone());
        nodes.chain([ROUTER.to_owned()]).collect()
    }

    /// Makes it.
    ///
    /// # Errors
    /// If `ip` or the kernel refuses; what was made so far is for `teardown` to remove.
    pub(crate) fn build(&self, teardown: &Teardown) -> Result<()> {
        for namespace in self.namespaces() {
            teardown.making(|| add(&namespace))?;
        }
        inside(ROUTER, || {
            write("net/ipv4/ip_forward", "1")?;
            write("net/ipv6/conf/all/forwarding", "1")?;
            // What the router reports as a listener is over before anything is enforced.
            write(
                "net/ipv6/conf/default/mldv2_unsolicited_report_interval",
                "1",
            )
        })??;
        for node in &self.nodes {
            teardown.making(|| node.connect())?;
        }
        Ok(())
    }
}

impl Node {
    /// Its address of a family.
    pub(crate) fn address(&self, ipv6: bool) -> IpAddr {
        if ipv6 {
            self.ipv6.into()
        } else {
            self.ipv4.into()
        }
    }

    fn connect(&self) -> Result<()> {
        let Self {
            name,
            namespace,
            device,
            ipv4,
            ipv6,
        } = self;
        ip(
            ROUTER,
            &format!(
                "link add {name} type veth peer name {device} netns {namespace}\n\
                 link set {name} up\n\
                 address add {GATEWAY4}/32 dev {name}\n\
                 address add {GATEWAY6}/64 dev {name} nodad\n"
            ),
        )?;
        ip(
            namespace,
            &format!(
                "link set lo up\n\
                 link set {device} up\n\
                 address add {ipv4}/32 dev {device}\n\
                 address add {ipv6}/128 dev {device} nodad\n\
                 route add default via {GATEWAY4} dev {device} onlink\n\
                 route add default via {GATEWAY6} dev {device}\n"
            ),
        )?;
        // Only now are both ends of the link up.
        ip(
            ROUTER,
            &format!(
                "route add {ipv4}/32 dev {name}\n\
                 route add {ipv6}/128 dev {name}\n"
            ),
        )
    }
}

/// Runs `task` in a namespace of the demo.
///
/// # Errors
/// If it cannot be entered.
pub(crate) fn inside<T: Send>(namespace: &str, task: impl FnOnce() -> T + Send) -> Result<T> {
    debug_assert!(namespace.starts_with(PREFIX));
    Ok(Netns::open(Some(namespace))?.run(task)?)
}

fn add(namespace: &str) -> Result<()> {
    let output = Command::new("ip")
        .args(["netns", "add", namespace])
        .output()
        .context("start `ip`")?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        bail!("make network namespace {namespace}: {}", reason.trim());
    }
    inside(namespace, || {
        for which in ["all", "default"] {
            write(&format!("net/ipv6/conf/{which}/disable_ipv6"), "0")?;
            // Addresses serve at once, not after duplicate address detection.
            write(&format!("net/ipv6/conf/{which}/accept_dad"), "0")?;
        }
        Ok(())
    })?
}

/// `ip` with one command a line. Entered by a thread of ours: `ip -n` wants to remount `/`, which
/// a chroot does not let it.
fn ip(namespace: &str, commands: &str) -> Result<()> {
    let output = inside(namespace, || {
        let mut child = Command::new("ip")
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(commands.as_bytes())?;
        }
        child.wait_with_output()
    })?
    .context("start `ip`")?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        bail!("`ip -batch` in {namespace}: {}", reason.trim());
    }
    Ok(())
}

fn write(key: &str, value: &str) -> Result<()> {
    let path = Path::new("/proc/sys").join(key);
    fs::write(&path, value).with_context(|| format!("write {value} to {}", path.display()))
}
