//! Parquet, as the data-set hubs store it: flat columns of text and of numbers, or rows that hold lists and
//! objects.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use evenkeel::text::printable;
use parquet::basic::Type as Physical;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, DataType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::schema::types::{ColumnDescriptor, Type};

use super::Reader;
use crate::data::guard::guarded;
use crate::data::record::Record;
use crate::data::table::{Cell, Column, Columns, Table, malformed, missing};
use crate::error::{Error, Result};

/// Rows decoded together.
const BATCH: usize = 4096;

/// The format.
pub struct Parquet;

impl Reader for Parquet {
    fn name(&self) -> &'static str {
        "Parquet"
    }

    fn suffixes(&self) -> &'static [&'static str] {
        &["parquet"]
    }

    fn read(&self, path: &Path, columns: &Columns) -> Result<Table> {
        guarded(|| Parquet::table(path, columns)).unwrap_or_else(|said| Err(invalid(path, said)))
    }

    fn records(
        &self,
        path: &Path,
        fields: &[&str],
        each: &mut dyn FnMut(&Record) -> Result<()>,
    ) -> Result<()> {
        guarded(|| Opened::new(path)?.rows(fields, each)).unwrap_or_else(|said| Err(invalid(path, said)))
    }
}

impl Parquet {
    fn table(path: &Path, columns: &Columns) -> Result<Table> {
        let opened = Opened::new(path)?;
        let mut table = Table::new(path, columns);
        table.texts = opened.texts(&columns.text)?;
        table.pairs = columns.pair.as_ref().map(|column| opened.texts(column)).transpose()?;
        table.labels = opened.column(&columns.label)?;
        let second = table.pairs.as_ref().map_or(table.len(), Vec::len);
        if table.labels.len() != table.len() || second != table.len() {
            return Err(malformed(path, "this is not a valid Parquet file: its columns differ in length."));
        }
        Ok(table)
    }
}

fn invalid(path: &Path, error: impl std::fmt::Display) -> Error {
    malformed(
        path,
        format!("this is not a Parquet file that can be read: {}.", printable(&error.to_string())),
    )
}

struct Opened<'a> {
    path: &'a Path,
    reader: SerializedFileReader<File>,
}

impl<'a> Opened<'a> {
    fn new(path: &'a Path) -> Result<Opened<'a>> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let reader = SerializedFileReader::new(file).map_err(|error| invalid(path, error))?;
        Ok(Opened { path, reader })
    }

    /// Hands over row after row with the wanted fields: nothing else is decoded.
    fn rows(&self, fields: &[&str], each: &mut dyn FnMut(&Record) -> Result<()>) -> Result<()> {
        let failed = |error: ParquetError| invalid(self.path, error);
        let schema = self.reader.metadata().file_metadata().schema();
        let wanted = fields.iter().map(|field| self.field(schema, field)).collect::<Result<Vec<_>>>()?;
        let wanted = Type::group_type_builder(schema.name()).with_fields(wanted).build().map_err(failed)?;
        let rows = RowIter::from_file(Some(wanted), &self.reader).map_err(failed)?;
        for (index, row) in rows.enumerate() {
            let row = row.map_err(failed)?.to_json_value();
            each(&Record::new(self.path, format!("row {}", index + 1), &row))?;
        }
        Ok(())
    }

    /// The part of a schema that a field is: all of it, or of `a.b` only what is named.
    fn field(&self, within: &Type, name: &str) -> Result<Arc<Type>> {
        let (first, rest) = name.split_once('.').map_or((name, None), |(first, rest)| (first, Some(rest)));
        let names: Vec<&str> = within.get_fields().iter().map(|field| field.name()).collect();
        let found = within.get_fields().iter().find(|field| field.name() == first);
        let found = found.ok_or_else(|| missing(self.path, &Column::new(first), &names, None))?;
        let Some(rest) = rest.filter(|_| found.is_group()) else { return Ok(Arc::clone(found)) };
        let part = Type::group_type_builder(first)
            .with_repetition(found.get_basic_info().repetition())
            .with_fields(vec![self.field(found, rest)?])
            .build();
        part.map(Arc::new).map_err(|error| invalid(self.path, error))
    }

