//! Floors: programs that do less than enforcing a policy, with the kernel's own tables.

use aya_ebpf::{
    Global,
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_NOEXIST, TC_ACT_UNSPEC, xdp_action},
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, lpm_trie::Key},
    macros::{btf_map, classifier, xdp},
    programs::{TcContext, XdpContext},
};

/// What tells IPv4 flows apart.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Key4 {
    owner: u32,
    ports: u32,
    local: u32,
    remote: u32,
}

/// What tells IPv6 flows apart.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Key6 {
    owner: u32,
    ports: u32,
    local: [u32; 4],
    remote: [u32; 4],
}

const MAPPED: usize = BPF_F_MMAPABLE as usize;
const NO_EXIST: u64 = BPF_NOEXIST as u64;
const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map]
static HASH4: HashMap<Key4, u64, 1> = HashMap::new();
#[btf_map]
static HASH6: HashMap<Key6, u64, 1> = HashMap::new();
#[btf_map]
static ALLOCATING4: HashMap<Key4, u64, 1, NO_PREALLOC> = HashMap::new();
#[btf_map]
static ALLOCATING6: HashMap<Key6, u64, 1, NO_PREALLOC> = HashMap::new();
#[btf_map]
static LRU4: LruHashMap<Key4, u64, 1> = LruHashMap::new();
#[btf_map]
static LRU6: LruHashMap<Key6, u64, 1> = LruHashMap::new();
/// Elements as long as a tracked IPv4 flow with its account, none of which is ever written.
#[btf_map]
static ENTRIES4: Array<[u64; 8], 1, MAPPED> = Array::new();
#[btf_map]
static LPM4: LpmTrie<[u8; 4], u32, 1> = LpmTrie::new();
#[btf_map]
static LPM6: LpmTrie<[u8; 16], u32, 1> = LpmTrie::new();

/// How many `ENTRIES4` there are.
#[unsafe(no_mangle)]
static ENTRIES: Global<u32> = Global::new(1);

/// Whether the first and the last word of the element that a key is hashed to are what they always are.
#[inline(always)]
fn entry_is_there(key: Key4) -> bool {
    let number = u64::from(key.ports) << 32 | u64::from(u32::from_be(key.remote));
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let index = (spread * u64::from(ENTRIES.load())) >> 32;
    match ENTRIES4.get_ptr(index as u32) {
        // SAFETY: a valid element; volatile, or nothing would be read.
        Some(entry) => unsafe {
            let words = entry.cast::<u64>();
            core::ptr::read_volatile(words) | core::ptr::read_volatile(words.add(7)) == 0
        },
        None => false,
    }
}

/// The same, with 240 instructions between one packet's element and the next one's, four at a time: about as many
/// more than a floor has as it takes to judge a packet. A CPU looks only so many instructions ahead.
#[inline(always)]
fn far_entry_is_there(key: Key4) -> bool {
    #[cfg(target_arch = "bpf")]
    // SAFETY: registers change, and nothing else.
    unsafe {
        core::arch::asm!(
            ".rept 60",
            "{a} += 1",
            "{b} += 1",
            "{c} += 1",
            "{d} += 1",
            ".endr",
            a = inout(reg) 0_u64 => _,
            b = inout(reg) 0_u64 => _,
            c = inout(reg) 0_u64 => _,
            d = inout(reg) 0_u64 => _,
        );
    }
    entry_is_there(key)
}

