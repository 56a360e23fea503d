//! Fine-tunes a checkpoint with layer-wise learning rates: the half of `evenkeel rebalance` that links
//! libtorch. Which rate a parameter gets is decided by the `evenkeel` library; here are the models, the
//! data, the optimizers, and the loop that brings them together.
//!
//! ```text
//! directory ── model ──┐
//!                      ├── Problem ── training (rates, optimizer, spectra) ── directory, logs
//! files ────── data ───┘
//! ```

pub mod base;
pub mod data;
pub mod error;
pub mod language;
pub mod memory;
pub mod model;
pub mod optimizer;
mod output;
pub mod picture;
pub mod random;
pub mod rebalance;
pub mod score;
mod summary;
pub mod text;
pub mod torch;
pub mod training;

pub use error::{Error, Result};
