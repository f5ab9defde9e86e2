//! One end of a link sends the other packets of every kind, round by round.
//!
//! A round reads the generation, sends one packet of each kind, and after them the *marker*, a datagram of a
//! flow that lives and is answered. One thread on one CPU sends them all, so they are judged in this order; when the
//! answer is there, all of them have been judged, and the generation is read again. If it is the same, it is certain
//! which definition each packet met. What had to arrive is waited for, and what must not is a failure
//! whenever it arrives.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use sg_userspace::table::Table;

use crate::{
    bed::{
        Bed, Class, FAR_SOURCES, Generations, HANDED, NEAR_SOURCES, Side, Sides, TRACKED,
        UNTRACKED, Wire, ends, v4,
    },
    channel::{Channel, Needs},
    common::netns::Namespace,
    connects::{Attempt, Listeners},
    receiver::Receiver,
    scale::patience,
    sender::{Strangers, datagrams, payload},
    traffic::Signals,
};

/// How long a packet may be on its way: as long as a machine may stand still.
const LIMIT: Duration = Duration::from_secs(10);
/// How long one is waited for that may have been lost.
const MOMENT: Duration = Duration::from_millis(50);

/// Channels of flows that live; they come first.
const MARKER: usize = 0;
const KEPT: usize = 1;

pub(crate) struct Lane<'a> {
    pub(crate) name: String,
    generations: &'a Generations,
    generation: Table<u32, u32>,
    signals: &'a Signals,
    /// Whose packets these are, and who gets them.
    from: &'a Namespace,
    to: Ipv4Addr,
    pub(crate) channels: Vec<Channel>,
    /// Sockets of flows that live, by channel.
    living: Vec<UdpSocket>,
    strangers: Strangers,
    /// Flows that are not tracked, by class, and one that B tracks.
    untracked: Vec<UdpSocket>,
    receiver: Receiver,
    listeners: Listeners,
    /// Connections that the clients know of and that servers were given, by class.
    opened: [u64; 4],
    accepted: [u64; 4],
}

impl<'a> Lane<'a> {
    /// From far to near, or back. A must be in force.
    pub(crate) fn new(bed: &'a Bed, wire: &'a Wire, forward: bool, signals: &'a Signals) -> Self {
        let [near, far] = ends(false);
        let [near6, far6] = ends(true);
        let (from, to, own, remote, sources) = if forward {
            (
                &wire.far,
                &wire.near,
                (far, far6),
                (near, near6),
                FAR_SOURCES,
            )
        } else {
            (
                &wire.near,
                &wire.far,
                (near, near6),
                (far, far6),
                NEAR_SOURCES,
            )
        };
        let std::net::IpAddr::V4(target) = remote.0 else {
            unreachable!("it was asked for");
        };
        let mut channels = vec![
            Channel::new("a flow that both allow", Needs::Nothing),
            Channel::new("a flow that A alone allows, opened under A", Needs::Nothing),
        ];
        let kinds = ["a new flow", "a connection", "an untracked flow"];
        for kind in &kinds[..if forward { 3 } else { 2 }] {
            channels.extend(Class::ALL.map(|class| {
                Channel::new(format!("{kind} of class {class:?}"), Needs::Rule(class))
            }));
        }
        if forward {
            let needs = Needs::Rule(Class::Both);
            channels.push(Channel::new("a flow that B alone tracks", needs));
        }
        let living = [Class::Both, Class::Only(Side::A)].map(|class| {
            let socket = datagrams(from, SocketAddr::new(own.0, 0));
            let port = TRACKED + class.offset();
            socket.connect(SocketAddr::new(remote.0, port)).unwrap();
            socket
        });
        let ports = Class::ALL.map(|class| UNTRACKED + class.offset());
        let ports = ports.into_iter().chain([HANDED]).filter(|_| forward);
        let untracked = ports.map(|port| {
            let socket = datagrams(from, SocketAddr::new(own.1, 0));
            socket.connect(SocketAddr::new(remote.1, port)).unwrap();
            socket
        });
        let mut lane = Self {
            name: format!("{} {}", wire.name, if forward { "forward" } else { "back" }),
            generations: &bed.generations,
            generation: bed.generation_table(),
            signals,
            from,
            to: target,
            channels,
            living: living.into(),
            strangers: Strangers::new(from, sources.map(v4).into()),
            untracked: untracked.collect(),
            receiver: Receiver::new(to, forward),
            listeners: Listeners::new(to, target),
            opened: [0; 4],
            accepted: [0; 4],
        };
        // Two each way make a stream of it, which nothing replaces.
        for _ in 0..4 {
            for channel in [MARKER, KEPT] {
                lane.living_round(channel).unwrap();
            }
        }
        lane
    }

