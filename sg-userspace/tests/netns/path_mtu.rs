//! Path-MTU discovery needs no rule: the error quotes a flow that lives.

use std::{
    net::{IpAddr, SocketAddr},
    thread,
};

use crate::{
    common::{
        netns::{Enforcer, NEVER, Namespace, SOON, veth},
        require::require,
    },
    counters::Counters,
    link::{Family, Orientation, anyone},
    traffic::{finish, sink, start},
};

/// A workload and a far peer behind two routers, between which packets must be smaller than both
/// ends think.
struct Path {
    enforcer: Enforcer,
    workload: Namespace,
    near: Namespace,
    far: Namespace,
    peer: Namespace,
}

impl Path {
    fn new() -> Self {
        let path = Self {
            enforcer: Enforcer::new(),
            workload: Namespace::new("workload"),
            near: Namespace::new("near"),
            far: Namespace::new("far"),
            peer: Namespace::new("peer"),
        };
        veth(&path.workload, &path.near, "uplink", 10);
        veth(&path.near, &path.far, "narrow", 20);
        veth(&path.far, &path.peer, "downlink", 30);
        for (link, device, one, two) in [
            (77, "uplink", &path.workload, &path.near),
            (78, "narrow", &path.near, &path.far),
            (79, "downlink", &path.far, &path.peer),
        ] {
            for (namespace, host) in [(one, 1), (two, 2)] {
                namespace.ip(&format!("addr add 10.{link}.0.{host}/24 dev {device}"));
                namespace.ip(&format!("addr add fd{link}::{host}/64 dev {device} nodad"));
            }
        }
        for router in [&path.near, &path.far] {
            router.ip("link set narrow mtu 1300");
            router.sysctl("net/ipv4/ip_forward", "1");
            router.sysctl("net/ipv6/conf/all/forwarding", "1");
        }
        for (namespace, link, host) in [
            (&path.workload, 77, 2),
            (&path.near, 78, 2),
            (&path.far, 78, 1),
            (&path.peer, 79, 1),
        ] {
            namespace.ip(&format!("route add default via 10.{link}.0.{host}"));
            namespace.ip(&format!("-6 route add default via fd{link}::{host}"));
        }
        path
    }

    fn enforce(&self, orientation: Orientation, icmp_errors: &str) {
        let (word, netns) = match orientation {
            Orientation::Own => ("own", &self.workload.name),
            Orientation::Host => ("host", &self.near.name),
        };
        let definition = format!(
            "[groups.g]\ningress = []\negress = [{}]\n[interfaces.w]\ndevice = \"uplink\"\n\
             netns = \"{netns}\"\norientation = \"{word}\"\ngroups = [\"g\"]\n\
             addresses = [\"10.77.0.1\", \"fd77::1\"]\nicmp_errors = \"{icmp_errors}\"\n",
            anyone("tcp", "5001"),
        );
        self.enforcer.apply(&definition, &[]).ok();
    }

    fn counters(&self) -> Counters {
        Counters::read(&self.enforcer, "w")
    }
}

#[test]
fn g6_packets_that_are_too_big_are_told_so_at_their_own_device() {
    require!(Root, Object);
    judge(Orientation::Own);
}

#[test]
fn g6_packets_that_are_too_big_are_told_so_behind_the_hosts_end() {
    require!(Root, Object);
    judge(Orientation::Host);
}

fn judge(orientation: Orientation) {
    let path = Path::new();
    // Without errors the same transfer hangs, so it is the error that helps it.
    path.enforce(orientation, "strict");
    let before = path.counters();
    let streams = Family::ALL.map(|family| {
        let address: IpAddr = match family {
            Family::V4 => [10, 79, 0, 2].into(),
            Family::V6 => [0xfd79, 0, 0, 0, 0, 0, 0, 2].into(),
        };
        let sink = sink(&path.peer, SocketAddr::new(address, 5001));
        let stream = path.workload.connect(address, 5001).unwrap();
        (stream, sink)
    });
    let (stuck, after) = thread::scope(|scope| {
        for (stream, _) in &streams {
            scope.spawn(|| start(stream));
        }
        let waiting = streams
            .each_ref()
            .map(|(stream, _)| scope.spawn(|| finish(stream, NEVER)));
        for finished in waiting {
            assert!(!finished.join().unwrap(), "nothing was too big");
        }
        let stuck = path.counters();
        path.enforce(orientation, "related");
        for (stream, _) in &streams {
            assert!(finish(stream, SOON));
        }
        (stuck, path.counters())
    });
    assert!(stuck.dropped(&before, "ingress", "icmp_unrelated") >= 2);
    assert!(after.passed(&stuck, "ingress", "related") >= 2);
    after.only(&stuck, "egress", &["passed_established"]);
    for (_, sink) in streams {
        sink.join().unwrap();
    }
}
