//! Packets of which the enforcer and nftables think differently, among others of their kind of which
//! they do not.

use std::net::IpAddr;

use sg_common::verdict::Direction::{Egress, Ingress};

use crate::{
    definitions::{self, Case, OWN},
    packet::{
        self, Ends, TCP, UDP,
        flag::{ACK, RST, SYN},
    },
    probe::{self, Probe},
};

/// Conversations of a definition, made when it is in force.
type Conversations = fn() -> Vec<Probe>;

/// Definitions and conversations about them.
pub(crate) fn all() -> [(Case, Conversations); 6] {
    let checked = definitions::all_in().with("track = \"always\"\nsource_dest_check = true");
    [
        (definitions::all_in(), allowed),
        (definitions::all_in(), malformed),
        (definitions::web_in(), web),
        (definitions::untracked(), untracked),
        (definitions::web_in(), advertisements),
        (checked, checked_addresses),
    ]
}

const REMOTES: [&str; 2] = ["198.18.7.7", "2001:db8:5ca::7"];

fn remotes() -> [IpAddr; 2] {
    REMOTES.map(|remote| remote.parse().unwrap())
}

fn v4(what: &str) -> Probe {
    Probe::new(what, remotes()[0])
}

fn v6(what: &str) -> Probe {
    Probe::new(what, remotes()[1])
}

/// Whatever comes in is allowed, and what goes out is a reply.
fn allowed() -> Vec<Probe> {
    let mut probes = Vec::new();
    for remote in remotes() {
        let ports = (40_000, 80);
        let open = || probe::handshake(remote, Ingress, ports);
        let segment = |probe: &Probe, flags, numbers| {
            packet::tcp(probe.ends(Ingress), ports, flags, numbers, b"data")
        };
        let within = open();
        let frame = segment(&within, ACK, (1001, 5001));
        probes.push(within.then(Ingress, frame));
        let outside = open();
        let frame = segment(&outside, ACK, (1001 + (1 << 24), 5001));
        probes.push(outside.differs("window", Ingress, frame));
        let exact = probe::reset(remote, Ingress, ports);
        probes.push(exact);
        let wild = open();
        let frame = packet::tcp(wild.ends(Ingress), ports, RST, (1001 + (1 << 24), 0), &[]);
        probes.push(wild.differs("reset", Ingress, frame));

        let crossing = Probe::new("SYN against SYN", remote).says(Ingress, ports, SYN, (0, 0));
        let frame = packet::tcp(crossing.ends(Egress), (80, 40_000), SYN, (5000, 0), &[]);
        probes.push(crossing.differs("simultaneous-open", Egress, frame));

        let wrong = Probe::new("wrong checksum", remote);
        let mut frame = packet::tcp(wrong.ends(Ingress), ports, SYN, (1, 0), &[]);
        *frame.last_mut().unwrap() ^= 1;
        probes.push(wrong.differs("checksum", Ingress, frame));

        let sctp = probe::other(remote, Ingress, 132);
        let other = packet::sctp_init(2, (4001, 3000), 1);
        let frame = packet::ip(sctp.ends(Egress), 132, &other);
        probes.push(sctp.differs("sctp", Egress, frame));

        probes.extend(fragments(remote));
        probes.push(quote(remote));
    }
    for kind in [13, 15, 17] {
        probes.push(probe::query(remotes()[0], Ingress, kind));
    }
    probes
}

fn fragments(remote: IpAddr) -> Vec<Probe> {
    let cut = |what: &str, at: usize| {
        let probe = Probe::new(what, remote);
        let ends = probe.ends(Ingress);
        let whole = packet::segment(ends, (40_000, 80), SYN, (1, 0), &[b'd'; 64]);
        let parts = packet::fragments(ends, TCP, &whole, at);
        (probe, parts)
    };
    let (lone, [first, _]) = cut("a first fragment alone", 72);
    let lone = lone.differs("first-fragment", Ingress, first);
    let (turned, [first, later]) = cut("a later fragment first", 72);
    let turned = turned
        .differs("later-fragment-first", Ingress, later)
        .then(Ingress, first);
    let (tiny, [first, later]) = cut("a tiny first fragment", 8);
    let tiny =
        tiny.differs("tiny-fragment", Ingress, first)
            .differs("tiny-fragment", Ingress, later);
    vec![lone, turned, tiny, probe::orphan(remote, Ingress)]
}

