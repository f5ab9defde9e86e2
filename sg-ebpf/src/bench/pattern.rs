//! Which packets a benchmark sends: shared by the program that writes them and by the tool that
//! prepares policy and tables for them.

/// How the wrapper changes a frame before each run. Offsets are bytes from the start of the frame; 0
/// leaves a field alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pattern {
    /// State of the generator (xorshift64); never 0.
    pub state: u64,
    /// Next number, if `sequential`.
    pub counter: u32,
    /// 1: numbers come one after the other; 0: at random below `count`.
    pub sequential: u32,
    /// Different numbers, if drawn at random.
    pub count: u32,
    /// Offset of the lowest 32 bits of the remote address; with `prefixes`, of the whole address.
    pub address_at: u32,
    /// Its lowest value, host byte order.
    pub address: u32,
    /// Offset of the remote port, or of another 16-bit field that tells packets apart.
    pub port_at: u32,
    /// Its lowest value, host byte order.
    pub port: u32,
    /// Bits of the number that go into the port; the rest goes into the address.
    pub port_bits: u32,
    /// 0, or how many prefixes ([`prefix4`], [`prefix6`]) the remote address is drawn from.
    pub prefixes: u32,
    /// Rules that the prefixes are spread over, in order.
    pub rules: u32,
    /// 1: addresses are IPv6.
    pub ipv6: u32,
    /// With `prefixes`: offset of the local port, which becomes that of the prefix's rule.
    pub rule_port_at: u32,
    /// 0, or how many consecutive addresses the remote one is drawn from, whatever the number.
    pub addresses: u32,
    /// Zero.
    pub _reserved: u32,
}

/// Port of the first rule.
pub const RULE_PORT: u32 = 1000;
/// Bits of a rule's number that decide its port: rules share ports beyond that.
pub const RULE_PORT_BITS: u32 = 14;

/// Spreads numbers over 32 bits (multiplication by 2³²/φ, Knuth, TAOCP 3, §6.4).
#[inline(always)]
pub const fn spread(number: u32) -> u32 {
    number.wrapping_mul(0x9e37_79b1)
}

/// An IPv4 prefix in 64.0.0.0/3, of 20 to 27 bits: address in host byte order, and length.
#[inline(always)]
pub const fn prefix4(number: u32) -> (u32, u32) {
    let spread = spread(number);
    let length = 20 + (number & 7);
    (
        (0x4000_0000 | spread >> 3) & (u32::MAX << (32 - length)),
        length,
    )
}

/// An IPv6 prefix in 2a00::/12, of 40 to 47 bits: the first 64 bits of the address, and length.
#[inline(always)]
pub const fn prefix6(number: u32) -> (u64, u32) {
    let spread = spread(number) as u64;
    let length = 40 + (number & 7);
    (
        (0x2a00_0000_0000_0000 | spread << 20) & (u64::MAX << (64 - length)),
        length,
    )
}

/// Port of a rule.
#[inline(always)]
pub const fn rule_port(rule: u32) -> u32 {
    RULE_PORT + (rule & ((1 << RULE_PORT_BITS) - 1))
}
