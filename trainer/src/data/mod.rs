//! Text with labels: from a file to the tensors of a batch.
//!
//! ```text
//! file ── readers ── Table ──┬─ Labels ── Targets ── subset (which rows) ──┐
//!                            └─ TextTokenizer ── Tokens ───────────────────┴─ Examples ── Batch
//! ```
//!
//! [`prepare`] does all of it. Rows that hold more than columns are read by superglue.rs, which makes tables of
//! them, by questions.rs, whose texts windows.rs divides, and by science.rs, which makes prompts. Everything random
//! (which rows, in which order) comes from [`crate::random::Draws`], whose numbers are fixed by its description, so
//! that an interrupted run goes on in the same order with any later version.

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
pub(crate) use labels::listed;
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use rayon::ThreadPoolBuilder;
    use rayon::prelude::*;

    use super::in_order;
    use crate::error::{Error, Result};

    #[test]
    fn the_first_error_is_told_although_a_later_one_was_made_earlier() {
        let (sender, receiver) = channel();
        let receiver = Mutex::new(receiver);
        let make = |place: usize| -> Result<()> {
            if place == 0 {
                // Long after the other thread has failed.
                receiver.lock().unwrap().recv_timeout(Duration::from_secs(60)).unwrap();
                std::thread::sleep(Duration::from_millis(50));
            } else {
                sender.send(()).unwrap();
            }
            Err(Error::Option(format!("place {place}")))
        };
        let pool = ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let made = pool.install(|| in_order((0..2).into_par_iter().map(make)));
        assert_eq!(made.unwrap_err().to_string(), "place 0");
    }
}
