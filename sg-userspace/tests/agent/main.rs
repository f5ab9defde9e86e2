//! The agent as it is run: files, addresses, devices and signals while packets flow.

#[path = "../common/mod.rs"]
mod common;

mod devices;
mod metrics;
mod seccomp;
mod service;
mod systemd;
mod trust;
mod wait;

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsFd as _,
    os::unix::fs::symlink,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use common::{
    agent::{Agent, LATER, replace, request, sample},
    ethtool::strip_tags,
    netns::{Enforcer, Namespace, answers, eventually, eventually_within, veth},
    pair::{FAR, NEAR, Pair, web},
    require::{require, skip},
};
use rustix::process::Signal;
use sg_userspace::{
    attach::{self, EGRESS, INGRESS},
    bpf,
    link::{Link, LinkError},
    pin::Pins,
    resolve::Name,
    state::{Policy, State},
};

#[test]
fn l14_a_file_replaced_by_rename_comes_into_force_and_a_broken_one_does_not() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _servers = [8080, 9090].map(|port| pair.near.serve(NEAR, port));
    let interface = pair.interface("web", "[\"g\"]", "");
    let agent = Agent::start(
        &enforcer,
        &(web("g", 8080) + &interface),
        &["--metrics", "127.0.0.1:0"],
    );
    let metrics = || request(agent.metrics(), "GET", "/metrics").body;
    let mut kept = pair.far.connect(NEAR, 8080).unwrap();
    assert!(answers(&mut kept));
    assert!(pair.far.connect_is_dropped(NEAR, 9090));

    replace(&enforcer.file, &(web("g", 9090) + &interface));
    eventually_within(LATER, "the new rule", || {
        pair.far.connect(NEAR, 9090).is_ok()
    });
    assert!(pair.far.connect_is_dropped(NEAR, 8080));
    assert!(answers(&mut kept), "what is open stays open");
    assert_eq!(sample(&metrics(), "sgctl_definition_errors"), Some(0));

    let generation = sample(&metrics(), "sgctl_generation");
    replace(
        &enforcer.file,
        &(web("g", 7070) + &interface + "typo = 1\nmissing ="),
    );
    let failure = agent.says("reload failed");
    let place = format!("{}:", enforcer.file.display());
    assert!(failure.contains(&place), "{failure}");
    let shown = metrics();
    assert!(sample(&shown, "sgctl_definition_errors") >= Some(1));
    let successful = "sgctl_definition_last_reload_successful";
    assert_eq!(sample(&shown, successful), Some(0));
    assert_eq!(sample(&shown, "sgctl_generation"), generation);
    assert!(answers(&mut pair.far.connect(NEAR, 9090).unwrap()));
    assert!(pair.far.connect_is_dropped(NEAR, 8080));

    // Addresses are followed meanwhile, by the definition that is in force.
    pair.near.ip("addr add 10.77.0.100/24 dev eth0");
    agent.says("web: addresses changed");
    assert_eq!(sample(&metrics(), "sgctl_generation"), generation);
    assert_eq!(sample(&metrics(), successful), Some(0));
    assert!(pair.far.connect(NEAR, 9090).is_ok());

    replace(&enforcer.file, &(web("g", 8080) + &interface));
    eventually_within(LATER, "the repaired definition", || {
        pair.far.connect(NEAR, 8080).is_ok()
    });
    eventually("the figure of it", || {
        sample(&metrics(), successful) == Some(1)
    });
    assert_eq!(sample(&metrics(), "sgctl_definition_errors"), Some(0));
}

#[test]
fn tags_that_come_to_be_stripped_are_told_of() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _server = pair.near.serve(NEAR, 8080);
    let interface = pair.interface("web", "[\"g\"]", "hook = \"xdp\"");
    let agent = Agent::start(&enforcer, &(web("g", 8080) + &interface), &[]);
    if !pair.near.vlan("eth0", 5) {
        return skip("the kernel has no VLAN sub-interfaces");
    }
    let blind = "does not see the VLAN tags of eth0";
    agent.says(blind);
    let seen = agent.lines().len();
    strip_tags(&pair.near, false);
    agent.says_after(seen, "applied generation");
    let seen = agent.lines().len();
    strip_tags(&pair.near, true);
    agent.says_after(seen, blind);
    assert!(answers(&mut pair.far.connect(NEAR, 8080).unwrap()));
}

