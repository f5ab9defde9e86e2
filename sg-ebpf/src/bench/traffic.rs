//! What the generator sends: which flow a packet belongs to, and what tells flows apart. xtask compiles
//! this file, too, and writes what stands here into the generator's map.

/// What to send next; host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Number of the next packet's flow; or state of the random choice of it, other than 0.
    pub next: u64,
    /// Flows to choose from at random, a power of two, less one; 0: one flow after the other.
    pub mask: u32,
    /// Prefixes that remote addresses are in; at most [`MAX_PREFIXES`].
    pub prefixes: u32,
    /// 1: addresses between the prefixes instead.
    pub beside: u32,
    /// 1: packets to the remote address instead of from it.
    pub reply: u32,
    /// One's complement sum of the IPv4 header's 16-bit words (RFC 1071) without checksum and remote address.
    pub sum: u32,
    /// How often to read the clock before a packet, for nothing but the time that takes; at most
    /// [`MAX_PAUSE`].
    pub pause: u32,
    /// Headers of every packet, as they stand in the frame; what varies is written over them.
    pub headers: [u64; HEADER_WORDS],
}

/// Readings of the clock: some microseconds.
pub const MAX_PAUSE: u32 = 256;

/// Words of 8 bytes that hold Ethernet, IPv4 without options and UDP: 42 bytes, and 6 of payload.
pub const HEADER_WORDS: usize = 6;

/// Prefixes of 24 bits, one beside each, within 10.0.0.0/8.
#[allow(dead_code, reason = "xtask alone asks")]
pub const MAX_PREFIXES: u32 = 1 << 15;

/// Flows whose remote address and port differ whatever prefix they are in.
#[allow(dead_code, reason = "xtask alone asks")]
pub const MAX_FLOWS: u32 = 1 << 23;

/// Remote address and port of a flow: any prefix, picked by a multiplicative hash of the number.
#[inline(always)]
pub fn remote(stream: &Stream, flow: u32) -> (u32, u16) {
    let hash = flow.wrapping_mul(0x9e37_79b1) >> 16;
    let prefix = (hash * stream.prefixes) >> 16;
    let address = 10 << 24 | (2 * prefix + stream.beside) << 8 | (flow >> 15 & 0xff);
    (address, 0x8000 | (flow & 0x7fff) as u16)
}

/// Number of the next packet's flow.
#[inline(always)]
pub fn next(stream: &mut Stream) -> u32 {
    if stream.mask == 0 {
        let flow = stream.next as u32;
        stream.next += 1;
        return flow;
    }
    // xorshift64, Marsaglia 2003.
    let mut state = stream.next;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    stream.next = state;
    (state >> 32) as u32 & stream.mask
}

/// Checksum of the IPv4 header with this remote address.
#[inline(always)]
pub fn checksum(stream: &Stream, address: u32) -> u16 {
    let sum = stream.sum + (address >> 16) + (address & 0xffff);
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}
