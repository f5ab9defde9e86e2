//! The connections that a command is given over, and what a definition would do to them.
//!
//! SSH says which connection it is in the environment. Where that is lost, by `sudo` for instance, the processes
//! above this one hold its socket, and root can see it.

use std::{
    collections::BTreeSet,
    env, fmt, fs,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use sg_common::{
    layout::{Interface, interface_flags, policy_flags},
    verdict::Direction,
};

use crate::{
    adopt::Adopt,
    apply::Options,
    control::Flow,
    model::{Model, OnRevoke, Orientation},
    netns::{Netns, NetnsIdentity},
    resolve::{Resolved, resolve},
    route,
    session::Context,
    sockets::{self, OwnFlow, Stage},
    target::{self, Target, TargetError},
    view::View,
};

const TCP: u8 = 6;

/// A connection that a command is given over.
#[derive(Debug)]
struct Connection {
    netns: NetnsIdentity,
    flow: OwnFlow,
}

/// A connection that does not outlive a change, or could not be made again after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endangered {
    /// Its address here.
    pub local: SocketAddr,
    /// The other side's.
    pub remote: SocketAddr,
    /// The interface that it comes by, by its name in the definition.
    pub interface: String,
    /// What becomes of it.
    pub fate: Fate,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its next packet is dropped.
    Cut,
    /// It goes on, but no rule would let it begin again.
    Last,
}

impl fmt::Display for Endangered {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            local,
            remote,
            interface,
            ..
        } = self;
        write!(
            out,
            "the connection that this command is given over, {local} with {remote} by interface {interface}, "
        )?;
        match self.fate {
            Fate::Cut => write!(out, "would be cut"),
            Fate::Last => write!(out, "could not be opened again: no rule allows it"),
        }
    }
}

/// Connections that this command is given over and that `model` would end, or not let begin again. What cannot be
/// found out is passed over.
///
/// # Errors
/// [`TargetError`]: applying would fail, too.
pub fn endangered(
    context: &Context,
    model: &Model,
    options: Options,
) -> Result<Vec<Endangered>, TargetError> {
    let connections = connections();
    if connections.is_empty() {
        return Ok(Vec::new());
    }
    let targets = target::find(model, context.netns.as_deref())?;
    let resolved = resolve(model, &target::addresses(&targets));
    let view = View::open(context).ok();
    let mut endangered = Vec::new();
    for Connection { netns, flow } in &connections {
        // The address may be another device's than the one that the packets take.
        let route = Netns::reopen(netns)
            .and_then(|netns| netns.run(|| route::device(flow.flow.remote, Some(flow.flow.local))));
        let route = route.ok().flatten();
        let by = targets.iter().filter(|target| {
            target.orientation == Orientation::Own
                && target.netns.identity().is(netns)
                && (route == Some(target.link.ifindex)
                    || target.link.addresses.contains(&flow.flow.local))
        });
        for target in by {
            let record = view.as_ref().and_then(|view| record(view, target));
            if let Some(fate) = fate(&resolved, target, flow, record, options) {
                endangered.push(Endangered {
                    local: SocketAddr::new(flow.flow.local, flow.flow.local_port),
                    remote: SocketAddr::new(flow.flow.remote, flow.flow.remote_port),
                    interface: target.name.clone(),
                    fate,
                });
            }
        }
    }
    Ok(endangered)
}

/// What is in force on a target, if it is attached.
fn record(view: &View, target: &Target) -> Option<Interface> {
    let attached = view.state.interfaces.iter().find(|one| {
        let namespace = view.state.namespace(one.namespace);
        one.ifindex == target.link.ifindex
            && namespace.is_some_and(|found| found.identity.is(target.netns.identity()))
    })?;
    let record = view.record(attached.id).ok()?;
    (record.flags & interface_flags::PRESENT != 0).then_some(record)
}

fn fate(
    resolved: &Resolved,
    target: &Target,
    own: &OwnFlow,
    before: Option<Interface>,
    options: Options,
) -> Option<Fate> {
    let flow = &own.flow;
    let (direction, port) = if own.opened_by_local {
        (Direction::Egress, flow.remote_port)
    } else {
        (Direction::Ingress, flow.local_port)
    };
    let allowed = resolved
        .evaluate(&target.name, direction, TCP, flow.remote, port)
        .is_some();
    let Some(before) = before else {
        // Taken over, or in its middle when the first of its segments is seen.
        let loose = || resolved.interfaces[&target.name].settings.tcp_loose;
        return match (options.adopt, allowed) {
            (Adopt::All | Adopt::Policy, true) => None,
            (Adopt::All, false) => Some(Fate::Last),
            (Adopt::None, true) if loose() => None,
            (Adopt::Policy | Adopt::None, _) => Some(Fate::Cut),
        };
    };
    if allowed {
        return None;
    }
    let interface = resolved.interfaces.get(&target.name)?;
    let asked = before.flags & interface_flags::REEVALUATE != 0
        || interface.groups.iter().any(|group| {
            let group = resolved.groups.get(group);
            group.is_some_and(|group| group.on_revoke == OnRevoke::Reevaluate)
        });
    // Untracked, it lives by rule only.
    let family = usize::from(flow.local.is_ipv6());
    let open = before.policy[family].flags | before.policy[family + 2].flags;
    let tracked =
        before.flags & interface_flags::TRACK_ALWAYS != 0 || open & policy_flags::OPEN_TCP == 0;
    Some(if asked || !tracked {
        Fate::Cut
    } else {
        Fate::Last
    })
}

