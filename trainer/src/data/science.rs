//! ScienceQA (Lu et al. 2022) for a language model, with a text for context: its `problems.json` and
//! `pid_splits.json`, or Parquet or JSON lines with the columns of the release on the Hugging Face hub.
//!
//! ```text
//! Question: Which of these is a mammal?
//! Context: Mammals feed their young with milk.
//! Options: (A) a trout (B) a bat (C) a wren
//! Answer: B
//! ```
//!
//! The order is the authors' "QCM→A". The model learns the letter after `Answer:`, and answers with the letter that
//! it takes for the likeliest of those that there are. A question without a hint has the context `N/A`, as the
//! authors write it; pictures are not shown.

use std::path::Path;

use evenkeel::rebalance::options::TextData;
use evenkeel::text::count;
use serde_json::Value;

use super::labels::Targets;
use super::language::PromptedExample;
use super::readers::{object, records};
use super::record::Record;
use super::subset::{choose, hold_back};
use super::table::malformed;
use crate::error::Result;

/// The file beside `problems.json` that says which problem is learned from.
const SPLITS: &str = "pid_splits.json";

/// What is learned from.
const TRAIN: &str = "train";

/// Questions as prompts.
#[derive(Clone, Debug)]
pub struct Science {
    /// To learn from.
    pub train: Vec<PromptedExample>,
    /// To evaluate on.
    pub eval: Vec<PromptedExample>,
    /// What a user should know.
    pub notes: Vec<String>,
}

impl Science {
    /// Reads what the options name, and takes the part of it that they want. A `problems.json` holds what is
    /// learned from and what is evaluated on, so that it needs no second file.
    ///
    /// # Errors
    /// Those of reading; a question whose answer is none of its choices; parts that are out of range.
    pub fn read(data: &TextData, seed: u64) -> Result<Science> {
        let train = Problems::read(&data.train, TRAIN)?;
        let eval = match &data.eval {
            Some(path) => Some(Problems::read(path, &data.eval_split)?),
            None if is_whole(&data.train) => Some(Problems::read(&data.train, &data.eval_split)?),
            None => None,
        };
        let (mut train, eval) = match eval {
            Some(eval) => (train, eval),
            None => {
                let any = Targets::Values(vec![0.0; train.examples.len()]);
                let (rest, held) = hold_back(&any, data.eval_fraction, seed)?;
                (train.select(&rest), train.select(&held))
            }
        };
        if data.subsample.ratio != 1.0 {
            let any = Targets::Values(vec![0.0; train.examples.len()]);
            train = train.select(&choose(&any, data.subsample.ratio, data.subsample.choice, seed)?);
        }
        let notes = [(&train, "training"), (&eval, "evaluation")].into_iter().filter_map(|(part, what)| {
            let pictures = part.pictures.iter().filter(|has| **has).count();
            let questions = count(pictures, "question has", "questions have");
            (pictures > 0).then(|| {
                format!(
                    "{questions} a picture, of {} {what} questions: the model is shown the text alone.",
                    part.examples.len()
                )
            })
        });
        let notes = notes.collect();
        Ok(Science { train: train.examples, eval: eval.examples, notes })
    }
}

/// Whether a file is one object with all problems.
fn is_whole(path: &Path) -> bool {
    path.extension().is_some_and(|suffix| suffix.eq_ignore_ascii_case("json"))
}

/// What was read of a file.
#[derive(Clone, Debug, Default)]
struct Problems {
    examples: Vec<PromptedExample>,
    /// Which of them have a picture.
    pictures: Vec<bool>,
}

impl Problems {
    fn read(path: &Path, split: &str) -> Result<Problems> {
        let mut read = Problems::default();
        if is_whole(path) {
            read.split_of(path, split)?;
        } else {
            let fields = ["question", "choices", "answer", "hint", "image.path"];
            records(path, &fields, &mut |row| read.push(row))?;
        }
        Ok(read)
    }

    fn select(&self, rows: &[usize]) -> Problems {
        Problems {
            examples: rows.iter().filter_map(|row| self.examples.get(*row).cloned()).collect(),
            pictures: rows.iter().filter_map(|row| self.pictures.get(*row).copied()).collect(),
        }
    }

    /// The problems of one part of a `problems.json`: those that `pid_splits.json` beside it lists, or those that
    /// say so themselves.
    fn split_of(&mut self, path: &Path, split: &str) -> Result<()> {
        let problems = object(path)?;
        let mut push =
            |id: &str, problem: &Value| self.push(&Record::new(path, format!("problem {id}"), problem));
        let splits = path.with_file_name(SPLITS);
        if splits.is_file() {
            let lists = object(&splits)?;
            for id in Record::new(&splits, "the file".to_owned(), &lists).texts(split)? {
                let problem = problems.get(id).ok_or_else(|| {
                    malformed(path, format!("there is no problem `{id}`, which {SPLITS} lists for {split}."))
                })?;
                push(id, problem)?;
            }
        } else {
            let all = problems.as_object().into_iter().flatten();
            for (id, problem) in
                all.filter(|(_, problem)| problem.get("split").is_some_and(|own| own == split))
            {
                push(id, problem)?;
            }
        }
        if self.examples.is_empty() {
            return Err(malformed(path, format!("there is no problem of the split {split}.")));
        }
        Ok(())
    }

    fn push(&mut self, row: &Record) -> Result<()> {
        let choices = row.texts("choices")?;
        let right = row.count("answer")?;
        if right >= choices.len() {
            return Err(
                row.wrong("answer", &format!(" is {right}, but there are {} choices.", choices.len()))
            );
        }
        if choices.len() > usize::from(b'Z' - b'A') + 1 {
            return Err(
                row.wrong("choices", &format!(" has {}, more than there are letters.", choices.len()))
            );
        }
        let hint = row.text_if_any("hint")?.trim();
        let context = if hint.is_empty() { "N/A" } else { hint };
        let options: Vec<String> =
            letters().zip(&choices).map(|(letter, choice)| format!("({letter}) {choice}")).collect();
        let prompt = format!(
            "Question: {}\nContext: {context}\nOptions: {}\nAnswer:",
            row.text("question")?.trim(),
            options.join(" ")
        );
        let candidates: Vec<String> =
            letters().take(choices.len()).map(|letter| format!(" {letter}")).collect();
        let answer = candidates.get(right).cloned().unwrap_or_default();
        self.pictures.push(row.is_there("image"));
        self.examples.push(PromptedExample { prompt, answer, candidates, right });
        Ok(())
    }
}

fn letters() -> impl Iterator<Item = char> {
    'A'..='Z'
}
