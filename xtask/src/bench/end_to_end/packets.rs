//! What a packet costs the CPU that receives it, behind each firewall. Every sample proves where its packets went: what came out behind, and what conntrack and counters say.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::bed::Bed;
use super::enforced::{self, Counts};
use super::firewall::{Firewall, Floor, Rules};
use super::generator::{self, Generator, Packets};
use super::netfilter;
use super::rounds::{self, Paired};
use crate::demo::enforcer::Enforcer;

/// How long a sample is meant to last, s.
const DURATION: f64 = 0.04;
/// New flows of a sample at most: an enforcer's default allowance holds four times as many before one that
/// nobody has answered replaces another.
const NEW_FLOWS: u64 = 48_000;
/// Packets of a first sample, whose only use is to know how many make one of [`DURATION`].
const TRIAL: u32 = 60_000;
/// How long flows are left to packets at random: a third of the shortest that they live
/// (`nf_conntrack_udp_timeout` and `udp` are set to a minute).
const REOPEN: Duration = Duration::from_secs(20);
/// Flows that are as many as a sample has packets, or more: they are gone through once before it.
const WARM: u32 = 1 << 14;
/// How often flows are opened until all are.
const OPENINGS: usize = 40;

/// What kind of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Traffic {
    /// Of this many tracked flows, at random; a power of two.
    Established(u32),
    /// Each opens a flow that a rule allows.
    New,
    /// No rule allows any.
    Denied,
}

impl Traffic {
    /// As it is called in reports.
    pub(super) fn name(self) -> String {
        match self {
            Self::Established(flows) => format!("established, {} k flows", flows / 1024),
            Self::New => "new flows".to_owned(),
            Self::Denied => "denied".to_owned(),
        }
    }
}

/// A firewall where it stands.
pub(super) struct Subject {
    pub(super) bed: Bed,
    pub(super) firewall: Firewall,
    pub(super) rules: Rules,
    /// Packets to send for a sample; 0 if that is not known yet.
    pub(super) count: u32,
    /// When its flows were opened, or kept open.
    pub(super) opened: Instant,
}

/// A sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    /// CPU time of the receiver per packet, ns.
    pub(super) cost: f64,
    /// Packets per second that it took up.
    pub(super) rate: f64,
    /// How long the receiver waited for its CPU, over how long it ran.
    pub(super) disturbed: f64,
}

/// What all samples take.
pub(super) struct Range<'a> {
    pub(super) generator: &'a mut Generator,
    pub(super) enforcer: &'a Enforcer,
}

/// The rounds of every subject, in their order; `subjects[0]` is the reference.
///
/// # Errors
/// If packets cannot be sent, or do not take the way that the traffic is about.
pub(super) fn rounds(
    range: &mut Range<'_>,
    subjects: &mut [Subject],
    traffic: Traffic,
    number: usize,
) -> Result<Vec<Vec<Paired<Sample>>>> {
    for subject in subjects.iter_mut() {
        subject.count = 0;
        range.prepare(subject, traffic)?;
        // The first sample tells how many packets make one, the second whether that was so.
        for _ in 0..2 {
            range.sample(subject, traffic)?;
        }
    }
    rounds::interleaved(
        subjects,
        number,
        |subject| range.sample(subject, traffic),
        |sample| sample.cost,
        |sample| sample.disturbed,
    )
}

