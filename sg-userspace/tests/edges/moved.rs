//! A device that moves to another namespace while packets flow through it.
//!
//! Its addresses stay behind and it goes down, so packets get lost on the way to it. A flow that only its entry lets in
//! must go on where the device is then, and what is denied must arrive neither here nor there, at no moment.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use crate::{
    common::{
        netns::{Enforcer, Namespace, SOON, eventually_within, veth},
        pair::{FAR, NEAR},
        require::{require, skip},
    },
    scale::patience,
    sender::datagrams,
};

/// What the workload asks; it may ask nothing else.
const ASKED: u16 = 53;
/// Where its flow comes from, and where nobody may come in.
const OWN: u16 = 5000;
const DENIED: u16 = 5001;

struct Traffic {
    stop: AtomicBool,
    /// Datagrams of the flow that came in, here and there.
    arrived: [AtomicU64; 2],
    /// The same of those that are denied.
    passed: AtomicU64,
    denied: AtomicU64,
}

impl Traffic {
    /// Sends both kinds until it is told to stop, whether or not that can be done.
    fn send(&self, far: &Namespace) {
        let asked = datagrams(far, SocketAddr::new(FAR.into(), ASKED));
        let intruder = datagrams(far, SocketAddr::new(FAR.into(), 0));
        while !self.stop.load(Ordering::Relaxed) {
            let _ = asked.send_to(b"answer", (NEAR, OWN));
            let sent = intruder.send_to(b"no", (NEAR, DENIED)).is_ok();
            self.denied.fetch_add(sent.into(), Ordering::Relaxed);
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Receives in one namespace, at whatever address it has by then.
    fn receive(&self, place: usize, own: &UdpSocket, denied: &UdpSocket) {
        while !self.stop.load(Ordering::Relaxed) {
            while own.recv(&mut [0; 8]).is_ok() {
                self.arrived[place].fetch_add(1, Ordering::Relaxed);
            }
            while denied.recv(&mut [0; 8]).is_ok() {
                self.passed.fetch_add(1, Ordering::Relaxed);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn arrives(&self, place: usize, what: &str) {
        let count = || self.arrived[place].load(Ordering::Relaxed);
        let before = count();
        eventually_within(patience(4 * SOON), what, || count() > before + 5);
    }

    /// That nothing of the flow comes any more once what was under way has come.
    fn is_silent(&self, place: usize) {
        let count = || self.arrived[place].load(Ordering::Relaxed);
        thread::sleep(Duration::from_millis(50));
        let before = count();
        thread::sleep(Duration::from_millis(300));
        assert_eq!(count(), before, "it is closed");
    }
}

fn definition(namespace: &Namespace) -> String {
    format!(
        "[groups.g]\ningress = []\negress = [{{ protocol = \"udp\", ports = {ASKED}, cidr = \"0.0.0.0/0\" }}]\n\
         [interfaces.web]\ndevice = \"eth0\"\nnetns = \"{}\"\norientation = \"own\"\ngroups = [\"g\"]\n",
        namespace.name
    )
}

fn travel(index_taken: bool) {
    let (far, enforcer) = (Namespace::new("far"), Enforcer::new());
    let places = [Namespace::new("here"), Namespace::new("there")];
    let [here, there] = &places;
    veth(here, &far, "eth0", 10);
    far.ip(&format!("addr add {FAR}/24 dev eth0"));
    here.ip(&format!("addr add {NEAR}/24 dev eth0"));
    if index_taken {
        there.ip("link add other index 10 type bridge");
    }
    enforcer.apply(&definition(here), &[]).ok();
    if enforcer.is_by_filters() {
        return skip("the kernel has no tcx, and filters do not follow a device");
    }
    let any = SocketAddr::from(([0, 0, 0, 0], 0));
    let sockets = places
        .each_ref()
        .map(|place| [OWN, DENIED].map(|port| datagrams(place, SocketAddr::new(any.ip(), port))));
    let traffic = Traffic {
        stop: AtomicBool::new(false),
        arrived: [const { AtomicU64::new(0) }; 2],
        passed: AtomicU64::new(0),
        denied: AtomicU64::new(0),
    };
    // It begins here; from then on both sides are at it.
    let opener = &sockets[0][0];
    thread::scope(|scope| {
        let _stop = Stop(&traffic.stop);
        scope.spawn(|| traffic.send(&far));
        for (place, [own, denied]) in sockets.iter().enumerate() {
            let traffic = &traffic;
            scope.spawn(move || traffic.receive(place, own, denied));
        }
        traffic_begins(opener, &traffic);
        here.ip(&format!("link set eth0 netns {}", there.name));
        there.ip("link set eth0 up");
        there.ip(&format!("addr add {NEAR}/24 dev eth0"));
        if index_taken {
            traffic.is_silent(1);
        } else {
            traffic.arrives(1, "the flow there");
        }
        let said = enforcer.apply(&definition(there), &[]).ok();
        assert!(said.out.contains("web: its device has moved"), "{said:?}");
        traffic.arrives(1, "the flow there, as the definition says");
        enforcer.apply(&definition(there), &[]).ok();
        traffic.arrives(1, "the flow after another change");
    });
    assert_eq!(
        traffic.passed.load(Ordering::Relaxed),
        0,
        "what is denied has passed"
    );
    assert!(traffic.denied.load(Ordering::Relaxed) > 100);
    assert_eq!(
        enforcer.figure("web", "conntrack_created"),
        1,
        "the same flow"
    );
    let dropped = enforcer.figure("web", "ingress_dropped_packets");
    assert!(dropped > 100, "{dropped}");
    assert_eq!(
        enforcer.figure("web", "ingress_dropped_no_rule_packets"),
        dropped
    );
    let status = enforcer.sgctl(&["status"]).ok();
    assert!(!status.out.contains("warning"), "{status:?}");
}

/// The workload asks, and is answered from then on.
fn traffic_begins(opener: &UdpSocket, traffic: &Traffic) {
    for _ in 0..4 {
        opener.send_to(b"ask", (FAR, ASKED)).unwrap();
        traffic.arrives(0, "the flow");
    }
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn m5_a_device_that_moves_and_keeps_its_index_lets_nothing_through_and_cuts_nothing() {
    require!(Root, Object);
    travel(false);
}

#[test]
fn m5_a_device_that_moves_to_another_index_is_closed_until_it_is_named_and_cuts_nothing() {
    require!(Root, Object);
    travel(true);
}
