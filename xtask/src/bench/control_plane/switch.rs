//! Generations that change under traffic: every packet is judged by one of them, never by a mixture.
//!
//! Two definitions allow some ICMP types in common, share none of what lies around those in the maps, and
//! differ in others. A packet of a common type must pass whichever is in force, one of a type that neither
//! allows must not; peers come by prefix, by group and from everywhere, so that every table has a part in
//! it. ICMP of such types has no flow: each packet is asked anew.

use std::net::Ipv4Addr;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::{Context as _, Result, bail};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use sg_common::abi::PROGRAM_TC_INGRESS;
use sg_userspace::pin::Pins;
use sg_userspace::state::State;

use super::super::Options;
use super::super::program_cost::context::{Context as _, SkBuff};
use super::super::report::{Figure, Findings};
use super::at_most;
use super::enforcer::{Enforcer, NEAR};

pub(super) const NAME: &str = "a generation that comes into force under traffic";

/// Changes per round.
const CHANGES: usize = 10;
/// Where packets come from: within a prefix, a member of a group, anywhere else.
const SOURCES: [Ipv4Addr; 3] = [
    Ipv4Addr::new(11, 1, 2, 3),
    Ipv4Addr::new(12, 1, 2, 3),
    Ipv4Addr::new(13, 1, 2, 3),
];
/// ICMP types that both definitions allow, one a source, and one that neither does.
const COMMON: [u8; 3] = [13, 15, 17];
const NEITHER: u8 = 40;
/// ICMP types that only one of them allows.
const OWN: [u8; 2] = [41, 42];

/// What the packets met.
#[derive(Default)]
struct Counts {
    packets: AtomicU64,
    neither: AtomicU64,
    /// Judged by the first and by the second definition, as far as it shows.
    own: [AtomicU64; 2],
}

pub(super) fn measure(options: &Options, findings: &mut Findings) -> Result<()> {
    let enforcer = Enforcer::new(options)?;
    let files = [definition(0), definition(1)];
    let interface = Enforcer::interface(&enforcer.near, "a", "\"g\"");
    let files = [0, 1].map(|which| {
        let text = files[which].clone() + &interface;
        enforcer.write(&format!("{which}.toml"), &text)
    });
    let [first, second] = files;
    let files = [first?, second?];
    enforcer.run(&["apply", &files[1]], Stdio::null())?;
    let program = program(&enforcer)?;

    let (mut times, mut neither, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let counts = Counts::default();
        let stop = AtomicBool::new(false);
        let (seconds, all) = thread::scope(|scope| {
            let cpus = thread::available_parallelism().map_or(1, usize::from);
            let senders: Vec<_> = (0..cpus)
                .map(|_| {
                    scope.spawn(|| {
                        enforcer.inside(&enforcer.near, || send(&program, &counts, &stop))
                    })
                })
                .collect();
            let start = std::time::Instant::now();
            let changed: Result<Vec<f64>> = (0..CHANGES)
                .map(|number| {
                    let apply = ["apply", &files[number % 2]];
                    Ok(enforcer.run(&apply, Stdio::null())?.seconds)
                })
                .collect();
            let all = start.elapsed().as_secs_f64();
            stop.store(true, Ordering::Relaxed);
            for sender in senders {
                sender.join().expect("sending does not panic")??;
            }
            Ok::<_, anyhow::Error>((changed?, all))
        })?;
        let packets = counts.packets.load(Ordering::Relaxed) as f64;
        for own in &counts.own {
            if own.load(Ordering::Relaxed) == 0 {
                bail!("no packet was judged by one of the two definitions");
            }
        }
        times.push(seconds.iter().sum::<f64>() / seconds.len() as f64 * 1e3);
        neither.push(counts.neither.load(Ordering::Relaxed) as f64);
        rates.push(packets / all / 1e6);
    }
    let detail = format!(
        "{CHANGES} changes a round between two definitions, all CPUs sending {:.1} million packets a second",
        rates.iter().sum::<f64>() / rates.len().max(1) as f64
    );
    findings.figures.extend([
        Figure::new(NAME, "apply, all CPUs busy with packets", "ms", times),
        Figure::new(NAME, "packets meanwhile", "M/s", rates),
        Figure::new(
            NAME,
            "packets judged by neither generation",
            "",
            neither.clone(),
        ),
    ]);
    let what = "packets judged by neither generation";
    findings
        .goals
        .push(at_most(what, "packets", 0.0, neither, detail));
    Ok(())
}

