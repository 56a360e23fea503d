//! What a picture needs of a line of log.jsonl. Numbers that are none stand there as `null`.

use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};

/// An optimizer step.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Row {
    pub step: u64,
    #[serde(default)]
    pub loss: Option<f64>,
    #[serde(default)]
    pub gain: (Option<f64>, Option<f64>),
    #[serde(default)]
    pub alpha_std: Option<f64>,
    #[serde(default)]
    pub alphas: Vec<Option<f64>>,
    #[serde(default)]
    pub rates: Vec<Option<f64>>,
    #[serde(default)]
    pub scores: Vec<(String, Option<f64>)>,
    #[serde(default)]
    pub notes: Vec<String>,
}

impl Row {
    /// A score of the evaluation after this step.
    pub fn score(&self, name: &str) -> Option<f64> {
        self.scores.iter().find(|(n, _)| n == name).and_then(|(_, value)| *value)
    }
}

/// Reads a log; what is no whole line of one, such as the last of a killed run, is passed over.
pub(super) fn read(path: &Path) -> Result<Vec<Row>> {
    let file = std::fs::File::open(path).map_err(Error::io("read", path))?;
    let mut rows = Vec::new();
    for line in BufReader::new(file).split(b'\n') {
        let line = line.map_err(Error::io("read", path))?;
        rows.extend(serde_json::from_slice::<Row>(&line).ok());
    }
    Ok(rows)
}
