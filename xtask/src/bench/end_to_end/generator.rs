//! The generator in the kernel: XDP programs run on live frames by BPF_PROG_TEST_RUN.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, PerCpuArray};
use aya::programs::tc::{SchedClassifierLinkId, TcAttachOptions};
use aya::programs::xdp::XdpLinkId;
use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType, TestRun as _, TestRunAttrs,
    TestRunOptions, Xdp, XdpMode,
};
use aya::{Ebpf, EbpfLoader};
use ipnet::Ipv4Net;

use super::bed::{BEHIND, Bed};
use super::firewall::{Floor, PORT, Rules};
use super::namespace;
use super::task::{self, SENDER};
use super::traffic::{HEADER_WORDS, MAX_FLOWS, MAX_PREFIXES, Stream};

/// Length of a frame without its check sequence: the shortest of Ethernet.
const FRAME: usize = 60;
/// Frames that the kernel makes at a time, its default.
const BATCH: u32 = 64;
/// Readings of the clock between packets that a receiver is to have time for: about 4 µs.
const PAUSE: u32 = 128;

/// The program that passes everything.
pub(super) const PASS: &str = "xdp_empty";
/// The program that drops everything.
pub(super) const DISCARD: &str = "xdp_discard";

/// The loaded object.
pub(super) struct Generator {
    object: Ebpf,
    /// Namespaces and devices are entered by threads; programs stay with this one.
    links: Vec<XdpLinkId>,
    sinks: Vec<SchedClassifierLinkId>,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packets {
    /// One of each of this many flows, in order, beginning with the first.
    Each { first: u32 },
    /// Flows at random of this many, a power of two.
    AtRandom { flows: u32 },
    /// As [`Packets::Each`], but from addresses that no rule allows.
    Beside { first: u32 },
    /// As [`Packets::Each`], but the replies.
    Replies { first: u32 },
}

impl Generator {
    /// Loads the object, with floors that have room for so many flows.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn load(object: &Path, flows: u32) -> Result<Self> {
        let mut object = EbpfLoader::new()
            .map_max_entries("ENTRIES4", flows)
            .override_global("ENTRIES", &flows, true)
            .map_max_entries("HASH4", 2 * flows)
            .map_max_entries("LPM4", MAX_PREFIXES)
            .load_file(object)
            .with_context(|| format!("load {}", object.display()))?;
        let floors = Floor::ALL.map(Floor::program);
        for name in ["generate", PASS, DISCARD].into_iter().chain(floors) {
            program(&mut object, name)?
                .load()
                .with_context(|| format!("load {name}"))?;
        }
        sink(&mut object)?.load().context("load tc_sink")?;
        Ok(Self {
            object,
            links: Vec::new(),
            sinks: Vec::new(),
        })
    }

