//! What netfilter tracks for others, where nobody's sockets are seen.

use std::{
    collections::{BTreeSet, VecDeque},
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use sg_userspace::netns::Netns;

use crate::{
    common::{
        netns::{Enforcer, NEVER, Namespace, SOON, eventually},
        pair::denies_all,
        require::{require, skip},
        scale::patient,
    },
    forwarder::{CLIENT, CLIENT6, Forwarder, OUTSIDE, WORKLOAD, WORKLOAD6},
    lines::Lines,
    ping::Pinger,
    storm::Storm,
};

/// Datagrams served by one socket of the host to two of the client's.
struct Service {
    server: UdpSocket,
    clients: [UdpSocket; 2],
}

impl Service {
    fn new(forwarder: &Forwarder) -> Self {
        let bind = |at: &Namespace, address: SocketAddr| {
            let socket = at.run(|| UdpSocket::bind(address)).unwrap();
            socket.set_read_timeout(Some(2 * NEVER)).unwrap();
            socket
        };
        Self {
            server: bind(&forwarder.host, (OUTSIDE, 53).into()),
            clients: [(); 2].map(|()| bind(&forwarder.client, (CLIENT, 0).into())),
        }
    }

    /// Whether one of the clients gets an answer.
    fn answers(&self, client: usize) -> bool {
        let client = &self.clients[client];
        client.send_to(b"question", (OUTSIDE, 53)).unwrap();
        let mut bytes = [0; 16];
        let Ok((_, from)) = self.server.recv_from(&mut bytes) else {
            return false;
        };
        self.server.send_to(b"answer", from).unwrap();
        client.recv(&mut bytes).is_ok()
    }
}

/// The last ones, with their numbers.
type Callers = VecDeque<(u16, UdpSocket)>;

/// Datagrams of which each begins a flow, all the time. Nobody answers.
struct Knocks {
    silent: UdpSocket,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(Callers, BTreeSet<u16>)>,
}

impl Knocks {
    fn start(forwarder: &Forwarder) -> Self {
        let silent = forwarder.workload.run(|| UdpSocket::bind((WORKLOAD, 7)));
        let silent = silent.unwrap();
        silent.set_nonblocking(true).unwrap();
        let ear = silent.try_clone().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, name) = (Arc::clone(&stop), forwarder.client.name.clone());
        let knock = move || {
            let (mut sockets, mut came) = (VecDeque::new(), BTreeSet::new());
            for number in 0_u16.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let socket = UdpSocket::bind((CLIENT, 0)).unwrap();
                socket.connect((WORKLOAD, 7)).unwrap();
                socket.send(&number.to_be_bytes()).unwrap();
                sockets.push_back((number, socket));
                if sockets.len() > 300 {
                    sockets.pop_front();
                }
                came.extend(heard(&ear));
                thread::sleep(Duration::from_millis(10));
            }
            (sockets, came)
        };
        let thread = thread::spawn(move || Netns::open(Some(&name)).unwrap().run(knock).unwrap());
        Self {
            silent,
            stop,
            thread,
        }
    }

    /// Netfilter has seen all of them, those too that were dropped behind it. Whose first datagram was dropped has not
    /// begun anything: the second must be dropped, too.
    fn finish(self) {
        let (sockets, mut first) = self.thread.join().unwrap();
        first.extend(heard(&self.silent));
        for (number, socket) in &sockets {
            socket.send(&number.to_be_bytes()).unwrap();
        }
        thread::sleep(SOON / 10);
        let second = heard(&self.silent);
        let late = sockets.iter().filter(|(number, _)| !first.contains(number));
        assert!(late.count() > 0 && !first.is_empty(), "{first:?}");
        let begun: Vec<&u16> = second.difference(&first).collect();
        assert!(begun.is_empty(), "{begun:?} of {first:?}");
    }
}

/// Numbers that have come.
fn heard(socket: &UdpSocket) -> BTreeSet<u16> {
    let mut bytes = [0; 2];
    let next = || {
        socket
            .recv(&mut bytes)
            .ok()
            .map(|_| u16::from_be_bytes(bytes))
    };
    std::iter::from_fn(next).collect()
}

const LACK: &str = "the machine has no nft, or the kernel no nf_conntrack";

