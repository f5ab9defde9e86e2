//! Packets of one kind, each with its number: which were sent, which arrived, and which of them had to or must
//! not.

use crate::bed::{Class, Generations, Sides};

/// What a kind of packet needs to pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// A rule, each time.
    Rule(Class),
    /// Nothing any more: its flow is tracked.
    Nothing,
}

impl Needs {
    fn must(self, sides: Sides) -> bool {
        match self {
            Needs::Rule(class) => class.must(sides),
            Needs::Nothing => true,
        }
    }

    fn may(self, sides: Sides) -> bool {
        match self {
            Needs::Rule(class) => class.may(sides),
            Needs::Nothing => true,
        }
    }
}

/// Packets of one kind.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) name: String,
    needs: Needs,
    /// By number.
    packets: Vec<Packet>,
    pub(crate) counts: Counts,
}

#[derive(Clone, Copy, Debug)]
struct Packet {
    /// In force before it was sent.
    generation: u32,
    arrived: bool,
}

/// How many packets of a kind there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) arrived: u64,
    /// Of which it was certain that they had to arrive.
    pub(crate) due: u64,
    /// Of which it was certain that they must not.
    pub(crate) barred: u64,
}

impl Channel {
    pub(crate) fn new(name: impl Into<String>, needs: Needs) -> Self {
        Self {
            name: name.into(),
            needs,
            packets: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// The number that is sent next.
    pub(crate) fn next(&self) -> u32 {
        self.packets.len() as u32
    }

    /// Notes that [`Self::next`] is on its way.
    pub(crate) fn sent(&mut self, generation: u32) {
        self.packets.push(Packet {
            generation,
            arrived: false,
        });
        self.counts.sent += 1;
    }

    /// Takes back that a number is on its way: the system refused it. Numbers are not used again.
    pub(crate) fn refused(&mut self) {
        self.counts.sent -= 1;
    }

    /// Notes that a number arrived before `generation` was read.
    ///
    /// # Errors
    /// It was not sent, it arrived before, or no generation in force since it was sent allows it.
    pub(crate) fn arrives(
        &mut self,
        number: u32,
        generation: u32,
        generations: &Generations,
    ) -> Result<(), String> {
        let name = &self.name;
        let packet = self
            .packets
            .get_mut(number as usize)
            .ok_or_else(|| format!("{name}: packet {number} arrived and was never sent"))?;
        if packet.arrived {
            return Err(format!("{name}: packet {number} arrived twice"));
        }
        packet.arrived = true;
        self.counts.arrived += 1;
        let first = packet.generation;
        if self.needs.may(generations.between(first, generation)) {
            Ok(())
        } else {
            Err(format!(
                "{name}: packet {number} passed, which no generation from {first} to {generation} allows"
            ))
        }
    }

    pub(crate) fn has_arrived(&self, number: u32) -> bool {
        self.packets[number as usize].arrived
    }

    /// Whether a packet has to arrive that met one of these definitions.
    pub(crate) fn is_due(&self, sides: Sides) -> bool {
        self.needs.must(sides)
    }

    /// Counts a packet that met one of these definitions.
    pub(crate) fn judged(&mut self, sides: Sides) {
        self.counts.due += u64::from(self.needs.must(sides));
        self.counts.barred += u64::from(!self.needs.may(sides));
    }
}
