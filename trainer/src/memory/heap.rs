//! Memory that was freed, given back to the system.
//!
//! libtorch's tensors come and go by malloc, in a few sizes while an epoch's steps repeat each other, and in others
//! during an evaluation. Within an epoch what one step freed is what the next one asks for, and it is kept; at the
//! borders it is given back.

use std::ffi::c_long;

/// The allocator of the program and of libtorch. After a few steps glibc's holds up to two thirds more than was ever in
/// use at once, because aligned blocks of many sizes leave holes that the next ones do not fit.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc's option for how long freed memory is kept (`mi_option_purge_delay`), which its bindings do not name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// Milliseconds, longer than a step: what one step frees the next one asks for, and new pages cost up to a quarter of its
/// time.
const PLENTY: c_long = 1000;
/// Milliseconds where memory is scarce: mimalloc's own choice.
const SCARCE: c_long = 10;

/// Settles how long freed memory is kept: at the start of the program as if there were plenty, and again once it is known
/// to be scarce. What the environment says in MIMALLOC_PURGE_DELAY stands.
pub fn settle(is_scarce: bool) {
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
        let delay = if is_scarce { SCARCE } else { PLENTY };
        // SAFETY: two numbers, of an option that there is. It is one aligned word: another thread that frees memory in
        // this moment sees the old delay or the new one, and either will do.
        unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, delay) };
    }
}

/// Gives back what is free: for the borders of evaluations.
pub fn give_back() {
    // SAFETY: it takes a flag alone, may be called from any thread at any time, and touches no block in use.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
