//! A DHCP client that gets its lease though nothing is allowed.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use crate::{
    common::{
        netns::{NEVER, Namespace, SWEPT, eventually_within, unique},
        require::require,
    },
    link::{Link, Orientation},
};

/// A program that ends with the test, and its directory.
struct Running(Child);

impl Running {
    fn new(namespace: &Namespace, program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self(namespace.run(|| command.spawn()).unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server of both families, and what its clients write down.
struct Exchange {
    directory: PathBuf,
    _server: Running,
}

impl Exchange {
    fn new(server: &Namespace) -> Self {
        let directory = env::temp_dir().join(unique("dhcp"));
        fs::create_dir(&directory).unwrap();
        let leases = format!("--dhcp-leasefile={}", directory.join("given").display());
        let arguments = [
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--port=0",
            "--interface=eth0",
            "--bind-interfaces",
            "--dhcp-authoritative",
            "--no-ping",
            "--user=root",
            "--pid-file=",
            "--dhcp-range=10.77.0.100,10.77.0.110,255.255.255.0,1h",
            "--dhcp-range=fd77::100,fd77::110,64,1h",
            &leases,
        ];
        let server = Running::new(server, "dnsmasq", &arguments);
        Self {
            directory,
            _server: server,
        }
    }

    /// A client, which configures nothing, and the file of its leases.
    fn client(&self, client: &Namespace, family: &str, attempt: u8) -> (Running, PathBuf) {
        let file = |what| self.directory.join(format!("{what}{family}{attempt}"));
        let (leases, pid) = (file("leases"), file("pid"));
        let shown = |path: &Path| path.to_str().unwrap().to_owned();
        let (lf, pf) = (shown(&leases), shown(&pid));
        let arguments = [
            family,
            "-d",
            "-1",
            "-sf",
            "/bin/true",
            "-lf",
            &lf,
            "-pf",
            &pf,
            "eth0",
        ];
        let client = Running::new(client, "dhclient", &arguments);
        (client, leases)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn has_lease(leases: &Path, word: &str) -> bool {
    fs::read_to_string(leases).is_ok_and(|text| text.contains(word))
}

const FAMILIES: [(&str, &str); 2] = [("-4", "fixed-address 10.77.0.1"), ("-6", "iaaddr fd77::1")];

#[test]
fn b6_a_client_gets_its_lease_behind_the_hosts_end() {
    require!(Root, Object);
    lease(Orientation::Host, "tc");
}

/// By XDP: clients of DHCPv4 listen by packet sockets, which hear a frame before TC judges it.
#[test]
fn b6_a_client_gets_its_lease_at_its_own_device() {
    require!(Root, Object);
    lease(Orientation::Own, "xdp");
}

fn lease(orientation: Orientation, hook: &'static str) {
    let link = Link::new(orientation, hook);
    let exchange = Exchange::new(&link.peer);
    // Switched off, nothing is heard of.
    link.enforcer
        .apply(&link.interface("[]", "dhcp = false"), &[])
        .ok();
    let before = link.counters();
    {
        let clients =
            FAMILIES.map(|(family, word)| (exchange.client(&link.workload, family, 1), word));
        thread::sleep(2 * NEVER);
        for ((_, leases), word) in &clients {
            assert!(!has_lease(leases, word));
        }
    }
    let off = link.counters();
    // DHCPv4 asks from nowhere, DHCPv6 from a link-local address.
    assert!(off.dropped(&before, "egress", "ip_source") >= 1);
    assert!(off.dropped(&before, "egress", "no_rule") >= 1);

    link.deny_all();
    for (family, word) in FAMILIES {
        let (_client, leases) = exchange.client(&link.workload, family, 2);
        eventually_within(SWEPT, family, || has_lease(&leases, word));
    }
    let after = link.counters();
    // Discover, offer, request, acknowledgement; solicit, advertise, request, reply.
    for direction in ["ingress", "egress"] {
        assert!(after.passed(&off, direction, "dhcp") >= 4, "{direction}");
    }
}

/// A workload that answers like a server is no client.
#[test]
fn b6_a_rogue_server_gives_no_lease() {
    require!(Root, Object);
    let link = Link::new(Orientation::Host, "tc");
    let exchange = Exchange::new(&link.workload);
    link.deny_all();
    let before = link.counters();
    let clients = FAMILIES.map(|(family, word)| (exchange.client(&link.peer, family, 1), word));
    thread::sleep(2 * NEVER);
    for ((_, leases), word) in &clients {
        assert!(!has_lease(leases, word));
    }
    let after = link.counters();
    assert_eq!(after.passed(&before, "ingress", "dhcp"), 0);
    assert!(after.dropped(&before, "ingress", "ip_source") >= 1);
}
