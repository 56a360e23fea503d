//! CSV, and TSV without quotes.
//!
//! In CSV a field may stand in double quotes, and then hold commas, line breaks and doubled quotes (RFC 4180).
//! In TSV a quote is a character like any other, as in GLUE's original files. Some rows of those are broken
//! off (QQP): in TSV, rows shorter than the header are left out and counted, as the tools that publish GLUE
//! do. A row of more fields than the header has a tab in one of them, and which one nobody can tell: an error, as
//! any other length than the header's is in CSV.

use std::path::Path;

use csv::{ErrorKind, StringRecord};

use super::{Reader, utf8};
use crate::data::record::Record;
use crate::data::table::{Cell, Columns, Table, malformed};
use crate::error::Result;

/// The two formats.
pub struct Delimited {
    name: &'static str,
    suffixes: &'static [&'static str],
    delimiter: u8,
    quotes: bool,
}

/// Comma-separated, with quotes.
pub const CSV: Delimited = Delimited { name: "CSV", suffixes: &["csv"], delimiter: b',', quotes: true };

/// Tab-separated, without quotes.
pub const TSV: Delimited = Delimited { name: "TSV", suffixes: &["tsv"], delimiter: b'\t', quotes: false };

/// Where the wanted fields stand in a row.
struct Places {
    text: usize,
    pair: Option<usize>,
    label: usize,
    /// The number of fields in the first row.
    width: usize,
    /// The first row says what they are.
    are_named: bool,
}

impl Reader for Delimited {
    fn name(&self) -> &'static str {
        self.name
    }

    fn suffixes(&self) -> &'static [&'static str] {
        self.suffixes
    }

    fn read(&self, path: &Path, columns: &Columns) -> Result<Table> {
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(self.delimiter)
            .quoting(self.quotes)
            .from_reader(utf8::open(path)?);
        let failed = |error: csv::Error| {
            let said = error.to_string();
            match error.into_kind() {
                ErrorKind::Io(error) => utf8::failed(path)(error),
                _ => malformed(path, format!("{said}.")),
            }
        };
        let mut table = Table::new(path, columns);
        let mut record = StringRecord::new();
        if !reader.read_record(&mut record).map_err(failed)? {
            return Ok(table);
        }
        let places = places(path, columns, &record)?;
        let mut more = !columns.has_header() || reader.read_record(&mut record).map_err(failed)?;
        while more {
            let row =
                Fields { path, record: &record, places: &places, row: table.len() + table.left_out + 1 };
            row.append(self, &mut table)?;
            more = reader.read_record(&mut record).map_err(failed)?;
        }
        if table.is_empty() && table.left_out > 0 {
            let reason = format!("every row has fewer fields than the header's {}.", places.width);
            return Err(malformed(path, reason));
        }
        Ok(table)
    }

    fn records(
        &self,
        path: &Path,
        _fields: &[&str],
        _each: &mut dyn FnMut(&Record) -> Result<()>,
    ) -> Result<()> {
        let reason = format!("this task is read from JSON lines or Parquet, not from {}.", self.name);
        Err(malformed(path, reason))
    }
}

/// Finds the wanted columns in the first row.
fn places(path: &Path, columns: &Columns, first: &StringRecord) -> Result<Places> {
    let numbers: Vec<String>;
    let names: Vec<&str> = if columns.has_header() {
        first.iter().map(str::trim).collect()
    } else {
        numbers = (0..first.len()).map(|number| number.to_string()).collect();
        numbers.iter().map(String::as_str).collect()
    };
    Ok(Places {
        text: columns.text.find(path, &names)?,
        pair: columns.pair.as_ref().map(|column| column.find(path, &names)).transpose()?,
        label: columns.label.find(path, &names)?,
        width: names.len(),
        are_named: columns.has_header(),
    })
}

/// A row, and where it is.
struct Fields<'a> {
    path: &'a Path,
    record: &'a StringRecord,
    places: &'a Places,
    row: usize,
}

impl Fields<'_> {
    fn append(&self, format: &Delimited, table: &mut Table) -> Result<()> {
        let (found, width) = (self.record.len(), self.places.width);
        let wrong = |where_others: String| {
            let line = self.record.position().map_or(0, csv::Position::line);
            let reason = format!("row {} (line {line}) has {found} fields where {where_others}", self.row);
            Err(malformed(self.path, reason))
        };
        if format.quotes && found != width {
            let hint = if found < width { "is a quote not closed?" } else { "is a comma not in quotes?" };
            return wrong(format!("the first row of the file has {width}: {hint}"));
        }
        let is_more = || self.record.iter().skip(width).any(|field| !field.trim().is_empty());
        if self.places.are_named && found > width && is_more() {
            return wrong(format!("the header has {width}: a tab in one of them shifts the others."));
        }
        if found < width {
            table.left_out += 1;
            return Ok(());
        }
        let field = |place: usize| self.record.get(place).unwrap_or_default().to_owned();
        let label = Cell::Text(field(self.places.label));
        table.push(field(self.places.text), self.places.pair.map(field), label);
        Ok(())
    }
}
