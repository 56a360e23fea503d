//! Audits neural-network checkpoints: per block PL_Alpha_Hill, spectral norm and stable rank, and
//! how unevenly the blocks are trained (the standard deviation of alpha across blocks).
//!
//! The theory is heavy-tailed self-regularization: the eigenvalues of WᵀW of a well-trained layer
//! have a power-law tail, and its exponent alpha tells how far the layer has come. "Model Balancing
//! Helps Low-data Training and Fine-tuning" (arXiv 2410.12178) measures by it how unevenly a model
//! is trained.
//!
//! The stages, each a module, in the direction of the data:
//!
//! | stage | from → to |
//! |---|---|
//! | [`source`] | a path → an open checkpoint |
//! | [`quantised`] | weights stored over several tensors → one tensor each |
//! | adapters | a checkpoint and LoRA adapters → the adapted tensors |
//! | [`tensors`] | its names, types and bytes → numbers (quantised ones by [`encodings`]) |
//! | [`matrices`] | tensors → the weight matrices in them |
//! | [`spectrum`] | a matrix → its eigenvalues |
//! | [`metrics`] | eigenvalues → alpha, norms, ranks |
//! | [`blocks`] | names → blocks; numbers of matrices → numbers of blocks |
//! | [`report`] | plain data → table, JSON, CSV, Markdown |
//! | [`gate`] | a report and thresholds → findings |
//!
//! [`balance`] turns the numbers of blocks into learning rates, and [`rebalance`] has what the trainer is
//! told; neither needs libtorch.
//!
//! [`analyze`] runs them in order. Checkpoints are untrusted: nothing in them is executed, every
//! length is checked before it is used, and no input makes the library panic.

mod adapters;
pub mod analysis;
pub mod balance;
pub mod blocks;
pub mod encodings;
pub mod error;
pub mod gate;
pub mod matrices;
pub mod metrics;
pub mod quantised;
pub mod rebalance;
pub mod report;
pub mod source;
pub mod spectrum;
pub mod tensors;
pub mod text;

pub use analysis::{Granularity, Progress, Settings, Silent, analyze, analyze_gated, inventory};
pub use error::{Error, Result};
pub use gate::Thresholds;
pub use report::Report;
pub use source::{Checkpoint, OpenOptions};