/// An error to the workload about a packet that somebody else sent.
fn quote(remote: IpAddr) -> Probe {
    let probe = Probe::new("an error about somebody else's packet", remote);
    let stranger: IpAddr = match remote {
        IpAddr::V4(_) => "203.0.113.5".parse().unwrap(),
        IpAddr::V6(_) => "2001:db8:5ca::5".parse().unwrap(),
    };
    let quoted = packet::udp((stranger, remote), (700, 701), b"datagram");
    let frame = packet::unreachable(probe.ends(Ingress), &quoted);
    probe.differs("icmp-quote", Ingress, frame)
}

/// IPv6 extension header: what follows, then this.
type Extension = (u8, &'static [u8]);

/// An options header that says nothing (PadN).
const NOTHING: &[u8] = &[0, 1, 4, 0, 0, 0, 0];
/// A routing header of a type nobody knows, with a segment left.
const ROUTING: &[u8] = &[0, 253, 1, 0, 0, 0, 0];
/// The same with none left.
const ROUTED: &[u8] = &[0, 253, 0, 0, 0, 0, 0];
/// A mobility header without a message.
const MOBILITY: &[u8] = &[0, 0, 0, 0, 0, 0, 0];

fn extended(ends: Ends, chain: &[Extension], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for (place, (_, rest)) in chain.iter().enumerate() {
        body.push(chain.get(place + 1).map_or(protocol, |next| next.0));
        body.extend_from_slice(rest);
    }
    body.extend_from_slice(payload);
    packet::ip(ends, chain[0].0, &body)
}

/// What no end should ever send.
fn malformed() -> Vec<Probe> {
    let mut probes = Vec::new();
    for remote in remotes() {
        let short = Probe::new("four bytes of UDP", remote);
        let frame = packet::ip(short.ends(Ingress), UDP, &[0, 80, 0, 80]);
        probes.push(short.differs("truncated", Ingress, frame));

        let tagged = Probe::new("a VLAN tag", remote);
        let mut frame = packet::udp(tagged.ends(Ingress), (700, 80), b"datagram");
        frame.splice(12..12, [0x81, 0, 0, 5]);
        probes.push(tagged.differs("vlan", Ingress, frame));

        let alike = Probe::new("source and destination alike", remote);
        let ends = (alike.local, alike.local);
        let frame = packet::udp(ends, (700, 80), b"datagram");
        probes.push(alike.differs("land", Ingress, frame));
    }
    for source in [
        "127.0.0.1",
        "0.0.0.1",
        "224.0.0.5",
        "::1",
        "ff02::5",
        "::ffff:1.2.3.4",
    ] {
        let probe = Probe::new("a source that cannot be", source.parse().unwrap());
        let frame = packet::udp(probe.ends(Ingress), (700, 80), b"datagram");
        probes.push(probe.differs("addresses", Ingress, frame));
    }
    let igmp = v4("IGMP with a router alert");
    let ends = (igmp.remote, "224.0.0.1".parse().unwrap());
    let query = [0x11, 0, 0xee, 0xff, 0, 0, 0, 0];
    let frame = packet::with_options(ends, 2, &[0x94, 4, 0, 0], &query);
    probes.push(igmp.then(Ingress, frame));
    let lldp = v4("what is not IP");
    probes.push(lldp.differs("ethertype", Ingress, packet::ethernet(0x88cc, &[0; 60])));
    let options = v4("IPv4 with options");
    let ends = options.ends(Ingress);
    let payload = packet::datagram(ends, (700, 80), b"datagram");
    let frame = packet::with_options(ends, UDP, &[1, 1, 1, 0], &payload);
    probes.push(options.differs("ip-options", Ingress, frame));

    let solicitation = v6("neighbour discovery from afar");
    let ends = solicitation.ends(Ingress);
    let rest = [0; 20];
    let near = packet::hops(ends, 255, 58, &packet::message(ends, 135, 0, &rest));
    let far = packet::hops(ends, 64, 58, &packet::message(ends, 135, 0, &rest));
    probes.push(
        solicitation
            .then(Ingress, near)
            .differs("neighbour-discovery", Ingress, far),
    );
    probes.extend(chains());
    probes
}

/// Chains of IPv6 extension headers before UDP, all of which rules allow.
fn chains() -> Vec<Probe> {
    let chain = |what: &str, chain: &[Extension], difference: Option<&'static str>| {
        let probe = v6(what);
        let ends = probe.ends(Ingress);
        let payload = packet::datagram(ends, (700, 80), b"datagram");
        let frame = extended(ends, chain, UDP, &payload);
        match difference {
            Some(name) => probe.differs(name, Ingress, frame),
            None => probe.then(Ingress, frame),
        }
    };
    let none = v6("no next header");
    let frame = packet::ip(none.ends(Ingress), 59, &[]);
    vec![
        chain("options", &[(0, NOTHING), (60, NOTHING)], None),
        chain("a routing header that is done", &[(43, ROUTED)], None),
        chain("a routing header", &[(43, ROUTING)], Some("ipv6-routing")),
        chain("eight headers", &[(60, NOTHING); 8], None),
        chain("nine headers", &[(60, NOTHING); 9], Some("ipv6-extensions")),
        none.differs("no-next-header", Ingress, frame),
    ]
}

