//! The agent as a service: what it tells its manager, and the privileges it can do with.

use std::{
    fs,
    os::{
        fd::AsRawFd as _,
        linux::net::SocketAddrExt as _,
        unix::{
            net::{SocketAddr, UnixDatagram},
            process::CommandExt as _,
        },
    },
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::common::{
    agent::{Agent, LATER, replace},
    netns::{Enforcer, answers, eventually_within, unique},
    pair::{NEAR, Pair, web},
    require::{require, skip},
};

/// A service manager, as far as the agent sees one.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new() -> Self {
        let path = std::env::temp_dir().join(unique("notify"));
        let socket = UnixDatagram::bind(&path).unwrap();
        Self { socket, path }
    }

    fn start(&self, enforcer: &Enforcer, watchdog: Duration) -> Agent {
        Agent::spawn_as(enforcer, &[], |command| {
            command
                .env("NOTIFY_SOCKET", &self.path)
                .env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        })
    }

    /// The next message, if one comes in time.
    fn next(&self, within: Duration) -> Option<String> {
        next(&self.socket, within)
    }

    /// The next message that begins so; signs of life are passed over, and nothing else.
    #[track_caller]
    fn says(&self, beginning: &str) -> String {
        let start = Instant::now();
        while start.elapsed() < LATER {
            match self.next(LATER) {
                Some(said) if said == ALIVE => {}
                Some(said) => {
                    assert!(said.starts_with(beginning), "{said:?}, not {beginning:?}");
                    return said;
                }
                None => break,
            }
        }
        panic!("{beginning:?} was not said");
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

const ALIVE: &str = "WATCHDOG=1\n";

fn next(socket: &UnixDatagram, within: Duration) -> Option<String> {
    socket.set_read_timeout(Some(within)).unwrap();
    let mut bytes = [0; 8192];
    let length = socket.recv(&mut bytes).ok()?;
    Some(String::from_utf8(bytes[..length].to_vec()).unwrap())
}

#[test]
fn a_service_manager_is_told_when_the_definition_is_in_force_and_what_comes_of_it() {
    require!(Root, Object);
    let (pair, enforcer, manager) = (Pair::new(), Enforcer::new(), Manager::new());
    let _servers = [8080, 9090].map(|port| pair.near.serve(NEAR, port));
    let interface = pair.interface("web", "[\"g\"]", "");
    fs::write(&enforcer.file, web("g", 8080) + &interface).unwrap();
    let mut agent = manager.start(&enforcer, Duration::from_secs(60));
    let said = manager.says("READY=1\n");
    // No sooner than it is so.
    assert!(pair.far.connect_is_dropped(NEAR, 9090));
    assert_eq!(
        said,
        "READY=1\nSTATUS=generation 1 in force on 1 interface\n"
    );

    agent.signal(Signal::HUP);
    let said = manager.says("RELOADING=1\nMONOTONIC_USEC=");
    let at = said.trim_end().rsplit_once('=').unwrap().1.parse::<i64>();
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let age = now.tv_sec * 1_000_000 + now.tv_nsec / 1000 - at.unwrap();
    assert!((0..30_000_000).contains(&age), "{age}");
    let said = manager.says("READY=1\n");
    assert!(said.contains("STATUS=generation 2 in force"), "{said}");

    replace(
        &enforcer.file,
        &(web("g", 8080) + &interface + "typo = 1\n"),
    );
    manager.says("RELOADING=1\n");
    let said = manager.says("READY=1\n");
    assert!(
        said.contains("generation 2 in force on 1 interface; what was asked for last is not"),
        "{said}"
    );
    assert!(said.contains("typo"), "{said}");
    assert_eq!(said.lines().count(), 2, "{said}");

    replace(&enforcer.file, &(web("g", 9090) + &interface));
    manager.says("RELOADING=1\n");
    let said = manager.says("READY=1\n");
    assert_eq!(
        said,
        "READY=1\nSTATUS=generation 3 in force on 1 interface\n"
    );
    assert!(answers(&mut pair.far.connect(NEAR, 9090).unwrap()));

    pair.near.ip("link set eth0 down");
    pair.near.ip("link set eth0 name other");
    let said = manager.says("STATUS=");
    assert!(said.contains("no device for web"), "{said}");

    agent.signal(Signal::TERM);
    manager.says("STOPPING=1\n");
    assert_eq!(agent.wait().code(), Some(0));
}

#[test]
fn an_agent_that_is_not_in_force_is_not_ready() {
    require!(Root, Object);
    let (pair, enforcer, manager) = (Pair::new(), Enforcer::new(), Manager::new());
    let wrong = web("g", 8080) + &pair.interface("web", "[\"missing\"]", "");
    fs::write(&enforcer.file, wrong).unwrap();
    let mut agent = manager.start(&enforcer, Duration::from_secs(60));
    assert_eq!(agent.wait().code(), Some(2));
    assert_eq!(manager.next(Duration::from_millis(200)), None);
}

#[test]
fn a_manager_without_a_file_is_told_too() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let name = unique("notify");
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    let definition = web("g", 8080) + &pair.interface("web", "[\"g\"]", "");
    fs::write(&enforcer.file, definition).unwrap();
    let _agent = Agent::spawn_as(&enforcer, &[], |command| {
        command.env("NOTIFY_SOCKET", format!("@{name}"));
    });
    let said = next(&socket, LATER).unwrap();
    assert!(said.starts_with("READY=1\n"), "{said}");
    // It was not asked for signs of life.
    assert_eq!(next(&socket, Duration::from_secs(6)), None);
}

