//! Sections 1 to 10: what a frame must look like.

mod common;

use common::*;
use sg_oracle::{
    Arrival, Direction,
    policy::{Policy, What},
};

const PEER: &str = "203.0.113.1";
const HERE: &str = "10.0.0.5";

fn udp_53() -> Policy {
    policy(
        &[
            rule(What::Udp(53, 53), "0.0.0.0/0"),
            rule(What::Udp(53, 53), "2001:db8::/32"),
        ],
        &[],
    )
}

/// Makes an IPv4 frame a fragment; the offset is in bytes.
fn fragment(mut frame: Vec<u8>, offset: u16, more: bool) -> Vec<u8> {
    frame[20..22].copy_from_slice(&((offset / 8) | (u16::from(more) << 13)).to_be_bytes());
    frame
}

#[test]
fn later_fragments_follow_the_first() {
    let later = fragment(ip(PEER, HERE, 17, &[0; 16]), 8, false);
    let mut bench = Bench::new(udp_53());
    bench.enters(&later, "fragment_orphan");
    bench.enters(&fragment(udp((PEER, 1), (HERE, 54)), 0, true), "no_rule");
    bench.enters(&later, "fragment_orphan");
    bench.enters(&fragment(udp((PEER, 1), (HERE, 53)), 0, true), "new");
    bench.second += 15;
    bench.enters(&later, "fragment");
    bench.leaves(&later, "fragment_orphan");
    bench.enters(
        &fragment(ip(PEER, HERE, 1, &[0; 16]), 8, false),
        "fragment_orphan",
    );
    assert_eq!(bench.oracle.flows(bench.now())[0].packets, [1, 0]);
    bench.second += 1;
    bench.enters(&later, "fragment_orphan");
    bench.enters(
        &fragment(ip(PEER, HERE, 17, &[0; 7]), 0, true),
        "fragment_tiny",
    );
}

#[test]
fn later_fragments_do_not_overwrite_headers() {
    let mut bench = Bench::new(udp_53());
    bench.enters(
        &fragment(ip(PEER, HERE, 6, &[0; 16]), 56, false),
        "fragment_overlap",
    );
    bench.enters(
        &fragment(ip(PEER, HERE, 6, &[0; 16]), 64, false),
        "fragment_orphan",
    );
    let behind = |named: u8, offset: u8| {
        let words = u16::from(offset) << 3;
        let mut body = vec![named, 0];
        body.extend(words.to_be_bytes());
        body.extend([0; 12]);
        ip("2001:db8::1", "2001:db8::2", 44, &body)
    };
    bench.enters(&behind(60, 39), "fragment_overlap");
    bench.enters(&behind(60, 40), "fragment_orphan");
    bench.enters(&behind(6, 7), "fragment_overlap");
    bench.enters(&behind(17, 1), "fragment_orphan");
}

#[test]
fn errors_about_flows() {
    let mut policy = udp_53();
    only(&mut policy).addresses = Some(vec![address(HERE)]);
    only(&mut policy).source_dest_check = true;
    let mut bench = Bench::new(policy.clone());
    bench.enters(&udp((PEER, 1), (HERE, 53)), "new");
    let answer = udp((HERE, 53), (PEER, 1));
    // From a router between the two, cut short behind the ports.
    let error = |quote: &[u8]| icmp("198.51.100.1", HERE, 3, 4, quote);
    bench.enters(&error(&answer[14..]), "related");
    bench.enters(&error(&answer[14..answer.len() - 1]), "icmp_quote");
    bench.enters(&error(&udp((HERE, 53), (PEER, 2))[14..]), "icmp_unrelated");
    bench.enters(&error(&udp((PEER, 1), (HERE, 53))[14..]), "icmp_quote");
    bench.enters(
        &error(&fragment(answer.clone(), 8, false)[14..]),
        "icmp_quote",
    );
    bench.enters(
        &error(&icmp(HERE, PEER, 3, 3, &[0; 28])[14..]),
        "icmp_quote",
    );
    bench.enters(&error(&icmp(HERE, PEER, 8, 0, &[])[14..]), "icmp_unrelated");
    let foreign = udp(("10.0.0.6", 53), (PEER, 1));
    bench.enters(
        &icmp("198.51.100.1", "10.0.0.6", 3, 4, &foreign[14..]),
        "destination_foreign",
    );
    // The error of the other direction quotes what came in.
    bench.leaves(
        &icmp(HERE, PEER, 3, 3, &udp((PEER, 1), (HERE, 53))[14..]),
        "related",
    );
    assert_eq!(bench.oracle.flows(bench.now())[0].packets, [1, 0]);
    only(&mut policy).icmp_strict = true;
    bench.apply(policy);
    bench.enters(&error(&answer[14..]), "icmp_unrelated");
}

