//! Connections that are opened and closed at once, each with one SYN.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::fd::{AsRawFd as _, OwnedFd},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

use crate::{
    bed::{Class, STORM},
    common::netns::Namespace,
};

/// Listens on the ports of all classes.
pub(crate) struct Listeners(Vec<TcpListener>);

impl Listeners {
    pub(crate) fn new(namespace: &Namespace, address: Ipv4Addr) -> Self {
        let listen = |class: Class| {
            let listener = namespace.run(|| TcpListener::bind((address, STORM + class.offset())));
            let listener = listener.unwrap();
            listener.set_nonblocking(true).unwrap();
            listener
        };
        Self(Class::ALL.map(listen).into())
    }

    /// Takes all connections that have come, and says how many did, by class.
    pub(crate) fn accept(&self) -> [u64; 4] {
        let mut counts = [0; 4];
        for (listener, count) in self.0.iter().zip(&mut counts) {
            while let Ok((stream, _)) = listener.accept() {
                *count += 1;
                drop(stream);
            }
        }
        counts
    }
}

/// A SYN that is under way.
pub(crate) struct Attempt(OwnedFd);

impl Attempt {
    /// Sends a SYN from the thread's namespace.
    pub(crate) fn new(to: Ipv4Addr, class: Class) -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            None,
        )?;
        // Closed by a reset: no port is kept in TIME-WAIT.
        sockopt::set_socket_linger(&socket, Some(std::time::Duration::ZERO))?;
        let to = SocketAddr::new(to.into(), STORM + class.offset());
        match connect(&socket, &to) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(Self(socket)),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the connection is open.
    pub(crate) fn is_open(&self) -> bool {
        // TCP_ESTABLISHED and TCP_CLOSE_WAIT of `include/net/tcp_states.h`.
        matches!(self.info().tcpi_state, 1 | 8)
    }

    /// How many more SYNs the kernel has sent.
    pub(crate) fn repeated(&self) -> u64 {
        self.info().tcpi_total_retrans.into()
    }

    fn info(&self) -> libc::tcp_info {
        // SAFETY: all zeroes is a value of this plain structure.
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        let mut length = size_of_val(&info) as u32;
        // SAFETY: the kernel writes at most `length` bytes to the structure.
        let read = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_TCP,
                libc::TCP_INFO,
                (&raw mut info).cast(),
                &raw mut length,
            )
        };
        assert_eq!(read, 0, "TCP_INFO");
        info
    }
}
