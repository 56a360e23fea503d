//! What tch does not offer: CUDA that is found at run time, bfloat16 autocast, optimizers' fused
//! kernels, and errors as errors.

mod fused;
mod shim;

pub use fused::{AdamRow, AdamStep, SgdRow, SgdStep, clear_gradients, norm, scale};
pub use shim::{Autocast, load_cuda};