/// A file system that can be made to stand still, with whoever writes to it.
struct Freezer {
    image: PathBuf,
    mount: PathBuf,
}

impl Freezer {
    fn new() -> Option<Self> {
        let name = unique("disk");
        let freezer = Self {
            image: std::env::temp_dir().join(format!("{name}.img")),
            mount: PathBuf::from("/run").join(name),
        };
        fs::create_dir(&freezer.mount).unwrap();
        fs::File::create(&freezer.image)
            .and_then(|file| file.set_len(16 << 20))
            .unwrap();
        let made = succeeds("mkfs.ext4", &["-q".as_ref(), &freezer.image])
            && succeeds(
                "mount",
                &[
                    "-o".as_ref(),
                    "loop".as_ref(),
                    &freezer.image,
                    &freezer.mount,
                ],
            );
        made.then_some(freezer)
    }

    fn freeze(&self) {
        assert!(succeeds("fsfreeze", &["-f".as_ref(), &self.mount]));
    }

    fn thaw(&self) {
        assert!(succeeds("fsfreeze", &["-u".as_ref(), &self.mount]));
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        succeeds("fsfreeze", &["-u".as_ref(), &self.mount]);
        succeeds("umount", &["-l".as_ref(), &self.mount]);
        let _ = fs::remove_dir(&self.mount);
        let _ = fs::remove_file(&self.image);
    }
}

fn succeeds(program: &str, arguments: &[&Path]) -> bool {
    let output = Command::new(program).args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

/// That the process is there is not enough: what hangs here is a thread of it that writes to a disk.
#[test]
fn signs_of_life_come_only_while_work_gets_done() {
    require!(Root, Object);
    let Some(disk) = Freezer::new() else {
        return skip("there is no loop device with a file system that can be frozen");
    };
    let (pair, mut enforcer, manager) = (Pair::new(), Enforcer::new(), Manager::new());
    enforcer.context.state_dir = disk.mount.join("state");
    let interface = pair.interface("web", "[\"g\"]", "");
    fs::write(&enforcer.file, web("g", 8080) + &interface).unwrap();
    let mut agent = manager.start(&enforcer, Duration::from_secs(3));
    manager.says("READY=1\n");
    let start = Instant::now();
    for _ in 0..3 {
        assert_eq!(manager.next(LATER).as_deref(), Some(ALIVE));
    }
    // Three in the time given; the machine may be busy.
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );

    disk.freeze();
    agent.signal(Signal::HUP);
    manager.says("RELOADING=1\n");
    let silent = manager.next(Duration::from_secs(6));
    disk.thaw();
    assert_eq!(silent, None, "it hangs and says that it lives");
    manager.says("READY=1\n");
    eventually_within(LATER, "a sign of life", || {
        manager.next(LATER).as_deref() == Some(ALIVE)
    });
    assert_eq!(agent.interrupt(), Some(0));
    drop(enforcer);
}

pub(crate) const UNIT: &str = include_str!("../../../dist/sgctl.service");

/// What the unit says of a key, all lines together.
pub(crate) fn of_unit(key: &str) -> Vec<&'static str> {
    let lines = UNIT.lines().filter_map(|line| line.split_once('='));
    let values = lines.filter_map(|(found, value)| (found == key).then_some(value));
    values.flat_map(str::split_whitespace).collect()
}

#[test]
fn the_unit_is_one_and_asks_for_what_the_agent_was_tried_with() {
    let capabilities = of_unit("CapabilityBoundingSet");
    assert_eq!(
        capabilities,
        ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON", "CAP_SYS_ADMIN"]
    );
    assert_eq!(of_unit("Type"), ["notify"]);
    // What is remembered must outlive the service, as what is enforced does.
    assert_eq!(of_unit("RuntimeDirectoryPreserve"), ["yes"]);
    assert_eq!(of_unit("RuntimeDirectoryMode"), ["0700"]);
    let directory = Path::new("/run").join(of_unit("RuntimeDirectory")[0]);
    assert_eq!(directory, Path::new(sg_userspace::state::DEFAULT));
    let pins = Path::new(sg_userspace::pin::DEFAULT);
    let writable = of_unit("ReadWritePaths");
    assert!(
        writable.iter().any(|path| pins.starts_with(path)),
        "{writable:?}"
    );
    // systemd has it make the same path read-only, and that wins.
    assert!(!UNIT.contains("\nProtectKernelTunables="));

    let directory = std::env::temp_dir().join(unique("unit"));
    fs::create_dir(&directory).unwrap();
    let file = directory.join("sgctl.service");
    let installed = UNIT.replace("/usr/local/sbin/sgctl", env!("CARGO_BIN_EXE_sgctl"));
    fs::write(&file, installed).unwrap();
    let verified = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&file)
        .output();
    fs::remove_dir_all(&directory).unwrap();
    match verified {
        Ok(verified) => {
            let said = String::from_utf8_lossy(&verified.stderr).into_owned();
            assert!(verified.status.success(), "{said}");
            assert!(!said.contains("sgctl.service:"), "{said}");
        }
        Err(_) => skip("there is no systemd-analyze"),
    }
}

