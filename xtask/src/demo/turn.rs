//! One user of the same names at a time on a machine: one demo, one bench.

use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::enforcer::Places;

/// How long others may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// The turn of this process, as long as it lives.
pub(crate) struct Turn {
    /// Bound to an abstract name, which needs no file and goes with the process.
    _name: UnixListener,
}

impl Turn {
    /// Waits until nobody else uses these places.
    ///
    /// # Errors
    /// If they do not.
    pub(crate) fn take(places: &Places) -> Result<Self> {
        let address = SocketAddr::from_abstract_name(places.state).context("name the turn")?;
        let deadline = Instant::now() + PATIENCE;
        let mut said = false;
        loop {
            match UnixListener::bind_addr(&address) {
                Ok(name) => return Ok(Self { _name: name }),
                Err(error) if error.kind() != ErrorKind::AddrInUse => {
                    return Err(error).context("take the turn");
                }
                Err(_) if Instant::now() > deadline => {
                    bail!("{} that runs already does not end", places.user)
                }
                Err(_) => {}
            }
            if !said {
                eprintln!("waiting for {} that runs already to end", places.user);
                said = true;
            }
            thread::sleep(Duration::from_millis(200));
        }
    }
}
