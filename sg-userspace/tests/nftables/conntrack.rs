//! Conntrack of the kernel, in the namespace of the thread.

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

/// Forgets every flow: IPCTNL_MSG_CT_DELETE without a tuple (linux/netfilter/nfnetlink_conntrack.h).
pub(crate) fn flush() {
    const DELETE: u16 = 1 << 8 | 2;
    const REQUEST_AND_ACK: u16 = 1 | 4;
    // nlmsghdr, then nfgenmsg: any family, version 0.
    let mut message = 20_u32.to_ne_bytes().to_vec();
    message.extend(DELETE.to_ne_bytes());
    message.extend(REQUEST_AND_ACK.to_ne_bytes());
    message.extend([0; 12]);
    let mut socket = Socket::new(NETLINK_NETFILTER).unwrap();
    socket.bind_auto().unwrap();
    socket.connect(&SocketAddr::new(0, 0)).unwrap();
    socket.send(&message, 0).unwrap();
    let (answer, _) = socket.recv_from_full().unwrap();
    // nlmsgerr: the error stands behind the header, 0 for success.
    let error = answer
        .get(16..20)
        .map(|error| i32::from_ne_bytes(error.try_into().unwrap()));
    assert_eq!(error, Some(0), "conntrack is not flushed: {answer:?}");
}