impl Range<'_> {
    /// Makes the flows of the traffic.
    fn prepare(&mut self, subject: &mut Subject, traffic: Traffic) -> Result<()> {
        self.flush(subject)?;
        self.open(subject, traffic)
    }

    /// Opens the flows of the traffic, or keeps them from idling out.
    fn open(&mut self, subject: &mut Subject, traffic: Traffic) -> Result<()> {
        let Traffic::Established(flows) = traffic else {
            return Ok(());
        };
        if !subject.firewall.judges() {
            return Ok(());
        }
        let (bed, prefixes) = (&subject.bed, subject.rules.count);
        let (each, replies) = (Packets::Each { first: 0 }, Packets::Replies { first: 0 });
        for opening in 0..OPENINGS {
            // A receiver that is kept from its CPU loses some. Both sides speak at least twice: a flow of
            // UDP is a stream then, and no other takes its place.
            self.generator.open(bed, prefixes, each, flows)?;
            bed.settled()?;
            self.generator.send(bed, prefixes, replies, flows)?;
            if opening > 0 && self.tracked(subject)? == u64::from(flows) {
                subject.opened = Instant::now();
                return Ok(());
            }
        }
        let tracked = self.tracked(subject)?;
        bail!(
            "{} tracks {tracked} flows, {flows} were opened",
            subject.firewall.name()
        );
    }

    fn flush(&mut self, subject: &Subject) -> Result<()> {
        match subject.firewall {
            Firewall::Enforcer(_) => enforced::flush(self.enforcer, &subject.bed.device),
            Firewall::Nftables(_) | Firewall::Ipset => subject.bed.inside(netfilter::flush)?,
            Firewall::Floor(_) => self.generator.forget(),
            Firewall::Nothing | Firewall::Pass | Firewall::Discard => Ok(()),
        }
    }

    fn tracked(&self, subject: &Subject) -> Result<u64> {
        match subject.firewall {
            Firewall::Enforcer(_) => Ok(self.counts(subject)?.tracked),
            _ => subject.bed.inside(netfilter::tracked)?,
        }
    }

    fn counts(&self, subject: &Subject) -> Result<Counts> {
        enforced::counts(self.enforcer, &subject.bed.device)
    }

    /// Sends packets, and says what they cost.
    fn sample(&mut self, subject: &mut Subject, traffic: Traffic) -> Result<Sample> {
        if traffic == Traffic::New {
            self.flush(subject)?;
        }
        // All namespaces share the kernel's table: the flows of one peer are not to make the chains of
        // another longer.
        let alone = subject.firewall.is_peer() && matches!(traffic, Traffic::Established(WARM..));
        if alone {
            self.prepare(subject, traffic)?;
        } else if subject.opened.elapsed() > REOPEN {
            self.open(subject, traffic)?;
        }
        let packets = match traffic {
            Traffic::Established(flows) => Packets::AtRandom { flows },
            Traffic::New => Packets::Each { first: 0 },
            Traffic::Denied => Packets::Beside { first: 0 },
        };
        let count = if subject.count == 0 {
            TRIAL
        } else {
            subject.count
        };
        if matches!(traffic, Traffic::Established(WARM..)) {
            // The samples of others have taken its flows out of the caches.
            self.generator
                .send(&subject.bed, subject.rules.count, packets, count)?;
            subject.bed.settled()?;
        }
        let ours = matches!(subject.firewall, Firewall::Enforcer(_));
        let counted = ours.then(|| self.counts(subject)).transpose()?;
        let tracked = subject.firewall.is_peer().then(|| self.tracked(subject));
        let tracked = tracked.transpose()?;

        let (before, arrived) = (subject.bed.settled()?, self.generator.arrived()?);
        let elapsed = self
            .generator
            .send(&subject.bed, subject.rules.count, packets, count)?;
        let after = subject.bed.settled()?;

        let taken = Taken {
            received: after.received - before.received,
            forwarded: self.generator.arrived()? - arrived,
            busy: after.turns.ran - before.turns.ran,
        };
        check_passage(subject.firewall, traffic, &taken)?;
        if let Some(counted) = counted {
            check_counts(traffic, &self.counts(subject)?.since(&counted), &taken)?;
        }
        if let Some(before) = tracked {
            check_tracked(
                subject.firewall,
                traffic,
                before,
                self.tracked(subject)?,
                &taken,
            )?;
        }
        if alone {
            self.flush(subject)?;
        }
        let seconds = elapsed.as_secs_f64();
        subject.count = next_count(count, taken.received, seconds, traffic);
        Ok(Sample {
            cost: taken.busy as f64 / taken.received as f64,
            // A receiver may be at work longer than the sender.
            disturbed: (after.turns.waited - before.turns.waited) as f64 / taken.busy as f64,
            rate: taken.received as f64 / seconds.max(taken.busy as f64 / 1e9),
        })
    }
}

/// What became of the packets of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Taken {
    /// Taken up by the bed's end of the link.
    received: u64,
    /// Came out behind.
    forwarded: u64,
    /// CPU time of the thread that polls, ns.
    busy: u64,
}

