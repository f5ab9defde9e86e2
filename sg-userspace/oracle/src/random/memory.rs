//! What has been sent, and packets that follow from it.

use super::{
    Hook, Source, Step,
    frame::{self, IP, Piece},
    link,
    places::{self, Ip},
    talk::Talk,
};
use crate::policy::Policy;

/// Conversations that go on at a time.
const TALKS: usize = 10;
/// Frames that are remembered.
const SENT: usize = 16;

/// A frame that was sent.
#[derive(Clone, Debug)]
struct Sent {
    interface: String,
    inbound: bool,
    frame: Vec<u8>,
    merged: bool,
}

/// What has been sent so far.
pub(super) struct Memory {
    /// What is in force.
    pub(super) policy: Policy,
    names: Vec<String>,
    talks: Vec<Talk>,
    sent: Vec<Sent>,
    pieces: Vec<(Sent, Piece)>,
}

/// Keeps the last `most`.
fn remember<T>(all: &mut Vec<T>, one: T, most: usize) {
    if all.len() == most {
        all.remove(0);
    }
    all.push(one);
}

impl Memory {
    pub(super) fn new(policy: &Policy) -> Self {
        Self {
            policy: policy.clone(),
            names: policy.interfaces.keys().cloned().collect(),
            talks: Vec::new(),
            sent: Vec::new(),
            pieces: Vec::new(),
        }
    }

    /// The next packet; `None` if what it would follow from is not there.
    pub(super) fn packet(&mut self, source: &mut Source<'_>) -> Option<Step> {
        let mut sent = match source.below(36) {
            0..=19 => self.talk(source),
            20 | 21 => self.sent_again(source)?,
            22 => self.miss(source)?,
            23..=26 => self.error(source)?,
            27 => self.first_fragment(source)?,
            28 | 29 => self.later_fragment(source)?,
            30..=32 => self.of_link(source),
            33 => self.extended(source)?,
            34 => self.message(source),
            _ => self.oddly_addressed(source)?,
        };
        if source.one_in(14) {
            spoil(source, &mut sent.frame);
        }
        Some(self.step(source, sent))
    }

    fn step(&self, source: &mut Source<'_>, sent: Sent) -> Step {
        let host = self
            .policy
            .interfaces
            .get(&sent.interface)
            .is_some_and(|interface| interface.host);
        let mut frame = sent.frame;
        let mut packets = 1;
        let mut hook = match (sent.inbound == host, source.one_in(2)) {
            (true, _) => Hook::TcEgress,
            (false, true) => Hook::TcIngress,
            (false, false) => Hook::Xdp,
        };
        if sent.merged {
            packets = 2 + source.below(40) as u32;
            if hook == Hook::Xdp {
                hook = Hook::TcIngress;
            }
            let length = match frame.get(12..14) {
                Some([0x08, 0x00]) => 16..18,
                _ => 18..20,
            };
            if source.one_in(3)
                && let Some(length) = frame.get_mut(length)
            {
                length.fill(0);
            }
        }
        Step::Packet {
            interface: sent.interface,
            hook,
            frame,
            packets,
        }
    }

    /// An interface of the first definition, and its number.
    fn interface(&self, source: &mut Source<'_>) -> (String, usize) {
        let which = source.below(self.names.len());
        let name = &self.names[which];
        (name.clone(), number(name))
    }

    fn talk(&mut self, source: &mut Source<'_>) -> Sent {
        let fresh = self.talks.is_empty() || source.one_in(7);
        let which = if fresh {
            let talk = if !self.talks.is_empty() && source.one_in(3) {
                self.talks[source.below(self.talks.len())].beside(source)
            } else {
                let (name, number) = self.interface(source);
                Talk::new(source, &name, number)
            };
            remember(&mut self.talks, talk, TALKS);
            self.talks.len() - 1
        } else {
            source.below(self.talks.len())
        };
        let talk = &mut self.talks[which];
        let said = talk.say(source);
        let sent = Sent {
            interface: talk.interface.clone(),
            inbound: said.inbound,
            frame: said.frame,
            merged: said.merged,
        };
        remember(&mut self.sent, sent.clone(), SENT);
        sent
    }

