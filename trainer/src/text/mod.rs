//! Texts as a [`Problem`]: a pretrained encoder with a head, and what it learns from.
//!
//! | module | examples | head |
//! |---|---|---|
//! | labels.rs | texts with labels or numbers, words in context, a choice of texts, answers to judge | labels, words, choice |
//! | spans.rs | questions and the texts that hold their answers | span |
//!
//! encoder.rs is what both do alike: pass examples through the model, and sum up what it takes. Prompts for a
//! language model are those of language.rs.

mod answers;
mod encoder;
mod labels;
mod spans;

use evenkeel::rebalance::options::{Options, TextData};
use evenkeel::rebalance::presets::{Form, Preset};
use tch::Device;

use crate::data::Science;
use crate::error::Result;
use crate::language::Language;
use crate::training::Problem;

pub use answers::Answers;
pub use labels::Labelled;
pub use spans::Spans;

/// Reads model and data, and checks that they belong together. Returns what a user should know, too.
///
/// # Errors
/// Whatever does not fit, before anything is trained.
pub fn open(options: &Options, data: &TextData, device: Device) -> Result<(Box<dyn Problem>, Vec<String>)> {
    let preset = data.preset.as_deref().and_then(Preset::named);
    match preset.map_or(Form::Texts, |preset| preset.form) {
        Form::Spans => Spans::open(options, data, device).map(|(spans, notes)| (Box::new(spans) as _, notes)),
        Form::Letters => {
            let Science { train, eval, mut notes } = Science::read(data, options.training.seed)?;
            if let (true, Some(example)) = (options.dry_run, train.first()) {
                let (prompt, answer) = (&example.prompt, &example.answer);
                notes.push(format!("The first prompt, with what is to be said:\n\n{prompt}{answer}\n"));
            }
            let (language, more) = Language::new(options, &train, &eval, data.max_length, device)?;
            notes.extend(more);
            Ok((Box::new(language), notes))
        }
        form => Labelled::open(options, data, form, device)
            .map(|(labelled, notes)| (Box::new(labelled) as _, notes)),
    }
}
