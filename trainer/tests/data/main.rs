//! Text data from files to tensors, against transformers, scikit-learn, SciPy and pyarrow (fixtures/trainer/data).

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod batches;
mod files;
mod hostile;
mod orders;
mod prepared;
mod scores;
mod tasks;
mod tokens;

use std::path::{Path, PathBuf};

use evenkeel_trainer::data::{Column, Columns};
use serde_json::Value;

/// A file of fixtures/.
fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(path)
}

/// A file of expected values.
fn expected(name: &str) -> Value {
    let path = fixture("trainer/data").join(name);
    serde_json::from_slice(&std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
        .unwrap()
}

fn numbers<T>(value: &Value, convert: impl Fn(&Value) -> Option<T>) -> Vec<T> {
    value.as_array().unwrap().iter().map(|item| convert(item).unwrap()).collect()
}

/// Columns by name or number.
fn columns(text: &str, pair: Option<&str>, label: &str) -> Columns {
    Columns { text: Column::new(text), pair: pair.map(Column::new), label: Column::new(label), header: None }
}
