//! Where packets travel: per firewall a namespace of its own, linked to the one that sends.
//!
//! ```text
//! …-gen:     generator  ─ p1 ══ sgb1 ─ firewall ─ forwarding ─ sgs1 (counts and drops) :…-1
//! …-clients: TCP client ─ p9 ══ sgb9 ─ firewall ─ TCP server                      :…-9
//! ```

use std::fs::{self, File};
use std::io::{Read as _, Seek as _};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Pid;

use super::namespace::{self, CLIENTS, GENERATOR, inside, ip, run, write};
use super::task::{self, Busy, RECEIVER, SENDER, Turns};

/// Where forwarded packets go.
pub(super) const BEHIND: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
/// Next hop of everything that a bed sends to the clients' addresses; answers no ARP.
const NEXT_HOP: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 2);

/// How long the kernel may take to do what is quick, on a machine that has much else to do.
const SOON: Duration = Duration::from_secs(20);

/// What travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// Generated packets are forwarded.
    Forwarded,
    /// Connections end here; both ends of the link poll from a thread.
    Connections,
    /// The same, on a link as `ip` makes it.
    Plain,
}

/// A namespace with a firewall at its only link.
pub(super) struct Bed {
    pub(super) namespace: String,
    /// Its end of the link.
    pub(super) device: String,
    /// The sender's end of the link.
    pub(super) peer: String,
    /// Where what is forwarded leaves.
    pub(super) sink: String,
    number: u8,
    course: Course,
    counters: Mutex<File>,
    /// Polls the bed's end of the link.
    poller: Option<Pid>,
    /// Kernel threads that work for the sender's end, and for the bed's.
    workers: [Pid; 2],
}

/// Packets and time at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reading {
    /// Packets that the bed's end of the link has taken up.
    pub(super) received: u64,
    /// What the thread that polls has had of its CPU.
    pub(super) turns: Turns,
}

impl Bed {
    /// Makes it.
    ///
    /// # Errors
    /// If `ip`, `ethtool` or the kernel refuses; what was made so far is for the teardown to remove.
    pub(super) fn new(number: u8, course: Course) -> Result<Self> {
        let (device, peer, sink) = (
            format!("sgb{number}"),
            format!("p{number}"),
            format!("sgs{number}"),
        );
        let namespace = namespace::of_bed(number);
        namespace::add(&namespace)?;
        let mut bed = Self {
            counters: Mutex::new(inside(&namespace, || {
                File::open("/proc/thread-self/net/dev")
            })??),
            namespace,
            device,
            peer,
            sink,
            number,
            course,
            poller: None,
            workers: [
                task::soft_interrupts(SENDER)?,
                task::soft_interrupts(*RECEIVER)?,
            ],
        };
        bed.link()?;
        if course != Course::Plain {
            let poller = poll_from_thread(&bed.namespace, &bed.device, *RECEIVER)?;
            (bed.poller, bed.workers[1]) = (Some(poller), poller);
        }
        if course == Course::Connections {
            bed.workers[0] = poll_from_thread(bed.sender(), &bed.peer, SENDER)?;
        }
        Ok(bed)
    }

    fn link(&self) -> Result<()> {
        let Self {
            namespace,
            device,
            peer,
            sink,
            ..
        } = self;
        let [near, far, behind, beyond] = [1, 2, 3, 4].map(|which| text(self.mac(which)));
        let queues = "numrxqueues 1 numtxqueues 1";
        ip(
            self.sender(),
            &format!(
                "link add {peer} address {near} {queues} type veth \
                 peer name {device} address {far} {queues} netns {namespace}\n\
                 link set {peer} up\n"
            ),
        )?;
        let back = format!(
            "link set {device} up\n\
             route add 10.0.0.0/8 via {NEXT_HOP} dev {device} onlink\n\
             neighbor add {NEXT_HOP} lladdr {near} dev {device} nud permanent\n"
        );
        if self.course == Course::Forwarded {
            inside(namespace, || write("net/ipv4/ip_forward", "1"))??;
            return ip(
                namespace,
                &format!(
                    "{back}\
                     link add {sink} address {behind} {queues} type veth \
                     peer name {sink}x {queues}\n\
                     link set {sink}x up\n\
                     link set {sink} up\n\
                     route add {BEHIND}/32 dev {sink}\n\
                     neighbor add {BEHIND} lladdr {beyond} dev {sink} nud permanent\n"
                ),
            );
        }
        let server = self.server();
        ip(
            namespace,
            &format!("{back}address add {server}/32 dev {device}\n"),
        )?;
        ip(
            CLIENTS,
            &format!(
                "route add {server}/32 dev {peer}\n\
                 neighbor add {server} lladdr {far} dev {peer} nud permanent\n"
            ),
        )
    }

