//! A running agent of a test's own, and what it says.

#![allow(dead_code, reason = "a test program uses what it needs of it")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use super::{
    netns::{Enforcer, eventually_within},
    scale::patient,
};

/// How long the agent may take to do what it is to do: it looks for some changes only now and then,
/// and compiles and loads meanwhile.
pub(crate) const LATER: Duration = Duration::from_secs(30);

/// `sgctl run`.
pub(crate) struct Agent {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Agent {
    /// Starts `sgctl run` on the enforcer's definition, with more arguments, and waits until it is
    /// in force.
    #[track_caller]
    pub(crate) fn start(enforcer: &Enforcer, definition: &str, arguments: &[&str]) -> Self {
        fs::write(&enforcer.file, definition).unwrap();
        let agent = Self::spawn(enforcer, arguments);
        agent.says("applied generation");
        agent
    }

    /// Starts `sgctl run` on the enforcer's definition as it is.
    pub(crate) fn spawn(enforcer: &Enforcer, arguments: &[&str]) -> Self {
        Self::spawn_as(enforcer, arguments, |_| {})
    }

    /// The same in circumstances that the test prepares.
    pub(crate) fn spawn_as(
        enforcer: &Enforcer,
        arguments: &[&str],
        prepare: impl FnOnce(&mut Command),
    ) -> Self {
        let mut all = vec!["run", enforcer.file.to_str().unwrap(), "--log", "debug"];
        all.extend(arguments);
        let mut command = enforcer.command(&all);
        prepare(&mut command);
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, written) = (
            BufReader::new(child.stderr.take().unwrap()),
            Arc::clone(&log),
        );
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                written.lock().unwrap().push(line);
            }
        });
        Self { child, log }
    }

    /// Waits for a line that contains `words`, and returns it.
    #[track_caller]
    pub(crate) fn says(&self, words: &str) -> String {
        self.says_after(0, words)
    }

    /// The same among the lines after the first `seen`.
    #[track_caller]
    pub(crate) fn says_after(&self, seen: usize, words: &str) -> String {
        let find = || {
            let log = self.log.lock().unwrap();
            log[seen..]
                .iter()
                .find(|line| line.contains(words))
                .cloned()
        };
        eventually_within(
            LATER,
            &format!("{words:?} in the log {:#?}", self.lines()),
            || find().is_some(),
        );
        find().unwrap()
    }

    /// Everything said until now.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends it as Ctrl-C does, and returns its exit code.
    pub(crate) fn interrupt(&mut self) -> Option<i32> {
        self.signal(Signal::INT);
        self.wait().code()
    }

    /// Waits until it has ended.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually_within(LATER, "the agent's end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Where it serves figures.
    #[track_caller]
    pub(crate) fn metrics(&self) -> SocketAddr {
        let line = self.says("serving metrics on http://");
        let (_, address) = line.split_once("http://").unwrap();
        let (address, _) = address.split_once('/').unwrap();
        address.parse().unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("the agent said {:#?}", self.lines());
        }
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Http {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// One HTTP request on a connection of its own.
#[track_caller]
pub(crate) fn request(address: SocketAddr, method: &str, path: &str) -> Http {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(patient(LATER))).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\n\r\n"
    )
    .unwrap();
    answer(&mut stream)
}

/// Reads the answer on a connection that the server closes after it.
#[track_caller]
pub(crate) fn answer(stream: &mut TcpStream) -> Http {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Http {
        status,
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}

/// The value of a sample without labels, or with exactly these.
pub(crate) fn sample(text: &str, series: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
        .map(|value| value.parse().unwrap())
}

/// Replaces a file as editors and deployment tools do.
pub(crate) fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, file).unwrap();
}