/// Does nothing.
#[xdp(frags)]
pub fn xdp_empty(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Does nothing, at TC.
#[classifier]
pub fn tc_empty(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

macro_rules! on_flow {
    ($($(#[doc = $doc:literal])* $name:ident: $key:ident => $task:expr;)*) => {$(
        $(#[doc = $doc])*
        #[xdp(frags)]
        pub fn $name(ctx: XdpContext) -> u32 {
            let Some(key) = $key(&ctx) else {
                return xdp_action::XDP_ABORTED;
            };
            let task: fn(_) -> bool = $task;
            if task(key) { xdp_action::XDP_PASS } else { xdp_action::XDP_DROP }
        }
    )*};
}

on_flow! {
    /// Reads the headers of IPv4 and makes a flow's key.
    xdp_parse4: flow4 => |key: Key4| key.owner ^ key.ports ^ key.local ^ key.remote != 1;
    /// Reads the headers of IPv6 and makes a flow's key.
    xdp_parse6: flow6 => |key: Key6| key.owner ^ key.ports ^ key.local[0] ^ key.local[3] ^ key.remote[0] ^ key.remote[3] != 1;
    /// Looks an IPv4 flow up in a preallocated hash map.
    xdp_hash4: flow4 => |key| is_set(HASH4.get_ptr(key));
    /// Looks an IPv6 flow up in a preallocated hash map.
    xdp_hash6: flow6 => |key| is_set(HASH6.get_ptr(key));
    /// Looks an IPv4 flow up in a hash map that allocates.
    xdp_allocating4: flow4 => |key| is_set(ALLOCATING4.get_ptr(key));
    /// Looks an IPv6 flow up in a hash map that allocates.
    xdp_allocating6: flow6 => |key| is_set(ALLOCATING6.get_ptr(key));
    /// Looks an IPv4 flow up in an LRU hash map.
    xdp_lru4: flow4 => |key| is_set(LRU4.get_ptr(key));
    /// Looks an IPv6 flow up in an LRU hash map.
    xdp_lru6: flow6 => |key| is_set(LRU6.get_ptr(key));
    /// Inserts an IPv4 flow into a preallocated hash map.
    xdp_insert_hash4: flow4 => |key| HASH4.insert(key, 1, 0).is_ok();
    /// Inserts an IPv6 flow into a preallocated hash map.
    xdp_insert_hash6: flow6 => |key| HASH6.insert(key, 1, 0).is_ok();
    /// Inserts an IPv4 flow into a hash map that allocates.
    xdp_insert_allocating4: flow4 => |key| ALLOCATING4.insert(key, 1, 0).is_ok();
    /// Inserts an IPv6 flow into a hash map that allocates.
    xdp_insert_allocating6: flow6 => |key| ALLOCATING6.insert(key, 1, 0).is_ok();
    /// Inserts an IPv4 flow into an LRU hash map.
    xdp_insert_lru4: flow4 => |key| LRU4.insert(key, 1, 0).is_ok();
    /// Inserts an IPv6 flow into an LRU hash map.
    xdp_insert_lru6: flow6 => |key| LRU6.insert(key, 1, 0).is_ok();
    /// Deletes an IPv4 flow from a preallocated hash map.
    xdp_delete_hash4: flow4 => |key| HASH4.remove(key).is_ok();
    /// Deletes an IPv6 flow from a preallocated hash map.
    xdp_delete_hash6: flow6 => |key| HASH6.remove(key).is_ok();
    /// Deletes an IPv4 flow from a hash map that allocates.
    xdp_delete_allocating4: flow4 => |key| ALLOCATING4.remove(key).is_ok();
    /// Deletes an IPv6 flow from a hash map that allocates.
    xdp_delete_allocating6: flow6 => |key| ALLOCATING6.remove(key).is_ok();
    /// Reads an element of an array, as the least that any table costs whose entries are in memory.
    xdp_entry4: flow4 => entry_is_there;
    /// The same behind 240 instructions more.
    xdp_far_entry4: flow4 => far_entry_is_there;
    /// Opens a flow with the kernel's own tables: looks its source up in a longest-prefix trie and inserts it into a
    /// preallocated hash map, where it must not be.
    xdp_open4: flow4 => |key: Key4| {
        let source = Key::new(32, key.remote.to_ne_bytes());
        LPM4.get(&source).is_some_and(|class| *class != 0) && HASH4.insert(key, 1, NO_EXIST).is_ok()
    };
    /// Denies with the kernel's own tables: looks the flow up in a preallocated hash map, where it is not, and its source
    /// in a longest-prefix trie.
    xdp_deny4: flow4 => |key: Key4| {
        let source = Key::new(32, key.remote.to_ne_bytes());
        is_set(HASH4.get_ptr(key)) || LPM4.get(&source).is_some_and(|class| *class != 0)
    };
    /// Looks the source of IPv4 up in a longest-prefix trie.
    xdp_lpm4: source4 => |key| LPM4.get(&Key::new(32, key)).is_some_and(|class| *class != 0);
    /// Looks the source of IPv6 up in a longest-prefix trie.
    xdp_lpm6: source6 => |key| LPM6.get(&Key::new(128, key)).is_some_and(|class| *class != 0);
}

/// Whether an element is there, and read.
#[inline(always)]
fn is_set(value: Option<*const u64>) -> bool {
    // SAFETY: a valid element; one word is read, and nothing deletes meanwhile.
    value.is_some_and(|value| unsafe { *value } != 0)
}

/// Reads a value of the packet.
///
/// # Safety
/// The packet must hold `at` and what follows for the size of `T`.
#[inline(always)]
unsafe fn read<T>(start: usize, at: usize) -> T {
    // SAFETY: the caller's; nothing here is aligned.
    unsafe { ((start + at) as *const T).read_unaligned() }
}

/// TCP or UDP over plain IPv4, or nothing.
#[inline(always)]
fn flow4(ctx: &XdpContext) -> Option<Key4> {
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + 14 + 20 + 8 > end {
        return None;
    }
    // SAFETY: 42 bytes are there.
    unsafe {
        let protocol: u8 = read(start, 23);
        let header: u8 = read(start, 14);
        let total = u16::from_be(read(start, 16)) as usize;
        let fragment = u16::from_be(read(start, 20)) & 0x3fff;
        let ports = [u16::from_be(read(start, 34)), u16::from_be(read(start, 36))];
        if u16::from_be(read(start, 12)) != 0x0800
            || header != 0x45
            || total < 28
            || total > end - start - 14
            || fragment != 0
            || (protocol != 17 && (protocol != 6 || start + 14 + 20 + 20 > end))
        {
            return None;
        }
        Some(Key4 {
            owner: 1 << 8 | u32::from(protocol),
            ports: u32::from(ports[1]) << 16 | u32::from(ports[0]),
            local: read(start, 30),
            remote: read(start, 26),
        })
    }
}

/// TCP or UDP over plain IPv6, or nothing.
#[inline(always)]
fn flow6(ctx: &XdpContext) -> Option<Key6> {
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + 14 + 40 + 8 > end {
        return None;
    }
    // SAFETY: 62 bytes are there.
    unsafe {
        let protocol: u8 = read(start, 20);
        let version: u8 = read(start, 14);
        let payload = u16::from_be(read(start, 18)) as usize;
        let ports = [u16::from_be(read(start, 54)), u16::from_be(read(start, 56))];
        if u16::from_be(read(start, 12)) != 0x86dd
            || version >> 4 != 6
            || payload < 8
            || payload > end - start - 54
            || (protocol != 17 && (protocol != 6 || start + 14 + 40 + 20 > end))
        {
            return None;
        }
        Some(Key6 {
            owner: 1 << 8 | u32::from(protocol),
            ports: u32::from(ports[1]) << 16 | u32::from(ports[0]),
            local: read(start, 38),
            remote: read(start, 22),
        })
    }
}

/// Source address of IPv4.
#[inline(always)]
fn source4(ctx: &XdpContext) -> Option<[u8; 4]> {
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + 34 > end {
        return None;
    }
    // SAFETY: 34 bytes are there.
    Some(unsafe { read(start, 26) })
}

/// Source address of IPv6.
#[inline(always)]
fn source6(ctx: &XdpContext) -> Option<[u8; 16]> {
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + 54 > end {
        return None;
    }
    // SAFETY: 54 bytes are there.
    Some(unsafe { read(start, 22) })
}
