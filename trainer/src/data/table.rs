//! What every reader gives: texts, and labels as they stand in the file.

use std::fmt;
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
pub(super) fn missing(path: &Path, column: &Column, names: &[&str], line: Option<u64>) -> Error {
    /// Enough to recognise the file by.
    const MOST: usize = 30;
    let mut listed: Vec<String> = names.iter().take(MOST).map(|n| format!("`{}`", printable(n))).collect();
    if names.len() > MOST {
        listed.push(format!("{} more", names.len() - MOST));
    }
    let place = line.map(|line| format!("line {line} has ")).unwrap_or_else(|| "there is ".to_owned());
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
        let of = |texts: &[String]| rows.iter().filter_map(|row| texts.get(*row).cloned()).collect();
        Table {
            path: self.path.clone(),
            label: self.label.clone(),
            texts: of(&self.texts),
            pairs: self.pairs.as_deref().map(of),
            labels: rows.iter().filter_map(|row| self.labels.get(*row).cloned()).collect(),
            left_out: self.left_out,
        }
    }
}
