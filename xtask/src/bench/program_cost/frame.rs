//! Frames that are measured, as they stand on the wire. Checksums stay zero: nobody verifies them.

/// The workload, `10.1.0.10`.
pub(crate) const WORKLOAD4: [u8; 4] = [10, 1, 0, 10];
/// The workload, `2001:db8:1::10`.
pub(crate) const WORKLOAD6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];
/// First of the peers, `100.64.0.0`.
pub(crate) const PEER4: [u8; 4] = [100, 64, 0, 0];
/// First of the peers, `2001:db8:2::`; the lowest 32 bits are as for IPv4.
pub(crate) const PEER6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 100, 64, 0, 0];
/// A router on the way.
const ROUTER4: [u8; 4] = [192, 0, 2, 1];
const ROUTER6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// Port of the workload that peers talk to.
pub(crate) const LOCAL_PORT: u16 = 443;
/// Lowest port of the peers.
pub(crate) const REMOTE_PORT: u16 = 1024;

/// Shortest frame, without its check sequence (IEEE 802.3).
const SHORTEST: usize = 60;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;

/// Offsets of what tells packets apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offsets {
    /// Start of the remote address.
    pub(crate) remote: u32,
    /// Lowest 32 bits of it.
    pub(crate) remote_low: u32,
    /// Port of the remote.
    pub(crate) remote_port: u32,
    /// Port of the workload.
    pub(crate) local_port: u32,
}

/// Offsets in a packet towards the workload, or from it.
pub(crate) fn offsets(ipv6: bool, ingress: bool) -> Offsets {
    let (source, destination, size, ports) = if ipv6 {
        (22, 38, 16, 54)
    } else {
        (26, 30, 4, 34)
    };
    let (remote, remote_port, local_port) = if ingress {
        (source, ports, ports + 2)
    } else {
        (destination, ports + 2, ports)
    };
    Offsets {
        remote,
        remote_low: remote + size - 4,
        remote_port,
        local_port,
    }
}

/// Offsets in the packet that an ICMP error quotes, which the workload sent.
pub(crate) fn quoted_offsets(ipv6: bool) -> Offsets {
    let before = if ipv6 { 48 } else { 28 };
    let Offsets {
        remote,
        remote_low,
        remote_port,
        local_port,
    } = offsets(ipv6, false);
    Offsets {
        remote: remote + before,
        remote_low: remote_low + before,
        remote_port: remote_port + before,
        local_port: local_port + before,
    }
}

/// Offset of the lower half of a fragment's identification.
pub(crate) fn fragment_id(ipv6: bool) -> u32 {
    if ipv6 { 60 } else { 18 }
}

fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame.resize(frame.len().max(SHORTEST), 0);
    frame
}