/// Only port 80 comes in.
fn web() -> Vec<Probe> {
    let hidden = v6("UDP behind a mobility header");
    let ends = hidden.ends(Ingress);
    let payload = packet::datagram(ends, (700, 80), b"datagram");
    let mobile = extended(ends, &[(135, MOBILITY)], UDP, &payload);
    let mut probes = vec![hidden.differs("mobility", Ingress, mobile)];
    probes.extend(listeners());
    probes.extend(leases());
    for remote in remotes() {
        for (port, from) in [(80, 40_000), (81, 80), (79, 80)] {
            probes.push(probe::handshake(remote, Ingress, (from, port)));
            probes.push(probe::fragmented(remote, Ingress, (from, port)));
            probes.push(probe::handshake(remote, Egress, (from, port)));
        }
    }
    probes
}

/// DHCP as a client has it, and next to it.
fn leases() -> Vec<Probe> {
    let mut probes = Vec::new();
    for (there, client, server, group) in [
        ("198.18.7.7", 68, 67, "255.255.255.255"),
        ("fe80::7", 546, 547, "ff02::1:2"),
    ] {
        let there: IpAddr = there.parse().unwrap();
        for (from, to) in [(server, client), (server, client + 100), (80, client)] {
            let offer = Probe::new(format!("DHCP {from} {to}"), there);
            let me = match there {
                IpAddr::V4(_) => offer.local,
                IpAddr::V6(_) => "fe80::77".parse().unwrap(),
            };
            let frame = packet::udp((there, me), (from, to), b"offer");
            probes.push(offer.then(Ingress, frame));
            let request = Probe::new(format!("DHCP {to} {from}"), there);
            let ends = (me, group.parse().unwrap());
            let frame = packet::udp(ends, (to, from), b"request");
            let probe = request.then(Egress, frame);
            let known = packet::udp((me, there), (to, from), b"request");
            probes.push(probe.differs("dhcp-unicast", Egress, known));
        }
    }
    probes
}

/// Multicast listener reports of the workload (RFC 2710 §3), with and without a router alert.
fn listeners() -> Vec<Probe> {
    let alert: &[u8] = &[0, 5, 2, 0, 0, 1, 0];
    let source: IpAddr = "fe80::77".parse().unwrap();
    let report = |what: &str, group: &str, options: &'static [u8]| {
        let group: IpAddr = group.parse().unwrap();
        let IpAddr::V6(address) = group else {
            panic!("IPv6");
        };
        let ends = (source, group);
        let rest = [&[0; 4][..], &address.octets()].concat();
        let report = packet::message(ends, 131, 0, &rest);
        let body = [&[58], options, &report].concat();
        (v6(what), packet::hops(ends, 1, 0, &body))
    };
    let (with, frame) = report("a listener", "ff02::1:7", alert);
    let with = with.then(Egress, frame);
    let (without, frame) = report("a listener without router alert", "ff02::1:8", NOTHING);
    let without = without.differs("multicast-listener", Egress, frame);
    vec![with, without]
}

