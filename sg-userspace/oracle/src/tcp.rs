//! Section 14: the states of a TCP flow.

use crate::{
    entry::{Entry, State},
    transport::{ACK, FIN, RST, SYN, Segment},
};

/// How far an acknowledgement may lie beyond the number that it must reach.
const BEYOND: u32 = 65_535;
/// How far a FIN may lie beyond what the other side acknowledged.
const WINDOW: u32 = 1 << 26;

/// What is known of the two sides: of the opener at 0, of the other at 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sides {
    /// Highest acknowledgement it sent; 0 for none.
    acknowledged: [u32; 2],
    /// What acknowledges its SYN, later its FIN.
    answer: [u32; 2],
    /// Its FIN counts.
    closed: [bool; 2],
}

/// State and sides of the entry that a segment makes.
pub(crate) fn open(segment: &Segment, sent_by_opener: bool) -> (State, Sides) {
    let mut sides = Sides::default();
    let sender = usize::from(!sent_by_opener);
    if segment.is_syn() {
        sides.answer[sender] = segment.sequence.wrapping_add(1);
        return (State::SynSent, sides);
    }
    if segment.has(ACK) {
        sides.acknowledged[sender] = segment.acknowledgement;
    }
    if segment.has(FIN) {
        sides.closed[sender] = true;
        sides.answer[sender] = segment.end();
    }
    (State::Established, sides)
}

/// The opener sent another SYN.
pub(crate) fn open_again(sides: &mut Sides, segment: &Segment) {
    sides.acknowledged[0] = 0;
    sides.answer[0] = segment.sequence.wrapping_add(1);
}

/// A segment that is not a SYN.
pub(crate) fn advance(entry: &mut Entry, by_opener: bool, segment: &Segment, now: u64) {
    if segment.has(RST) {
        reset(entry, by_opener, segment, now);
        return;
    }
    let sender = usize::from(!by_opener);
    let sides = &mut entry.sides;
    let syn_ack = segment.has(SYN);
    match entry.state {
        State::SynSent => {
            if !by_opener && syn_ack && reaches(segment.acknowledgement, sides.answer[0]) {
                sides.acknowledged[1] = segment.acknowledgement;
                sides.answer[1] = segment.end();
                entry.state = State::SynReceived;
                entry.refresh(now);
            }
            return;
        }
        State::SynReceived if syn_ack => {
            if !by_opener {
                sides.answer[1] = segment.end();
                sides.acknowledged[1] = segment.acknowledgement;
            }
            return;
        }
        State::SynReceived => {
            let complete = if by_opener {
                reaches(segment.acknowledgement, sides.answer[1])
            } else {
                segment.payload > 0
                    || segment.has(FIN)
                    || is_ahead(segment.acknowledgement, sides.acknowledged[1])
            };
            if !complete {
                if !by_opener {
                    note_acknowledgement(sides, sender, segment);
                }
                return;
            }
            entry.state = State::Established;
            entry.assured = true;
        }
        _ => {}
    }

    if entry.state == State::Established && sides.acknowledged[1 - sender] != 0 {
        entry.assured = true;
    }
    note_acknowledgement(sides, sender, segment);
    if !matches!(entry.state, State::Established | State::LastAck) {
        return;
    }
    if syn_ack {
        sides.closed = [false; 2];
    }
    let known = sides.acknowledged[1 - sender];
    if segment.has(FIN) {
        if known == 0 || segment.sequence.wrapping_sub(known) < WINDOW {
            sides.closed[sender] = true;
            sides.answer[sender] = segment.end();
        }
    } else if sides.closed[sender] && is_ahead(segment.end(), sides.answer[sender]) {
        sides.closed[sender] = false;
    }
    entry.state = if sides.closed != [true; 2] {
        State::Established
    } else if sides.acknowledged[0] == sides.answer[1] && sides.acknowledged[1] == sides.answer[0] {
        State::TimeWait
    } else {
        State::LastAck
    };
    entry.refresh(now);
}

/// An RST does nothing but close the entry or put it in doubt: anybody can send one (semantics 14).
fn reset(entry: &mut Entry, by_opener: bool, segment: &Segment, now: u64) {
    let proven = if entry.state == State::SynSent {
        !by_opener && segment.has(ACK) && segment.acknowledgement == entry.sides.answer[0]
    } else {
        let known = entry.sides.acknowledged[usize::from(by_opener)];
        known != 0 && segment.sequence == known
    };
    if proven {
        entry.state = State::Close;
        entry.refresh(now);
        return;
    }
    if entry.state == State::Established && !entry.doubt {
        entry.last = now;
    }
    entry.doubt = true;
}

fn note_acknowledgement(sides: &mut Sides, sender: usize, segment: &Segment) {
    let known = sides.acknowledged[sender];
    if segment.has(SYN) || known == 0 || is_ahead(segment.acknowledgement, known) {
        sides.acknowledged[sender] = segment.acknowledgement;
    }
}

fn reaches(acknowledgement: u32, answer: u32) -> bool {
    acknowledgement.wrapping_sub(answer) <= BEYOND
}

/// `one` is later in sequence space than `other`.
fn is_ahead(one: u32, other: u32) -> bool {
    (1..=0x7fff_ffff).contains(&one.wrapping_sub(other))
}