    /// What was sent once more, there or elsewhere.
    fn sent_again(&self, source: &mut Source<'_>) -> Option<Sent> {
        let mut sent = source.among(&self.sent)?.clone();
        match source.below(8) {
            0 => sent.interface = self.interface(source).0,
            1 => sent.inbound = !sent.inbound,
            _ => {}
        }
        Some(sent)
    }

    /// What was sent, but for a bit of its addresses or its first transport bytes.
    fn miss(&self, source: &mut Source<'_>) -> Option<Sent> {
        let mut sent = source.among(&self.sent)?.clone();
        let addresses = match sent.frame.get(12..14)? {
            [0x08, 0x00] => 26..38,
            _ => 22..58,
        };
        let at = addresses.start + source.below(addresses.len());
        *sent.frame.get_mut(at)? ^= 1 << source.below(8);
        Some(sent)
    }

    /// An ICMP error about something that was sent.
    fn error(&self, source: &mut Source<'_>) -> Option<Sent> {
        let about = if source.one_in(8) {
            &source.among(&self.pieces)?.0
        } else {
            source.among(&self.sent)?
        };
        let (ends, protocol, body) = frame::taken_apart(&about.frame)?;
        let ip = Ip::of(ends.0);
        let mut quoted = about.frame.get(IP..)?.to_vec();
        let least = ip.pick(20, 40) + 8;
        match source.below(8) {
            0 => quoted.truncate(least),
            1 => quoted.truncate(least - 1),
            2 if ip == Ip::V6 => {
                quoted = link::extended(source, ends, protocol, body).split_off(IP);
            }
            3 => {
                let piece = Piece {
                    ends,
                    protocol,
                    id: 1,
                    offset: source.of(&[0, 8]),
                    more: source.one_in(2),
                };
                quoted = piece.frame(body).split_off(IP);
            }
            4 if source.one_in(3) => {
                let at = source.below(quoted.len().min(least));
                quoted[at] ^= 1 << source.below(8);
            }
            _ => {}
        }
        let from = match source.below(4) {
            0 => places::anybody(source, ip),
            _ => ends.1,
        };
        let to = match source.below(16) {
            0 => places::anybody(source, ip),
            _ => ends.0,
        };
        let kind = source.of(ip.pick(&[3, 3, 11, 12, 4, 5], &[1, 2, 3, 4, 0, 100]));
        let rest = [&[0; 4], &quoted[..]].concat();
        let body = frame::message(kind, source.of(&[0, 1, 4]), &rest);
        Some(Sent {
            interface: about.interface.clone(),
            inbound: about.inbound == source.one_in(12),
            frame: frame::ip((from, to), 64, ip.icmp(), &body),
            merged: false,
        })
    }

    /// The first fragment of something that was sent, or one that claims to be.
    fn first_fragment(&mut self, source: &mut Source<'_>) -> Option<Sent> {
        let mut sent = source.among(&self.sent)?.clone();
        let (ends, protocol, body) = frame::taken_apart(&sent.frame)?;
        let mut piece = Piece {
            ends,
            protocol,
            id: source.below(3) as u32,
            offset: 0,
            more: !source.one_in(6),
        };
        let mut body = body.to_vec();
        if Ip::of(ends.0) == Ip::V6 && source.one_in(5) {
            // Options behind the fragment header, which the receiver sees when all is together.
            body = [&[protocol, 0, 1, 4, 0, 0, 0, 0], &body[..]].concat();
            piece.protocol = 60;
        }
        match source.below(6) {
            0 => body.truncate(source.of(&[8, 16, 0, 7])),
            1 => {}
            _ => body.resize(body.len().max(24) + 8, b'.'),
        }
        sent.frame = piece.frame(&body);
        sent.merged = false;
        remember(&mut self.pieces, (sent.clone(), piece), 6);
        Some(sent)
    }

    /// What follows a first fragment, or seems to.
    fn later_fragment(&self, source: &mut Source<'_>) -> Option<Sent> {
        let (sent, piece) = source.among(&self.pieces)?;
        let (mut sent, mut piece) = (sent.clone(), *piece);
        piece.offset = source.of(&[64, 128, 320, 328, 1480, 8, 16, 24, 56]);
        piece.more = source.one_in(2);
        match source.below(16) {
            0 => piece.id ^= 1,
            1 => piece.protocol = source.of(&[6, 17, 50]),
            2 => piece.ends = (piece.ends.1, piece.ends.0),
            3 => sent.inbound = !sent.inbound,
            4 => sent.interface = self.interface(source).0,
            5 => piece.ends.0 = places::anybody(source, Ip::of(piece.ends.0)),
            _ => {}
        }
        sent.frame = piece.frame(&[b'.'; 24]);
        Some(sent)
    }