/// Numbers of `include/uapi/linux/capability.h`.
const NET_ADMIN: u32 = 12;
const SYS_ADMIN: u32 = 21;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

/// Lets a command have these capabilities at most, though it runs as root, and gain no others.
fn confine(command: &mut Command, capabilities: &'static [u32]) {
    let drop_others = move || {
        for capability in (0..64).filter(|number| !capabilities.contains(number)) {
            // SAFETY: takes a number; one that the kernel does not know is refused.
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        }
        // SAFETY: takes numbers.
        match unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: makes system calls only.
    unsafe { command.pre_exec(drop_others) };
}

#[track_caller]
fn has_exactly(agent: &Agent, capabilities: &[u32]) {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = u64::from_str_radix(line.unwrap().trim(), 16).unwrap();
    let expected: u64 = capabilities.iter().map(|number| 1 << number).sum();
    assert_eq!(effective, expected, "{effective:#x}");
}

/// Changes, devices that come back, links that are lost, flows to adopt: all that the agent does.
#[track_caller]
fn does_everything(pair: &Pair, enforcer: &Enforcer, agent: &mut Agent, interface: &str) {
    assert!(pair.far.connect_is_dropped(NEAR, 9090));
    replace(&enforcer.file, &(web("g", 9090) + interface));
    eventually_within(LATER, "the new rule", || {
        pair.far.connect(NEAR, 9090).is_ok()
    });
    pair.near.ip("addr add 10.77.0.100/24 dev eth0");
    agent.says("web: addresses changed");
    fs::remove_file(sg_userspace::pin::Pins::new(&enforcer.context.bpffs).link(1, "egress"))
        .unwrap();
    agent.says("web: a link that was removed is attached again");
    replace(
        &enforcer.file,
        &(web("g", 9090) + interface + "hook = \"xdp\"\n"),
    );
    eventually_within(LATER, "XDP", || {
        enforcer
            .sgctl(&["status"])
            .out
            .contains("ingress by xdp: as asked")
    });
    assert!(pair.far.connect_is_dropped(NEAR, 8080));
    agent.signal(Signal::TERM);
    assert_eq!(agent.wait().code(), Some(0));
    let lines = agent.lines();
    let failed = lines.iter().find(|line| {
        line.starts_with("error") || line.contains("EPERM") || line.contains("os error 1)")
    });
    assert_eq!(failed, None);
}

#[test]
fn n3_three_capabilities_are_enough_in_its_own_namespace() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _servers = [8080, 9090].map(|port| pair.near.serve(NEAR, port));
    let mut open = pair.far.connect(NEAR, 9090).unwrap();
    let interface =
        "[interfaces.web]\ndevice = \"eth0\"\norientation = \"own\"\ngroups = [\"g\"]\n";
    fs::write(&enforcer.file, web("g", 8080) + interface).unwrap();
    let capabilities = &[NET_ADMIN, PERFMON, BPF];
    let netns = fs::File::open(format!("/run/netns/{}", pair.near.name)).unwrap();
    let mut agent = Agent::spawn_as(&enforcer, &["--detach-on-exit"], |command| {
        let enter = move || {
            // SAFETY: the file is open as long as this closure.
            match unsafe { libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: makes a system call only.
        unsafe { command.pre_exec(enter) };
        confine(command, capabilities);
    });
    agent.says("1 open connection adopted");
    agent.says("applied generation 1");
    has_exactly(&agent, capabilities);
    assert!(answers(&mut open));
    does_everything(&pair, &enforcer, &mut agent, interface);
    agent.says("web: detached");
}

#[test]
fn n3_other_namespaces_take_one_more() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _servers = [8080, 9090].map(|port| pair.near.serve(NEAR, port));
    let interface = pair.interface("web", "[\"g\"]", "");
    fs::write(&enforcer.file, web("g", 8080) + &interface).unwrap();
    let capabilities = &[NET_ADMIN, SYS_ADMIN, PERFMON, BPF];
    let mut agent = Agent::spawn_as(&enforcer, &[], |command| confine(command, capabilities));
    agent.says("applied generation 1");
    has_exactly(&agent, capabilities);
    does_everything(&pair, &enforcer, &mut agent, &interface);
    // Without it there is a message, and nothing half done.
    enforcer.sgctl(&["detach", "--all"]).ok();
    let without = &[NET_ADMIN, PERFMON, BPF];
    let mut agent = Agent::spawn_as(&enforcer, &[], |command| confine(command, without));
    assert_eq!(agent.wait().code(), Some(2));
    agent.says("cannot enter network namespace");
    assert!(!enforcer.context.bpffs.exists());
}
