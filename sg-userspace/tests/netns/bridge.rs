//! Two enforced workloads on one bridge: the sender's egress and the receiver's ingress both judge.

use crate::{
    common::{
        netns::{Answer, Enforcer, Namespace, answers, ip},
        require::require,
    },
    counters::Counters,
    link::{Family, Orientation},
    silence,
};

/// A client, a server, and the host whose bridge joins them.
struct Segment {
    enforcer: Enforcer,
    client: Namespace,
    server: Namespace,
    host: Namespace,
}

impl Segment {
    fn new() -> Self {
        let segment = Self {
            enforcer: Enforcer::new(),
            client: Namespace::new("client"),
            server: Namespace::new("server"),
            host: Namespace::new("host"),
        };
        let host = &segment.host;
        host.ip("link add br0 type bridge mcast_snooping 0");
        host.ip("link set br0 up");
        for (end, port, number) in [(&segment.client, "c0", 1), (&segment.server, "s0", 2)] {
            ip(&format!(
                "link add {port} netns {} type veth peer name eth0 netns {}",
                host.name, end.name
            ));
            host.ip(&format!("link set {port} master br0 up"));
            end.ip("link set eth0 up");
            end.ip(&format!("addr add 10.77.0.{number}/24 dev eth0"));
            end.ip(&format!("addr add fd77::{number}/64 dev eth0 nodad"));
        }
        segment
    }

    /// Rules that name the other's group, in one or both of the two places where they must stand.
    fn enforce(&self, orientation: Orientation, egress: bool, ingress: bool) -> Answer {
        let rule = |there: bool, group: &str| {
            let rule = format!("{{ protocol = \"tcp\", ports = 8080, group = \"{group}\" }}");
            if there { rule } else { String::new() }
        };
        let mut definition = format!(
            "[groups.client]\ningress = []\negress = [{}]\n[groups.server]\ningress = [{}]\negress = []\n",
            rule(egress, "server"),
            rule(ingress, "client"),
        );
        let interfaces = [
            ("client", &self.client, "c0", 1),
            ("server", &self.server, "s0", 2),
        ];
        for (name, own, port, number) in interfaces {
            let (word, netns, device) = match orientation {
                Orientation::Own => ("own", &own.name, "eth0"),
                Orientation::Host => ("host", &self.host.name, port),
            };
            definition += &format!(
                "[interfaces.{name}]\ndevice = \"{device}\"\nnetns = \"{netns}\"\n\
                 orientation = \"{word}\"\ngroups = [\"{name}\"]\n\
                 addresses = [\"10.77.0.{number}\", \"fd77::{number}\"]\n"
            );
        }
        self.enforcer.apply(&definition, &[]).ok()
    }

    fn counters(&self) -> [Counters; 2] {
        ["client", "server"].map(|name| Counters::read(&self.enforcer, name))
    }
}

#[test]
fn j1_both_ends_judge_at_their_own_devices() {
    require!(Root, Object);
    judge(Orientation::Own);
}

#[test]
fn j1_both_ends_judge_at_the_ports_of_the_bridge() {
    require!(Root, Object);
    judge(Orientation::Host);
}

fn judge(orientation: Orientation) {
    let segment = Segment::new();
    let servers = Family::ALL.map(|family| family.address(2));
    let _servers = servers.map(|address| segment.server.serve(address, 8080));
    let silent = || {
        silence::all(&[
            ("IPv4", &|| {
                segment.client.connect_is_dropped(servers[0], 8080)
            }),
            ("IPv6", &|| {
                segment.client.connect_is_dropped(servers[1], 8080)
            }),
        ]);
    };

    segment.enforce(orientation, true, true);
    let before = segment.counters();
    for address in servers {
        assert!(answers(&mut segment.client.connect(address, 8080).unwrap()));
    }
    let after = segment.counters();
    assert_eq!(after[0].passed(&before[0], "egress", "new"), 2);
    assert_eq!(after[1].passed(&before[1], "ingress", "new"), 2);
    after[0].only(&before[0], "ingress", &["passed_established"]);
    after[1].only(&before[1], "egress", &["passed_established"]);

    segment.enforce(orientation, true, false);
    let before = segment.counters();
    silent();
    let after = segment.counters();
    assert_eq!(after[0].passed(&before[0], "egress", "new"), 2);
    assert!(after[1].dropped(&before[1], "ingress", "no_rule") >= 2);

    for ingress in [true, false] {
        segment.enforce(orientation, false, ingress);
        let before = segment.counters();
        silent();
        let after = segment.counters();
        assert!(after[0].dropped(&before[0], "egress", "no_rule") >= 2);
        assert_eq!(after[1].passed(&before[1], "ingress", "new"), 0);
        assert_eq!(after[1].dropped(&before[1], "ingress", "no_rule"), 0);
    }
}
