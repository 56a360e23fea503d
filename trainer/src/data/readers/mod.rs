//! Formats of tables: one file for each, and the list of them.

mod delimited;
mod jsonl;
mod parquet;
mod utf8;

use std::path::Path;

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
}

/// All formats.
pub const READERS: &[&dyn Reader] = &[&jsonl::JsonLines, &delimited::CSV, &delimited::TSV, &parquet::Parquet];

/// Reads the wanted columns of a file, whose format its ending says.
///
/// # Errors
/// The ending is unknown, there is no row, or what the format says.
pub fn read(path: &Path, columns: &Columns) -> Result<Table> {
    let suffix = path.extension().map(|suffix| suffix.to_string_lossy().to_lowercase()).unwrap_or_default();
    let reader = READERS.iter().find(|reader| reader.suffixes().contains(&suffix.as_str()));
    let Some(reader) = reader else {
        let known: Vec<String> =
            READERS.iter().flat_map(|r| r.suffixes()).map(|suffix| format!(".{suffix}")).collect();
        let reason = format!("data is known by its ending, which must be one of {}.", known.join(", "));
        return Err(malformed(path, reason));
    };
    // A directory opens like a file on some systems, and fails when it is read.
    let about = std::fs::metadata(path).map_err(Error::io("read", path))?;
    if !about.is_file() {
        return Err(malformed(path, "this is not a file."));
    }
    if about.len() == 0 {
        return Err(malformed(path, "the file is empty."));
    }
    let table = reader.read(path, columns)?;
    if table.is_empty() {
        return Err(malformed(path, format!("the {} file holds no row.", reader.name())));
    }
    Ok(table)
}
