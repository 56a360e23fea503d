//! What an analysis says, as plain data, and the formats that it is written in.
//!
//! The fields are the contract of `docs/report.schema.json`. Nothing here computes: numbers arrive
//! finished, and a number that does not exist is `None`. A new output format is one file with an
//! [`Exporter`] and one line in [`EXPORTERS`].

mod csv;
mod json;
mod markdown;
mod names;
mod rows;
mod schema;
mod table;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use schema::schema;

use crate::error::Result;

/// The version of the JSON contract.
pub const SCHEMA_VERSION: u32 = 1;

/// Every output format, the default first.
pub static EXPORTERS: &[&dyn Exporter] = &[&table::Table, &json::Json, &csv::Csv, &markdown::Markdown];

/// What the rows of a tabular format stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// One row a block.
    Block,
    /// One row a matrix.
    Matrix,
}

/// An output format. Text may hold ANSI styles: the writer strips them where they do not belong.
pub trait Exporter: Sync {
    /// The name on the command line.
    fn name(&self) -> &'static str;

    /// Renders an analysis; `per` is the user's choice of rows, if any.
    ///
    /// # Errors
    /// [`crate::Error::Report`].
    fn report(&self, report: &Report, per: Option<Per>) -> Result<Vec<u8>>;

    /// Whether a person sees the gate's findings in the rendered report.
    fn shows_findings(&self) -> bool {
        false
    }

    /// Renders the list of a checkpoint's tensors.
    ///
    /// # Errors
    /// [`crate::Error::Report`].
    fn inventory(&self, inventory: &Inventory) -> Result<Vec<u8>>;
}

/// An analysis.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// What was analysed.
    pub checkpoint: Checkpoint,
    /// How.
    pub settings: Settings,
    /// Over all blocks.
    pub summary: Summary,
    /// Over the blocks of each tower.
    pub stacks: Vec<Stack>,
    /// One entry a block, stack after stack, in natural order.
    pub blocks: Vec<Block>,
    /// One entry a matrix, in the natural order of the names.
    pub matrices: Vec<Matrix>,
    /// Tensors that hold no matrix that is analysed.
    pub skipped: Vec<Skipped>,
    /// What the thresholds found; `None` where none was given.
    pub gate: Option<Gate>,
}

impl Report {
    /// Where no matrix was found: the reason of the largest group of tensors that could have been
    /// weights. What only says how to read another tensor could not.
    pub fn why_nothing(&self) -> Option<&str> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        const NO_WEIGHTS: [&str; 3] =
            ["one-dimensional", "scales of a quantised weight", "part of a quantised weight"];
        for skipped in self.skipped.iter().filter(|s| !NO_WEIGHTS.contains(&s.reason.as_str())) {
            *counts.entry(&skipped.reason).or_default() += 1;
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        most.filter(|_| self.matrices.is_empty()).map(|(reason, _)| reason)
    }
}

/// What was analysed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)] // the schema describes the fields
pub struct Checkpoint {
    pub path: String,
    pub format: &'static str,
    pub architecture: Option<String>,
    pub parameters: u64,
    pub tensors: usize,
    pub files: Vec<File>,
    pub revision: Option<String>,
    pub adapters: Vec<String>,
}

/// One file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct File {
    pub name: String,
    pub bytes: u64,
}

/// The settings that can change a number.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Settings {
    pub estimator: &'static str,
    pub tail_fraction: Option<f64>,
    pub xmin_pos: Option<f64>,
    pub drop_below: Option<f64>,
    pub granularity: &'static str,
    pub min_eigenvalues: usize,
    pub conv_norm: f64,
    pub split: bool,
    pub embeddings: bool,
    pub spectral_weights: bool,
    pub assume_unscaled: bool,
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    pub block_pattern: Option<String>,
    pub engine: String,
    pub precision: Precision,
}

/// Statistics over all blocks.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Summary {
    pub blocks: usize,
    pub matrices: usize,
    pub alpha_mean: Option<f64>,
    pub alpha_std: Option<f64>,
    pub alpha_min: Option<f64>,
    pub alpha_max: Option<f64>,
    pub spectral_norm_mean: Option<f64>,
    pub stable_rank_mean: Option<f64>,
}

/// Statistics over the blocks of one stack.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Stack {
    pub name: String,
    pub blocks: usize,
    pub alpha_mean: Option<f64>,
    pub alpha_std: Option<f64>,
    pub alpha_min: Option<f64>,
    pub alpha_max: Option<f64>,
}

/// The numbers of one block.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Block {
    pub name: String,
    pub stack: String,
    pub index: u64,
    pub matrices: usize,
    pub status: &'static str,
    pub alpha: Option<f64>,
    pub deviation: Option<f64>,
    pub spectral_norm: Option<f64>,
    pub stable_rank: Option<f64>,
}

/// The numbers of one matrix.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Matrix {
    pub name: String,
    pub tensors: Vec<String>,
    pub part: Option<String>,
    pub aliases: Vec<String>,
    pub block: Option<String>,
    pub role: &'static str,
    pub rows: usize,
    pub cols: usize,
    pub dtype: Cow<'static, str>,
    pub eigenvalues: usize,
    pub tail: Option<usize>,
    pub scheduled: bool,
    /// Name and value of every metric, in the order of the columns.
    pub metrics: Vec<(&'static str, Option<f64>)>,
    pub status: &'static str,
    pub precision: Precision,
    pub alpha_error: Option<f64>,
    pub eigenvalue_error: Option<f64>,
    pub warnings: Vec<String>,
}

/// How the spectrum of a matrix was computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// In double precision throughout.
    Exact,
    /// In single precision, with a probable bound of the error.
    Fast,
}

impl Precision {
    /// The name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Precision::Exact => "exact",
            Precision::Fast => "fast",
        }
    }
}

impl Matrix {
    /// A metric by its name.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.iter().find(|(n, _)| *n == name).and_then(|(_, value)| *value)
    }

    /// Whether it is an adapter's update rather than a weight, and has no alpha for that reason.
    pub fn is_update(&self) -> bool {
        self.status == "low-rank-update"
    }
}

/// A tensor without a matrix.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Skipped {
    pub name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    pub reason: String,
    /// NaN or infinite elements, where it has any.
    pub warnings: Vec<String>,
}

/// What the thresholds found.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Gate {
    pub passed: bool,
    pub findings: Vec<Finding>,
}

/// One threshold that does not hold.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Finding {
    pub rule: &'static str,
    pub subject: String,
    pub value: Option<f64>,
    pub bound: Option<f64>,
}

/// The tensors of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Inventory {
    pub checkpoint: Checkpoint,
    pub tensors: Vec<InventoryRow>,
    /// What the files hold beside the tensors of the model.
    pub left_out: Vec<LeftOut>,
}

/// A part of a file that is no weight of the model.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct LeftOut {
    pub name: String,
    pub reason: String,
}

/// One tensor.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct InventoryRow {
    pub name: String,
    pub dtype: Cow<'static, str>,
    pub shape: Vec<usize>,
    pub bytes: u64,
    pub file: String,
    pub stack: Option<String>,
    pub block: Option<String>,
    /// What an analysis does with it: its role, or why it is skipped.
    pub analysed: String,
}