/// Connections that this process is run over.
fn connections() -> Vec<Connection> {
    let mut found: Vec<Connection> = Vec::new();
    for (netns, inodes) in sockets_above() {
        let Ok(Ok(flows)) = netns.run(|| sockets::connections(&inodes)) else {
            continue;
        };
        for flow in flows {
            let netns = netns.identity().clone();
            add(&mut found, Connection { netns, flow });
        }
    }
    let said = env::var("SSH_CONNECTION").ok();
    if let Some(flow) = said.as_deref().and_then(of_ssh)
        && let Ok(netns) = Netns::open(None)
    {
        let flow = OwnFlow {
            flow,
            opened_by_local: false,
            stage: Stage::Open,
        };
        let netns = netns.identity().clone();
        add(&mut found, Connection { netns, flow });
    }
    // One within the host passes no interface.
    found.retain(|one| {
        let flow = &one.flow.flow;
        flow.local != flow.remote && !flow.local.is_loopback()
    });
    found
}

fn add(found: &mut Vec<Connection>, new: Connection) {
    let same = |one: &Connection| one.flow.flow == new.flow.flow && one.netns.is(&new.netns);
    if !found.iter().any(same) {
        found.push(new);
    }
}

/// `SSH_CONNECTION` (sshd(8)): the client's address and port, the server's address and port.
fn of_ssh(text: &str) -> Option<Flow> {
    let mut words = text.split(' ');
    let mut end = || -> Option<(IpAddr, u16)> {
        let address: IpAddr = words.next()?.split('%').next()?.parse().ok()?;
        Some((address.to_canonical(), words.next()?.parse().ok()?))
    };
    let ((remote, remote_port), (local, local_port)) = (end()?, end()?);
    Some(Flow {
        protocol: TCP,
        local,
        remote,
        local_port,
        remote_port,
    })
}

/// Processes above this one that are looked at.
const DEPTH: usize = 64;

/// Sockets that this process and those above it hold, by namespace; the first process of all, which holds
/// sockets of everybody, aside.
fn sockets_above() -> Vec<(Netns, BTreeSet<u32>)> {
    let mut found: Vec<(Netns, BTreeSet<u32>)> = Vec::new();
    let mut process = std::process::id();
    for _ in 0..DEPTH {
        if process <= 1 {
            break;
        }
        let place = Path::new("/proc").join(process.to_string());
        let inodes = socket_inodes(&place);
        if !inodes.is_empty()
            && let Ok(netns) = Netns::open(place.join("ns/net").to_str())
        {
            let known = found
                .iter_mut()
                .find(|(known, _)| known.identity().is(netns.identity()));
            match known {
                Some((_, known)) => known.extend(inodes),
                None => found.push((netns, inodes)),
            }
        }
        let Some(above) = parent(&place) else { break };
        process = above;
    }
    found
}

fn socket_inodes(process: &Path) -> BTreeSet<u32> {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else {
        return BTreeSet::new();
    };
    let inode = |descriptor: fs::DirEntry| {
        let target = fs::read_link(descriptor.path()).ok()?;
        let text = target.to_str()?;
        let number = text.strip_prefix("socket:[")?.strip_suffix(']')?;
        number.parse().ok()
    };
    descriptors.flatten().filter_map(inode).collect()
}

/// The fourth field of `stat` (proc_pid_stat(5)); the second may hold anything, parentheses too.
fn parent(process: &Path) -> Option<u32> {
    let text = fs::read_to_string(process.join("stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sshd_says_is_a_flow() {
        let flow = of_ssh("192.0.2.7 50522 ::ffff:198.51.100.1 22").unwrap();
        assert_eq!(flow.remote, "192.0.2.7".parse::<IpAddr>().unwrap());
        assert_eq!(flow.local, "198.51.100.1".parse::<IpAddr>().unwrap());
        assert_eq!((flow.remote_port, flow.local_port), (50522, 22));
        let flow = of_ssh("fe80::1%eth0 50522 fe80::2%eth0 22").unwrap();
        assert_eq!(flow.local, "fe80::2".parse::<IpAddr>().unwrap());
        for wrong in [
            "",
            "192.0.2.7",
            "192.0.2.7 x 198.51.100.1 22",
            "UNKNOWN 1 UNKNOWN 2",
        ] {
            assert_eq!(of_ssh(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_process_above_is_known() {
        let own = Path::new("/proc/self");
        assert_eq!(parent(own), Some(std::os::unix::process::parent_id()));
    }
}
