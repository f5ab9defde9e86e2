//! What becomes of enforcement when devices change, move, go and come back.

use std::{
    cell::Cell,
    net::{Ipv4Addr, UdpSocket},
    process::{Command, Stdio},
};

use crate::common::{
    netns::{Answer, Enforcer, NEVER, Namespace, SOON, answers, eventually, veth},
    pair::{FAR, NEAR, Pair, denies_all, web},
    require::{require, skip},
};

fn interface(name: &str, namespace: &Namespace) -> String {
    format!(
        "[interfaces.{name}]\ndevice = \"eth0\"\nnetns = \"{}\"\norientation = \"own\"\ngroups = [\"g\"]\n",
        namespace.name
    )
}

fn bind(namespace: &Namespace, address: Ipv4Addr, port: u16) -> UdpSocket {
    let socket = namespace.run(|| UdpSocket::bind((address, port))).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

/// Whether what one socket sends reaches another.
fn reaches(from: &UdpSocket, to: &UdpSocket) -> bool {
    to.set_read_timeout(Some(NEVER)).unwrap();
    let mut bytes = [0; 16];
    from.send_to(b"hello", to.local_addr().unwrap()).unwrap();
    to.recv(&mut bytes).is_ok()
}

#[test]
fn m6_a_device_that_goes_down_is_renamed_or_gets_another_mtu_stays_enforced() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _servers = [8080, 9090].map(|port| pair.near.serve(NEAR, port));
    for hook in ["tc", "xdp", "xdp-generic"] {
        let hook = format!("hook = \"{hook}\"");
        let definition = web("g", 8080) + &pair.interface("web", "[\"g\"]", &hook);
        enforcer.apply(&definition, &[]).ok();
        let mut stream = pair.far.connect(NEAR, 8080).unwrap();
        let mut holds = |what: &str| {
            assert!(
                answers(&mut stream),
                "{hook}, {what}: what is open stays open"
            );
            assert!(answers(&mut pair.far.connect(NEAR, 8080).unwrap()));
            assert!(pair.far.connect_is_dropped(NEAR, 9090), "{hook}, {what}");
        };
        for mtu in [1280, 3000, 1500] {
            pair.near.ip(&format!("link set eth0 mtu {mtu}"));
            holds("another MTU");
        }
        pair.near.ip("link set eth0 down");
        enforcer.sgctl(&["status"]).ok();
        pair.near.ip("link set eth0 name new0");
        pair.near.ip("link set new0 up");
        holds("another name");
        let status = enforcer.sgctl(&["status"]).ok();
        assert!(status.out.contains("no device eth0"), "{status:?}");
        // By its new name it is the same interface; its old one is nobody's.
        enforcer.apply(&definition, &[]).fails(&["no device eth0"]);
        let renamed = definition.replace("\"eth0\"", "\"new0\"");
        let said = enforcer.apply(&renamed, &[]).ok();
        assert!(said.out.contains("web (new0): updated"), "{said:?}");
        let status = enforcer.sgctl(&["status"]).ok();
        assert!(!status.out.contains("warning"), "{status:?}");
        holds("the definition follows");
        pair.near.ip("link set new0 down");
        pair.near.ip("link set new0 name eth0");
        pair.near.ip("link set eth0 up");
        enforcer.apply(&definition, &[]).ok();
        holds("its old name");
    }
}

/// A device on its way from one namespace to another, and a flow that only its entry lets in.
struct Journey {
    far: Namespace,
    from: Namespace,
    to: Namespace,
    enforcer: Enforcer,
    client: UdpSocket,
    /// Ports below this have flows.
    port: Cell<u16>,
}

impl Journey {
    /// Ready to go; `index_taken`: it cannot keep its index. `None`: filters, which do not go with it.
    fn new(index_taken: bool) -> Option<Self> {
        let (far, from, to) = (
            Namespace::new("far"),
            Namespace::new("from"),
            Namespace::new("to"),
        );
        veth(&from, &far, "eth0", 10);
        far.ip(&format!("addr add {FAR}/24 dev eth0"));
        from.ip(&format!("addr add {NEAR}/24 dev eth0"));
        if index_taken {
            to.ip("link add other index 10 type bridge");
        }
        let client = bind(&far, FAR, 53);
        let journey = Self {
            far,
            from,
            to,
            enforcer: Enforcer::new(),
            client,
            port: Cell::new(5001),
        };
        let definition = journey.definition(&journey.from);
        journey.enforcer.apply(&definition, &[]).ok();
        if journey.enforcer.is_by_filters() {
            skip("the kernel has no tcx, and filters do not follow a device");
            return None;
        }
        let opener = bind(&journey.from, NEAR, 5000);
        // A stream, which lives longer than a question: the machine may be busy.
        for _ in 0..3 {
            assert!(reaches(&opener, &journey.client));
            assert!(reaches(&journey.client, &opener));
        }
        let flows = journey.enforcer.sgctl(&["ct", "list"]).ok().out;
        assert!(flows.contains("udp stream"), "{flows}");
        Some(journey)
    }