/// All of TCP comes in, and everything goes out.
fn untracked() -> Vec<Probe> {
    let mut probes = Vec::new();
    for remote in remotes() {
        for flags in [ACK, SYN | ACK, RST] {
            probes.push(probe::stray(remote, Ingress, (40_000, 80), flags));
            probes.push(probe::stray(remote, Egress, (40_000, 80), flags));
        }
    }
    probes
}

/// Advertisements of the workload for its own address and for others.
fn advertisements() -> Vec<Probe> {
    let everybody: IpAddr = "ff02::1".parse().unwrap();
    let advertised = |probe: Probe, target: IpAddr, difference: Option<&'static str>| {
        let IpAddr::V6(address) = target else {
            panic!("IPv6");
        };
        let ends = (target, everybody);
        let rest = [&[0x20, 0, 0, 0][..], &address.octets()].concat();
        let frame = packet::hops(ends, 255, 58, &packet::message(ends, 136, 0, &rest));
        match difference {
            Some(name) => probe.differs(name, Egress, frame),
            None => probe.then(Egress, frame),
        }
    };
    let [own4, own6] = OWN.map(|own| own.parse::<IpAddr>().unwrap());
    let [foreign4, foreign6] = remotes();
    let name = "neighbour-spoofed";
    vec![
        advertised(v6("own advertisement"), own6, None),
        advertised(v6("foreign advertisement"), foreign6, Some(name)),
        v4("own ARP").then(Egress, packet::arp_reply(own4)),
        v4("foreign ARP").differs(name, Egress, packet::arp_reply(foreign4)),
    ]
}

/// The interfaces know their addresses and insist on them.
fn checked_addresses() -> Vec<Probe> {
    let mut probes = Vec::new();
    for (remote, own) in remotes().into_iter().zip(OWN) {
        let mut ours = Probe::new("to the workload's address", remote);
        ours.local = own.parse().unwrap();
        probes.push(
            ours.datagram(Ingress, (700, 80))
                .datagram(Egress, (80, 700)),
        );
        let foreign = Probe::new("to somebody else's address", remote);
        let frame = packet::udp(foreign.ends(Ingress), (700, 80), b"datagram");
        let back = packet::udp(foreign.ends(Egress), (80, 700), b"datagram");
        let foreign = foreign.differs("source-check", Ingress, frame);
        probes.push(foreign.differs("source-check", Egress, back));
    }
    probes
}

/// Segments of connections that were not tracked until now.
pub(crate) fn taken_over() -> Vec<Probe> {
    let probes = remotes().map(|remote| {
        let probe = Probe::new("tcp taken over", remote);
        let ends = probe.ends(Ingress);
        let frame = packet::tcp(ends, (40_000, 80), ACK, (1001, 5001), b"data");
        probe.differs("hand-over", Ingress, frame)
    });
    probes.into()
}

/// Conversations before and after every rule is taken away.
pub(crate) fn revocation() -> Vec<(Vec<Probe>, Vec<Probe>)> {
    let ports = (40_000, 80);
    let pairs = remotes().map(|remote| {
        let open = probe::handshake(remote, Ingress, ports);
        let mut more = Probe::new("tcp after revocation", remote);
        more.local = open.local;
        let more = more
            .says(Ingress, ports, ACK, (1, 1))
            .hears(Ingress, ports, ACK, (1, 1));
        let again = packet::tcp(more.ends(Ingress), ports, SYN, (1000, 0), &[]);
        let more = more.differs("revoked-syn", Ingress, again);

        let asked = probe::exchange(remote, Ingress, ports);
        let mut reply = Probe::new("udp after revocation", remote);
        reply.local = asked.local;
        let reply = reply
            .datagram(Ingress, ports)
            .datagram(Egress, (80, 40_000));
        let late = probe::exchange(remote, Ingress, ports);
        (vec![open, asked], vec![more, reply, late])
    });
    pairs.into_iter().collect()
}
