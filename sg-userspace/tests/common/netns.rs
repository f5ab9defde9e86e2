//! Network namespaces, devices and an enforcer of a test's own, all gone when the test ends.

#![allow(
    dead_code,
    unused_imports,
    reason = "a test program uses what it needs of it"
)]

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use sg_userspace::{attach, detach, netns::Netns, pin::Pins, session::Context};

use super::scale::patient;

/// How long anything may take that is expected to happen.
pub(crate) const SOON: Duration = Duration::from_secs(5);
/// How long a packet is waited for that must not come: two retransmissions of a SYN.
pub(crate) const NEVER: Duration = Duration::from_millis(1500);

/// How long the kernel may take to find what is expired: three passes of its sweep.
pub(crate) const SWEPT: Duration = Duration::from_secs(30);

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A name nobody else has, short enough for everything.
pub(crate) fn unique(what: &str) -> String {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("sgtest-{}-{number}-{what}", std::process::id())
}

/// A network namespace.
pub(crate) struct Namespace {
    /// Its name below /run/netns.
    pub(crate) name: String,
}

impl Namespace {
    pub(crate) fn new(what: &str) -> Self {
        let name = unique(what);
        ip(&format!("netns add {name}"));
        let made = Self { name };
        made.ip("link set lo up");
        // Addresses must be there at once, not after duplicate address detection.
        made.sysctl("net/ipv6/conf/default/accept_dad", "0");
        made
    }

    /// Runs `ip` inside. (`ip -n` would mount over the root, which fails where that is no mount
    /// point, as in a plain chroot.)
    pub(crate) fn ip(&self, arguments: &str) {
        self.run(|| ip(arguments));
    }

    /// Makes a VLAN sub-interface of a device, if the kernel has such (CONFIG_VLAN_8021Q).
    pub(crate) fn vlan(&self, device: &str, id: u16) -> bool {
        let arguments = format!("link add link {device} name {device}.{id} type vlan id {id}");
        let made = self.run(|| {
            Command::new("ip")
                .args(arguments.split_whitespace())
                .output()
        });
        made.unwrap().status.success()
    }

    /// Runs `task` inside.
    pub(crate) fn run<T: Send>(&self, task: impl FnOnce() -> T + Send) -> T {
        let netns = Netns::open(Some(&self.name)).unwrap();
        netns.run(task).unwrap()
    }

    pub(crate) fn sysctl(&self, key: &str, value: &str) {
        let path = format!("/proc/sys/{key}");
        self.run(|| fs::write(path, value)).unwrap();
    }

    /// Listens on `address`, answering every connection with what it says, until dropped.
    pub(crate) fn serve(&self, address: impl Into<IpAddr>, port: u16) -> Server {
        let address = SocketAddr::new(address.into(), port);
        let listener = self.run(|| TcpListener::bind(address)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        stream.set_nonblocking(false).unwrap();
                        thread::spawn(move || echo(stream));
                    }
                    Err(_) => thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        Server {
            stop,
            thread: Some(thread),
        }
    }

    /// Tries to connect.
    pub(crate) fn connect(
        &self,
        address: impl Into<IpAddr>,
        port: u16,
    ) -> Result<TcpStream, ErrorKind> {
        self.connect_within(patient(NEVER), address.into(), port)
    }

    fn connect_within(
        &self,
        limit: Duration,
        address: IpAddr,
        port: u16,
    ) -> Result<TcpStream, ErrorKind> {
        let address = SocketAddr::new(address, port);
        let stream = self
            .run(|| TcpStream::connect_timeout(&address, limit))
            .map_err(|error| error.kind())?;
        stream.set_read_timeout(Some(patient(SOON))).unwrap();
        stream.set_nodelay(true).unwrap();
        Ok(stream)
    }
}

impl Namespace {
    /// Whether an attempt to connect is met by silence, as a dropped SYN is.
    pub(crate) fn connect_is_dropped(&self, address: impl Into<IpAddr>, port: u16) -> bool {
        self.connect_within(NEVER, address.into(), port)
            .is_err_and(|kind| kind == ErrorKind::TimedOut)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .output();
    }
}

