//! What tch does not offer: CUDA that is found at run time, bfloat16 autocast, reproducible random numbers,
//! bytes of any type.

mod bytes;
mod random;
mod shim;

pub use bytes::{dtype, to_bytes};
pub use random::reseed;
pub use shim::{Autocast, load_cuda};