#[test]
fn a_directory_behind_a_symlink_and_sighup_are_followed() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _servers = [8080, 9090].map(|port| pair.near.serve(NEAR, port));
    let interface = pair.interface("web", "[\"g\"]", "");
    // As configuration volumes are switched: data -> version, one file per directory entry.
    let volume = enforcer.context.state_dir.with_extension("d");
    let _removed = Directory(volume.clone());
    for (version, port) in [("1", 8080), ("2", 9090)] {
        fs::create_dir_all(volume.join(version)).unwrap();
        let file = volume.join(version).join("sg.toml");
        fs::write(file, web("g", port) + &interface).unwrap();
    }
    symlink("1", volume.join("data")).unwrap();
    symlink(volume.join("data"), &enforcer.file).unwrap();
    let agent = Agent::spawn(&enforcer, &[]);
    agent.says("applied generation 1");
    assert!(pair.far.connect_is_dropped(NEAR, 9090));
    symlink("2", volume.join("new")).unwrap();
    fs::rename(volume.join("new"), volume.join("data")).unwrap();
    agent.says("applied generation 2");
    assert!(answers(&mut pair.far.connect(NEAR, 9090).unwrap()));
    assert!(pair.far.connect_is_dropped(NEAR, 8080));

    agent.signal(Signal::HUP);
    agent.says("applied generation 3");
    assert!(answers(&mut pair.far.connect(NEAR, 9090).unwrap()));
}

#[test]
fn an_address_of_a_member_interface_becomes_a_member_and_ceases_to_be_one() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _echo = Echo::new(&pair.near, 5000);
    let definition = app_and_db(&pair, "");
    // An interface that has no address yet gets its first one.
    pair.far.ip("addr flush dev eth0");
    let mut agent = Agent::start(&enforcer, &definition, &[]);
    pair.far.ip(&format!("addr add {FAR}/24 dev eth0"));
    eventually_within(LATER, "membership", || is_echoed(&pair.far, FAR, 5000));
    let more = Ipv4Addr::new(10, 77, 0, 3);
    // Usable as a source, but not an address of the interface.
    pair.far.ip(&format!("addr add {more}/32 dev lo"));
    assert!(is_echoed(&pair.far, FAR, 5000));
    assert!(!is_echoed(&pair.far, more, 5000));

    for _ in 0..3 {
        pair.far.ip(&format!("addr add {more}/24 dev eth0"));
        agent.says("app: addresses changed");
        eventually_within(LATER, "membership", || is_echoed(&pair.far, more, 5000));
        pair.far.ip(&format!("addr del {more}/24 dev eth0"));
        eventually_within(LATER, "the end of membership", || {
            !is_echoed(&pair.far, more, 5000)
        });
        assert!(is_echoed(&pair.far, FAR, 5000));
    }
    // All that in one generation, of which the state knows who is in it.
    pair.far.ip(&format!("addr add {more}/24 dev eth0"));
    eventually_within(LATER, "membership", || is_echoed(&pair.far, more, 5000));
    assert!(!said(&agent, "applied generation 2"));
    assert_eq!(agent.interrupt(), Some(0));
    let state = State::read(&enforcer.context.state_dir).unwrap().unwrap();
    let policy = Policy::read(&enforcer.context.state_dir, &state).unwrap();
    let app = &policy.resolved.groups[&Name::of_definition("app")];
    assert!(app.members.contains(&more.into()), "{app:?}");
}

#[test]
fn a_member_that_leaves_takes_flows_with_it_that_are_to_be_asked_again() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _echo = Echo::new(&pair.near, 5000);
    let more = Ipv4Addr::new(10, 77, 0, 3);
    pair.far.ip(&format!("addr add {more}/32 dev lo"));
    pair.far.ip(&format!("addr add {more}/24 dev eth0"));
    let definition = app_and_db(&pair, "on_revoke = \"reevaluate\"\n");
    let agent = Agent::start(&enforcer, &definition, &[]);
    let socket = pair.far.run(|| UdpSocket::bind((more, 0))).unwrap();
    let same_flow = || is_answered(&socket, 5000);
    assert!(same_flow());
    pair.far.ip(&format!("addr del {more}/24 dev eth0"));
    eventually_within(LATER, "the end of the flow", || !same_flow());
    assert!(said(&agent, "applied generation 2"));
}

