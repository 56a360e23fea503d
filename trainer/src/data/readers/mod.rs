//! Formats of tables: one file for each, and the list of them.

mod delimited;
mod jsonl;
mod parquet;
mod utf8;

use std::io::Read as _;
use std::path::Path;

use serde_json::Value;

use super::record::Record;
use super::table::{Columns, Table, malformed};
use crate::error::{Error, Result};

/// A format.
pub trait Reader: Sync {
    /// Its name, for people.
    fn name(&self) -> &'static str;

    /// The endings of its files, without a dot, in lower case.
    fn suffixes(&self) -> &'static [&'static str];

    /// Reads the wanted columns of a whole file. Memory is in proportion to their text.
    ///
    /// # Errors
    /// Sentences that name row and column.
    fn read(&self, path: &Path, columns: &Columns) -> Result<Table>;

    /// Hands over row after row, each as an object. `fields` are those that are wanted, `a.b` for a field
    /// within another; a format that has to read all of a row hands over all.
    ///
    /// # Errors
    /// The format's rows hold text alone; a field is not there; those of `each`.
    fn records(
        &self,
        path: &Path,
        fields: &[&str],
        each: &mut dyn FnMut(&Record) -> Result<()>,
    ) -> Result<()>;
}

/// All formats.
pub const READERS: &[&dyn Reader] = &[&jsonl::JsonLines, &delimited::CSV, &delimited::TSV, &parquet::Parquet];

/// Reads the wanted columns of a file, whose format its ending says.
///
/// # Errors
/// The ending is unknown, there is no row, or what the format says.
pub fn read(path: &Path, columns: &Columns) -> Result<Table> {
    let reader = reader(path)?;
    let table = reader.read(path, columns)?;
    if table.is_empty() {
        return Err(without_rows(path, reader));
    }
    Ok(table)
}

/// Hands over the rows of a file, as [`Reader::records`]; how many there were.
///
/// # Errors
/// As [`read`].
pub fn records(path: &Path, fields: &[&str], each: &mut dyn FnMut(&Record) -> Result<()>) -> Result<usize> {
    let reader = reader(path)?;
    let mut rows = 0;
    reader.records(path, fields, &mut |record| {
        rows += 1;
        each(record)
    })?;
    if rows == 0 {
        return Err(without_rows(path, reader));
    }
    Ok(rows)
}

/// A file that is one JSON object.
///
/// # Errors
/// Those of reading; the file is not UTF-8, or something else.
pub(super) fn object(path: &Path) -> Result<Value> {
    is_file(path)?;
    let mut text = String::new();
    utf8::open(path)?.read_to_string(&mut text).map_err(utf8::failed(path))?;
    let value: Value = serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|error| malformed(path, format!("this is not JSON: {error}.")))?;
    if value.is_object() { Ok(value) } else { Err(malformed(path, "this holds no JSON object.")) }
}

fn without_rows(path: &Path, reader: &dyn Reader) -> Error {
    malformed(path, format!("the {} file holds no row.", reader.name()))
}

/// The format of a file, by its ending.
fn reader(path: &Path) -> Result<&'static dyn Reader> {
    let suffix = path.extension().map(|suffix| suffix.to_string_lossy().to_lowercase()).unwrap_or_default();
    let reader = READERS.iter().find(|reader| reader.suffixes().contains(&suffix.as_str()));
    let Some(reader) = reader else {
        let known: Vec<String> =
            READERS.iter().flat_map(|r| r.suffixes()).map(|suffix| format!(".{suffix}")).collect();
        let reason = format!("data is known by its ending, which must be one of {}.", known.join(", "));
        return Err(malformed(path, reason));
    };
    is_file(path)?;
    Ok(*reader)
}

/// A directory opens like a file on some systems, and fails when it is read.
fn is_file(path: &Path) -> Result<()> {
    let about = std::fs::metadata(path).map_err(Error::io("read", path))?;
    if !about.is_file() {
        return Err(malformed(path, "this is not a file."));
    }
    if about.len() == 0 {
        return Err(malformed(path, "the file is empty."));
    }
    Ok(())
}
