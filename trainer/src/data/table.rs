//! What every reader gives: texts, and labels as they stand in the file.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use evenkeel::text::printable;

use crate::error::{Error, Result};

/// One value of a label column.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Text; all that CSV and TSV have.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Real(f64),
    /// A truth value.
    Bool(bool),
    /// No value.
    Null,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cell::Text(text) => f.write_str(text),
            Cell::Integer(number) => write!(f, "{number}"),
            Cell::Real(number) => write!(f, "{number}"),
            Cell::Bool(value) => write!(f, "{value}"),
            Cell::Null => f.write_str("null"),
        }
    }
}

/// Where to find a column: by its name or, where the file has no such name, by its number from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column(String);

impl Column {
    /// A column as a user writes it.
    pub fn new(name: impl Into<String>) -> Column {
        Column(name.into())
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number, if it can be one.
    pub fn number(&self) -> Option<usize> {
        self.0.parse().ok()
    }

    /// Its place among the columns of a file.
    ///
    /// # Errors
    /// There is none: the sentence lists those that there are.
    pub fn find(&self, path: &Path, names: &[&str]) -> Result<usize> {
        let by_name = names.iter().position(|name| *name == self.0);
        let by_number = || self.number().filter(|number| *number < names.len());
        by_name.or_else(by_number).ok_or_else(|| missing(path, self, names, None))
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", printable(&self.0))
    }
}

/// The error for a column that is not there.
pub(super) fn missing(path: &Path, column: &Column, names: &[&str], place: Option<&str>) -> Error {
    /// Enough to recognise the file by.
    const MOST: usize = 30;
    let mut listed: Vec<String> = names.iter().take(MOST).map(|n| format!("`{}`", printable(n))).collect();
    if names.len() > MOST {
        listed.push(format!("{} more", names.len() - MOST));
    }
    let place = place.map_or_else(|| "there is ".to_owned(), |place| format!("{place} has "));
    let there = if listed.is_empty() { "none at all".to_owned() } else { listed.join(", ") };
    let reason = format!("{place}no column {column}; the columns are {there}.");
    Error::Column { path: path.to_path_buf(), reason }
}

/// An error in a data file; `reason` is a sentence.
pub(super) fn malformed(path: &Path, reason: impl Into<String>) -> Error {
    Error::Data { path: path.to_path_buf(), reason: reason.into() }
}

/// Which columns are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    /// The text.
    pub text: Column,
    /// The second text, for tasks on pairs.
    pub pair: Option<Column>,
    /// The label.
    pub label: Column,
    /// Whether the first row of a CSV or TSV file holds names. `None`: it does, unless all columns are
    /// given by number.
    pub header: Option<bool>,
}

impl Columns {
    /// Those that are wanted, in the order text, label, second text.
    pub fn all(&self) -> impl Iterator<Item = &Column> {
        [&self.text, &self.label].into_iter().chain(&self.pair)
    }

    /// Whether the first row holds names.
    pub fn has_header(&self) -> bool {
        self.header.unwrap_or_else(|| self.all().any(|column| column.number().is_none()))
    }
}

/// The wanted columns of a file, row by row. Rows are counted from 1, a header not among them.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// The file.
    pub path: PathBuf,
    /// The name of the label column, for messages.
    pub label: Column,
    /// The texts.
    pub texts: Vec<String>,
    /// The second texts; as many, or none at all.
    pub pairs: Option<Vec<String>>,
    /// The labels, as many.
    pub labels: Vec<Cell>,
    /// Rows that were left out because they are shorter than the header (TSV only, as in GLUE's QQP).
    pub left_out: usize,
    /// How many second texts each row has, one after the other in `pairs`: several are a choice, and the label
    /// is the number of the right one.
    pub choices: usize,
    /// In which bytes of its two texts a word stands that the label is about; as many as rows, or none.
    pub words: Vec<[Range<usize>; 2]>,
    /// The passage and the question that each row is about, where several rows share one; as many, or none.
    pub about: Vec<About>,
}

/// What a row shares with others, as numbers from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// The text that questions are asked about.
    pub passage: usize,
    /// The question, a number of its own in the whole file.
    pub question: usize,
}

impl Table {
    /// An empty one, to be filled by a reader.
    pub fn new(path: &Path, columns: &Columns) -> Table {
        Table {
            path: path.to_path_buf(),
            label: columns.label.clone(),
            texts: Vec::new(),
            pairs: columns.pair.as_ref().map(|_| Vec::new()),
            labels: Vec::new(),
            left_out: 0,
            choices: 1,
            words: Vec::new(),
            about: Vec::new(),
        }
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Appends a row.
    pub(super) fn push(&mut self, text: String, pair: Option<String>, label: Cell) {
        self.texts.push(text);
        if let (Some(pairs), Some(pair)) = (&mut self.pairs, pair) {
            pairs.push(pair);
        }
        self.labels.push(label);
    }

    /// Only some rows, in the order given; numbers beyond the last row are left out.
    pub fn select(&self, rows: &[usize]) -> Table {
        fn of<T: Clone>(all: &[T], rows: &[usize]) -> Vec<T> {
            rows.iter().filter_map(|row| all.get(*row).cloned()).collect()
        }
        let seconds: Vec<usize> = rows.iter().flat_map(|row| self.seconds(*row)).collect();
        Table {
            path: self.path.clone(),
            label: self.label.clone(),
            texts: of(&self.texts, rows),
            pairs: self.pairs.as_deref().map(|pairs| of(pairs, &seconds)),
            labels: of(&self.labels, rows),
            left_out: self.left_out,
            choices: self.choices,
            words: of(&self.words, rows),
            about: of(&self.about, rows),
        }
    }

    /// The places of a row's second texts in `pairs`.
    pub fn seconds(&self, row: usize) -> Range<usize> {
        row * self.choices..(row + 1) * self.choices
    }
}
