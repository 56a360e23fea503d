//! What tch does not offer: CUDA that is found at run time, bfloat16 autocast, and errors as errors.

mod shim;

pub use shim::{Autocast, load_cuda};
