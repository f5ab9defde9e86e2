//! Frames put on a device as they are, by a packet socket (`packet(7)`), as `CAP_NET_RAW` allows.

use std::{mem, os::fd::AsRawFd as _, os::fd::OwnedFd};

use rustix::{
    io::Errno,
    net::{AddressFamily, SendFlags, SocketType, netdevice, send, socket},
};

use crate::common::netns::Namespace;

/// MAC addresses that the frames of the tests stand between: see [`Injector::ends`].
const SENDER: &str = "02:00:00:00:00:01";
const RECEIVER: &str = "02:00:00:00:00:02";

/// Which way a frame takes to its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Past the device's queueing discipline, and TC egress with it.
    Ordinary,
    /// Straight to the driver (`PACKET_QDISC_BYPASS`, since Linux 3.14).
    Bypass,
}

/// A device that frames are put on.
pub(crate) struct Injector(OwnedFd);

impl Injector {
    pub(crate) fn new(namespace: &Namespace, device: &str, way: Way) -> Self {
        let (socket, index) = namespace.run(|| {
            let socket = socket(AddressFamily::PACKET, SocketType::RAW, None).unwrap();
            let index = netdevice::name_to_index(&socket, device).unwrap();
            (socket, index)
        });
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            // It hears nothing.
            sll_protocol: 0,
            sll_ifindex: index as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: the address is a whole `sockaddr_ll`, and the length says so.
        let bound = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                (&raw const address).cast(),
                mem::size_of_val(&address) as u32,
            )
        };
        assert_eq!(bound, 0, "bind to {device}");
        let bypass = i32::from(way == Way::Bypass);
        // SAFETY: the value is an `int`, and the length says so.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_QDISC_BYPASS,
                (&raw const bypass).cast(),
                mem::size_of_val(&bypass) as u32,
            )
        };
        assert_eq!(set, 0, "PACKET_QDISC_BYPASS");
        Self(socket)
    }

    /// Gives two devices the MAC addresses that the tests' frames bear.
    pub(crate) fn ends(sender: (&Namespace, &str), receiver: (&Namespace, &str)) {
        for ((namespace, device), mac) in [(sender, SENDER), (receiver, RECEIVER)] {
            namespace.ip(&format!("link set {device} address {mac}"));
        }
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        match send(&self.0, frame, SendFlags::empty()) {
            // A packet dropped at its sender's own device.
            Ok(_) | Err(Errno::NOBUFS) => {}
            Err(error) => panic!("{error}"),
        }
    }
}
