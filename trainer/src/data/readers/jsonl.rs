//! JSON lines: one object on each line or, with columns by number, one array.

use std::io::BufRead;
use std::path::Path;

use serde_json::Value;

use super::{Reader, utf8};
use crate::data::table::{Cell, Column, Columns, Table, malformed, missing};
use crate::error::{Error, Result};

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
        let mut file = utf8::open(path)?;
        let mut table = Table::new(path, columns);
        let mut line = String::new();
        for number in 1.. {
            line.clear();
            if file.read_line(&mut line).map_err(utf8::failed(path))? == 0 {
                break;
            }
            let content = line.trim_start_matches('\u{feff}').trim();
            if content.is_empty() {
                continue;
            }
            let row = Line { path, number, value: parse(path, number, content)? };
            let pair = columns.pair.as_ref().map(|column| row.text(column)).transpose()?;
            table.push(row.text(&columns.text)?, pair, row.label(&columns.label)?);
        }
        Ok(table)
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

/// One line of the file.
struct Line<'a> {
    path: &'a Path,
    number: u64,
    value: Value,
}

impl Line<'_> {
    fn get(&self, column: &Column) -> Result<&Value> {
        let found = match &self.value {
            Value::Object(fields) => fields.get(column.as_str()),
            Value::Array(items) => column.number().and_then(|number| items.get(number)),
            _ => None,
        };
        found.ok_or_else(|| {
            let names: Vec<String> = match &self.value {
                Value::Object(fields) => fields.keys().cloned().collect(),
                Value::Array(items) => (0..items.len()).map(|number| number.to_string()).collect(),
                _ => Vec::new(),
            };
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            missing(self.path, column, &names, Some(self.number))
        })
    }

    fn wrong(&self, column: &Column, value: &Value, wanted: &str) -> Error {
        let is = match value {
            Value::Null => "null",
            Value::Bool(_) => "a truth value",
            Value::Number(_) => "a number",
            Value::String(_) => "text",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        };
        malformed(self.path, format!("line {}, column {column} is {is}, not {wanted}.", self.number))
    }

    fn text(&self, column: &Column) -> Result<String> {
        match self.get(column)? {
            Value::String(text) => Ok(text.clone()),
            other => Err(self.wrong(column, other, "text")),
        }
    }

    fn label(&self, column: &Column) -> Result<Cell> {
        match self.get(column)? {
            Value::String(text) => Ok(Cell::Text(text.clone())),
            Value::Bool(value) => Ok(Cell::Bool(*value)),
            Value::Null => Ok(Cell::Null),
            Value::Number(number) => Ok(match number.as_i64() {
                Some(integer) => Cell::Integer(integer),
                None => Cell::Real(number.as_f64().unwrap_or(f64::NAN)),
            }),
            other => Err(self.wrong(column, other, "a label")),
        }
    }
}
