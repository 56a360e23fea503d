//! JSON lines: one object on each line or, with columns by number, one array.

use std::io::BufRead;
use std::path::Path;

use serde_json::Value;

use super::{Reader, utf8};
use crate::data::record::Record;
use crate::data::table::{Columns, Table, malformed};
use crate::error::Result;

/// The format.
pub struct JsonLines;

impl Reader for JsonLines {
    fn name(&self) -> &'static str {
        "JSON lines"
    }

    fn suffixes(&self) -> &'static [&'static str] {
        &["jsonl", "ndjson", "json"]
    }

    fn read(&self, path: &Path, columns: &Columns) -> Result<Table> {
        let mut table = Table::new(path, columns);
        let [text, label] = [&columns.text, &columns.label].map(|column| column.as_str());
        self.records(path, &[], &mut |row| {
            let pair = columns.pair.as_ref().map(|column| row.text(column.as_str())).transpose()?;
            table.push(row.text(text)?.to_owned(), pair.map(str::to_owned), row.label(label)?);
            Ok(())
        })?;
        Ok(table)
    }

    fn records(
        &self,
        path: &Path,
        _fields: &[&str],
        each: &mut dyn FnMut(&Record) -> Result<()>,
    ) -> Result<()> {
        let mut file = utf8::open(path)?;
        let mut line = String::new();
        for number in 1.. {
            line.clear();
            if file.read_line(&mut line).map_err(utf8::failed(path))? == 0 {
                break;
            }
            let content = line.trim_start_matches('\u{feff}').trim();
            if !content.is_empty() {
                each(&Record::new(path, format!("line {number}"), &parse(path, number, content)?))?;
            }
        }
        Ok(())
    }
}

fn parse(path: &Path, number: u64, content: &str) -> Result<Value> {
    let value: Value = serde_json::from_str(content).map_err(|error| {
        let hint = match number {
            1 if content.starts_with('[') => {
                " (Each line holds one object; a file with one array is not read.)"
            }
            _ => "",
        };
        // serde_json counts lines within what it was given.
        let cause = error.to_string();
        let cause = cause.split(" at line ").next().unwrap_or_default();
        let column = error.column();
        malformed(path, format!("line {number} is not JSON: {cause} at character {column}.{hint}"))
    })?;
    if value.is_object() || value.is_array() {
        Ok(value)
    } else {
        Err(malformed(path, format!("line {number} holds no JSON object.")))
    }
}
