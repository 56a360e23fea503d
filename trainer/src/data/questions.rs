//! Questions whose answers are parts of a text: SQuAD (Rajpurkar et al. 2016), as the JSON of the original
//! release, or as Parquet or JSON lines with the columns of the one on the Hugging Face hub.

use std::collections::HashMap;
use std::path::Path;

use super::readers::{object, records};
use super::record::Record;
use super::table::malformed;
use crate::error::Result;

/// All questions of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Questions {
    /// The texts that are asked about.
    pub contexts: Vec<String>,
    /// The questions, in the order of the file.
    pub questions: Vec<Question>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The question.
    pub text: String,
    /// The place of its context.
    pub context: usize,
    /// Right answers: several people's. All of them count in an evaluation, the first one is learned.
    pub answers: Vec<Answer>,
}

/// A part of a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its words.
    pub text: String,
    /// Where it begins, in characters.
    pub start: usize,
}

impl Questions {
    /// Reads a file.
    ///
    /// # Errors
    /// Those of reading; a question without an answer.
    pub fn read(path: &Path) -> Result<Questions> {
        let mut all = Reading::default();
        if path.extension().is_some_and(|suffix| suffix.eq_ignore_ascii_case("json")) {
            all.articles(&Record::new(path, "the file".to_owned(), &object(path)?))?;
        } else {
            records(path, &["context", "question", "answers"], &mut |row| all.row(row))?;
        }
        if all.made.questions.is_empty() {
            return Err(malformed(path, "there is no question."));
        }
        Ok(all.made)
    }

    /// Only some of the questions.
    pub fn select(&self, rows: &[usize]) -> Questions {
        Questions {
            contexts: self.contexts.clone(),
            questions: rows.iter().filter_map(|row| self.questions.get(*row).cloned()).collect(),
        }
    }
}

/// What has been read so far; a context that many rows repeat is kept once.
#[derive(Default)]
struct Reading {
    made: Questions,
    places: HashMap<String, usize>,
}

impl Reading {
    /// The original release: articles, their paragraphs, the questions about each.
    fn articles(&mut self, file: &Record) -> Result<()> {
        for article in file.objects("data")? {
            for paragraph in article.objects("paragraphs")? {
                let context = self.context(paragraph.text("context")?);
                for question in paragraph.objects("qas")? {
                    let answers = question.objects("answers")?;
                    let answers = answers
                        .iter()
                        .map(|answer| Ok((answer.text("text")?.to_owned(), answer.count("answer_start")?)))
                        .collect::<Result<Vec<_>>>()?;
                    self.push(&question, context, answers)?;
                }
            }
        }
        Ok(())
    }

    /// The hub's release: a question a row, its answers as two lists.
    fn row(&mut self, row: &Record) -> Result<()> {
        let context = self.context(row.text("context")?);
        let answers = row.object("answers")?;
        let (texts, starts) = (answers.texts("text")?, answers.counts("answer_start")?);
        if texts.len() != starts.len() {
            return Err(row.wrong("answers", ": there are not as many beginnings as texts."));
        }
        self.push(row, context, texts.into_iter().map(str::to_owned).zip(starts).collect())
    }

    fn context(&mut self, text: &str) -> usize {
        if let Some(place) = self.places.get(text) {
            return *place;
        }
        let place = self.made.contexts.len();
        self.made.contexts.push(text.to_owned());
        self.places.insert(text.to_owned(), place);
        place
    }

    fn push(&mut self, row: &Record, context: usize, answers: Vec<(String, usize)>) -> Result<()> {
        if answers.is_empty() {
            let reason = " is empty: this is a test set, or a later version of SQuAD, whose questions may have no \
                          answer.";
            return Err(row.wrong("answers", reason));
        }
        let answers = answers.into_iter().map(|(text, start)| Answer { text, start }).collect();
        self.made.questions.push(Question {
            text: row.text("question")?.trim_start().to_owned(),
            context,
            answers,
        });
        Ok(())
    }
}