    /// Enters the prefixes that rules allow into the trie of the floors.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn allow(&mut self, rules: Rules) -> Result<()> {
        let map = self.object.map_mut("LPM4").context("map LPM4")?;
        let mut trie = LpmTrie::<_, [u8; 4], u32>::try_from(map)?;
        for prefix in rules.prefixes() {
            let net: Ipv4Net = prefix.parse().context("a prefix of a rule")?;
            let key = Key::new(net.prefix_len().into(), net.network().octets());
            trie.insert(&key, 1, 0)?;
        }
        Ok(())
    }

    /// Forgets the flows that a floor has opened.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn forget(&mut self) -> Result<()> {
        let map = self.object.map_mut("HASH4").context("map HASH4")?;
        let mut flows = HashMap::<_, [u32; 4], u64>::try_from(map)?;
        let keys = flows.keys().collect::<Result<Vec<_>, _>>()?;
        for key in keys {
            flows.remove(&key)?;
        }
        Ok(())
    }

    /// Attaches [`PASS`], [`DISCARD`] or a floor to a bed, as long as this lives.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn attach(&mut self, name: &str, bed: &Bed) -> Result<()> {
        let program = program(&mut self.object, name)?;
        let link = bed
            .inside(|| program.attach(&bed.device, XdpMode::Driver))?
            .with_context(|| format!("attach {name} to {}", bed.device))?;
        self.links.push(link);
        Ok(())
    }

    /// Has what a bed forwards counted and dropped, as long as this lives.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn end(&mut self, bed: &Bed) -> Result<()> {
        let program = sink(&mut self.object)?;
        let last = TcAttachOptions::TcxOrder(LinkOrder::last());
        let link = bed
            .inside(|| program.attach_with_options(&bed.sink, TcAttachType::Egress, last))?
            .with_context(|| format!("attach tc_sink to {}", bed.sink))?;
        self.sinks.push(link);
        Ok(())
    }

    /// Packets that have been forwarded so far, by any bed.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub(super) fn arrived(&self) -> Result<u64> {
        let map = self.object.map("ARRIVED").context("map ARRIVED")?;
        let counts = PerCpuArray::<_, u64>::try_from(map)?.get(&0, 0)?;
        Ok(counts.iter().sum())
    }

    /// Sends `count` packets to a bed, as fast as can be; says how long that took, without what the kernel
    /// does before the first and after the last.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn send(
        &mut self,
        bed: &Bed,
        prefixes: u32,
        packets: Packets,
        count: u32,
    ) -> Result<Duration> {
        self.transmit(bed, prefixes, packets, count, 0)
    }

    /// Sends `count` packets to a bed, slowly enough that most are received.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn open(
        &mut self,
        bed: &Bed,
        prefixes: u32,
        packets: Packets,
        count: u32,
    ) -> Result<()> {
        self.transmit(bed, prefixes, packets, count, PAUSE)
            .map(drop)
    }

    fn transmit(
        &mut self,
        bed: &Bed,
        prefixes: u32,
        packets: Packets,
        count: u32,
        pause: u32,
    ) -> Result<Duration> {
        let reply = matches!(packets, Packets::Replies { .. });
        let frame = frame(bed, reply);
        let mut stream = stream(&frame, prefixes, packets);
        stream.pause = pause;
        let map = self.object.map_mut("STREAM").context("map STREAM")?;
        Array::<_, [u64; WORDS]>::try_from(map)?.set(0, stream.words(), 0)?;
        let map = self.object.map("STREAM").context("map STREAM")?;
        let map = Array::<_, [u64; WORDS]>::try_from(map)?;
        let program = self.object.program("generate");
        let program: &Xdp = program.context("program generate")?.try_into()?;
        // Replies come up from the sink as if they had been received there.
        let (namespace, device) = if reply {
            (bed.namespace.as_str(), &bed.sink)
        } else {
            (bed.sender(), &bed.peer)
        };
        namespace::inside(namespace, || -> Result<Duration> {
            task::pin(None, SENDER)?;
            // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
            let context = words([0, FRAME as u32, 0, index(device)?, 0, 0]);
            let start = Instant::now();
            let mut left = count;
            loop {
                let mut options = TestRunOptions::new();
                options.data_in = Some(&frame);
                options.ctx_in = Some(&context);
                options.repeat = left;
                options.attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
                let before = start.elapsed();
                match program.test_run(options) {
                    // The kernel tells the mean.
                    Ok(done) => return Ok(before + done.duration * left),
                    Err(error) if is_interrupted(&error) => {}
                    Err(error) => return Err(error.into()),
                }
                // How many flows at random that were is not known, and does not matter.
                let sent = match stream.mask {
                    0 => map.get(&0, 0)?[0] - stream.next,
                    _ => u64::from(count),
                };
                left = u32::try_from(u64::from(count).saturating_sub(sent))?;
                if left == 0 {
                    return Ok(start.elapsed());
                }
            }
        })?
        .with_context(|| format!("send packets by {device}"))
    }
}

/// Whether the kernel stopped early, for a signal or other work of the thread.
fn is_interrupted(error: &ProgramError) -> bool {
    match error {
        ProgramError::SyscallError(error) => error.io_error.kind() == ErrorKind::Interrupted,
        _ => false,
    }
}

fn program<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let found = object.program_mut(name);
    let found = found.with_context(|| format!("the object has no program {name}"))?;
    found
        .try_into()
        .with_context(|| format!("{name} is for XDP"))
}

fn index(device: &str) -> Result<u32> {
    rustix::net::netdevice::name_to_index(
        rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::DGRAM,
            None,
        )?,
        device,
    )
    .with_context(|| format!("find {device}"))
}

fn sink(object: &mut Ebpf) -> Result<&mut SchedClassifier> {
    let found = object.program_mut("tc_sink");
    let found = found.context("the object has no program tc_sink")?;
    found.try_into().context("tc_sink is for TC")
}

fn words<const N: usize>(words: [u32; N]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// The frame of which all packets are made: the remote end is filled in by the generator. No UDP checksum, as
/// IPv4 allows (RFC 768).
fn frame(bed: &Bed, reply: bool) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    let (from, to) = if reply { (4, 3) } else { (1, 2) };
    frame[..6].copy_from_slice(&bed.mac(to));
    frame[6..12].copy_from_slice(&bed.mac(from));
    frame[12..14].copy_from_slice(&0x0800_u16.to_be_bytes());
    frame[14..34].copy_from_slice(&header(reply));
    let port_at = if reply { 34 } else { 36 };
    frame[port_at..port_at + 2].copy_from_slice(&PORT.to_be_bytes());
    frame[38..40].copy_from_slice(&((FRAME - 34) as u16).to_be_bytes());
    frame
}

/// The IPv4 header without checksum and remote address.
fn header(reply: bool) -> [u8; 20] {
    let mut header = [0; 20];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&((FRAME - 14) as u16).to_be_bytes());
    header[8] = 64;
    header[9] = 17;
    let local = if reply { 12 } else { 16 };
    header[local..local + 4].copy_from_slice(&Ipv4Addr::octets(&BEHIND));
    header
}