/// A listening socket and its thread.
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn echo(mut stream: TcpStream) {
    let mut bytes = [0; 1024];
    while let Ok(read @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(&bytes[..read]).is_err() {
            return;
        }
    }
}

/// Whether the other end answers what is said.
pub(crate) fn answers(stream: &mut TcpStream) -> bool {
    let mut back = [0; 4];
    stream.write_all(b"ping").is_ok() && stream.read_exact(&mut back).is_ok() && back == *b"ping"
}

/// A veth pair: `device` in `near` and in `far`, with the same ifindex on the near side wherever it
/// is asked for.
pub(crate) fn veth(near: &Namespace, far: &Namespace, device: &str, index: u32) {
    ip(&format!(
        "link add {device} index {index} netns {} type veth peer name {device} netns {}",
        near.name, far.name
    ));
    for end in [near, far] {
        end.ip(&format!("link set {device} up"));
    }
}

/// An enforcer of the test's own: pins, state and definition file.
pub(crate) struct Enforcer {
    pub(crate) context: Context,
    /// Where its definition is.
    pub(crate) file: PathBuf,
}

impl Enforcer {
    pub(crate) fn new() -> Self {
        let name = unique("sg");
        Self {
            context: Context {
                bpffs: PathBuf::from("/sys/fs/bpf").join(&name),
                state_dir: PathBuf::from("/run").join(&name),
                netns: None,
            },
            file: std::env::temp_dir().join(format!("{name}.toml")),
        }
    }

    /// Whether the interface that was attached first is so by TC filters, because the kernel has no tcx.
    pub(crate) fn is_by_filters(&self) -> bool {
        let egress = Pins::new(&self.context.bpffs).link(1, attach::EGRESS);
        attach::is_filter(&egress).unwrap()
    }

    /// `sgctl` with these arguments.
    pub(crate) fn sgctl(&self, arguments: &[&str]) -> Answer {
        Answer::from(self.command(arguments).output().unwrap())
    }

    /// The same, not yet started.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(Path::new(env!("CARGO_BIN_EXE_sgctl")), arguments)
    }

    /// The same of another build.
    pub(crate) fn command_of(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .arg("--bpffs")
            .arg(&self.context.bpffs)
            .arg("--state-dir")
            .arg(&self.context.state_dir)
            .args(arguments);
        command
    }

    /// `sgctl apply` of a definition, with more arguments.
    pub(crate) fn apply(&self, definition: &str, arguments: &[&str]) -> Answer {
        fs::write(&self.file, definition).unwrap();
        let file = self.file.to_str().unwrap().to_owned();
        let mut all = vec!["apply", &file];
        all.extend(arguments);
        self.sgctl(&all)
    }

    /// A figure of `sgctl stats`.
    pub(crate) fn figure(&self, interface: &str, name: &str) -> u64 {
        let answer = self.sgctl(&["stats", interface]);
        assert_eq!(answer.code, 0, "{answer:?}");
        let line = answer
            .out
            .lines()
            .find_map(|line| line.trim().strip_prefix(&format!("{name}: ")))
            .unwrap_or_else(|| panic!("no {name} in {}", answer.out));
        line.parse().unwrap()
    }
}

impl Drop for Enforcer {
    fn drop(&mut self) {
        let _ = detach::all(&self.context);
        let _ = fs::remove_dir_all(&self.context.bpffs);
        let _ = fs::remove_dir_all(&self.context.state_dir);
        let _ = fs::remove_file(&self.file);
    }
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Answer {
    /// Asserts success.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// Asserts failure with code 2 and these words.
    #[track_caller]
    pub(crate) fn fails(self, words: &[&str]) -> Self {
        assert_eq!(self.code, 2, "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "no {word:?} in {self:?}");
        }
        self
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn eventually(what: &str, condition: impl FnMut() -> bool) {
    eventually_within(SOON, what, condition);
}

/// Waits until `condition` holds, for something that may take longer.
#[track_caller]
pub(crate) fn eventually_within(time: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < patient(time), "{what} did not happen");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Runs `ip`.
#[track_caller]
pub(crate) fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