/// The common rules of both definitions among different others, so that they stand elsewhere in the maps.
fn definition(which: usize) -> String {
    let [prefix, member, everywhere] = COMMON;
    let own = OWN[which];
    let filler: Vec<String> = (0..20 + 60 * which)
        .map(|number| {
            let net = Ipv4Addr::new(11, 1 + which as u8, number as u8, 0);
            format!(
                "{{ protocol = \"tcp\", ports = [{}, {}], cidr = \"{net}/24\" }},",
                100 * number + 1,
                100 * number + 50 + which
            )
        })
        .collect();
    let common = format!(
        "{{ protocol = \"icmp\", type = {prefix}, cidr = \"11.0.0.0/8\" }}, {{ protocol = \"icmp\", type = {member}, group = \"m\" }}, \
         {{ protocol = \"icmp\", type = {everywhere}, cidr = \"0.0.0.0/0\" }}, {{ protocol = \"icmp\", type = {own}, cidr = \"0.0.0.0/0\" }},"
    );
    let filler = filler.join("\n");
    let rules = if which == 0 {
        common + &filler
    } else {
        filler + &common
    };
    let others = (0..which * 50).map(|number| format!("\"12.{number}.0.9\", "));
    format!(
        "[groups.g]\negress = []\ningress = [\n{rules}\n]\n[groups.m]\negress = []\n[members.m]\naddresses = [{}\"{}\"]\n",
        others.collect::<String>(),
        SOURCES[1]
    )
}

fn program(enforcer: &Enforcer) -> Result<SchedClassifier> {
    let state = State::read(&enforcer.context.state_dir)?.context("nothing is in force")?;
    let number = state.namespaces.first().context("no namespace")?.number;
    let pin = Pins::new(&enforcer.context.bpffs).programs(number);
    Ok(SchedClassifier::from_pin(pin.join(PROGRAM_TC_INGRESS))?)
}

/// Sends packets of all kinds until it is told to stop.
fn send(program: &SchedClassifier, counts: &Counts, stop: &AtomicBool) -> Result<()> {
    let ifindex = sg_userspace::link::Link::read("eth0")?.ifindex;
    let context = SkBuff::on(ifindex);
    let passes = |frame: &[u8]| -> Result<bool> {
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.ctx_in = Some(context.bytes());
        // TCX_NEXT and TC_ACT_SHOT (`include/uapi/linux/bpf.h`).
        match program.test_run(options)?.return_value.cast_signed() {
            -1 => Ok(true),
            2 => Ok(false),
            other => bail!("the program answered {other}"),
        }
    };
    let common: Vec<Vec<u8>> = SOURCES
        .iter()
        .zip(COMMON)
        .map(|(source, kind)| frame(*source, kind))
        .collect();
    let neither = SOURCES.map(|source| frame(source, NEITHER));
    let own = OWN.map(|kind| frame(SOURCES[2], kind));
    while !stop.load(Ordering::Relaxed) {
        let mut mixed = 0;
        for frame in &common {
            mixed += u64::from(!passes(frame)?);
        }
        for frame in &neither {
            mixed += u64::from(passes(frame)?);
        }
        for (frame, count) in own.iter().zip(&counts.own) {
            count.fetch_add(u64::from(passes(frame)?), Ordering::Relaxed);
        }
        counts.neither.fetch_add(mixed, Ordering::Relaxed);
        let sent = common.len() + neither.len() + own.len();
        counts.packets.fetch_add(sent as u64, Ordering::Relaxed);
    }
    Ok(())
}

/// An ICMP message of a type to the enforced device.
fn frame(source: Ipv4Addr, kind: u8) -> Vec<u8> {
    let destination: Ipv4Addr = NEAR.parse().expect("a literal address");
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    // Version and header length, DSCP, total length, identification, flags, TTL, protocol, checksum.
    frame.extend([0x45, 0, 0, 28, 0, 1, 0, 0, 64, 1, 0, 0]);
    frame.extend(source.octets());
    frame.extend(destination.octets());
    frame.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
    frame.resize(60, 0);
    frame
}
