//! Segments that the kernel has merged into more than an IP length field can say.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv6Addr, TcpListener},
    thread,
};

use crate::{
    common::{netns::Namespace, require::require},
    link::{Family, Link, Orientation, anyone},
};

/// Bytes of a transfer, and of a piece of it.
const ALL: usize = 256 << 20;
const PIECE: usize = 4 << 20;

#[test]
fn j13_m12_big_tcp_passes_at_its_own_device() {
    require!(Root, Object);
    transfer(Orientation::Own);
}

#[test]
fn j13_m12_big_tcp_passes_behind_the_hosts_end() {
    require!(Root, Object);
    transfer(Orientation::Host);
}

fn transfer(orientation: Orientation) {
    let link = Link::new(orientation, "tc");
    for namespace in [&link.workload, &link.peer] {
        namespace.ip("link set eth0 gso_max_size 200000 gro_max_size 200000");
        for what in ["rmem", "wmem"] {
            let bytes = "4096 4194304 33554432";
            namespace.sysctl(&format!("net/ipv4/tcp_{what}"), bytes);
        }
    }
    link.enforce(&anyone("tcp", "8080"), &anyone("tcp", "8081"), "");
    let ways = [
        ("ingress", &link.peer, &link.workload, 8080),
        ("egress", &link.workload, &link.peer, 8081),
    ];
    for (direction, from, to, port) in ways {
        let address = match direction {
            "ingress" => Family::V6.workload(),
            _ => Family::V6.peer(),
        };
        let before = (link.counters(), sent(from));
        push(from, to, address, port);
        let (after, now) = (link.counters(), sent(from));
        let expected = ["passed_new", "passed_established"];
        after.only(&before.0, direction, &expected);
        let mean = (now.0 - before.1.0) / (now.1 - before.1.1);
        assert!(mean > 1 << 16, "the frames have {mean} bytes");
        // Merged or not, the segments are counted.
        let passed = after.passed(&before.0, direction, "established");
        let segments = (ALL / 1500) as u64;
        assert!(passed > segments, "{passed} of {segments} packets");
    }
}

/// Sends [`ALL`] bytes.
fn push(from: &Namespace, to: &Namespace, address: std::net::IpAddr, port: u16) {
    let listener = to.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)));
    let listener = listener.unwrap();
    thread::scope(|scope| {
        let heard = scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut piece, mut all) = (vec![0; PIECE], 0);
            while let read @ 1.. = stream.read(&mut piece).unwrap() {
                all += read;
            }
            all
        });
        let mut stream = from.connect(address, port).unwrap();
        let piece = vec![b'.'; PIECE];
        for _ in 0..ALL / PIECE {
            stream.write_all(&piece).unwrap();
        }
        drop(stream);
        assert_eq!(heard.join().unwrap(), ALL);
    });
}

/// Bytes and frames that a namespace's eth0 has sent.
fn sent(namespace: &Namespace) -> (u64, u64) {
    let text = namespace
        .run(|| fs::read_to_string("/proc/thread-self/net/dev"))
        .unwrap();
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("eth0:"))
        .unwrap();
    // Eight figures of what was received stand before them.
    let mut figures = line
        .split_whitespace()
        .skip(8)
        .map(|figure| figure.parse().unwrap());
    (figures.next().unwrap(), figures.next().unwrap())
}
