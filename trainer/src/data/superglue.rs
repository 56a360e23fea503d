//! The tasks of SuperGLUE (Wang et al. 2019) that are more than a text or two with a label: words in context,
//! a choice of two texts, and answers to questions about a passage. As JSON lines of the original release, or
//! as Parquet of the one on the Hugging Face hub.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use super::readers::records;
use super::record::Record;
use super::table::{About, Cell, Column, Columns, Table};
use crate::error::Result;

const LABEL: &str = "label";

fn table(path: &Path) -> Table {
    let columns = Columns {
        text: Column::new("text"),
        pair: Some(Column::new("pair")),
        label: Column::new(LABEL),
        header: None,
    };
    Table::new(path, &columns)
}

/// WiC: two sentences with a word of each, and whether it means the same. Where the words stand is told in
/// characters.
///
/// # Errors
/// Those of reading; a word that does not lie in its sentence.
pub fn words(path: &Path) -> Result<Table> {
    let mut table = table(path);
    let fields = ["sentence1", "sentence2", "start1", "end1", "start2", "end2", LABEL];
    records(path, &fields, &mut |row| {
        let word = |text: &str, start: &str, end: &str| {
            let range = row.count(start)?..row.count(end)?;
            bytes_of(text, range).ok_or_else(|| row.wrong(end, ": the word does not lie in the sentence."))
        };
        let (first, second) = (row.text("sentence1")?, row.text("sentence2")?);
        table.words.push([word(first, "start1", "end1")?, word(second, "start2", "end2")?]);
        table.push(first.to_owned(), Some(second.to_owned()), row.label(LABEL)?);
        Ok(())
    })?;
    Ok(table)
}

/// The bytes of a range of characters that holds one at least.
fn bytes_of(text: &str, characters: Range<usize>) -> Option<Range<usize>> {
    let ends = |character: usize| {
        text.char_indices().map(|(byte, _)| byte).chain(std::iter::once(text.len())).nth(character)
    };
    let (start, end) = (ends(characters.start)?, ends(characters.end)?);
    (start < end).then_some(start..end)
}

/// COPA: a premise, and which of two sentences is its cause or its effect. What is asked for follows the
/// premise, in the words in which COPA itself asks (Roemmele et al. 2011).
///
/// # Errors
/// Those of reading; a question that is neither.
pub fn choices(path: &Path) -> Result<Table> {
    let mut table = table(path);
    table.choices = 2;
    records(path, &["premise", "question", "choice1", "choice2", LABEL], &mut |row| {
        let asked = match row.text("question")? {
            "cause" => "What was the cause of this?",
            "effect" => "What happened as a result?",
            _ => return Err(row.wrong("question", " is neither cause nor effect.")),
        };
        let seconds = [row.text("choice1")?, row.text("choice2")?].map(str::to_owned);
        table.texts.push(format!("{} {asked}", row.text("premise")?));
        table.pairs.get_or_insert_default().extend(seconds);
        table.labels.push(row.label(LABEL)?);
        Ok(())
    })?;
    Ok(table)
}

/// MultiRC: whether an answer to a question about a passage is right. A row is an answer; its first text is
/// the passage, its second one question and answer.
///
/// # Errors
/// Those of reading.
pub fn answers(path: &Path) -> Result<Table> {
    let mut table = table(path);
    let mut numbers = Numbers::default();
    records(path, &["paragraph", "question", "answer", "idx", LABEL], &mut |row| {
        if row.has("passage") {
            nested(row, &mut numbers, &mut table)
        } else {
            flat(row, &mut numbers, &mut table)
        }
    })?;
    Ok(table)
}

/// A line of the original release: a passage with all its questions, each with all its answers.
fn nested(row: &Record, numbers: &mut Numbers, table: &mut Table) -> Result<()> {
    let passage = row.object("passage")?;
    let text = passage.text("text")?;
    let place = numbers.passages;
    numbers.passages += 1;
    for question in passage.objects("questions")? {
        let about = About { passage: place, question: numbers.questions };
        numbers.questions += 1;
        for answer in question.objects("answers")? {
            let answer_text = answer.text("text")?;
            push(table, text, question.text("question")?, answer_text, answer.label(LABEL)?, about);
        }
    }
    Ok(())
}

/// A row of the hub's release: one answer, with the numbers of passage and question.
fn flat(row: &Record, numbers: &mut Numbers, table: &mut Table) -> Result<()> {
    let of = row.object("idx")?;
    let about = numbers.about(of.count("paragraph")?, of.count("question")?);
    let (question, answer) = (row.text("question")?, row.text("answer")?);
    push(table, row.text("paragraph")?, question, answer, row.label(LABEL)?, about);
    Ok(())
}

fn push(table: &mut Table, passage: &str, question: &str, answer: &str, label: Cell, about: About) {
    table.about.push(about);
    table.push(passage.to_owned(), Some(format!("{question} {answer}")), label);
}

/// The numbers that passages and questions get, in the order in which they come.
#[derive(Default)]
struct Numbers {
    passages: usize,
    questions: usize,
    known: HashMap<(usize, Option<usize>), usize>,
}

impl Numbers {
    /// Those of a passage and a question of it, which the file counts in its own way.
    fn about(&mut self, passage: usize, question: usize) -> About {
        let of = |known: &mut HashMap<_, usize>, key, count: &mut usize| {
            *known.entry(key).or_insert_with(|| {
                *count += 1;
                *count - 1
            })
        };
        About {
            passage: of(&mut self.known, (passage, None), &mut self.passages),
            question: of(&mut self.known, (passage, Some(question)), &mut self.questions),
        }
    }
}
