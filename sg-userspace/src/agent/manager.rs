//! What the agent tells the service manager that started it (sd_notify(3)); nothing if none did.
//!
//! No crate: what there is for this sends on a blocking socket, and a manager that hangs would then hang the
//! agent with it.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

use log::{debug, warn};
use rustix::time::{ClockId, clock_gettime};

use crate::definition::escape;

/// Bytes of a status line at most: managers show one line.
const STATUS_BYTES: usize = 1024;

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub(super) struct Manager {
    socket: Option<UnixDatagram>,
    /// How long it waits for a sign of life before it ends the agent.
    watchdog: Option<Duration>,
    /// What it was told last.
    status: String,
}

impl Manager {
    /// The manager named by `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub(super) fn of_environment() -> Self {
        let Some(address) = env::var_os("NOTIFY_SOCKET") else {
            return Self::default();
        };
        let socket = match connect(&address) {
            Ok(socket) => Some(socket),
            Err(error) => {
                warn!("cannot reach the service manager: {error}");
                None
            }
        };
        let number = |name| env::var(name).ok()?.parse::<u64>().ok();
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let microseconds = number("WATCHDOG_USEC").filter(|time| ours && *time > 0);
        Self {
            socket,
            watchdog: microseconds.map(Duration::from_micros),
            status: String::new(),
        }
    }

    /// `wanted`, or less where signs of life are due more often: three in the time that the manager waits.
    pub(super) fn pace(&self, wanted: Duration) -> Duration {
        let due = self.watchdog.map_or(wanted, |time| time / 3);
        due.clamp(Duration::from_millis(1), wanted)
    }

    /// The definition is in force, at the start or again after [`Self::reloading`].
    pub(super) fn ready(&mut self, status: &str) {
        self.status = line(status);
        self.tell(&format!("READY=1\nSTATUS={}\n", self.status));
    }

    /// The definition is about to be read again.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}\n"));
    }

    /// What there is to say of the agent, if it is news.
    pub(super) fn status(&mut self, status: &str) {
        let status = line(status);
        if status != self.status {
            self.tell(&format!("STATUS={status}\n"));
            self.status = status;
        }
    }

    /// A sign of life: to be given by whoever has just got something done.
    pub(super) fn alive(&self) {
        if self.watchdog.is_some() {
            self.tell("WATCHDOG=1\n");
        }
    }

    /// The agent ends.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1\n");
    }

    fn tell(&self, text: &str) {
        let Some(socket) = &self.socket else {
            return;
        };
        // One that is lost is no reason to stop; one sign of life of three may be.
        if let Err(error) = socket.send(text.as_bytes()) {
            debug!("cannot tell the service manager: {error}");
        }
    }
}

/// An address that begins with `@` is abstract: a name without a file.
fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// The text as one line that is not too long. Whoever wrote it might else say more than a status.
fn line(text: &str) -> String {
    let mut line = escape(text).into_owned();
    line.truncate(line.floor_char_boundary(STATUS_BYTES));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Manager, UnixDatagram) {
        let (socket, manager) = UnixDatagram::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        let ours = Manager {
            socket: Some(socket),
            watchdog: Some(Duration::from_secs(6)),
            status: String::new(),
        };
        (ours, manager)
    }

    fn next(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 4096];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_status_is_one_line_and_said_once() {
        let (mut ours, manager) = pair();
        ours.ready("a\nMAINPID=1");
        assert_eq!(next(&manager), "READY=1\nSTATUS=a\\u{a}MAINPID=1\n");
        ours.status("a\nMAINPID=1");
        ours.status(&"\u{fc}".repeat(4000));
        let said = next(&manager);
        assert!(
            said.starts_with("STATUS=\u{fc}") && said.len() < 1100,
            "{said}"
        );
    }

    #[test]
    fn a_manager_that_reads_nothing_holds_nobody_up() {
        let (ours, _manager) = pair();
        for _ in 0..10_000 {
            ours.alive();
        }
    }

    #[test]
    fn signs_of_life_come_thrice_in_the_time_given() {
        let (ours, _manager) = pair();
        assert_eq!(ours.pace(Duration::from_secs(5)), Duration::from_secs(2));
        assert_eq!(ours.pace(Duration::from_secs(1)), Duration::from_secs(1));
        let none = Manager::default();
        assert_eq!(none.pace(Duration::from_secs(5)), Duration::from_secs(5));
    }
}