#[test]
fn addresses_of_the_workload() {
    let mut policy = policy(
        &[rule(What::All, "0.0.0.0/0")],
        &[rule(What::All, "0.0.0.0/0")],
    );
    only(&mut policy).addresses = Some(vec![address(HERE)]);
    let mut bench = Bench::new(policy.clone());
    bench.leaves(&udp(("10.0.0.6", 1), (PEER, 1)), "untracked");
    only(&mut policy).source_dest_check = true;
    bench.apply(policy);
    bench.leaves(&udp(("10.0.0.6", 1), (PEER, 1)), "address_spoofed");
    bench.enters(&udp((PEER, 1), ("10.0.0.6", 1)), "destination_foreign");
    bench.enters(&udp((PEER, 1), ("224.0.0.251", 1)), "untracked");
    bench.leaves(&ip("0.0.0.0", "224.0.0.22", 2, &[0; 8]), "new");
    bench.leaves(&ip("0.0.0.0", "224.0.0.22", 17, &[0; 8]), "ip_source");
    bench.enters(&udp((PEER, 1), (PEER, 1)), "land");
}

#[test]
fn services_pass_but_do_not_open() {
    let mut policy = policy(&[], &[]);
    policy.services.push(address("169.254.169.254"));
    let mut bench = Bench::new(policy);
    let (service, here) = (("169.254.169.254", 80), (HERE, 5000));
    bench.leaves(&tcp(here, service, (SYN, 1, 0, 0)), "service");
    bench.enters(&tcp(service, here, (SYN | ACK, 1, 2, 0)), "service");
    bench.enters(&tcp(service, here, (SYN, 1, 0, 0)), "no_rule");
    bench.enters(
        &fragment(ip(service.0, HERE, 17, &[0; 8]), 800, false),
        "service",
    );
}

/// Neighbour discovery, MLD and DHCP.
fn always_passed() -> Vec<(Direction, Vec<u8>, &'static str)> {
    let mut solicitation = icmp("fe80::1", "ff02::1:ff00:2", 135, 0, &[0; 16]);
    solicitation[21] = 255;
    let mut advertisement = icmp("fe80::1", "fe80::2", 136, 0, &address_octets("2001:db8::9"));
    advertisement[21] = 255;
    let mut router = icmp("fe80::1", "ff02::1", 134, 0, &[0; 8]);
    router[21] = 255;
    let mut report = vec![58, 0, 5, 2, 0, 0, 1, 0, 143, 0, 0, 0, 0, 0, 0, 0];
    let mut listener = ip("fe80::1", "ff02::16", 0, &report);
    listener[21] = 1;
    report[5] = 1;
    let mut other_alert = ip("fe80::1", "ff02::16", 0, &report);
    other_alert[21] = 1;
    vec![
        (Direction::In, solicitation.clone(), "neighbor_discovery"),
        (Direction::Out, solicitation, "neighbor_discovery"),
        (Direction::Out, advertisement, "address_spoofed"),
        (Direction::In, router.clone(), "router_advertisement"),
        (Direction::Out, router, "neighbor_invalid"),
        (Direction::Out, listener.clone(), "multicast_listener"),
        (Direction::In, listener, "no_rule"),
        (Direction::Out, other_alert, "no_rule"),
        (
            Direction::Out,
            udp(("0.0.0.0", 68), ("255.255.255.255", 67)),
            "dhcp",
        ),
        (Direction::Out, udp((HERE, 68), (PEER, 67)), "no_rule"),
        (Direction::In, udp((PEER, 67), (HERE, 68)), "dhcp"),
        (
            Direction::In,
            udp(("127.0.0.1", 67), (HERE, 68)),
            "ip_source",
        ),
        (
            Direction::Out,
            udp(("fe80::1", 546), ("ff02::1:2", 547)),
            "dhcp",
        ),
    ]
}