/// Packets to send so that a sample lasts [`DURATION`] and opens no more than [`NEW_FLOWS`].
fn next_count(count: u32, received: u64, seconds: f64, traffic: Traffic) -> u32 {
    let mut factor = DURATION / seconds;
    if traffic == Traffic::New {
        factor = factor.min(NEW_FLOWS as f64 / received.max(1) as f64);
    }
    generator::without_repetition((f64::from(count) * factor).max(1000.0) as u64)
}

/// What came out behind.
fn check_passage(firewall: Firewall, traffic: Traffic, taken: &Taken) -> Result<()> {
    let drops = matches!(firewall, Firewall::Discard | Firewall::Floor(Floor::Deny));
    let dropped = drops || firewall.judges() && traffic == Traffic::Denied;
    let expected = if dropped { 0 } else { taken.received };
    if taken.received == 0 || taken.forwarded != expected {
        bail!(
            "{}, {}: of {} packets {} came out, not {expected}",
            firewall.name(),
            traffic.name(),
            taken.received,
            taken.forwarded
        );
    }
    Ok(())
}

/// What the enforcer says about them.
fn check_counts(traffic: Traffic, counts: &Counts, taken: &Taken) -> Result<()> {
    let said = match traffic {
        Traffic::Established(_) => counts.established,
        Traffic::New => counts.new.min(counts.created),
        Traffic::Denied => counts.no_rule,
    };
    if said != taken.received || counts.ingress != taken.received {
        bail!(
            "sgctl, {}: {} packets came in, but its counters say {counts:?}",
            traffic.name(),
            taken.received
        );
    }
    Ok(())
}

/// What a peer's conntrack says about them.
fn check_tracked(
    firewall: Firewall,
    traffic: Traffic,
    before: u64,
    after: u64,
    taken: &Taken,
) -> Result<()> {
    let expected = match traffic {
        Traffic::Established(flows) => u64::from(flows),
        Traffic::New => before + taken.received,
        Traffic::Denied => before,
    };
    if after != expected {
        bail!(
            "{}, {}: {before} flows were tracked and then {after}, not {expected}",
            firewall.name(),
            traffic.name()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::firewall::Form;
    use super::*;

    fn taken(received: u64, forwarded: u64) -> Taken {
        Taken {
            received,
            forwarded,
            busy: 1,
        }
    }

    #[test]
    fn a_sample_lasts_as_long_as_it_should_and_opens_no_more_flows_than_fit() {
        assert_eq!(
            next_count(1000, 1000, DURATION / 3.0, Traffic::Denied),
            3000
        );
        let count = next_count(100_000, 50_000, DURATION / 10.0, Traffic::New);
        assert_eq!(u64::from(count), 2 * NEW_FLOWS);
        assert_eq!(next_count(2000, 1, 100.0, Traffic::Denied), 1000);
    }

    #[test]
    fn packets_that_went_elsewhere_are_noticed() {
        let peer = Firewall::Nftables(Form::Sets);
        let established = Traffic::Established(1024);
        assert!(check_passage(peer, established, &taken(9, 9)).is_ok());
        assert!(check_passage(peer, established, &taken(9, 8)).is_err());
        assert!(check_passage(peer, Traffic::Denied, &taken(9, 0)).is_ok());
        assert!(check_passage(peer, Traffic::Denied, &taken(9, 1)).is_err());
        assert!(check_passage(Firewall::Pass, Traffic::Denied, &taken(9, 9)).is_ok());
        assert!(check_passage(Firewall::Discard, Traffic::Denied, &taken(9, 9)).is_err());
        assert!(check_passage(peer, established, &taken(0, 0)).is_err());

        let mut counts = Counts {
            established: 9,
            ingress: 9,
            ..Counts::default()
        };
        assert!(check_counts(established, &counts, &taken(9, 9)).is_ok());
        assert!(check_counts(Traffic::New, &counts, &taken(9, 9)).is_err());
        counts.ingress = 10;
        assert!(check_counts(established, &counts, &taken(9, 9)).is_err());

        assert!(check_tracked(peer, Traffic::New, 1, 10, &taken(9, 9)).is_ok());
        assert!(check_tracked(peer, Traffic::New, 1, 9, &taken(9, 9)).is_err());
        assert!(check_tracked(peer, established, 1024, 1024, &taken(9, 9)).is_ok());
        assert!(check_tracked(peer, established, 1024, 1025, &taken(9, 9)).is_err());
    }
}
