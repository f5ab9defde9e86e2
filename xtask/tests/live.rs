//! `cargo xtask run -- --interface …` short of the build, in a network namespace made for it: what
//! it warns of and refuses, and that a connection lives that is open when enforcement begins.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sg_userspace::netns::Netns;

mod common {
    #[path = "../../../sg-userspace/tests/common/require.rs"]
    pub(crate) mod require;
    pub(crate) mod sgctl;
}

use common::require::require;
use common::sgctl::sgctl;

const SOON: Duration = Duration::from_secs(60);

#[test]
fn an_open_connection_lives_when_enforcement_begins() {
    require!(Root, Object);
    let place = Place::new("adopt");
    let listener = place.inside(HOST, || TcpListener::bind("10.1.0.1:7777").unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || echo(stream));
        }
    });
    let connect = || {
        let to = "10.1.0.1:7777".parse().unwrap();
        TcpStream::connect_timeout(&to, Duration::from_millis(700))
    };
    let mut open = place.inside(PEER, connect).unwrap();
    assert!(answers(&mut open));

    let mut agent = place.xtask(&["--interface", "eth0", "--yes"]);
    place.wait_enforced(&mut agent);
    assert!(answers(&mut open), "{}", place.said());
    let new = place.inside(PEER, connect);
    assert_eq!(new.unwrap_err().kind(), ErrorKind::TimedOut);

    kill_process(Pid::from_child(&agent), Signal::INT).unwrap();
    agent.wait().unwrap();
    assert!(place.is_enforced(), "{}", place.said());
    assert!(answers(&mut open));

    let said = place.said();
    for words in [
        "enforces on nic: device eth0",
        "THIS SESSION from 10.1.0.2 to port 22 COULD NOT be opened anew",
    ] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
}

#[test]
fn nothing_is_enforced_unasked_or_elsewhere() {
    require!(Root, Object);
    let place = Place::new("ask");
    for (arguments, words) in [
        (vec!["--interface", "nic"], "--yes"),
        (
            vec!["--interface", "eth1", "--yes"],
            "no interface called eth1",
        ),
    ] {
        let status = place.xtask(&arguments).wait().unwrap();
        assert_eq!(status.code(), Some(2), "{}", place.said());
        assert!(place.said().contains(words), "{}", place.said());
        assert!(!place.is_enforced());
    }
}

const HOST: usize = 0;
const PEER: usize = 1;

/// Two namespaces joined by a veth, and an enforcer's places; gone when dropped.
struct Place {
    name: String,
    namespaces: [String; 2],
    file: PathBuf,
    output: PathBuf,
}

impl Place {
    fn new(what: &str) -> Self {
        let name = format!("sgtest-{}-{what}", std::process::id());
        let place = Self {
            namespaces: [format!("{name}-host"), format!("{name}-peer")],
            file: std::env::temp_dir().join(format!("{name}.toml")),
            output: std::env::temp_dir().join(format!("{name}.txt")),
            name,
        };
        let [host, peer] = &place.namespaces;
        for namespace in [host, peer] {
            ip(&format!("netns add {namespace}"));
        }
        place.inside(HOST, || {
            ip(&format!(
                "link add eth0 type veth peer name eth0 netns {peer}"
            ));
        });
        for (number, last) in [(HOST, 1), (PEER, 2)] {
            place.inside(number, || {
                ip("link set eth0 up");
                ip(&format!("address add 10.1.0.{last}/24 dev eth0"));
            });
        }
        let definition = format!(
            "groups.closed = {{ ingress = [], egress = [] }}\n\
             [interfaces.nic]\n\
             device = \"eth0\"\n\
             netns = \"{host}\"\n\
             orientation = \"own\"\n\
             groups = [\"closed\"]\n"
        );
        fs::write(&place.file, definition).unwrap();
        place
    }

    fn inside<T: Send>(&self, number: usize, task: impl FnOnce() -> T + Send) -> T {
        let netns = Netns::open(Some(&self.namespaces[number])).unwrap();
        netns.run(task).unwrap()
    }

    /// `xtask run -- …` with the places of this test.
    fn xtask(&self, arguments: &[&str]) -> Child {
        let output = File::create(&self.output).unwrap();
        Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args(["run", "--sgctl", &sgctl(), "--"])
            .args(arguments)
            .arg("--file")
            .arg(&self.file)
            .args(self.places())
            .env("SSH_CONNECTION", "10.1.0.2 50000 10.1.0.1 22")
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap()
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.output).unwrap()
    }

    fn wait_enforced(&self, agent: &mut Child) {
        let deadline = Instant::now() + SOON;
        while !self.is_enforced() {
            assert!(agent.try_wait().unwrap().is_none(), "{}", self.said());
            assert!(Instant::now() < deadline, "{}", self.said());
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn is_enforced(&self) -> bool {
        self.sgctl(&["status"])
    }

    fn sgctl(&self, arguments: &[&str]) -> bool {
        let output = Command::new(sgctl())
            .args(self.places())
            .args(arguments)
            .output();
        output.unwrap().status.success()
    }

    fn places(&self) -> [String; 4] {
        let [pins, state] = self.directories();
        let text = |path: PathBuf| path.into_os_string().into_string().unwrap();
        [
            "--bpffs".to_owned(),
            text(pins),
            "--state-dir".to_owned(),
            text(state),
        ]
    }

    fn directories(&self) -> [PathBuf; 2] {
        ["/sys/fs/bpf", "/run"].map(|parent| Path::new(parent).join(&self.name))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.sgctl(&["detach", "--all"]);
        for directory in self.directories() {
            let _ = fs::remove_dir_all(directory);
        }
        for namespace in &self.namespaces {
            let _ = Command::new("ip")
                .args(["netns", "delete", namespace])
                .output();
        }
        let _ = fs::remove_file(&self.file);
        let _ = fs::remove_file(&self.output);
    }
}

fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .unwrap();
    let reason = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {reason}");
}

fn echo(mut stream: TcpStream) {
    let mut bytes = [0; 64];
    while let Ok(length @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(&bytes[..length]).is_err() {
            return;
        }
    }
}

fn answers(stream: &mut TcpStream) -> bool {
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let mut answer = [0; 4];
    stream.write_all(b"ping").is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && answer == *b"ping"
}
