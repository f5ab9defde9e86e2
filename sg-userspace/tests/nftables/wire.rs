//! Frames onto a device and off it, as they are.

use std::{
    ffi::CString,
    io,
    mem::size_of,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr,
};

use crate::common::netns::Namespace;

/// Room for what comes before it is read, in bytes.
const BUFFER: libc::c_int = 64 << 20;

/// A packet socket bound to one device.
pub(crate) struct Wire {
    socket: OwnedFd,
}

impl Wire {
    /// Opens the device of this name in `namespace`.
    pub(crate) fn open(namespace: &Namespace, device: &str) -> Self {
        namespace.run(|| Self::here(device)).unwrap()
    }

    fn here(device: &str) -> io::Result<Self> {
        let all = (libc::ETH_P_ALL as u16).to_be();
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: takes no pointers.
        let socket = check(unsafe { libc::socket(libc::AF_PACKET, kind, all.into()) })?;
        // SAFETY: the kernel has just given it, to nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let name = CString::new(device)?;
        // SAFETY: a string that ends in 0 and outlives the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        // SAFETY: integers and bytes alone, for which 0 is a value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = all;
        address.sll_ifindex = index as i32;
        // SAFETY: a whole sockaddr_ll and its size.
        check(unsafe {
            libc::bind(
                socket.as_raw_fd(),
                ptr::from_ref(&address).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        })?;
        let wire = Self { socket };
        // What is sent here must not look like something that came.
        wire.set(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
        wire.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER)?;
        Ok(wire)
    }

    fn set(&self, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
        // SAFETY: a whole int and its size.
        check(unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                level,
                name,
                ptr::from_ref(&value).cast(),
                size_of::<libc::c_int>() as u32,
            )
        })?;
        Ok(())
    }

    /// Sends one frame.
    pub(crate) fn send(&self, frame: &[u8]) {
        let sent = rustix::net::send(&self.socket, frame, rustix::net::SendFlags::empty());
        assert_eq!(sent, Ok(frame.len()));
    }

    /// What has come next.
    pub(crate) fn receive(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0; 2048];
        let flags = rustix::net::RecvFlags::empty();
        match rustix::net::recv(&self.socket, &mut frame[..], flags) {
            Ok((len, _)) => {
                frame.truncate(len);
                Some(frame)
            }
            Err(rustix::io::Errno::AGAIN) => None,
            Err(error) => panic!("receive: {error}"),
        }
    }

    /// Frames that came and found no room since the last call.
    pub(crate) fn lost(&self) -> u32 {
        let mut seen = libc::tpacket_stats {
            tp_packets: 0,
            tp_drops: 0,
        };
        let mut len = size_of::<libc::tpacket_stats>() as u32;
        // SAFETY: a whole tpacket_stats and its size.
        check(unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                ptr::from_mut(&mut seen).cast(),
                &raw mut len,
            )
        })
        .unwrap();
        seen.tp_drops
    }
}

fn check(answer: libc::c_int) -> io::Result<libc::c_int> {
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(answer)
}
