//! Memory that was freed, given back to the system.
//!
//! libtorch's tensors come and go by malloc, in a few sizes while an epoch's steps repeat each other, and in others
//! during an evaluation. Within an epoch what one step freed is what the next one asks for; at the borders it is not.

/// The allocator of the program and of libtorch. After a few steps glibc's holds up to two thirds more than was ever in
/// use at once, because aligned blocks of many sizes leave holes that the next ones do not fit.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Gives back what is free: for the borders of evaluations.
pub fn give_back() {
    // SAFETY: it takes a flag alone, may be called from any thread at any time, and touches no block in use.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
