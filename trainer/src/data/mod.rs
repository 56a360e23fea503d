//! Text with labels: from a file to the tensors of a batch.
//!
//! ```text
//! file ── readers ── Table ──┬─ Labels ── Targets ── subset (which rows) ──┐
//!                            └─ TextTokenizer ── Tokens ───────────────────┴─ Examples ── Batch
//! ```
//!
//! [`prepare`] does all of it. Everything random (which rows, in which order) comes from [`crate::random::Draws`], whose numbers are fixed by
//! its description, so that an interrupted run goes on in the same order with any later version.

mod examples;
mod guard;
mod labels;
mod language;
mod prepare;
pub mod readers;
pub mod subset;
mod table;
mod tokenizer;

pub use examples::{Batch, Examples};
pub use labels::{Labels, Targets};
pub use language::{Asked, Dialogues, Prompted, PromptedExample, Query};
pub use prepare::{Prepared, Sources, prepare};
pub use readers::read;
pub use table::{Cell, Column, Columns, Table};
pub use tokenizer::{TextTokenizer, Tokens};