    /// Goes on until it is told to stop, or until something is wrong.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        let netns = sg_userspace::netns::Netns::open(Some(&self.from.name)).unwrap();
        let done = netns.run(|| {
            while !self.signals.stop.load(Ordering::Relaxed) {
                let whole = self
                    .round()
                    .map_err(|error| format!("{}: {error}", self.name))?;
                let place = self.signals.place(&self.name);
                self.signals.rounds[place].fetch_add(1, Ordering::Relaxed);
                self.signals.whole[place].fetch_add(whole.into(), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(2));
            }
            Ok(())
        });
        done.unwrap()
    }

    fn now(&self) -> u32 {
        self.generation.get(&0).unwrap().unwrap()
    }

    /// One packet of a flow that lives, and its answer, if that comes: it must, if nothing is disturbed.
    fn living_round(&mut self, channel: usize) -> Result<bool, String> {
        let before = self.now();
        let number = self.channels[channel].next();
        let mut disturbed = self.signals.is_disturbed();
        self.send(channel, before, |lane| {
            lane.living[channel]
                .send(&payload(channel, number))
                .map(drop)
        })?;
        let start = Instant::now();
        loop {
            self.receive()?;
            if self.is_answered(channel, number) {
                break;
            }
            disturbed |= self.signals.is_disturbed();
            if disturbed && start.elapsed() > MOMENT {
                return Ok(false);
            }
            if start.elapsed() > patience(LIMIT) {
                return Err(format!(
                    "{}: packet {number} or its answer is lost",
                    self.channels[channel].name
                ));
            }
            thread::sleep(Duration::from_micros(20));
        }
        let sides = self.generations.between(before, self.now());
        self.channels[channel].judged(sides);
        Ok(true)
    }

    /// One round; whether everything arrived that had to: it must, if nothing is disturbed.
    fn round(&mut self) -> Result<bool, String> {
        let disturbances = self.signals.disturbances.load(Ordering::Relaxed);
        let before = self.now();
        let mut under_way = Vec::new();
        let (strangers, connections, untracked) = (2, 6, 10);
        for class in Class::ALL {
            let channel = strangers + usize::from(class.offset());
            let number = self.channels[channel].next();
            let to = (self.to, TRACKED + class.offset());
            self.send(channel, before, |lane| {
                lane.strangers.send(to, payload(channel, number))
            })?;
            under_way.push((channel, number));
        }
        for place in 0..self.untracked.len() {
            let channel = untracked + place;
            let number = self.channels[channel].next();
            self.send(channel, before, |lane| {
                let bytes = payload(channel, number);
                lane.untracked[place].send(&bytes).map(drop)
            })?;
            under_way.push((channel, number));
        }
        let mut attempts = Vec::new();
        for class in Class::ALL {
            let channel = connections + usize::from(class.offset());
            let number = self.channels[channel].next();
            let mut attempt = None;
            self.send(channel, before, |lane| {
                attempt = Some(Attempt::new(lane.to, class)?);
                Ok(())
            })?;
            attempts.extend(attempt.map(|attempt| (channel, number, attempt)));
        }
        let mut whole = self.living_round(KEPT)?;
        // Behind all others.
        whole &= self.living_round(MARKER)?;
        let after = self.now();
        let sides = self.generations.between(before, after);
        let calm = |lane: &Self| {
            disturbances.is_multiple_of(2)
                && lane.signals.disturbances.load(Ordering::Relaxed) == disturbances
        };
        for (channel, number) in under_way {
            whole &= self.settle(channel, number, sides, &calm)?;
        }
        for (channel, number, attempt) in attempts {
            let opened = |lane: &mut Self| {
                if attempt.is_open() && !lane.channels[channel].has_arrived(number) {
                    lane.channels[channel].arrives(number, after, lane.generations)?;
                    lane.opened[channel - connections] += 1;
                }
                Ok::<_, String>(())
            };
            opened(self)?;
            let start = Instant::now();
            while self.channels[channel].is_due(sides)
                && !self.channels[channel].has_arrived(number)
                && calm(self)
            {
                if start.elapsed() > patience(LIMIT) {
                    let name = &self.channels[channel].name;
                    return Err(format!("{name}: attempt {number} did not connect"));
                }
                thread::sleep(Duration::from_micros(20));
                opened(self)?;
            }
            let channel_now = &self.channels[channel];
            whole &= !channel_now.is_due(sides) || channel_now.has_arrived(number);
            let repeated = attempt.repeated();
            if calm(self) && self.channels[channel].is_due(sides) && repeated > 0 {
                let name = &self.channels[channel].name;
                return Err(format!(
                    "{name}: attempt {number} took {repeated} more SYNs"
                ));
            }
            self.channels[channel].counts.sent += repeated;
            self.channels[channel].judged(sides);
        }
        for (count, more) in self.accepted.iter_mut().zip(self.listeners.accept()) {
            *count += more;
        }
        Ok(whole)
    }

    /// Waits for a packet that had to arrive when one of these definitions was in force.
    fn settle(
        &mut self,
        channel: usize,
        number: u32,
        sides: Sides,
        calm: &dyn Fn(&Self) -> bool,
    ) -> Result<bool, String> {
        let start = Instant::now();
        while self.channels[channel].is_due(sides)
            && !self.channels[channel].has_arrived(number)
            && calm(self)
        {
            self.receive()?;
            if start.elapsed() > patience(LIMIT) {
                return Err(format!(
                    "{}: packet {number} is lost",
                    self.channels[channel].name
                ));
            }
        }
        let channel = &mut self.channels[channel];
        channel.judged(sides);
        Ok(!channel.is_due(sides) || channel.has_arrived(number))
    }

    /// Sends the next packet of a channel.
    fn send(
        &mut self,
        channel: usize,
        generation: u32,
        send: impl FnOnce(&Self) -> std::io::Result<()>,
    ) -> Result<(), String> {
        self.channels[channel].sent(generation);
        match send(self) {
            Ok(()) => Ok(()),
            Err(_) if self.signals.is_disturbed() => {
                self.channels[channel].refused();
                Ok(())
            }
            Err(error) => Err(format!("{}: {error}", self.channels[channel].name)),
        }
    }

    /// Notes what has arrived, and answers what is to be answered.
    fn receive(&mut self) -> Result<(), String> {
        let arrivals = self.receiver.drain();
        let now = self.now();
        for arrival in arrivals {
            let channel = &mut self.channels[arrival.channel];
            channel.arrives(arrival.number, now, self.generations)?;
            if arrival.channel <= KEPT {
                self.receiver.answer(&arrival);
            }
        }
        Ok(())
    }

    /// Whether the answer to a number has come.
    fn is_answered(&self, channel: usize, number: u32) -> bool {
        let expected = payload(channel, number);
        let mut bytes = [0; 64];
        loop {
            match self.living[channel].recv(&mut bytes) {
                Ok(length) if bytes[..length] == expected => return true,
                // Of a round that was disturbed.
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }

    /// The end: what is still under way is taken in, and both ends must have counted the same.
    pub(crate) fn close(&mut self) -> Result<(), String> {
        let start = Instant::now();
        // A connection may be given to its server a little later: an acknowledgement that finds no room on a busy
        // machine is asked for again after a second.
        let least = Duration::from_millis(50);
        let most = Duration::from_secs(5);
        while start.elapsed() < least || (self.opened != self.accepted && start.elapsed() < most) {
            self.receive()?;
            for (count, more) in self.accepted.iter_mut().zip(self.listeners.accept()) {
                *count += more;
            }
            thread::sleep(Duration::from_millis(5));
        }
        if self.opened == self.accepted || self.signals.was_disturbed() {
            return Ok(());
        }
        Err(format!(
            "{}: {:?} connections opened, {:?} accepted",
            self.name, self.opened, self.accepted
        ))
    }
}
