//! Memory that was freed, given back to the system.
//!
//! libtorch's tensors come and go by malloc, in a few sizes while an epoch's steps repeat each other, and in others
//! during an evaluation. Within an epoch what one step freed is what the next one asks for, and it is kept, unless memory is
//! scarce; at the borders it is given back.

use std::ffi::c_long;

/// The allocator of the program and of libtorch. After a few steps glibc's holds up to two thirds more than was ever in
/// use at once, because aligned blocks of many sizes leave holes that the next ones do not fit.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc's option for how long freed memory is kept (`mi_option_purge_delay`), which its bindings do not name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// Milliseconds (mimalloc takes ten times that for whole segments), longer than a step: what one step frees the next one asks
/// for, and with new pages a step takes 1.3 times as long.
const PLENTY: c_long = 1000;
/// Milliseconds where memory is scarce: mimalloc's own choice.
const SCARCE: c_long = 10;

/// Settles how long freed memory is kept, unless the environment says (MIMALLOC_PURGE_DELAY). Before anything else, and
/// before other threads.
pub fn settle() {
    // SAFETY: two numbers, of an option that there is; nobody reads it at the same time.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, PLENTY) };
}

/// From now on gives freed memory back soon, unless the environment says how long it is kept.
pub fn spare() {
    // SAFETY: numbers of an option that there is. It is one aligned word: another thread that frees memory in this moment
    // sees the old delay or the new one, and either will do.
    unsafe {
        if libmimalloc_sys::mi_option_get(PURGE_DELAY) == PLENTY {
            libmimalloc_sys::mi_option_set(PURGE_DELAY, SCARCE);
        }
    }
    // What was freed before would wait for its old time.
    give_back();
}

/// Gives back what is free: for the borders of evaluations.
pub fn give_back() {
    // SAFETY: it takes a flag alone, may be called from any thread at any time, and touches no block in use.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
