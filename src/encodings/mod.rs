//! Stored forms that are computed to numbers: quantised blocks and their like.
//!
//! Each implements [`crate::tensors::Encoding`]: it knows where its bytes lie, as the reader of a
//! format has checked them, and computes only those elements that are asked for. Which tensor has
//! which form is the format's business (src/source/), what it is for that of the matrices.

pub mod ggml;