    /// Only port 53 may be asked, and nothing may begin from outside.
    fn definition(&self, namespace: &Namespace) -> String {
        "[groups.g]\ningress = []\negress = [{ protocol = \"udp\", ports = 53, cidr = \"0.0.0.0/0\" }]\n"
            .to_owned()
            + &interface("web", namespace)
    }

    fn go(&self) {
        self.from
            .ip(&format!("link set eth0 netns {}", self.to.name));
        self.to.ip(&format!("addr add {NEAR}/24 dev eth0"));
        self.to.ip("link set eth0 up");
    }

    /// The flow goes on, and nothing else comes in.
    #[track_caller]
    fn is_judged(&self) {
        let opener = bind(&self.to, NEAR, 5000);
        let port = self.port.replace(self.port.get() + 1);
        let other = bind(&self.to, NEAR, port);
        // ARP may have given up meanwhile; a flow that was cut does not come back.
        eventually("the open flow goes on", || reaches(&self.client, &opener));
        assert!(!reaches(&self.client, &other), "it is open");
        assert!(reaches(&other, &self.client), "what may leave does not");
    }

    fn unclaimed(&self) -> u64 {
        let text = self.enforcer.sgctl(&["export"]).ok().out;
        let line = text.lines().find_map(|line| {
            line.strip_prefix("sgctl_host_packets_unclaimed_total{direction=\"ingress\"} ")
        });
        line.unwrap().parse().unwrap()
    }
}

#[test]
fn a_device_that_keeps_its_index_takes_policy_and_flows_to_another_namespace() {
    require!(Root, Object);
    let Some(journey) = Journey::new(false) else {
        return;
    };
    journey.go();
    journey.is_judged();
    let definition = journey.definition(&journey.to);
    let said = journey.enforcer.apply(&definition, &[]).ok();
    assert!(said.out.contains("web: its device has moved"), "{said:?}");
    assert!(said.out.contains("web (eth0): updated"), "{said:?}");
    journey.is_judged();
    let status = journey.enforcer.sgctl(&["status"]).ok();
    assert!(!status.out.contains("warning"), "{status:?}");
    assert!(status.out.contains(&journey.to.name), "{status:?}");
    // And on, to where nothing is said of it.
    let more = Namespace::new("more");
    veth(&more, &journey.far, "eth1", 11);
    let elsewhere = "[groups.g]\ningress = []\negress = []\n".to_owned()
        + &interface("more", &more).replace("eth0", "eth1");
    let said = journey.enforcer.apply(&elsewhere, &[]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.err.contains("web is attached but"), "{said:?}");
    journey.is_judged();
}

#[test]
fn a_device_that_gets_another_index_on_its_way_is_closed_until_apply_and_keeps_its_flows() {
    require!(Root, Object);
    let Some(journey) = Journey::new(true) else {
        return;
    };
    let before = journey.unclaimed();
    journey.go();
    let opener = bind(&journey.to, NEAR, 5000);
    assert!(!reaches(&journey.client, &opener), "nobody claims it");
    assert!(journey.unclaimed() > before);
    assert_eq!(journey.enforcer.sgctl(&["status"]).code, 1);
    drop(opener);
    let definition = journey.definition(&journey.to);
    let said = journey.enforcer.apply(&definition, &[]).ok();
    assert!(said.out.contains("web: its device has moved"), "{said:?}");
    journey.is_judged();
    assert!(journey.enforcer.figure("web", "conntrack_tracked") >= 2);
    let status = journey.enforcer.sgctl(&["status"]).ok();
    assert!(!status.out.contains("warning"), "{status:?}");
}

