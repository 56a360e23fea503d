//! All of it in order: files, labels, which rows, tokens.

use std::path::Path;

use super::examples::Examples;
use super::labels::{Labels, Targets};
use super::subset::{Choice, choose, hold_back, hold_back_whole};
use super::superglue;
use super::table::{Columns, Table};
use super::tokenizer::{TextTokenizer, Tokens};
use crate::error::Result;

/// How a file lays out what it says.
#[derive(Clone, Copy, Debug)]
pub enum Layout<'a> {
    /// A text or two and a label, each in a column.
    Columns(&'a Columns),
    /// Two texts with a word of each, as in WiC.
    Words,
    /// A text and two others to choose from, as in COPA.
    Choices,
    /// Passages, questions and answers, as in MultiRC.
    Answers,
}

impl Layout<'_> {
    /// Reads a file.
    ///
    /// # Errors
    /// What the file may have wrong.
    pub fn read(&self, path: &Path) -> Result<Table> {
        match self {
            Layout::Columns(columns) => super::read(path, columns),
            Layout::Words => superglue::words(path),
            Layout::Choices => superglue::choices(path),
            Layout::Answers => superglue::answers(path),
        }
    }
}

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
    /// How they lay out their rows.
    pub layout: Layout<'a>,
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
    let table = sources.layout.read(sources.train)?;
    let labels = if sources.regression {
        Labels::Regression
    } else if table.choices > 1 {
        Labels::Classes((0..table.choices).map(|choice| choice.to_string()).collect())
    } else {
        Labels::classes(sources.labels, sources.configured, &table)?
    };
    let targets = labels.read(&table)?;
    let mut train = Part { table, targets };
    let mut notes: Vec<String> = train.notes().into_iter().collect();
    let eval = match sources.eval {
        Some(path) => {
            let table = sources.layout.read(path)?;
            let targets = labels.read(&table)?;
            let eval = Part { table, targets };
            notes.extend(eval.notes());
            eval
        }
        None => {
            let (rest, held) = train.hold_back(sources)?;
            let eval = train.select(&held);
            train = train.select(&rest);
            eval
        }
    };
    if sources.ratio != 1.0 {
        train = train.select(&choose(&train.targets, sources.ratio, sources.choice, sources.seed)?);
    }
    let mut examples = |part: Part, what: &str| -> Result<Examples> {
        let tokens = tokenizer.tokenise(&part.table, sources.max_length)?;
        notes.extend(cut(&tokens, what, sources.max_length));
        let examples = Examples::with_choices(tokens, part.table.choices, part.targets, tokenizer.pad())?;
        Ok(examples.about(part.table.about))
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

    /// Which rows are learned from and which are held back: all about one passage, or none.
    fn hold_back(&self, sources: &Sources) -> Result<(Vec<usize>, Vec<usize>)> {
        if self.table.about.is_empty() {
            return hold_back(&self.targets, sources.eval_fraction, sources.seed);
        }
        let passages: Vec<usize> = self.table.about.iter().map(|about| about.passage).collect();
        hold_back_whole(&passages, sources.eval_fraction, sources.seed)
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