fn address_octets(text: &str) -> Vec<u8> {
    match address(text) {
        std::net::IpAddr::V4(address) => address.octets().to_vec(),
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[test]
fn what_passes_always() {
    let mut policy = policy(&[], &[]);
    only(&mut policy).host = true;
    only(&mut policy).addresses = Some(vec![address(HERE), address("2001:db8::2")]);
    let mut bench = Bench::new(policy);
    for (direction, frame, verdict) in always_passed() {
        // A `host` interface: what goes out of the workload comes in by the device.
        let ingress = direction == Direction::Out;
        let arrival = Arrival {
            ingress,
            frame: &frame,
            tagged: false,
            merged: false,
            packets: 1,
        };
        let judgement = bench.oracle.judge(bench.now(), "i", &arrival);
        assert_eq!(judgement.direction, direction);
        assert_eq!(name(judgement.verdict), verdict, "{frame:02x?}");
    }
}

#[test]
fn ethernet() {
    let mut policy = udp_53();
    only(&mut policy).ethertypes.push(0x888e);
    let mut bench = Bench::new(policy);
    let mut frame = vec![0; 14];
    for (ethertype, verdict) in [
        (0x888e_u16, "listed_ethertype"),
        (0x88cc, "ethertype"),
        (0x8100, "vlan_tag"),
        (0x0806, "truncated"),
    ] {
        frame[12..].copy_from_slice(&ethertype.to_be_bytes());
        bench.enters(&frame, verdict);
    }
    bench.enters(&frame[..13], "truncated");
    frame.extend([0, 1, 8, 0, 6, 4, 0, 3]);
    frame.resize(42, 0);
    bench.enters(&frame, "arp_invalid");
    frame[21] = 2;
    bench.enters(&frame, "arp");
}

#[test]
fn no_bytes_panic_and_no_prefix_passes_more() {
    let mut frames = vec![
        udp((PEER, 1), (HERE, 53)),
        tcp((PEER, 1), (HERE, 80), (SYN, 1, 0, 4)),
        icmp(PEER, HERE, 3, 4, &udp((HERE, 53), (PEER, 1))[14..]),
        icmp(
            "2001:db8::1",
            "2001:db8::2",
            1,
            4,
            &udp(("2001:db8::2", 53), ("2001:db8::1", 1))[14..],
        ),
        ip(
            "2001:db8::1",
            "2001:db8::2",
            60,
            &[44, 0, 1, 4, 0, 0, 0, 0, 51, 0, 0, 1, 0, 0, 0, 1, 17, 4],
        ),
    ];
    frames.extend(always_passed().into_iter().map(|(_, frame, _)| frame));
    let mut bench = Bench::new(udp_53());
    let mut random = 1_u64;
    for frame in &frames {
        for length in 0..=frame.len() {
            for ingress in [false, true] {
                for merged in [false, true] {
                    let arrival = Arrival {
                        ingress,
                        frame: &frame[..length],
                        tagged: false,
                        merged,
                        packets: 1,
                    };
                    let verdict = bench.oracle.judge(bench.now(), "i", &arrival).verdict;
                    let passes = matches!(verdict, sg_oracle::Verdict::Pass(_));
                    assert!(
                        length == frame.len() || !passes,
                        "{verdict:?} {length} {frame:02x?}"
                    );
                }
            }
        }
        for _ in 0..2_000 {
            bench.second += 1;
            let mut frame = frame.clone();
            for _ in 0..4 {
                // Marsaglia's xorshift.
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let at = random as usize % frame.len();
                frame[at] = (random >> 32) as u8;
            }
            frame.truncate(frame.len() - (random >> 40) as usize % 8 / 7);
            let ingress = random & 1 << 50 == 0;
            let arrival = Arrival {
                ingress,
                frame: &frame,
                tagged: false,
                merged: false,
                packets: 1,
            };
            bench.oracle.judge(bench.now(), "i", &arrival);
        }
    }
}