/// An IPv4 header and its payload; `fragment` is identification, and flags with offset.
fn ipv4(
    source: [u8; 4],
    destination: [u8; 4],
    protocol: u8,
    fragment: (u16, u16),
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend((20 + payload.len() as u16).to_be_bytes());
    packet.extend(fragment.0.to_be_bytes());
    packet.extend(fragment.1.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(source);
    packet.extend(destination);
    packet.extend(payload);
    packet
}

fn ipv6(
    source: [u8; 16],
    destination: [u8; 16],
    protocol: u8,
    hops: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([protocol, hops]);
    packet.extend(source);
    packet.extend(destination);
    packet.extend(payload);
    packet
}

fn between(is_ipv6: bool, ingress: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
    if is_ipv6 {
        let (source, destination) = order(PEER6, WORKLOAD6, ingress);
        ipv6(source, destination, protocol, 64, payload)
    } else {
        let (source, destination) = order(PEER4, WORKLOAD4, ingress);
        ipv4(source, destination, protocol, (0, 0), payload)
    }
}

fn order<T>(peer: T, workload: T, ingress: bool) -> (T, T) {
    if ingress {
        (peer, workload)
    } else {
        (workload, peer)
    }
}

fn of_ip(is_ipv6: bool, packet: &[u8]) -> Vec<u8> {
    ethernet(if is_ipv6 { 0x86dd } else { 0x0800 }, packet)
}

fn segment(ingress: bool, flags: u8, local_port: u16) -> Vec<u8> {
    let (source, destination) = order(REMOTE_PORT, local_port, ingress);
    let mut bytes = Vec::new();
    bytes.extend(source.to_be_bytes());
    bytes.extend(destination.to_be_bytes());
    // Sequence and acknowledgement number.
    bytes.extend([0, 0, 16, 0, 0, 0, 32, 0]);
    bytes.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes
}

/// A TCP segment without payload between a peer and the workload.
pub(crate) fn tcp(ipv6: bool, ingress: bool, flags: u8, local_port: u16) -> Vec<u8> {
    of_ip(
        ipv6,
        &between(ipv6, ingress, TCP, &segment(ingress, flags, local_port)),
    )
}

/// The first or a later fragment of a UDP datagram towards the workload's port 53.
pub(crate) fn fragment(is_ipv6: bool, first: bool) -> Vec<u8> {
    let mut payload = Vec::new();
    payload.extend(REMOTE_PORT.to_be_bytes());
    payload.extend([0, 53, 8, 0, 0, 0]);
    payload.resize(32, b'.');
    // Offsets count eight bytes; the first fragment says that more follow.
    if is_ipv6 {
        let place: u16 = if first { 1 } else { 180 << 3 };
        let mut behind = vec![UDP, 0];
        behind.extend(place.to_be_bytes());
        behind.extend([0; 4]);
        behind.extend(payload);
        of_ip(true, &between(true, true, 44, &behind))
    } else {
        let place = if first { 0x2000 } else { 180 };
        of_ip(false, &ipv4(PEER4, WORKLOAD4, UDP, (0, place), &payload))
    }
}

/// "Host unreachable" of a router about a segment that the workload sent.
pub(crate) fn icmp_error(is_ipv6: bool) -> Vec<u8> {
    let quoted = between(is_ipv6, false, TCP, &segment(false, ACK, LOCAL_PORT));
    let kind = if is_ipv6 { [1, 3] } else { [3, 1] };
    let mut message = vec![kind[0], kind[1], 0, 0, 0, 0, 0, 0];
    message.extend(quoted);
    if is_ipv6 {
        of_ip(true, &ipv6(ROUTER6, WORKLOAD6, 58, 64, &message))
    } else {
        of_ip(false, &ipv4(ROUTER4, WORKLOAD4, 1, (0, 0), &message))
    }
}

/// An ARP request, or a neighbour solicitation.
pub(crate) fn resolution(is_ipv6: bool) -> Vec<u8> {
    if !is_ipv6 {
        let mut request = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1];
        request.extend(PEER4);
        request.extend([0; 6]);
        request.extend(WORKLOAD4);
        return ethernet(0x0806, &request);
    }
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(WORKLOAD6);
    of_ip(true, &ipv6(PEER6, WORKLOAD6, 58, 255, &message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_point_at_what_they_say() {
        for ipv6 in [false, true] {
            for ingress in [false, true] {
                let frame = tcp(ipv6, ingress, SYN, LOCAL_PORT);
                points_there(&frame, offsets(ipv6, ingress), ipv6);
            }
            points_there(&icmp_error(ipv6), quoted_offsets(ipv6), ipv6);
        }
    }

    fn points_there(frame: &[u8], at: Offsets, ipv6: bool) {
        let peer: &[u8] = if ipv6 { &PEER6 } else { &PEER4 };
        assert!(frame[at.remote as usize..].starts_with(peer));
        assert!(frame[at.remote_low as usize..].starts_with(&PEER4));
        assert!(frame[at.remote_port as usize..].starts_with(&REMOTE_PORT.to_be_bytes()));
        assert!(frame[at.local_port as usize..].starts_with(&LOCAL_PORT.to_be_bytes()));
    }

    #[test]
    fn fragments_differ_from_one_another_behind_their_identification() {
        for ipv6 in [false, true] {
            let at = fragment_id(ipv6) as usize;
            let (first, later) = (fragment(ipv6, true), fragment(ipv6, false));
            assert_eq!(first[at..at + 2], [0, 0]);
            assert_ne!(first, later);
        }
        assert_eq!(tcp(false, true, SYN, 1).len(), SHORTEST);
    }
}
