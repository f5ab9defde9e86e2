//! moto's server on this host.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// The region that everything is in.
pub(crate) const REGION: &str = "eu-central-1";

/// How long anything may take, in seconds: `timeout` ends the server even if this program is killed.
const LIMIT: &str = "300";

/// A running server; stopped when it is dropped.
pub(crate) struct Server {
    child: Child,
    url: String,
}

impl Server {
    /// Starts one on a port of the kernel's choice, and waits until it listens.
    pub(crate) fn start() -> Self {
        let mut child = program("timeout")
            .args([
                LIMIT,
                "python",
                "-m",
                "moto.server",
                "-H",
                "127.0.0.1",
                "-p",
                "0",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let mut said = Vec::new();
        let url = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let url = line
                .split_once("Running on ")
                .map(|(_, url)| url.trim().to_owned());
            said.push(line);
            url
        });
        // It writes a line for each request, to somebody who reads.
        thread::spawn(move || lines.for_each(drop));
        let server = Self {
            child,
            url: url.unwrap_or_default(),
        };
        assert!(
            !server.url.is_empty(),
            "it says where it listens: {said:#?}"
        );
        server
    }

    /// A program that takes the server for AWS.
    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = program("timeout");
        command
            .args([LIMIT, name])
            .env("AWS_ENDPOINT_URL", &self.url)
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_DEFAULT_REGION", REGION)
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
        command
    }
}

/// A program with nothing of this user's settings, those of the environment first.
fn program(name: &str) -> Command {
    let bin = super::environment().join("bin");
    let bin = fs::canonicalize(&bin).unwrap_or(bin);
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display());
    let mut command = Command::new(name);
    command
        .env_clear()
        .env("PATH", path)
        .env("HOME", "/nonexistent")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null());
    command
}

impl Drop for Server {
    fn drop(&mut self) {
        // `timeout` hands it on.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let end = Instant::now() + Duration::from_secs(10);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
