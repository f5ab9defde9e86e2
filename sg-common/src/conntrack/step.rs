//! How a packet moves an entry on.

use super::{Meta, Segment, Side, State, expired, flag, tcp};
use crate::layout::Live;

/// What a packet makes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// New [`State`].
    pub state: u8,
    /// New flags.
    pub flags: u8,
    /// Whether the entry's idle life starts anew.
    pub refresh: bool,
    /// [`Live::ack`] of the sender.
    pub ack: u32,
    /// [`Live::fin`] of the sender.
    pub fin: u32,
}

/// How far ahead of the peer's last acknowledgement a believable FIN lies: beyond what one window holds
/// on fast long paths (Linux lets one grow to 32 MiB by default). A forged FIN misses it 63 times in
/// 64, and is taken back by the next segment; a true one that is not believed is not sent again.
const FIN_WINDOW: u32 = 1 << 26;

/// Bytes beyond a SYN or SYN+ACK that an acknowledgement of it may include: data that travelled with
/// or right behind it (RFC 7413).
const FAST_OPEN_DATA: u32 = 0xffff;

/// TCP (RFC 9293 §3.10), from where both sides are seen and neither is trusted.
///
/// A SYN without ACK does not come here: it goes through policy (semantics 11).
/// 1. RST: closes if it answers the opening SYN with the right acknowledgement, or if its sequence
///    number is exactly what the other side last acknowledged; any other only casts doubt on the
///    entry until the next legal segment (semantics 14; RFC 5961 §3.2).
/// 2. SYN+ACK by the side that did not open: handshake half done.
/// 3. After that the opener acknowledges the answer's number, which nobody else has seen, or the side
///    that answered goes on as it only would then: established and assured. A blind ACK under a forged
///    address is neither (attacks H6).
/// 4. FIN moves its own direction only. A direction is closed when the other side has acknowledged
///    exactly its FIN; both closed: time-wait; both sent, not both acknowledged: last-ack.
/// 5. Before the handshake is complete and after both sides have closed nothing refreshes, so a
///    flood of retransmissions keeps no half-open entry alive (attacks H6).
#[inline(always)]
pub fn tcp_step(meta: Meta, live: &Live, sender: Side, segment: Segment) -> Step {
    let from = sender.index();
    let to = from ^ 1;
    let mut state = meta.state();
    let mut flags = meta.flags();
    let mut ack = live.ack[from];
    let mut fin = live.fin[from];
    let opener = (flags & flag::OPENER_LOCAL != 0) == (from == Side::Local as usize);
    let has = |bit: u8| segment.flags & bit != 0;

    if has(tcp::RST) {
        // 1.
        let proven = if state == State::TcpSynSent as u8 {
            !opener && has(tcp::ACK) && segment.acknowledgement == live.fin[to]
        } else {
            live.ack[to] != 0 && segment.sequence == live.ack[to]
        };
        // The shortened life begins with the doubt, or a forged RST would end a flow that has been
        // idle for longer; later ones neither shorten nor prolong it.
        let doubtful = state == State::TcpEstablished as u8 && flags & flag::DOUBTED == 0;
        if proven {
            state = State::TcpClose as u8;
        } else {
            flags |= flag::DOUBTED;
        }
        return Step {
            state,
            flags,
            refresh: proven || doubtful,
            ack,
            fin,
        };
    }

    let syn_ack = has(tcp::SYN) && has(tcp::ACK);
    let before = state;
    if state == State::TcpSynSent as u8 {
        // 2. The acknowledgement proves that the opener's SYN was seen.
        if syn_ack
            && !opener
            && segment.acknowledgement.wrapping_sub(live.fin[to]) <= FAST_OPEN_DATA
        {
            state = State::TcpSynReceived as u8;
            ack = segment.acknowledgement;
            fin = segment.end();
        }
    } else if state == State::TcpSynReceived as u8 && has(tcp::ACK) {
        let completes = if opener {
            segment.acknowledgement.wrapping_sub(live.fin[to]) <= FAST_OPEN_DATA
        } else {
            segment.payload != 0 || has(tcp::FIN) || ahead(segment.acknowledgement, ack)
        };
        if syn_ack && !opener {
            // A repeated SYN is answered by another SYN cookie (RFC 4987 §3.6): the latest counts.
            fin = segment.end();
        } else if completes && !syn_ack {
            // 3.
            state = State::TcpEstablished as u8;
            flags |= flag::ASSURED;
        }
    }
    if state == State::TcpSynSent as u8 || (state == State::TcpSynReceived as u8 && opener) {
        return Step {
            state,
            flags,
            refresh: false,
            ack,
            fin,
        };
    }

    // Both sides of a flow that began in its middle have been heard now.
    if state == State::TcpEstablished as u8 && live.ack[to] != 0 {
        flags |= flag::ASSURED;
    }
    // A SYN+ACK starts numbering anew, whatever stood before.
    if has(tcp::ACK) && (syn_ack || ack == 0 || ahead(segment.acknowledgement, ack)) {
        ack = segment.acknowledgement;
    }
    // 4.
    let closing = state == State::TcpEstablished as u8 || state == State::TcpLastAck as u8;
    if syn_ack && closing {
        // The peer answers a new SYN on an old connection (RFC 9293 §3.5.1): no FIN stands.
        flags &= !(flag::FIN_LOCAL | flag::FIN_REMOTE);
    }
    if closing {
        let own = sender.fin_flag();
        if has(tcp::FIN) {
            let acknowledged = live.ack[to];
            if acknowledged == 0 || segment.sequence.wrapping_sub(acknowledged) < FIN_WINDOW {
                flags |= own;
                fin = segment.end();
            }
        } else if flags & own != 0 && ahead(segment.end(), fin) {
            flags &= !own;
        }
        let both = flag::FIN_LOCAL | flag::FIN_REMOTE;
        state = if flags & both != both {
            State::TcpEstablished as u8
        } else if ack == live.fin[to] && live.ack[to] == fin {
            State::TcpTimeWait as u8
        } else {
            State::TcpLastAck as u8
        };
    }
    // 5.
    let refresh = state != before || closing;
    if refresh {
        flags &= !flag::DOUBTED;
    }
    Step {
        state,
        flags,
        refresh,
        ack,
        fin,
    }
}