#[test]
fn a_device_that_moved_to_where_nobody_knows_keeps_its_last_policy() {
    require!(Root, Object);
    let Some(journey) = Journey::new(true) else {
        return;
    };
    // Others of its namespace stay, and one takes its name and its index.
    journey.go();
    veth(&journey.from, &journey.far, "eth1", 11);
    journey.from.ip("link set eth1 down");
    journey.from.ip("link set eth1 name eth0");
    journey.from.ip("link set eth0 up");
    let definition = journey.definition(&journey.from);
    for _ in 0..2 {
        let said = journey.enforcer.apply(&definition, &[]);
        assert_eq!(said.code, 2, "{said:?}");
        assert!(said.err.contains("web@eth0 is attached but"), "{said:?}");
        journey.is_judged();
        let status = journey.enforcer.sgctl(&["status"]).ok();
        let words = "has moved to is not known; it is enforced there";
        assert!(status.out.contains(words), "{status:?}");
    }
    // It is known by its links: it can be named again where it is.
    let both = definition + &interface("moved", &journey.to);
    let said = journey.enforcer.apply(&both, &[]).ok();
    assert!(said.out.contains("moved (eth0): updated"), "{said:?}");
    journey.is_judged();
}

#[test]
fn a_device_that_took_the_place_of_one_that_moved_is_another_interface() {
    require!(Root, Object);
    let Some(journey) = Journey::new(false) else {
        return;
    };
    journey.go();
    // Same name, same index, same address as the one that was attached.
    let there = Namespace::new("there");
    veth(&journey.from, &there, "eth0", 10);
    journey.from.ip(&format!("addr add {NEAR}/24 dev eth0"));
    there.ip(&format!("addr add {FAR}/24 dev eth0"));
    assert_eq!(journey.enforcer.sgctl(&["status"]).code, 1);
    let said = journey
        .enforcer
        .apply(&journey.definition(&journey.from), &[]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.out.contains("web (eth0): attached"), "{said:?}");
    journey.is_judged();
    // The flow of the one is not the other's.
    let (opener, client) = (bind(&journey.from, NEAR, 5000), bind(&there, FAR, 53));
    assert!(!reaches(&client, &opener));
    assert!(reaches(&opener, &client));
    assert!(reaches(&client, &opener));
}

#[test]
fn m10_a_namespace_that_is_deleted_takes_nothing_with_it_but_its_own() {
    require!(Root, Object);
    let (one, two, enforcer) = (Pair::new(), Pair::new(), Enforcer::new());
    let _servers = [8080, 9090].map(|port| one.near.serve(NEAR, port));
    let both = web("g", 8080) + &interface("one", &one.near) + &interface("two", &two.near);
    enforcer.apply(&both, &[]).ok();
    let mut stream = one.far.connect(NEAR, 8080).unwrap();
    let name = two.near.name.clone();
    drop(two);
    enforcer.apply(&both, &[]).fails(&["interface two", &name]);
    assert!(answers(&mut stream));
    // It is made again, by its name.
    crate::common::netns::ip(&format!("netns add {name}"));
    let near = Namespace { name };
    let far = Namespace::new("far");
    veth(&near, &far, "eth0", 10);
    near.ip(&format!("addr add {NEAR}/24 dev eth0"));
    far.ip(&format!("addr add {FAR}/24 dev eth0"));
    let said = enforcer.apply(&both, &[]).ok();
    assert!(
        said.out.contains("two: its device or its links are gone"),
        "{said:?}"
    );
    assert!(said.out.contains("two (eth0): attached"), "{said:?}");
    assert!(answers(&mut stream));
    let _more = [8080, 9090].map(|port| near.serve(NEAR, port));
    assert!(answers(&mut far.connect(NEAR, 8080).unwrap()));
    assert!(far.connect_is_dropped(NEAR, 9090));
}