    /// The namespace that sends.
    pub(super) fn sender(&self) -> &'static str {
        match self.course {
            Course::Forwarded => GENERATOR,
            Course::Connections | Course::Plain => CLIENTS,
        }
    }

    /// Address of the bed's own server.
    pub(super) fn server(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.number, 1)
    }

    /// MAC address of 1 the sender's end of the link, 2 the bed's, 3 the sink, 4 what is behind it.
    pub(super) fn mac(&self, which: u8) -> [u8; 6] {
        [2, 0, 0, 0, self.number, which]
    }

    /// Runs `task` in the namespace.
    ///
    /// # Errors
    /// If it cannot be entered.
    pub(super) fn inside<T: Send>(&self, task: impl FnOnce() -> T + Send) -> Result<T> {
        inside(&self.namespace, task)
    }

    /// Runs a program in the namespace, with `input`, to its end.
    ///
    /// # Errors
    /// If it fails.
    pub(super) fn run(&self, program: &str, arguments: &[&str], input: &str) -> Result<()> {
        run(&self.namespace, program, arguments, input)
    }

    /// Sets a key below /proc/sys.
    ///
    /// # Errors
    /// If that is not possible.
    pub(super) fn set(&self, key: &str, value: &str) -> Result<()> {
        self.inside(|| write(key, value))?
    }

    /// Counters and CPU time, when everything that was sent has been dealt with.
    ///
    /// # Errors
    /// If they cannot be read, or packets do not cease.
    pub(super) fn settled(&self) -> Result<Reading> {
        let deadline = Instant::now() + SOON;
        let mut before = None;
        loop {
            // A poller that has packets left does not sleep.
            let asleep = self
                .poller
                .map(task::is_asleep)
                .transpose()?
                .unwrap_or(true);
            let now = asleep.then(|| self.read()).transpose()?;
            if let Some(now) = now.filter(|now| before.as_ref() == Some(now)) {
                return Ok(now);
            }
            if Instant::now() > deadline {
                bail!("{}: packets do not cease", self.device);
            }
            before = now;
            thread::sleep(Duration::from_micros(500));
        }
    }

    /// CPU time of the kernel threads that take part, when they have nothing to do any more.
    ///
    /// # Errors
    /// If they cannot be read, or packets do not cease.
    pub(super) fn pollers(&self) -> Result<Busy> {
        self.settled()?;
        let [sender, receiver] = self.workers;
        Ok(Busy {
            sender: task::turns(sender)?.ran,
            receiver: task::turns(receiver)?.ran,
        })
    }

    fn read(&self) -> Result<Reading> {
        let mut text = String::new();
        {
            let mut file = self
                .counters
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            file.rewind()?;
            file.read_to_string(&mut text)?;
        }
        let turns = self.poller.map(task::turns).transpose()?;
        Ok(Reading {
            received: packets(&text, &self.device).context("the link has no counters")?,
            turns: turns.unwrap_or_default(),
        })
    }
}

/// Packets received, by a device's line of /proc/net/dev.
fn packets(text: &str, device: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| {
        let (name, numbers) = line.split_once(':')?;
        (name.trim() == device).then_some(numbers)
    })?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Has a kernel thread of a device's own poll it, on this CPU: what receiving costs is that thread's time.
fn poll_from_thread(namespace: &str, device: &str, cpu: usize) -> Result<Pid> {
    // Without GRO, or a program at XDP, a veth takes no frames from one.
    run(namespace, "ethtool", &["-K", device, "gro", "on"], "")?;
    let mount = Path::new(super::BENCH.files).join("sysfs");
    inside(namespace, || -> Result<()> {
        // Which devices a sysfs shows is decided by who mounts it.
        fs::create_dir_all(&mount)?;
        let no = rustix::mount::MountFlags::empty();
        rustix::mount::mount("sysfs", &mount, "sysfs", no, None)?;
        let written = fs::write(mount.join("class/net").join(device).join("threaded"), "1");
        rustix::mount::unmount(&mount, rustix::mount::UnmountFlags::DETACH)?;
        Ok(written?)
    })?
    .with_context(|| format!("have a thread poll {device}"))?;
    let name = format!("napi/{device}-");
    let deadline = Instant::now() + SOON;
    let poller = loop {
        if let Some(poller) = task::kernel_thread(&name)? {
            break poller;
        }
        if Instant::now() > deadline {
            bail!("no thread polls {device}");
        }
        thread::sleep(Duration::from_millis(5));
    };
    task::pin(Some(poller), cpu)?;
    Ok(poller)
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_those_of_the_device() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes    packets errs\n\
            sgb1:  600  10    0    1    0     0          0         0     120       2    0    3    0     0       0          0\n\
            \x20 sgb11:  1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n";
        assert_eq!(packets(text, "sgb1"), Some(10));
        assert_eq!(packets(text, "sgb11"), Some(2));
        assert_eq!(packets(text, "sgb2"), None);
    }
}
