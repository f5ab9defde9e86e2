//! A host that forwards for a workload, translates addresses, and tracks what it forwards by netfilter.

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    process::{Command, Stdio},
};

use sg_userspace::netns::Netns;

use crate::{
    common::netns::{Namespace, SOON, ip},
    lines::Line,
};

pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const WORKLOAD: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
pub(crate) const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 2);
pub(crate) const WORKLOAD6: Ipv6Addr = Ipv6Addr::new(0xfd05, 0, 0, 0, 0, 0, 0, 5);

/// Connections to port 80 go to the workload, what it begins goes out under the host's address, and all is tracked.
const RULES: &str = "
table ip translated {
  chain in { type nat hook prerouting priority -100; ip daddr 192.0.2.1 tcp dport 80 dnat to 10.0.0.5:8080; }
  chain out { type nat hook postrouting priority 100; oifname \"up0\" ip saddr 10.0.0.0/24 masquerade; }
}
table inet tracked {
  chain forward { type filter hook forward priority 0; ct state invalid counter; }
}
";

/// A client, the host with devices up0 (towards the client) and w0 (the workload's), and the workload.
pub(crate) struct Forwarder {
    pub(crate) client: Namespace,
    pub(crate) host: Namespace,
    pub(crate) workload: Namespace,
}

impl Forwarder {
    /// `None` where the kernel or the machine has no netfilter.
    pub(crate) fn new() -> Option<Self> {
        let made = Self {
            client: Namespace::new("client"),
            host: Namespace::new("host"),
            workload: Namespace::new("workload"),
        };
        for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            made.host.sysctl(key, "1");
        }
        for (end, device, [host, host6], [own, own6]) in [
            (
                &made.client,
                "up0",
                ["192.0.2.1/24", "fd01::1/64"],
                ["192.0.2.2/24", "fd01::2/64"],
            ),
            (
                &made.workload,
                "w0",
                ["10.0.0.1/24", "fd05::1/64"],
                ["10.0.0.5/24", "fd05::5/64"],
            ),
        ] {
            ip(&format!(
                "link add {device} netns {} type veth peer name eth0 netns {}",
                made.host.name, end.name
            ));
            for (namespace, device, addresses) in [
                (&made.host, device, [host, host6]),
                (end, "eth0", [own, own6]),
            ] {
                namespace.ip(&format!("link set {device} up"));
                for address in addresses {
                    // An address that may be somebody else's cannot be used for a while.
                    let at_once = if address.contains(':') { " nodad" } else { "" };
                    namespace.ip(&format!("addr add {address} dev {device}{at_once}"));
                }
            }
            for gateway in [host, host6] {
                let gateway = gateway.split('/').next().unwrap();
                end.ip(&format!("route add default via {gateway}"));
            }
        }
        let there = made.host.run(|| {
            nft(RULES) && fs::exists("/proc/sys/net/netfilter/nf_conntrack_count").unwrap_or(false)
        });
        if !there {
            return None;
        }
        // On a busy machine it takes longer than half a minute to attach.
        for what in ["udp", "icmp"] {
            let key = format!("net/netfilter/nf_conntrack_{what}_timeout");
            made.host.sysctl(&key, "600");
        }
        Some(made)
    }

    /// Flows of all kinds that it forwards, in both directions.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let Self {
            client, workload, ..
        } = self;
        let listen =
            |at: &Namespace, address: SocketAddr| at.run(|| TcpListener::bind(address)).unwrap();
        let web = listen(workload, (WORKLOAD, 8080).into());
        let mut lines: Vec<Line> = (0..4)
            .map(|number| {
                let stream = client.connect(OUTSIDE, 80).unwrap();
                Line::between(
                    format!("translated TCP {number}"),
                    stream,
                    web.accept().unwrap().0,
                )
            })
            .collect();
        let server = listen(client, (CLIENT, 9000).into());
        for number in 0..4 {
            let stream = workload.connect(CLIENT, 9000).unwrap();
            let name = format!("masqueraded TCP {number}");
            lines.push(Line::between(name, stream, server.accept().unwrap().0));
        }
        lines.push(Line::tcp(client, (workload, WORKLOAD6), 9001));
        lines.push(Line::tcp(workload, (client, CLIENT6), 9001));
        let ends = [CLIENT6.into(), WORKLOAD6.into()];
        lines.push(Line::udp(client, workload, ends, 5300));
        lines.push(self.masqueraded_datagrams());
        lines
    }

    /// The client learns from the first where the others come from.
    fn masqueraded_datagrams(&self) -> Line {
        let bind =
            |at: &Namespace, address: SocketAddr| at.run(|| UdpSocket::bind(address)).unwrap();
        let [here, there] = [
            bind(&self.workload, (WORKLOAD, 0).into()),
            bind(&self.client, (CLIENT, 5301).into()),
        ];
        here.connect((CLIENT, 5301)).unwrap();
        here.send(b"first").unwrap();
        there.set_read_timeout(Some(SOON)).unwrap();
        let (_, from) = there.recv_from(&mut [0; 16]).unwrap();
        assert_eq!(from.ip(), OUTSIDE, "it is translated");
        there.connect(from).unwrap();
        Line::of_datagrams("masqueraded UDP".to_owned(), [here, there])
    }

    /// Takes the workload's namespace its name, so that nobody finds it; it lives as long as the answer.
    pub(crate) fn hide_workload(&self) -> Netns {
        let held = Netns::open(Some(&self.workload.name)).unwrap();
        ip(&format!("netns del {}", self.workload.name));
        held
    }

    /// Definition of both devices of the host, as its own NIC and the host's end of the workload's link. Flows live
    /// long, however slow the machine is. The workload's is attached first: what comes in from the world then passes netfilter on its way to it.
    pub(crate) fn interfaces(&self, more: &str) -> String {
        let name = &self.host.name;
        let timeouts = "timeouts = { udp = 60, icmp = 600 }\n";
        format!(
            "[interfaces.world]\ndevice = \"up0\"\nnetns = \"{name}\"\norientation = \"own\"\ngroups = [\"none\"]\n{timeouts}\
             [interfaces.w]\ndevice = \"w0\"\nnetns = \"{name}\"\norientation = \"host\"\ngroups = [\"none\"]\n{timeouts}{more}\n"
        )
    }
}

/// Whether the rules are in force now.
fn nft(rules: &str) -> bool {
    let started = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut started) = started else {
        return false;
    };
    let mut input = started.stdin.take().expect("it is piped");
    let written = input.write_all(rules.as_bytes());
    drop(input);
    let done = started.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(!said.contains("syntax error"), "{said}");
    done.status.success() && written.is_ok()
}
