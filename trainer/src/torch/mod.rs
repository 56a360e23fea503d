//! What tch does not offer: CUDA that is found at run time, bfloat16 autocast, gradient checkpointing,
//! optimizers' fused kernels, bytes of any type.

mod bytes;
mod fused;
mod recomputed;
mod shim;

pub use bytes::{dtype, to_bytes};
pub use fused::{AdamRow, AdamStep, SgdRow, SgdStep, clear_gradients, norm, scale};
pub use recomputed::recomputed;
pub use shim::{Autocast, load_cuda};