    /// A column that must be text.
    fn texts(&self, column: &Column) -> Result<Vec<String>> {
        let cells = self.column(column)?;
        cells
            .into_iter()
            .enumerate()
            .map(|(index, cell)| match cell {
                Cell::Text(text) => Ok(text),
                other => {
                    let row = index + 1;
                    Err(malformed(self.path, format!("row {row}, column {column} is {other}, not text.")))
                }
            })
            .collect()
    }

    /// Every value of a column.
    fn column(&self, column: &Column) -> Result<Vec<Cell>> {
        let schema = self.reader.metadata().file_metadata().schema_descr_ptr();
        let names: Vec<String> = schema.columns().iter().map(|c| c.path().string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let index = column.find(self.path, &names)?;
        let descriptor = schema.column(index);
        if descriptor.max_rep_level() > 0 || !is_readable(descriptor.physical_type()) {
            let reason = format!("column {column} is neither text nor a number nor a truth value.");
            return Err(malformed(self.path, reason));
        }
        let mut cells = Vec::new();
        for group in 0..self.reader.num_row_groups() {
            let failed = |error: ParquetError| invalid(self.path, error);
            let group = self.reader.get_row_group(group).map_err(failed)?;
            let reader = group.get_column_reader(index).map_err(failed)?;
            self.append(column, &descriptor, reader, &mut cells)?;
        }
        Ok(cells)
    }

    /// One row group's part of a column.
    fn append(
        &self,
        column: &Column,
        descriptor: &ColumnDescriptor,
        reader: ColumnReader,
        cells: &mut Vec<Cell>,
    ) -> Result<()> {
        let depth = descriptor.max_def_level();
        let integer = |value: &i64| Ok(Cell::Integer(*value));
        let done = match reader {
            ColumnReader::BoolColumnReader(mut r) => values(&mut r, depth, cells, |v| Ok(Cell::Bool(*v))),
            ColumnReader::Int32ColumnReader(mut r) => {
                values(&mut r, depth, cells, |v| integer(&i64::from(*v)))
            }
            ColumnReader::Int64ColumnReader(mut r) => values(&mut r, depth, cells, integer),
            ColumnReader::FloatColumnReader(mut r) => {
                values(&mut r, depth, cells, |v| Ok(Cell::Real(f64::from(*v))))
            }
            ColumnReader::DoubleColumnReader(mut r) => values(&mut r, depth, cells, |v| Ok(Cell::Real(*v))),
            ColumnReader::ByteArrayColumnReader(mut r) => values(&mut r, depth, cells, utf8),
            _ => Err(Failure::NotText),
        };
        done.map_err(|failure| match failure {
            Failure::Parquet(error) => invalid(self.path, error),
            Failure::NotText => {
                let row = cells.len() + 1;
                malformed(self.path, format!("row {row}, column {column} is not text in UTF-8."))
            }
        })
    }
}

fn is_readable(kind: Physical) -> bool {
    !matches!(kind, Physical::INT96 | Physical::FIXED_LEN_BYTE_ARRAY)
}

enum Failure {
    Parquet(ParquetError),
    NotText,
}

impl From<ParquetError> for Failure {
    fn from(error: ParquetError) -> Failure {
        Failure::Parquet(error)
    }
}

fn utf8(bytes: &ByteArray) -> Result<Cell, Failure> {
    let text = std::str::from_utf8(bytes.data()).map_err(|_| Failure::NotText)?;
    Ok(Cell::Text(text.to_owned()))
}

/// Appends all values of a reader; where a definition level is below `depth`, there is none.
fn values<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    depth: i16,
    cells: &mut Vec<Cell>,
    cell: impl Fn(&T::T) -> Result<Cell, Failure>,
) -> Result<(), Failure> {
    let (mut levels, mut found) = (Vec::new(), Vec::new());
    loop {
        levels.clear();
        found.clear();
        let (records, _, _) = reader.read_records(BATCH, Some(&mut levels), None, &mut found)?;
        if records == 0 {
            return Ok(());
        }
        let mut next = found.iter();
        for record in 0..records {
            let defined = depth == 0 || levels.get(record).is_some_and(|level| *level == depth);
            let value = if defined { next.next() } else { None };
            cells.push(value.map_or(Ok(Cell::Null), &cell)?);
        }
    }
}
