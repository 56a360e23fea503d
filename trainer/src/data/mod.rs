//! Text with labels: from a file to the tensors of a batch.
//!
//! ```text
//! file ── readers ── Table ──┬─ Labels ── Targets ── subset (which rows) ──┐
//!                            └─ TextTokenizer ── Tokens ───────────────────┴─ Examples ── Batch
//! ```
//!
//! [`prepare`] does all of it. Rows that hold more than columns are read by superglue.rs, which makes tables of
//! them, by questions.rs, whose texts windows.rs divides, and by science.rs, which makes prompts. Everything random (which rows, in which order) comes from [`crate::random::Draws`], whose numbers are fixed by
//! its description, so that an interrupted run goes on in the same order with any later version.

mod examples;
mod guard;
mod labels;
mod language;
mod prepare;
mod questions;
pub mod readers;
mod record;
mod science;
pub mod subset;
mod superglue;
mod table;
mod tokenizer;
mod windows;

use rayon::prelude::*;

use crate::error::Result;

pub use examples::{Batch, Examples};
pub use labels::{Labels, Targets};
pub use language::{Asked, Dialogues, Prompted, PromptedExample, Query};
pub use prepare::{Layout, Prepared, Sources, prepare};
pub use questions::{Answer, Question, Questions};
pub use readers::{read, records};
pub use record::Record;
pub use science::Science;
pub use table::{About, Cell, Column, Columns, Table};
pub use tokenizer::{Stretch, TextTokenizer, Tokens, Window};
pub use windows::{Division, Part, Windows};

/// Collects what threads make, in order. Of several errors the first one in that order is told, whichever thread was
/// there first: collecting into a `Result` would tell any of them.
fn in_order<T: Send>(made: impl ParallelIterator<Item = Result<T>>) -> Result<Vec<T>> {
    let made: Vec<Result<T>> = made.collect();
    made.into_iter().collect()
}