#[test]
fn m8_xdp_of_somebody_else_makes_us_take_tc_and_status_says_so() {
    require!(Root, Object);
    let (pair, theirs, ours) = (Pair::new(), Enforcer::new(), Enforcer::new());
    pair.near.ip("link add vx0 type vxlan id 7 dstport 4789");
    let definition = |hook: &str| {
        denies_all("g")
            + &format!(
                "[interfaces.a]\ndevice = \"vx0\"\nnetns = \"{}\"\ngroups = [\"g\"]\nhook = \"{hook}\"\n",
                pair.near.name
            )
    };
    theirs.apply(&definition("xdp-generic"), &[]).ok();
    ours.apply(&definition("xdp-generic"), &[])
        .fails(&["another XDP program holds the hook"]);
    assert!(!ours.context.bpffs.exists(), "nothing half attached");
    ours.apply(&definition("auto"), &[]).ok();
    let status = ours.sgctl(&["status"]).ok();
    assert!(
        status
            .out
            .contains("ingress by tc: native XDP is not to be had: another XDP"),
        "{status:?}"
    );
    theirs.sgctl(&["status"]).ok();
    theirs.sgctl(&["detach", "--all"]).ok();
    ours.sgctl(&["status"]).ok();
}

#[test]
fn a_link_that_somebody_removed_is_in_status_and_figures_until_it_is_there_again() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let definition = web("g", 8080) + &pair.interface("web", "[\"g\"]", "");
    let attached = |expected: u32| {
        let text = enforcer.sgctl(&["export"]).ok().out;
        let line = text
            .lines()
            .find(|line| line.starts_with("sgctl_interface_attached{"));
        let line = line.unwrap();
        assert!(line.ends_with(&format!("}} {expected}")), "{line}");
    };
    for direction in ["ingress", "egress"] {
        enforcer.apply(&definition, &[]).ok();
        attached(1);
        let pin = sg_userspace::pin::Pins::new(&enforcer.context.bpffs).link(1, direction);
        std::fs::remove_file(pin).unwrap();
        attached(0);
        let status = enforcer.sgctl(&["status"]);
        assert_eq!(status.code, 1, "{status:?}");
        assert!(status.out.contains("web: NOT ENFORCED"), "{status:?}");
        assert!(
            status.out.contains(&format!("{direction} is not attached")),
            "{status:?}"
        );
        let said = enforcer.apply(&definition, &[]).ok();
        assert!(
            said.err.contains("links of it had been removed"),
            "{said:?}"
        );
        enforcer.sgctl(&["status"]).ok();
    }
}

#[test]
fn l15_of_many_writers_at_once_one_writes_and_the_others_say_who() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _server = pair.near.serve(NEAR, 8080);
    let definition = web("g", 8080) + &pair.interface("web", "[\"g\"]", "");
    std::fs::write(&enforcer.file, definition).unwrap();
    let file = enforcer.file.to_str().unwrap();
    let apply = || -> Command {
        let mut command = enforcer.command(&["apply", file]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    // From nothing, when everything is made for the first time, and again.
    for _ in 0..2 {
        let writers: Vec<_> = (0..6).map(|_| apply().spawn().unwrap()).collect();
        let answers = writers
            .into_iter()
            .map(|writer| Answer::from(writer.wait_with_output().unwrap()));
        let (done, refused): (Vec<_>, Vec<_>) = answers.partition(|answer| answer.code == 0);
        assert!(!done.is_empty());
        for answer in refused {
            answer.fails(&["another sgctl (process ", "wait for it, or stop it"]);
        }
        enforcer.sgctl(&["status"]).ok();
    }
    assert!(answers(&mut pair.far.connect(NEAR, 8080).unwrap()));
    // Another state for the same pins is none.
    let mut other = Enforcer::new();
    other.context.bpffs.clone_from(&enforcer.context.bpffs);
    other
        .sgctl(&["apply", file])
        .fails(&["does not describe", "--state-dir"]);
    enforcer.sgctl(&["status"]).ok();
    // Nor when both begin at once.
    enforcer.sgctl(&["detach", "--all"]).ok();
    let both = [&enforcer, &other].map(|one| {
        let mut command = one.command(&["apply", file]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    });
    let said = both.map(|one| Answer::from(one.wait_with_output().unwrap()));
    let done = said.each_ref().map(|answer| answer.code == 0);
    assert_ne!(done[0], done[1], "{said:?}");
    let (winner, loser) = if done[0] {
        (&enforcer, &other)
    } else {
        (&other, &enforcer)
    };
    for answer in said.into_iter().filter(|answer| answer.code != 0) {
        answer.fails(&["does not describe", "--state-dir"]);
    }
    winner.sgctl(&["status"]).ok();
    assert!(answers(&mut pair.far.connect(NEAR, 8080).unwrap()));
    assert_eq!(loser.sgctl(&["status"]).code, 2);
    winner.sgctl(&["detach", "--all"]).ok();
}
