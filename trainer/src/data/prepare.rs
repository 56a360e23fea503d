//! All of it in order: files, labels, which rows, tokens.

use std::path::Path;

use super::examples::Examples;
use super::labels::{Labels, Targets};
use super::subset::{Choice, choose, hold_back};
use super::table::{Columns, Table};
use super::tokenizer::{TextTokenizer, Tokens};
use crate::error::Result;

/// What is learned from and evaluated on.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// The training file.
    pub train: &'a Path,
    /// The evaluation file; `None` holds back a part of the training file.
    pub eval: Option<&'a Path>,
    /// The part that is held back, before `ratio` is taken of the rest: so the evaluation examples are the
    /// same for every ratio.
    pub eval_fraction: f64,
    /// Their columns.
    pub columns: &'a Columns,
    /// Names of labels that were given; may be empty.
    pub labels: &'a [String],
    /// Names of labels in the model's configuration; may be empty.
    pub configured: &'a [String],
    /// The labels are numbers.
    pub regression: bool,
    /// The part of the training examples that is taken.
    pub ratio: f64,
    /// Which ones.
    pub choice: Choice,
    /// Decides on what is random.
    pub seed: u64,
    /// Longer rows are cut to this many tokens.
    pub max_length: usize,
}

/// Data that is ready for a model.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// To learn from.
    pub train: Examples,
    /// To evaluate on.
    pub eval: Examples,
    /// What the labels mean.
    pub labels: Labels,
    /// What a user should know, in sentences: texts that were cut, rows that were left out.
    pub notes: Vec<String>,
}

/// Reads, chooses and tokenises.
///
/// # Errors
/// What files, labels, parts and lengths may have wrong.
pub fn prepare(sources: &Sources, tokenizer: &TextTokenizer) -> Result<Prepared> {
    let table = super::read(sources.train, sources.columns)?;
    let labels = if sources.regression {
        Labels::Regression
    } else {
        Labels::classes(sources.labels, sources.configured, &table)?
    };
    let targets = labels.read(&table)?;
    let mut train = Part { table, targets };
    let mut notes: Vec<String> = train.notes().into_iter().collect();
    let eval = match sources.eval {
        Some(path) => {
            let table = super::read(path, sources.columns)?;
            let targets = labels.read(&table)?;
            let eval = Part { table, targets };
            notes.extend(eval.notes());
            eval
        }
        None => {
            let (rest, held) = hold_back(&train.targets, sources.eval_fraction, sources.seed)?;
            let eval = train.select(&held);
            train = train.select(&rest);
            eval
        }
    };
    if sources.ratio != 1.0 {
        train = train.select(&choose(&train.targets, sources.ratio, sources.choice, sources.seed)?);
    }
    let mut examples = |part: Part, what: &str| {
        let tokens = tokenizer.tokenise(&part.table, sources.max_length)?;
        notes.extend(cut(&tokens, what, sources.max_length));
        Examples::new(tokens, part.targets, tokenizer.pad())
    };
    let (train, eval) = (examples(train, "training")?, examples(eval, "evaluation")?);
    Ok(Prepared { train, eval, labels, notes })
}

/// Rows with what is to be learned of them.
struct Part {
    table: Table,
    targets: Targets,
}

impl Part {
    fn select(&self, rows: &[usize]) -> Part {
        Part { table: self.table.select(rows), targets: self.targets.select(rows) }
    }

    /// Rows that were left out.
    fn notes(&self) -> Option<String> {
        let (left_out, path) = (self.table.left_out, self.table.path.display());
        let rows = evenkeel::text::count(left_out, "row is", "rows are");
        (left_out > 0).then(|| format!("{path}: {rows} left out, having fewer fields than the header."))
    }
}

/// Texts that were too long.
fn cut(tokens: &Tokens, what: &str, max_length: usize) -> Option<String> {
    let (cut, all, needed) = (tokens.cut(), tokens.len(), tokens.needed());
    (cut > 0).then(|| {
        format!("{cut} of {all} {what} examples are cut to {max_length} tokens; the longest has {needed}.")
    })
}
