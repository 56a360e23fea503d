//! What tch does not offer: CUDA that is found at run time and the memory it has left, bfloat16 autocast, gradient checkpointing,
//! optimizers' fused kernels, bytes of any type.

mod bytes;
mod fused;
mod recomputed;
mod shim;

pub use bytes::{dtype, to_bytes};
pub use fused::{AdamRow, AdamStep, SgdRow, SgdStep, clear_gradients, norm, scale};
pub use recomputed::recomputed;
pub use shim::{Autocast, free_memory, load_cuda};

/// Whether libtorch has kernels for BF16 on this processor, as far as is known: on x86-64 it asks for parts of AVX-512, and without
/// them a product in BF16 was seen to take more than ten times as long as one in F32.
pub fn has_bf16_kernels() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    #[cfg(not(target_arch = "x86_64"))]
    true
}