#[test]
fn what_a_host_forwards_for_a_workload_that_nobody_sees_lives_on() {
    require!(Root, Object);
    let Some(forwarder) = Forwarder::new() else {
        return skip(LACK);
    };
    let enforcer = Enforcer::new();
    let pingers = [&forwarder.client, &forwarder.workload].map(Pinger::new);
    let lines = Lines::start(forwarder.lines());
    // So that netfilter takes datagrams for streams, which it does after two seconds.
    thread::sleep(Duration::from_millis(2500));
    lines.go_on();
    let ping = |identifier, within| {
        [
            pingers[0].pings(WORKLOAD, identifier, within),
            pingers[1].pings(CLIENT, identifier + 1, within),
        ]
    };
    assert_eq!(ping(70, patient(SOON)), [true; 2]);
    let storm = Storm::start(&forwarder.client, &forwarder.workload, WORKLOAD6);
    let knocks = Knocks::start(&forwarder);
    // Sockets know no peers of whoever serves datagrams; netfilter does, at the host's own device too.
    let service = Service::new(&forwarder);
    assert!(service.answers(0));
    let _held = forwarder.hide_workload();
    thread::sleep(Duration::from_millis(50));
    let definition = denies_all("none") + &forwarder.interfaces("");
    let said = enforcer.apply(&definition, &[]).ok();
    let returned = Instant::now();
    knocks.stop.store(true, Ordering::Relaxed);
    assert!(said.out.contains(" by nf_conntrack)"), "{said:?}");
    assert!(
        said.err
            .contains("w: of the flows that exist on w0 some cannot be seen from here"),
        "{said:?}"
    );
    lines.go_on();
    assert_eq!(
        ping(70, patient(SOON)),
        [true; 2],
        "an echo that is tracked"
    );
    assert_eq!(ping(80, NEVER), [false; 2], "one that is not");
    let outcome = storm.finish(returned);
    assert_eq!(
        (outcome.cut.as_slice(), outcome.late),
        (&[][..], 0),
        "{outcome:?}"
    );
    assert!(outcome.before > 0 && outcome.failed > 0, "{outcome:?}");
    assert!(forwarder.client.connect_is_dropped(OUTSIDE, 80));
    assert!(service.answers(0));
    assert!(!service.answers(1));
    knocks.finish();

    // Each device has the ends that its packets have.
    let listed = enforcer.sgctl(&["ct", "list"]).ok().out;
    for expected in [
        format!("world tcp established {OUTSIDE}:80 <- {CLIENT}:"),
        format!("w tcp established {WORKLOAD}:8080 <- {CLIENT}:"),
        format!("world tcp established [{WORKLOAD6}]:9001 <- [{CLIENT6}]:"),
        format!("w tcp established [{WORKLOAD6}]:9001 <- [{CLIENT6}]:"),
        format!("w udp stream [{WORKLOAD6}]:5300 <- [{CLIENT6}]:"),
        format!("w icmp echo {WORKLOAD}:70 <- {CLIENT}:70 "),
    ] {
        assert!(listed.contains(&expected), "no {expected} in {listed}");
    }
    for (start, end) in [
        (
            format!("world tcp established {OUTSIDE}:"),
            format!(" -> {CLIENT}:9000 "),
        ),
        (
            format!("w tcp established {WORKLOAD}:"),
            format!(" -> {CLIENT}:9000 "),
        ),
        (
            format!("world udp stream {OUTSIDE}:"),
            format!(" -> {CLIENT}:5301 "),
        ),
        (
            format!("w udp stream {WORKLOAD}:"),
            format!(" -> {CLIENT}:5301 "),
        ),
    ] {
        let found = listed
            .lines()
            .filter(|line| line.starts_with(&start) && line.contains(&end));
        assert!(found.count() > 0, "no {start}…{end} in {listed}");
    }
    let status = enforcer.sgctl(&["status"]).ok().out;
    assert!(
        status.contains("    not seen then: the workload's sockets: "),
        "{status}"
    );
    let numbers = lines.finish();
    println!(
        "{numbers} numbers came, none was lost; {} of the storm's connections lived",
        outcome.before
    );
}

/// More flows than fit, nearly all of them such that nobody has answered: what lives comes first, and the rest takes
/// no more than its share.
#[test]
fn a_flood_that_netfilter_tracks_takes_no_place_from_what_lives() {
    require!(Root, Object);
    let Some(forwarder) = Forwarder::new() else {
        return skip(LACK);
    };
    let enforcer = Enforcer::new();
    let lines = Lines::start(forwarder.lines());
    let _silent = forwarder
        .workload
        .run(|| UdpSocket::bind((WORKLOAD, 7)))
        .unwrap();
    let flood = || {
        for _ in 0..1500 {
            let socket = UdpSocket::bind((CLIENT, 0)).unwrap();
            socket.send_to(b"?", (WORKLOAD, 7)).unwrap();
        }
    };
    forwarder.client.run(flood);
    let counted = || {
        let text = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count");
        text.unwrap().trim().parse::<u32>().unwrap()
    };
    eventually("a flood that is tracked", || {
        forwarder.host.run(counted) > 1400
    });
    // What no rule lets begin is not taken at all; here a rule does.
    let definition = "[groups.none]\ningress = [{ protocol = \"udp\", ports = 7, cidr = \"0.0.0.0/0\" }]\negress = []\n"
        .to_owned()
        + &forwarder.interfaces("allowance = 64");
    let said = enforcer.apply(&definition, &[]).ok();
    assert!(
        said.err
            .contains("existing flows found no room and are cut"),
        "{said:?}"
    );
    lines.go_on();
    let unassured = enforcer.figure("w", "conntrack_unassured");
    assert!((1..=16).contains(&unassured), "{unassured}");
    assert!(enforcer.figure("w", "conntrack_tracked") <= 64);
    // The workload's own, named namespace is looked into.
    assert!(said.out.contains("by the workload's sockets"), "{said:?}");
    lines.finish();
}
