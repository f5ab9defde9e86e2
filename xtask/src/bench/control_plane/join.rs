//! From an address that an interface gets to the first packet that passes because of it.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::super::Options;
use super::super::report::{Figure, Findings};
use super::at_most;
use super::change::thousands;
use super::definition;
use super::enforcer::{Enforcer, NEAR};

pub(super) const NAME: &str = "a member that joins and leaves";

/// The address that comes and goes.
const MEMBER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);
/// Between two packets of the member: what is measured is no finer.
const PACE: Duration = Duration::from_micros(100);
/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Silence after which no packet passes any more.
const SILENCE: Duration = Duration::from_millis(150);

pub(super) fn measure(options: &Options, findings: &mut Findings) -> Result<()> {
    let sizes: &[u32] = if options.full {
        &[1_000, 100_000, 1_000_000]
    } else {
        &[1_000, 1_000_000]
    };
    for members in sizes {
        let (joins, leaves) = with_members(options, *members)?;
        let name = |what| format!("{what}, {} members", thousands(*members));
        findings.figures.extend([
            Figure::new(
                NAME,
                &name("joins: until a packet passes"),
                "ms",
                joins.clone(),
            ),
            Figure::new(NAME, &name("leaves: until none passes"), "ms", leaves),
        ]);
        if members == sizes.last().unwrap_or(members) {
            let what = format!("a member joins {}, to enforcement", thousands(*members));
            let detail = "from the command `ip addr add` to the first datagram received".into();
            findings
                .goals
                .push(at_most(&what, "ms", 10.0, joins, detail));
        }
    }
    Ok(())
}

/// Milliseconds until the first packet passed, and until the last one did, by round.
fn with_members(options: &Options, members: u32) -> Result<(Vec<f64>, Vec<f64>)> {
    let enforcer = Enforcer::new(options)?;
    let text = definition::members(members)
        + &Enforcer::interface(&enforcer.near, "db", "\"db\"")
        + &Enforcer::interface(&enforcer.far, "app", "\"app\"");
    let file = enforcer.write("join.toml", &text)?;
    // Usable as a source before the interface has it.
    enforcer.ip(&enforcer.far, &format!("addr add {MEMBER}/32 dev lo"))?;
    let receiver = enforcer.inside(&enforcer.near, || UdpSocket::bind((NEAR, 5000)))??;
    receiver.set_read_timeout(Some(SILENCE))?;
    let _agent = Agent::start(&enforcer, &file)?;
    let mut ip = enforcer.waiting_ip(&enforcer.far)?;

    let (stop, sending) = (AtomicBool::new(false), AtomicBool::new(true));
    thread::scope(|scope| {
        let sender = scope.spawn(|| enforcer.inside(&enforcer.far, || send(&stop, &sending))?);
        let mut round = || -> Result<(f64, f64)> {
            sending.store(true, Ordering::Relaxed);
            if receives(&receiver)? {
                bail!("packets of no member pass");
            }
            let start = Instant::now();
            ip.tell(&format!("addr add {MEMBER}/24 dev eth0"))?;
            while !receives(&receiver)? {
                if start.elapsed() > LIMIT {
                    bail!("the member did not join");
                }
            }
            let joined = start.elapsed();
            // What passed is tracked now and would go on passing: nothing more until the member leaves.
            sending.store(false, Ordering::Relaxed);
            while receives(&receiver)? {}

            sending.store(true, Ordering::Relaxed);
            let start = Instant::now();
            ip.tell(&format!("addr del {MEMBER}/24 dev eth0"))?;
            let mut last = start;
            while receives(&receiver)? {
                last = Instant::now();
                if last - start > LIMIT {
                    bail!("the member did not leave");
                }
            }
            Ok((
                joined.as_secs_f64() * 1e3,
                (last - start).as_secs_f64() * 1e3,
            ))
        };
        let measured: Result<(Vec<f64>, Vec<f64>)> = (0..options.rounds).map(|_| round()).collect();
        stop.store(true, Ordering::Relaxed);
        let sent = sender.join().expect("sending does not panic");
        let measured = measured?;
        sent?;
        Ok(measured)
    })
}

/// Sends datagrams from the address that comes and goes while `sending`. Each is of a flow of its own, since
/// one that is tracked outlives the membership: no port comes again before its flow is over.
fn send(stop: &AtomicBool, sending: &AtomicBool) -> Result<()> {
    for port in (10_000..60_000).cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        while !sending.load(Ordering::Relaxed) && !stop.load(Ordering::Relaxed) {
            thread::sleep(PACE);
        }
        let socket = UdpSocket::bind((MEMBER, port))?;
        let _ = socket.send_to(b"new flow", (NEAR, 5000));
        thread::sleep(PACE);
    }
    Ok(())
}

/// Whether a datagram comes before it is silent for long.
fn receives(socket: &UdpSocket) -> Result<bool> {
    match socket.recv(&mut [0; 16]) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error).context("receive"),
    }
}

/// `sgctl run`, until it is dropped.
struct Agent(Child);

impl Agent {
    fn start(enforcer: &Enforcer, file: &str) -> Result<Self> {
        let mut command = enforcer.command(&["run", file]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut agent = Self(child.spawn().context("start the agent")?);
        let start = Instant::now();
        while enforcer.run(&["status"], Stdio::null()).is_err() {
            let ended = agent.0.try_wait().context("ask for the agent")?;
            if ended.is_some() || start.elapsed() > LIMIT {
                bail!("the agent does not enforce");
            }
            thread::sleep(Duration::from_millis(100));
        }
        // It listens only after it has put the definition in force.
        thread::sleep(Duration::from_secs(1));
        Ok(agent)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