/// `db` on the near side lets `app` on the far side in; `more` stands in `db`.
fn app_and_db(pair: &Pair, more: &str) -> String {
    format!(
        "[groups.db]\ningress = [{{ protocol = \"udp\", ports = 5000, group = \"app\" }}]\negress = []\n{more}\
         [groups.app]\ningress = []\negress = [{{ protocol = \"all\", cidr = \"0.0.0.0/0\" }}]\n\
         {}[interfaces.app]\ndevice = \"eth0\"\nnetns = \"{}\"\norientation = \"own\"\ngroups = [\"app\"]\n",
        pair.interface("db", "[\"db\"]", ""),
        pair.far.name,
    )
}

fn said(agent: &Agent, words: &str) -> bool {
    agent.lines().iter().any(|line| line.contains(words))
}

#[test]
fn m14_ctrl_c_leaves_enforcement_and_only_what_the_agent_attached_is_detached_on_exit() {
    require!(Root, Object);
    let (one, two, enforcer) = (Pair::new(), Pair::new(), Enforcer::new());
    let _servers: Vec<_> = [&one, &two]
        .iter()
        .flat_map(|pair| [8080, 9090].map(|port| pair.near.serve(NEAR, port)))
        .collect();
    let first = web("g", 8080) + &one.interface("one", "[\"g\"]", "");
    let mut agent = Agent::start(&enforcer, &first, &[]);
    let mut stream = one.far.connect(NEAR, 8080).unwrap();
    assert!(answers(&mut stream));
    enforcer
        .sgctl(&["detach", "--all"])
        .fails(&["another sgctl"]);
    enforcer.sgctl(&["status"]).ok();
    assert_eq!(agent.interrupt(), Some(0));
    agent.says("enforcement stays on one");
    assert!(one.far.connect_is_dropped(NEAR, 9090));
    assert!(answers(&mut stream));
    assert!(!enforcer.sgctl(&["export"]).ok().out.contains("definition"));

    let both = first + &two.interface("two", "[\"g\"]", "");
    let mut agent = Agent::start(&enforcer, &both, &["--detach-on-exit"]);
    assert!(answers(&mut stream), "no flow is lost by a restart");
    assert!(two.far.connect_is_dropped(NEAR, 9090));
    agent.signal(Signal::TERM);
    assert_eq!(agent.wait().code(), Some(0));
    agent.says("two: detached");
    agent.says("enforcement stays on one");
    assert!(answers(&mut two.far.connect(NEAR, 9090).unwrap()));
    assert!(one.far.connect_is_dropped(NEAR, 9090));

    enforcer.sgctl(&["detach", "--all"]).ok();
    let mut agent = Agent::start(&enforcer, &both, &["--detach-on-exit"]);
    assert_eq!(agent.interrupt(), Some(0));
    assert!(answers(&mut one.far.connect(NEAR, 9090).unwrap()));
    assert!(!enforcer.context.bpffs.exists(), "every pin is gone");
}

#[test]
fn l15_m6_a_device_that_comes_goes_and_comes_back_is_attached_each_time() {
    require!(Root, Object);
    let (near, far, enforcer) = (
        Namespace::new("near"),
        Namespace::new("far"),
        Enforcer::new(),
    );
    let definition = format!(
        "{}[interfaces.web]\ndevice = \"eth0\"\nnetns = \"{}\"\norientation = \"own\"\ngroups = [\"g\"]\n",
        web("g", 8080),
        near.name
    );
    fs::write(&enforcer.file, definition).unwrap();
    let agent = Agent::spawn(&enforcer, &["--metrics", "127.0.0.1:0"]);
    agent.says("there is no device eth0");
    let absent = || {
        let body = request(agent.metrics(), "GET", "/metrics").body;
        sample(&body, "sgctl_interfaces_absent")
    };
    eventually("the figure of it", || absent() == Some(1));
    for _ in 0..2 {
        let seen = agent.lines().len();
        veth(&near, &far, "eth0", 10);
        near.ip(&format!("addr add {NEAR}/24 dev eth0"));
        far.ip(&format!("addr add {FAR}/24 dev eth0"));
        agent.says_after(seen, "web (eth0): attached");
        eventually("the figure of it", || absent() == Some(0));
        {
            let _servers = [8080, 9090].map(|port| near.serve(NEAR, port));
            assert!(answers(&mut far.connect(NEAR, 8080).unwrap()));
            assert!(far.connect_is_dropped(NEAR, 9090));
        }
        let seen = agent.lines().len();
        near.ip("link del eth0");
        agent.says_after(seen, "web: link lost");
        eventually("the figure of it", || absent() == Some(1));
    }
    // The agent does not keep a namespace alive that everybody else has given up.
    veth(&near, &far, "eth0", 10);
    drop(near);
    eventually_within(LATER, "the end of the namespace", || {
        far.run(|| Link::read("eth0"))
            .is_err_and(|error| matches!(error, LinkError::Missing { .. }))
    });
}

