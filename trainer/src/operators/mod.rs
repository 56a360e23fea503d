//! Neural operators: FNO (Li et al. 2021) and UNet in one and two dimensions, as PDEBench's baselines
//! (Takamoto et al. 2022) have them. They take the state of a field at some moments and give the next one.
//!
//! ```text
//! --init, config.json, or the tensors themselves ── Config ──┐
//! a seed, or a checkpoint ── Weights ────────────────────────┴── Network (fno.rs, unet.rs) ── directory
//! ```
//!
//! Parameters have PDEBench's names. Complex weights are trained as pairs of real numbers, because an optimizer's
//! second moments are not those of complex numbers; files hold them as complex numbers.

mod config;
mod convolution;
mod directory;
mod fno;
mod network;
mod unet;
mod weights;

pub use config::{Architecture, Config};
pub use directory::Source;
pub use network::Network;
