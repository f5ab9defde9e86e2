//! What `ethtool` would do, where it is not installed. Structs are those of
//! `include/uapi/linux/ethtool.h`, as rows of 32-bit words.

#![allow(dead_code, reason = "a test program uses what it needs of it")]

use std::{io, os::fd::AsRawFd as _};

use rustix::net::{AddressFamily, SocketType, socket};

use super::netns::Namespace;

/// Whether 802.1Q tags are stripped, as by `ethtool -K eth0 rxvlan`.
pub(crate) fn strip_tags(namespace: &Namespace, on: bool) {
    const GFLAGS: u32 = 0x25;
    const SFLAGS: u32 = 0x26;
    /// `ETH_FLAG_RXVLAN`.
    const RXVLAN: u32 = 1 << 8;
    // `struct ethtool_value`: cmd, flags.
    let mut value = [GFLAGS, 0];
    ask(namespace, &mut value);
    let others = value[1] & !RXVLAN;
    ask(
        namespace,
        &mut [SFLAGS, others | if on { RXVLAN } else { 0 }],
    );
}

/// Queues that are sent by, as by `ethtool -L eth0 tx`.
pub(crate) fn set_send_queues(namespace: &Namespace, count: u32) {
    const GCHANNELS: u32 = 0x3c;
    const SCHANNELS: u32 = 0x3d;
    // `struct ethtool_channels`: cmd, four maxima, counts of rx, tx, other, combined.
    let mut channels = [0; 9];
    channels[0] = GCHANNELS;
    ask(namespace, &mut channels);
    (channels[0], channels[6]) = (SCHANNELS, count);
    ask(namespace, &mut channels);
}

/// A command about the namespace's eth0.
#[track_caller]
fn ask(namespace: &Namespace, words: &mut [u32]) {
    let done = namespace.run(|| {
        let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
        // SAFETY: all zero bits are a valid `ifreq`.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(b"eth0") {
            *to = *from as libc::c_char;
        }
        request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
        // SAFETY: the name is terminated, and `words` is the whole struct of its command.
        let answer = unsafe {
            libc::ioctl(
                socket.as_raw_fd(),
                libc::SIOCETHTOOL as libc::Ioctl,
                &raw mut request,
            )
        };
        if answer < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    });
    done.unwrap();
}
