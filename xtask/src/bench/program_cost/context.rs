//! What BPF_PROG_TEST_RUN may be told of a frame besides its bytes (`include/uapi/linux/bpf.h`).

/// `struct __sk_buff`. The kernel takes `ifindex`, `gso_segs` and `gso_size` from it, besides some
/// that do not matter here, and wants the rest to be zero.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct SkBuff {
    _before: [u32; 10],
    /// The device the frame is on, in the caller's network namespace.
    ifindex: u32,
    _between: [u32; 30],
    /// Packets that the frame stands for; 0 and 1 are the same.
    gso_segs: u32,
    _socket: u64,
    /// Payload of each of them; 0: the frame is one packet.
    gso_size: u32,
    _after: [u32; 3],
}

const _: () = {
    assert!(std::mem::offset_of!(SkBuff, ifindex) == 40);
    assert!(std::mem::offset_of!(SkBuff, gso_segs) == 164);
    assert!(std::mem::offset_of!(SkBuff, gso_size) == 176);
    assert!(size_of::<SkBuff>() == 192);
};

/// `struct xdp_md`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct XdpMd {
    /// Start of the frame in the bytes given: no metadata stands before it.
    _data: u32,
    /// Length of the frame.
    data_end: u32,
    _data_meta: u32,
    /// The device the frame came in by, in the caller's network namespace.
    ingress_ifindex: u32,
    _rx_queue_index: u32,
    _egress_ifindex: u32,
}

const _: () = {
    assert!(std::mem::offset_of!(XdpMd, ingress_ifindex) == 12);
    assert!(size_of::<XdpMd>() == 24);
};

/// The bytes that are handed over.
pub(crate) trait Context: Copy {
    /// All fields, in memory order.
    fn bytes(&self) -> &[u8];
}

macro_rules! context {
    ($($name:ty),*) => {
        $(impl Context for $name {
            fn bytes(&self) -> &[u8] {
                // SAFETY: integers without padding between them (asserted by size and offsets).
                unsafe {
                    std::slice::from_raw_parts(std::ptr::from_ref(self).cast(), size_of::<Self>())
                }
            }
        })*
    };
}

context!(SkBuff, XdpMd);

impl SkBuff {
    /// A frame on a device.
    pub(crate) fn on(ifindex: u32) -> Self {
        Self {
            ifindex,
            ..Self::default()
        }
    }
}

impl XdpMd {
    /// A frame of `len` bytes that came in by a device.
    pub(crate) fn new(ingress_ifindex: u32, len: u32) -> Self {
        Self {
            data_end: len,
            ingress_ifindex,
            ..Self::default()
        }
    }
}