/// Whether `a` is later than `b` in sequence space (RFC 9293 §3.4).
#[inline(always)]
pub const fn ahead(a: u32, b: u32) -> bool {
    let distance = a.wrapping_sub(b);
    distance != 0 && distance <= i32::MAX as u32
}

/// Seconds for which the other side's packets alone keep a flow alive (attacks I4).
const ONE_SIDED_SECONDS: u32 = 3600;

/// What a packet does to the idle life of a flow that is no TCP: the opener's always begins it anew, the
/// other side's only for a while after the opener's last. Answers whether it does, and the sender's
/// [`Live::fin`], which holds the time of the opener's last packet.
#[inline(always)]
fn keeps_alive(live: &Live, from: usize, opener: bool, now: u32, hz: u32) -> (bool, u32) {
    if opener {
        (true, now)
    } else {
        let life = ONE_SIDED_SECONDS.wrapping_mul(hz);
        (!expired(now, live.fin[from ^ 1], life), live.fin[from])
    }
}

/// UDP: a stream once each side has sent two packets (fact 3.21), so one-way traffic is none.
#[inline(always)]
pub fn udp_step(meta: Meta, live: &Live, sender: Side, now: u32, hz: u32) -> Step {
    let from = sender.index();
    let opener = (meta.flags() & flag::OPENER_LOCAL != 0) == (from == Side::Local as usize);
    let sent = if live.ack[from] < 2 {
        live.ack[from] + 1
    } else {
        2
    };
    let mut state = meta.state();
    let mut flags = meta.flags();
    if sent == 2 && live.ack[from ^ 1] >= 2 {
        state = State::UdpStream as u8;
        flags |= flag::ASSURED;
    }
    let (refresh, fin) = keeps_alive(live, from, opener, now, hz);
    Step {
        state,
        flags,
        refresh,
        ack: sent,
        fin,
    }
}

/// ICMP echo and other protocols: assured once the other side answers.
#[inline(always)]
pub fn datagram_step(meta: Meta, live: &Live, sender: Side, now: u32, hz: u32) -> Step {
    let from = sender.index();
    let opener = (meta.flags() & flag::OPENER_LOCAL != 0) == (from == Side::Local as usize);
    let flags = if opener {
        meta.flags()
    } else {
        meta.flags() | flag::ASSURED
    };
    let (refresh, fin) = keeps_alive(live, from, opener, now, hz);
    Step {
        state: meta.state(),
        flags,
        refresh,
        ack: live.ack[from],
        fin,
    }
}
