//! CSV: one row a matrix by default, with the columns of the JSON in the same order.

use serde_json::Value;

use super::{Exporter, Inventory, Per, Report};
use crate::error::{Error, Result};
use crate::text::escaped;

/// For spreadsheets and data frames. Lists become one cell with spaces between, null an empty one.
pub struct Csv;

impl Exporter for Csv {
    fn name(&self) -> &'static str {
        "csv"
    }

    fn report(&self, report: &Report, per: Option<Per>) -> Result<Vec<u8>> {
        match per.unwrap_or(Per::Matrix) {
            Per::Matrix => records(&report.matrices, &MATRIX_COLUMNS),
            Per::Block => records(&report.blocks, &BLOCK_COLUMNS),
        }
    }

    fn inventory(&self, inventory: &Inventory) -> Result<Vec<u8>> {
        records(&inventory.tensors, &["name"])
    }
}

/// The header where there are no rows; otherwise the rows' own fields are. (An inventory always has
/// rows; which metrics there are, only a matrix says.)
const MATRIX_COLUMNS: [&str; 14] = [
    "name",
    "tensors",
    "part",
    "aliases",
    "block",
    "role",
    "rows",
    "cols",
    "dtype",
    "eigenvalues",
    "tail",
    "scheduled",
    "status",
    "warnings",
];
const BLOCK_COLUMNS: [&str; 9] =
    ["name", "stack", "index", "matrices", "status", "alpha", "deviation", "spectral_norm", "stable_rank"];

fn records<T: serde::Serialize>(rows: &[T], empty: &[&str]) -> Result<Vec<u8>> {
    let failed = |e: String| Error::Report(e);
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut header = false;
    for row in rows {
        let value = serde_json::to_value(row).map_err(|e| failed(e.to_string()))?;
        let Value::Object(fields) = value else { continue };
        if !header {
            writer.write_record(fields.keys()).map_err(|e| failed(e.to_string()))?;
            header = true;
        }
        writer.write_record(fields.values().map(cell)).map_err(|e| failed(e.to_string()))?;
    }
    if !header {
        writer.write_record(empty).map_err(|e| failed(e.to_string()))?;
    }
    writer.into_inner().map_err(|e| failed(e.to_string()))
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => defused(text),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// Text for a spreadsheet: escaped (CSV itself can quote a line break, but hides no control
/// character), and with a quote before what a spreadsheet would run as a formula.
fn defused(text: &str) -> String {
    const FORMULA: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];
    let text = escaped(text);
    if text.starts_with(FORMULA) { format!("'{text}") } else { text.into_owned() }
}
