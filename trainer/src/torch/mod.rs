//! What tch does not offer: CUDA that is found at run time, bfloat16 autocast, gradient checkpointing,
//! and errors as errors.

mod recomputed;
mod shim;

pub use recomputed::recomputed;
pub use shim::{Autocast, forget_gradient, load_cuda};
