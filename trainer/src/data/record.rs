//! A row whose fields may hold others: an object of JSON, or of Parquet, and where it stands.

use std::path::Path;

use serde_json::Value;

use super::table::{Cell, Column, malformed, missing};
use crate::error::{Error, Result};

/// A value with the words for its place.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    path: &'a Path,
    /// `line 3`, or further in: `line 3, passage`.
    place: String,
    value: &'a Value,
}

impl<'a> Record<'a> {
    /// A value out of a file.
    pub fn new(path: &'a Path, place: String, value: &'a Value) -> Record<'a> {
        Record { path, place, value }
    }

    /// The file.
    pub fn path(&self) -> &'a Path {
        self.path
    }

    /// Whether it has a field.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Whether it has a field that is not null.
    pub fn is_there(&self, name: &str) -> bool {
        self.find(name).is_some_and(|value| !value.is_null())
    }

    /// A field of an object by its name, or of an array by its number.
    fn find(&self, name: &str) -> Option<&'a Value> {
        match self.value {
            Value::Object(fields) => fields.get(name),
            Value::Array(items) => name.parse::<usize>().ok().and_then(|number| items.get(number)),
            _ => None,
        }
    }

    fn get(&self, name: &str) -> Result<&'a Value> {
        self.find(name).ok_or_else(|| {
            let names: Vec<String> = match self.value {
                Value::Object(fields) => fields.keys().cloned().collect(),
                Value::Array(items) => (0..items.len()).map(|number| number.to_string()).collect(),
                _ => Vec::new(),
            };
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            missing(self.path, &Column::new(name), &names, Some(&self.place))
        })
    }

    /// An error about a field; `reason` ends a sentence that begins with its place.
    pub fn wrong(&self, name: &str, reason: &str) -> Error {
        malformed(self.path, format!("{}, column {}{reason}", self.place, Column::new(name)))
    }

    fn of_kind<T>(&self, name: &str, wanted: &str, of: impl Fn(&'a Value) -> Option<T>) -> Result<T> {
        let value = self.get(name)?;
        of(value).ok_or_else(|| {
            let is = match value {
                Value::Null => "null",
                Value::Bool(_) => "a truth value",
                Value::Number(_) => "a number",
                Value::String(_) => "text",
                Value::Array(_) => "an array",
                Value::Object(_) => "an object",
            };
            self.wrong(name, &format!(" is {is}, not {wanted}."))
        })
    }

    /// A field that is text.
    pub fn text(&self, name: &str) -> Result<&'a str> {
        self.of_kind(name, "text", Value::as_str)
    }

    /// A field that is text, or nothing.
    pub fn text_if_any(&self, name: &str) -> Result<&'a str> {
        if self.is_there(name) { self.text(name) } else { Ok("") }
    }

    /// A field that is a whole number from 0.
    pub fn count(&self, name: &str) -> Result<usize> {
        let number = |value: &Value| value.as_u64().and_then(|number| usize::try_from(number).ok());
        self.of_kind(name, "a whole number from 0", number)
    }

    /// A field that is a label.
    pub fn label(&self, name: &str) -> Result<Cell> {
        self.of_kind(name, "a label", |value| match value {
            Value::String(text) => Some(Cell::Text(text.clone())),
            Value::Bool(value) => Some(Cell::Bool(*value)),
            Value::Null => Some(Cell::Null),
            Value::Number(number) => Some(match number.as_i64() {
                Some(integer) => Cell::Integer(integer),
                None => Cell::Real(number.as_f64().unwrap_or(f64::NAN)),
            }),
            Value::Array(_) | Value::Object(_) => None,
        })
    }

    /// A field that is an object.
    pub fn object(&self, name: &str) -> Result<Record<'a>> {
        let value = self.of_kind(name, "an object", |value| value.is_object().then_some(value))?;
        Ok(Record { path: self.path, place: format!("{}, {name}", self.place), value })
    }

    /// A field that is an array of objects.
    pub fn objects(&self, name: &str) -> Result<Vec<Record<'a>>> {
        let items = self.of_kind(name, "an array", Value::as_array)?;
        let place = |number: usize| format!("{}, {name} {}", self.place, number + 1);
        let objects = items.iter().enumerate().map(|(number, value)| match value.is_object() {
            true => Ok(Record { path: self.path, place: place(number), value }),
            false => Err(malformed(self.path, format!("{} is not an object.", place(number)))),
        });
        objects.collect()
    }

    /// A field that is an array of texts.
    pub fn texts(&self, name: &str) -> Result<Vec<&'a str>> {
        let texts = |value: &'a Value| value.as_array()?.iter().map(Value::as_str).collect();
        self.of_kind(name, "an array of texts", texts)
    }

    /// A field that is an array of whole numbers from 0.
    pub fn counts(&self, name: &str) -> Result<Vec<usize>> {
        let number = |value: &Value| usize::try_from(value.as_u64()?).ok();
        let numbers = |value: &'a Value| value.as_array()?.iter().map(number).collect();
        self.of_kind(name, "an array of whole numbers from 0", numbers)
    }
}
