//! Read-modify-write on shared memory, the same on both sides.
//!
//! The BPF target has no `core::sync::atomic` with results below cpu v3, and LLVM 22 miscompiles a
//! relaxed fetch-add whose result is used (llvm/llvm-project#210280), so the kernel side is inline
//! assembly: it runs on every supported kernel whatever the cpu level.
//!
//! All operations are sequentially consistent. Plain loads and stores of aligned words go through
//! [`load`] and [`store`]: they are single instructions and never torn, but order nothing.

/// The same value, of which the compiler must not assume anything: it keeps a check that only the
/// verifier needs, and arithmetic that would else become branches for the verifier to follow.
#[inline(always)]
pub fn opaque(value: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut value = value;
        // SAFETY: copies a register onto itself. (An empty template would leave two line records at
        // one instruction, which the kernel refuses.)
        unsafe {
            core::arch::asm!("{v} = {v}", v = inout(reg) value, options(pure, nomem, nostack));
        }
        value
    }
    #[cfg(not(target_arch = "bpf"))]
    value
}

/// Reads an aligned word that others may write.
///
/// # Safety
/// `word` must be valid and aligned.
#[inline(always)]
pub unsafe fn load<W: Copy>(word: *const W) -> W {
    // SAFETY: the caller's promise; volatile keeps it one access.
    unsafe { core::ptr::read_volatile(word) }
}

/// Writes an aligned word that others may read.
///
/// # Safety
/// `word` must be valid and aligned.
#[inline(always)]
pub unsafe fn store<W: Copy>(word: *mut W, value: W) {
    // SAFETY: the caller's promise; volatile keeps it one access.
    unsafe { core::ptr::write_volatile(word, value) }
}

/// Adds `value` and answers what stood there before.
///
/// # Safety
/// `word` must be valid and aligned.
#[inline(always)]
pub unsafe fn fetch_add(word: *mut u64, value: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut result = value;
        // SAFETY: the caller's promise about `word`.
        unsafe {
            core::arch::asm!(
                "{v} = atomic_fetch_add((u64 *)({p} + 0), {v})",
                p = in(reg) word,
                v = inout(reg) result,
            );
        }
        result
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        // SAFETY: the caller's promise; all concurrent writers use this module.
        unsafe { core::sync::atomic::AtomicU64::from_ptr(word) }
            .fetch_add(value, core::sync::atomic::Ordering::SeqCst)
    }
}

/// Adds `value`.
///
/// # Safety
/// `word` must be valid and aligned.
#[inline(always)]
pub unsafe fn add(word: *mut u64, value: u64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the caller's promise about `word`.
    unsafe {
        core::arch::asm!("lock *(u64 *)({p} + 0) += {v}", p = in(reg) word, v = in(reg) value);
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's promise.
    unsafe {
        fetch_add(word, value);
    }
}

/// Subtracts `value`.
///
/// # Safety
/// `word` must be valid and aligned.
#[inline(always)]
pub unsafe fn sub(word: *mut u64, value: u64) {
    // SAFETY: the caller's promise.
    unsafe { add(word, value.wrapping_neg()) }
}

/// Stores `new` if `old` stands there; answers whether it did.
///
/// # Safety
/// `word` must be valid and aligned.
#[inline(always)]
pub unsafe fn compare_exchange(word: *mut u64, old: u64, new: u64) -> bool {
    #[cfg(target_arch = "bpf")]
    {
        let mut seen = old;
        // SAFETY: the caller's promise about `word`.
        unsafe {
            core::arch::asm!(
                "r0 = cmpxchg_64({p} + 0, r0, {n})",
                p = in(reg) word,
                n = in(reg) new,
                inout("r0") seen,
            );
        }
        seen == old
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
        // SAFETY: the caller's promise; all concurrent writers use this module.
        unsafe { AtomicU64::from_ptr(word) }
            .compare_exchange(old, new, SeqCst, SeqCst)
            .is_ok()
    }
}
