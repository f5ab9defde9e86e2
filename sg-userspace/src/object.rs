//! The eBPF object, embedded at build time.

/// The ELF object with programs, maps and BTF, aligned as an ELF parser needs it.
///
/// `None` if this build carries none, because it was made by plain `cargo build` before
/// `cargo xtask build` had built one: such a build cannot enforce anything.
pub fn bytes() -> Option<&'static [u8]> {
    #[cfg(ebpf_stub)]
    let object = None;
    #[cfg(not(ebpf_stub))]
    let object =
        Some(aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sg.bpf.o")) as &'static [u8]);
    object
}