fn stream(frame: &[u8; FRAME], prefixes: u32, packets: Packets) -> Stream {
    assert!(prefixes <= MAX_PREFIXES, "10.0.0.0/8 holds no more");
    let reply = matches!(packets, Packets::Replies { .. });
    let (next, mask) = match packets {
        Packets::Each { first } | Packets::Beside { first } | Packets::Replies { first } => {
            (u64::from(first), 0)
        }
        Packets::AtRandom { flows } => (0x9e37_79b9_7f4a_7c15, flows - 1),
    };
    let header = frame[14..34].chunks_exact(2);
    let mut headers = [0; HEADER_WORDS];
    for (word, bytes) in headers.iter_mut().zip(frame.chunks_exact(8)) {
        *word = u64::from_ne_bytes(std::array::from_fn(|at| bytes[at]));
    }
    Stream {
        next,
        mask,
        prefixes,
        beside: u32::from(matches!(packets, Packets::Beside { .. })),
        reply: u32::from(reply),
        sum: header
            .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
            .sum(),
        pause: 0,
        headers,
    }
}

/// Words of 8 bytes of a [`Stream`].
const WORDS: usize = size_of::<Stream>() / 8;

impl Stream {
    /// As the map holds it.
    fn words(self) -> [u64; WORDS] {
        let pair = |first: u32, second: u32| {
            let (first, second) = (first.to_ne_bytes(), second.to_ne_bytes());
            u64::from_ne_bytes(std::array::from_fn(|at| match at {
                0..4 => first[at],
                _ => second[at - 4],
            }))
        };
        let mut words = [0; WORDS];
        words[0] = self.next;
        words[1] = pair(self.mask, self.prefixes);
        words[2] = pair(self.beside, self.reply);
        words[3] = pair(self.sum, self.pause);
        words[4..].copy_from_slice(&self.headers);
        words
    }
}

/// How many of `wanted` packets can be sent before flows repeat.
pub(super) fn without_repetition(wanted: u64) -> u32 {
    u32::try_from(wanted).unwrap_or(u32::MAX).min(MAX_FLOWS)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::traffic::{checksum, next, remote};
    use super::*;

    fn stream_of(prefixes: u32, mask: u32) -> Stream {
        Stream {
            next: 1,
            mask,
            prefixes,
            beside: 0,
            reply: 0,
            sum: 0,
            pause: 0,
            headers: [0; HEADER_WORDS],
        }
    }

    #[test]
    fn flows_differ_and_lie_in_the_prefixes_of_the_rules() {
        let (allowed, mut beside) = (stream_of(1000, 0), stream_of(1000, 0));
        beside.beside = 1;
        let mut seen = HashSet::new();
        let mut prefixes = HashSet::new();
        for flow in 0..200_000 {
            let (address, port) = remote(&allowed, flow);
            assert!(seen.insert((address, port)), "flow {flow}");
            prefixes.insert(address >> 8);
            assert_eq!(remote(&beside, flow).0, address + 256);
        }
        let expected: HashSet<u32> = (0..1000).map(|number| 10 << 16 | number << 1).collect();
        assert_eq!(prefixes, expected);
    }

    #[test]
    fn a_random_choice_reaches_every_flow_and_none_else() {
        let mut stream = stream_of(10, 63);
        let seen: HashSet<u32> = (0..2000).map(|_| next(&mut stream)).collect();
        assert_eq!(seen, (0..64).collect());
    }

    #[test]
    fn the_checksum_makes_the_header_sum_to_all_ones() {
        for reply in [false, true] {
            let mut header = header(reply);
            let words = |header: &[u8; 20]| -> u32 {
                let words = header.chunks_exact(2);
                words
                    .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
                    .sum()
            };
            let mut stream = stream_of(10, 0);
            stream.sum = words(&header);
            let address = 0x0aff_fefd_u32;
            let at = if reply { 16 } else { 12 };
            header[at..at + 4].copy_from_slice(&address.to_be_bytes());
            header[10..12].copy_from_slice(&checksum(&stream, address).to_be_bytes());
            let sum = words(&header);
            assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        }
    }

    #[test]
    fn the_map_holds_the_stream_field_by_field() {
        let mut stream = stream_of(10, 9);
        stream.headers[5] = 15;
        (stream.next, stream.beside, stream.reply) = (8, 11, 12);
        (stream.sum, stream.pause) = (13, 14);
        let bytes: Vec<u8> = stream
            .words()
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        assert_eq!(bytes.len(), size_of::<Stream>());
        assert_eq!(bytes[..8], 8_u64.to_ne_bytes());
        let expected = [9_u32, 10, 11, 12, 13, 14].map(u32::to_ne_bytes).concat();
        assert_eq!(bytes[8..32], expected);
        assert_eq!(bytes[72..], 15_u64.to_ne_bytes());
    }
}