#[test]
fn m7_a_link_that_somebody_removes_is_attached_again_and_flows_stay() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _servers = [8080, 9090].map(|port| pair.near.serve(NEAR, port));
    let definition = web("g", 8080) + &pair.interface("web", "[\"g\"]", "");
    let agent = Agent::start(&enforcer, &definition, &["--metrics", "127.0.0.1:0"]);
    let mut stream = pair.far.connect(NEAR, 8080).unwrap();
    assert!(answers(&mut stream));
    let ingress = Pins::new(&enforcer.context.bpffs).link(1, INGRESS);
    if attach::is_filter(&ingress).unwrap() {
        // Both filters go with their qdisc.
        pair.near.run(|| tc("qdisc del dev eth0 clsact"));
    } else {
        let link = bpf::open_pinned(&ingress).unwrap().unwrap();
        bpf::detach_link(link.as_fd()).unwrap();
    }

    agent.says("web: link lost: ingress is not attached any more");
    agent.says("web: a link that was removed is attached again");
    eventually("enforcement", || pair.far.connect_is_dropped(NEAR, 9090));
    assert!(answers(&mut stream));
    assert!(enforcer.figure("web", "conntrack_tcp_established") >= 1);
    let shown = request(agent.metrics(), "GET", "/metrics").body;
    assert_eq!(sample(&shown, "sgctl_links_repaired_total"), Some(1));
    // A pin is as good as a link: without it nothing holds the link.
    fs::remove_file(Pins::new(&enforcer.context.bpffs).link(1, EGRESS)).unwrap();
    agent.says("web: link lost: egress is not attached any more");
    eventually_within(LATER, "both links", || {
        enforcer.sgctl(&["status"]).code == 0
    });
    assert!(answers(&mut stream));
}

#[test]
fn l14_an_agent_with_a_mistaken_definition_does_not_start() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let wrong = web("g", 8080) + &pair.interface("web", "[\"missing\"]", "");
    fs::write(&enforcer.file, wrong).unwrap();
    let mut agent = Agent::spawn(&enforcer, &[]);
    assert_eq!(agent.wait().code(), Some(2));
    agent.says("missing");
    agent.says("the definition has an error");
    assert!(!enforcer.context.bpffs.exists());
    let exported = enforcer.sgctl(&["export"]).ok().out;
    metrics::check_openmetrics(&exported);
    assert_eq!(sample(&exported, "sgctl_generation"), Some(0));
}

/// Runs `tc`.
fn tc(arguments: &str) {
    let done = Command::new("tc")
        .args(arguments.split(' '))
        .output()
        .unwrap();
    assert!(done.status.success(), "{arguments}: {done:?}");
}

struct Directory(std::path::PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Sends every datagram back.
struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Echo {
    fn new(namespace: &Namespace, port: u16) -> Self {
        let socket = namespace.run(|| UdpSocket::bind((NEAR, port))).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut bytes = [0; 64];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((read, from)) = socket.recv_from(&mut bytes) {
                    let _ = socket.send_to(&bytes[..read], from);
                }
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Whether a new flow from `source` is answered.
fn is_echoed(namespace: &Namespace, source: Ipv4Addr, port: u16) -> bool {
    let socket = namespace.run(|| UdpSocket::bind((source, 0))).unwrap();
    is_answered(&socket, port)
}

/// Whether datagrams from a socket come back.
fn is_answered(socket: &UdpSocket, port: u16) -> bool {
    socket
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    // Three datagrams of one flow: the first may wait for address resolution.
    (0..3).any(|_| {
        socket.send_to(b"ping", (NEAR, port)).is_ok() && socket.recv_from(&mut [0; 4]).is_ok()
    })
}
