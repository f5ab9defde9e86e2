//! Frames over packet pointers: the only place that reads packet memory.

use aya_ebpf::{
    helpers::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    programs::{TcContext, XdpContext},
};
use sg_common::{
    atomic,
    wire::{ETHERNET, Frame, Window},
};

use crate::maps;

/// A packet's linear part.
pub struct Packet {
    start: usize,
    end: usize,
    /// Bytes of the whole frame.
    pub len: u32,
    merged: bool,
    tagged: bool,
}

/// Bytes that the pipeline may want to read: Ethernet, IPv6 with its bounded extension headers, an
/// ICMP error and the packet it quotes, with as many (14 + 2 · (40 + 256 + 8)). What lies behind is payload.
pub const HEADERS: u32 = 640;

/// Highest offset of a header; the verifier needs a bound it can see.
pub const MAX_OFFSET: usize = 1024;

impl Packet {
    /// A frame at XDP. The context is read once: each read makes the verifier forget the bounds. Headers
    /// outside the first buffer (jumbo frames) are copied; the bounds of a copy are the verifier's to
    /// see by [`MAX_OFFSET`], those of a packet by `end`.
    #[inline(always)]
    pub fn from_xdp(ctx: &XdpContext) -> Self {
        let mut start = ctx.data();
        let mut end = ctx.data_end();
        let linear = end.wrapping_sub(start) as u32;
        // SAFETY: the kernel hands a valid context.
        let len = unsafe { bpf_xdp_get_buff_len(ctx.ctx) } as u32;
        let wanted = headers_of(len);
        if u64::from(linear) < wanted
            && wanted >= ETHERNET as u64
            && let Some(copy) = maps::header_copy()
        {
            // The upper bound apart from the lower one: the compiler would make one comparison of both, which
            // tells the verifier nothing.
            let wanted = atomic::opaque(wanted);
            // SAFETY: `copy` has room for `HEADERS` bytes. If it fails the frame is judged by its first
            // buffer, where the header reads fail.
            let copied = wanted <= u64::from(HEADERS)
                && unsafe { bpf_xdp_load_bytes(ctx.ctx, 0, copy.cast(), wanted as u32) } == 0;
            if copied {
                start = copy as usize;
                end = start + wanted as usize;
            }
        }
        Self {
            start,
            end,
            len,
            merged: false,
            tagged: false,
        }
    }

    /// The first buffer of a frame at XDP, as if it were all. Whether there are others takes a call, which
    /// costs as much as a third of judging a packet of a flow; if the first holds a whole IP packet the others
    /// hold padding.
    #[inline(always)]
    pub fn first_buffer(ctx: &XdpContext) -> Self {
        let (start, end) = (ctx.data(), ctx.data_end());
        Self {
            start,
            end,
            len: end.wrapping_sub(start) as u32,
            merged: false,
            tagged: false,
        }
    }

    /// A frame at TC, of which only the linear part can be read.
    #[inline(always)]
    pub fn linear(ctx: &TcContext) -> Self {
        // SAFETY: the kernel hands a valid context.
        let (len, tagged) = unsafe { ((*ctx.skb.skb).len, (*ctx.skb.skb).vlan_present != 0) };
        Self {
            start: ctx.data(),
            end: ctx.data_end(),
            len,
            merged: false,
            tagged,
        }
    }

    /// A frame at TC. Headers outside the linear part (GSO, forwarded jumbo frames) are pulled in.
    #[inline(always)]
    pub fn from_skb(ctx: &TcContext) -> Self {
        // SAFETY: the kernel hands a valid context.
        let (len, tagged, gso_size) = unsafe {
            let skb = ctx.skb.skb;
            ((*skb).len, (*skb).vlan_present != 0, (*skb).gso_size)
        };
        let mut start = ctx.data();
        let mut end = ctx.data_end();
        let wanted = if len < HEADERS { len } else { HEADERS };
        // A TCP segment with 54 or 66 bytes of headers in front is the common case: nothing to pull.
        let linear = end.wrapping_sub(start) as u32;
        if linear < wanted && !is_plain_tcp(start, end) {
            // If it fails the header reads fail: the packet is dropped as truncated.
            let _ = ctx.pull_data(wanted);
            start = ctx.data();
            end = ctx.data_end();
        }
        Self {
            start,
            end,
            len,
            merged: gso_size != 0,
            tagged,
        }
    }
}

/// Bytes of headers in a frame of `len` bytes. Without a branch: up to Linux 6.4 the verifier would look at all that
/// follows once for short frames and once for long ones, and that together is too much for it.
#[inline(always)]
fn headers_of(len: u32) -> u64 {
    let behind = u64::from(len).wrapping_sub(u64::from(HEADERS));
    let shorter = atomic::opaque((behind as i64 >> 63) as u64);
    atomic::opaque(u64::from(HEADERS).wrapping_add(behind & shorter))
}

/// Whether the linear part holds all that TCP over plain IPv4 or IPv6 is judged by.
#[inline(always)]
fn is_plain_tcp(start: usize, end: usize) -> bool {
    if start + 54 > end {
        return false;
    }
    // SAFETY: 54 bytes are there.
    let (kind, ipv4, ipv6) = unsafe {
        let byte = |at: usize| *((start + at) as *const u8);
        (u16::from_be_bytes([byte(12), byte(13)]), byte(23), byte(20))
    };
    (kind == 0x0800 && ipv4 == 6) || (kind == 0x86dd && ipv6 == 6 && start + 74 <= end)
}

impl Frame for Packet {
    type Window = Bytes;

    #[inline(always)]
    fn len(&self) -> u32 {
        self.len
    }

    #[inline(always)]
    fn merged(&self) -> bool {
        self.merged
    }

    #[inline(always)]
    fn tagged(&self) -> bool {
        self.tagged
    }

    #[inline(always)]
    fn window<const LEN: usize>(&self, offset: usize) -> Option<Bytes> {
        if offset > MAX_OFFSET {
            return None;
        }
        let at = self.start + offset;
        if at + LEN > self.end {
            None
        } else {
            Some(Bytes(at))
        }
    }
}

/// Checked packet bytes.
#[derive(Clone, Copy)]
pub struct Bytes(usize);

impl Window for Bytes {
    #[inline(always)]
    fn u8(self, at: usize) -> u8 {
        // SAFETY: the verifier refuses an access outside the checked window.
        unsafe { *((self.0 + at) as *const u8) }
    }

    #[inline(always)]
    fn half(self, at: usize) -> u16 {
        // SAFETY: as above; BPF loads need no alignment on the machines whose JIT takes them.
        unsafe { *((self.0 + at) as *const u16) }
    }

    #[inline(always)]
    fn word(self, at: usize) -> u32 {
        // SAFETY: as above.
        unsafe { *((self.0 + at) as *const u32) }
    }
}