    fn of_link(&self, source: &mut Source<'_>) -> Sent {
        let (interface, number) = self.interface(source);
        let inbound = source.one_in(2);
        Sent {
            interface,
            inbound,
            frame: link::any(source, number, inbound),
            merged: false,
        }
    }

    /// What was sent, behind extension headers.
    fn extended(&self, source: &mut Source<'_>) -> Option<Sent> {
        let mut sent = source.among(&self.sent)?.clone();
        let (ends, protocol, body) = frame::taken_apart(&sent.frame)?;
        if Ip::of(ends.0) == Ip::V4 {
            return None;
        }
        sent.frame = link::extended(source, ends, protocol, body);
        sent.merged = false;
        Some(sent)
    }

    /// ICMP of any type, about nothing.
    fn message(&self, source: &mut Source<'_>) -> Sent {
        let (interface, number) = self.interface(source);
        let ip = source.of(&Ip::BOTH);
        let inbound = source.one_in(2);
        let (near, far) = (places::workload(ip, number), places::anybody(source, ip));
        let ends = if inbound { (far, near) } else { (near, far) };
        let kind = if source.one_in(3) {
            source.byte()
        } else {
            source.of(ip.pick(&[13, 9, 255, 8, 0], &[138, 151, 255, 128, 129]))
        };
        let body = frame::message(kind, source.of(&[0, 0, 1, 255]), &[0; 8]);
        // Of the other family too, which is a protocol like any other there.
        let protocol = if source.one_in(10) {
            59 - ip.icmp()
        } else {
            ip.icmp()
        };
        Sent {
            interface,
            inbound,
            frame: frame::ip(ends, 64, protocol, &body),
            merged: false,
        }
    }

    /// What was sent, from or to where nobody is, or from itself to itself.
    fn oddly_addressed(&self, source: &mut Source<'_>) -> Option<Sent> {
        let mut sent = source.among(&self.sent)?.clone();
        let (mut ends, protocol, body) = frame::taken_apart(&sent.frame)?;
        let ip = Ip::of(ends.0);
        match source.below(5) {
            0 | 1 => ends.0 = places::odd(source, ip),
            2 => ends.1 = places::odd(source, ip),
            3 => ends.1 = ends.0,
            _ => {
                let service = places::service(ip, source.below(2));
                if sent.inbound {
                    ends.0 = service;
                } else {
                    ends.1 = service;
                }
            }
        }
        sent.frame = frame::ip(ends, 64, protocol, body);
        sent.merged = false;
        Some(sent)
    }
}

/// The number in an interface's name.
fn number(name: &str) -> usize {
    let digits = name.trim_start_matches(|letter: char| !letter.is_ascii_digit());
    digits.parse().unwrap_or_default()
}

/// Changes, cuts off or adds bytes.
fn spoil(source: &mut Source<'_>, frame: &mut Vec<u8>) {
    match source.below(8) {
        0 => {
            let at = source.below(frame.len().min(80));
            frame[at] = source.byte();
        }
        1 | 2 => {
            let at = IP + source.below(28);
            if let Some(byte) = frame.get_mut(at) {
                *byte ^= 1 << source.below(8);
            }
        }
        3 => {
            let length = source.below(frame.len());
            frame.truncate(length);
        }
        4 => {
            let kind = source.of(&[[0x81, 0x00], [0x08, 0x06], [0x08, 0x00], [0x86, 0xdd]]);
            frame[12..IP].copy_from_slice(&kind);
        }
        5 => {
            // The length that IP states.
            let at = if frame[12] == 0x08 { 17 } else { 19 };
            if let Some(byte) = frame.get_mut(at) {
                *byte = byte.wrapping_add(source.of(&[1, 255, 8, 248]));
            }
        }
        6 => {
            // TCP's data offset.
            if let Some(byte) = frame.get_mut(46) {
                *byte = source.byte();
            }
        }
        _ => frame.resize(frame.len() + 1 + source.below(40), 0),
    }
}
