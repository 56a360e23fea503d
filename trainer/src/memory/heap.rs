//! Memory that was freed, given back to the system.
//!
//! libtorch's tensors come and go by malloc, in a few sizes while an epoch's steps repeat each other, and in others
//! during an evaluation. Within an epoch what one step freed is what the next one asks for, and it is kept; at the
//! borders it is given back.

/// The allocator of the program and of libtorch. After a few steps glibc's holds up to two thirds more than was ever in
/// use at once, because aligned blocks of many sizes leave holes that the next ones do not fit.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc's option for how long freed memory is kept (`mi_option_purge_delay`), which its bindings do not name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// Longer than a step: what one step frees the next one asks for, and new pages cost a sixth of its time.
const MILLISECONDS: std::ffi::c_long = 1000;

/// Settles how long freed memory is kept, unless MIMALLOC_PURGE_DELAY says. Before anything else, and before other threads.
pub fn settle() {
    // SAFETY: two numbers, of an option that there is; nobody reads it at the same time.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, MILLISECONDS) };
}

/// Gives back what is free: for the borders of evaluations.
pub fn give_back() {
    // SAFETY: it takes a flag alone, may be called from any thread at any time, and touches no block in use.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
