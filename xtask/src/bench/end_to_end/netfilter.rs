//! Conntrack of the kernel, in the namespace of the thread.

use std::fs;

use anyhow::{Context, Result, bail};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

/// Forgets every flow: IPCTNL_MSG_CT_DELETE without a tuple (linux/netfilter/nfnetlink_conntrack.h).
///
/// # Errors
/// If the kernel refuses.
pub(super) fn flush() -> Result<()> {
    const DELETE: u16 = 1 << 8 | 2;
    const REQUEST_AND_ACK: u16 = 1 | 4;
    // nlmsghdr, then nfgenmsg: any family, version 0.
    let mut message = 20_u32.to_ne_bytes().to_vec();
    message.extend(DELETE.to_ne_bytes());
    message.extend(REQUEST_AND_ACK.to_ne_bytes());
    message.extend([0; 12]);
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&message, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    // nlmsgerr: the error stands behind the header, 0 for success.
    match answer.get(16..20) {
        Some([0, 0, 0, 0]) => Ok(()),
        _ => bail!("conntrack of the kernel is not flushed: {answer:?}"),
    }
}

/// How many flows are tracked.
///
/// # Errors
/// If the kernel does not tell.
pub(super) fn tracked() -> Result<u64> {
    number("nf_conntrack_count")
}

/// How many flows may be tracked.
///
/// # Errors
/// If the kernel does not tell.
pub(super) fn limit() -> Result<u64> {
    number("nf_conntrack_max")
}

fn number(key: &str) -> Result<u64> {
    let path = format!("/proc/sys/net/netfilter/{key}");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    text.trim().parse().with_context(|| format!("read {path}"))
}
