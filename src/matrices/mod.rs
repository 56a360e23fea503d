//! Third stage: from tensors to the weight matrices in them, each with its provenance in its name.
//!
//! [`plan`] looks at names, types and shapes only; no element is read. Every tensor ends up in some
//! [`Matrix`] or in the list of those that are skipped, with the reason.

mod classify;
mod fused;
mod layout;

use std::collections::HashMap;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Serialize};

pub use classify::Role;
pub use layout::{Axis, Layout, View};

use crate::blocks::{Block, Naming};
use crate::error::{Error, Result};
use crate::quantised::Aside;
use crate::source::ModelConfig;
use crate::tensors::{Dtype, Tensor};
use crate::text::printable;
use classify::{Form, classify};
use fused::{Context, Fusion};

/// Which tensors are taken apart into matrices, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Selection {
    /// Only tensors whose names match one of these globs; all of them where there is none.
    pub include: Vec<String>,
    /// No tensor whose name matches one of these.
    pub exclude: Vec<String>,
    /// Read 8-bit floats without known scales as they are stored.
    pub assume_unscaled: bool,
    /// Split fused projections and stacks into the matrices that they hold.
    pub split: bool,
    /// Analyse embedding tables, too.
    pub embeddings: bool,
    /// What the eigenvalues of a convolution's slices are multiplied by (`conv_norm`).
    pub conv_norm: f64,
}

impl Default for Selection {
    fn default() -> Self {
        Selection {
            include: Vec::new(),
            exclude: Vec::new(),
            assume_unscaled: false,
            split: true,
            embeddings: false,
            conv_norm: 0.5,
        }
    }
}

/// One weight matrix, or several slices of one shape whose eigenvalues are pooled.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// The tensor's position in the checkpoint's list.
    pub tensor: usize,
    /// Which part of the tensor it is; `None` for the whole.
    pub part: Option<String>,
    /// What kind of layer it comes from.
    pub role: Role,
    /// The stored type.
    pub dtype: Dtype,
    /// Where the first slice lies. Of a complex tensor the layout counts real numbers.
    pub layout: Layout,
    /// How many slices are pooled; each begins one number after the one before.
    pub pooled: usize,
    /// What the eigenvalues are multiplied by.
    pub eigenvalue_scale: f64,
    /// The tensor holds several matrices, but how they are laid out is not known.
    pub unsplit: bool,
    /// Its block; `None` outside all blocks.
    pub block: Option<Block>,
}

impl Matrix {
    /// The name in reports: the tensor's, with the part in brackets.
    pub fn name(&self, tensor: &str) -> String {
        match &self.part {
            None => tensor.to_owned(),
            Some(part) => format!("{tensor}[{part}]"),
        }
    }

    /// Rows of one slice.
    pub fn rows(&self) -> usize {
        self.layout.rows.len
    }

    /// Columns of one slice.
    pub fn cols(&self) -> usize {
        self.layout.cols.len
    }

    /// n: the eigenvalues of all slices together.
    pub fn eigenvalues(&self) -> usize {
        self.pooled.saturating_mul(self.rows().min(self.cols()))
    }
}

/// What [`plan`] finds: everything in the checkpoint, in the natural order of the names.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The matrices.
    pub matrices: Vec<Matrix>,
    /// Tensors that hold none.
    pub skipped: Vec<Skip>,
}

/// A tensor without a matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    /// The tensor's position in the checkpoint's list.
    pub tensor: usize,
    /// Why it holds none.
    pub reason: String,
    /// Left out by the user's own patterns: nothing more is said of it.
    pub by_choice: bool,
}

/// Finds the matrices of a checkpoint; `set_aside` has the tensors without one that are known before.
///
/// # Errors
/// [`Error::Setting`] where a pattern of the selection is no glob.
pub fn plan(
    tensors: &[Tensor],
    set_aside: &HashMap<String, Aside>,
    config: Option<&ModelConfig>,
    naming: &Naming,
    selection: &Selection,
) -> Result<Plan> {
    let include = globs("--include", &selection.include, tensors)?;
    let exclude = globs("--exclude", &selection.exclude, tensors)?;
    let by_name: HashMap<&str, &Tensor> = tensors.iter().map(|t| (t.name.as_str(), t)).collect();
    let shape_of = |name: &str| by_name.get(name).map(|t| t.shape.as_slice());
    let context = Context { config, shape_of: &shape_of };
    let mut plan = Plan::default();
    for (position, tensor) in tensors.iter().enumerate() {
        let mut skip = |reason: &str, by_choice| {
            plan.skipped.push(Skip { tensor: position, reason: reason.to_owned(), by_choice });
        };
        if !selection.include.is_empty() && !include.is_match(&tensor.name) {
            skip("not matched by --include", true);
            continue;
        }
        if exclude.is_match(&tensor.name) {
            skip("matched by --exclude", true);
            continue;
        }
        if let Some(aside) = set_aside.get(&tensor.name) {
            skip(&aside.reason, false);
            continue;
        }
        match classify(tensor, selection.assume_unscaled) {
            Ok((Role::Embedding, _)) if !selection.embeddings => {
                skip("embedding (--embeddings analyses it)", false);
            }
            Ok((role, form)) => {
                let block = naming.block_of(&tensor.name);
                let whole = Whole { position, tensor, role, block, selection };
                plan.matrices.extend(whole.matrices(form, &context));
            }
            Err(reason) => skip(&reason, false),
        }
    }
    Ok(plan)
}

/// Compiles the patterns of an option. One that matches nothing is a slip of the pen.
fn globs(option: &str, patterns: &[String], tensors: &[Tensor]) -> Result<GlobSet> {
    let invalid = |e: globset::Error| {
        Error::Setting(format!("{option} takes name patterns such as '*.attention.*': {e}."))
    };
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        // Names have no path separators, so that `*` crosses the dots.
        let glob = GlobBuilder::new(pattern).literal_separator(false).build().map_err(invalid)?;
        let matcher = glob.compile_matcher();
        if !tensors.iter().any(|tensor| matcher.is_match(&tensor.name)) {
            return Err(Error::Setting(format!(
                "{option} `{}` matches no tensor name; `evenkeel inspect` lists the names.",
                printable(pattern)
            )));
        }
        set.add(glob);
    }
    set.build().map_err(invalid)
}

/// A tensor that is to be taken apart.
struct Whole<'a> {
    position: usize,
    tensor: &'a Tensor,
    role: Role,
    block: Option<Block>,
    selection: &'a Selection,
}

impl Whole<'_> {
    fn matrices(&self, form: Form, context: &Context) -> Vec<Matrix> {
        match (form, self.tensor.shape.as_slice()) {
            (Form::Matrix, &[rows, cols]) => self.fused(rows, cols, context),
            (Form::Stack, &[count, rows, cols]) => self.stack(count, rows, cols, context),
            (Form::Kernel, &[outputs, inputs, ref kernel @ ..]) => {
                let pooled: usize = kernel.iter().product();
                let mut matrix = self.matrix(None, pooled_layout(outputs, inputs, pooled, 1));
                matrix.pooled = pooled;
                matrix.eigenvalue_scale = self.selection.conv_norm;
                vec![matrix]
            }
            (Form::Modes, &[inputs, outputs, ref modes @ ..]) => {
                let pooled: usize = modes.iter().product();
                let mut matrix = self.matrix(None, pooled_layout(inputs, outputs, pooled, 2));
                matrix.pooled = pooled;
                vec![matrix]
            }
            _ => Vec::new(),
        }
    }

    fn matrix(&self, part: Option<String>, layout: Layout) -> Matrix {
        Matrix {
            tensor: self.position,
            part,
            role: self.role,
            dtype: self.tensor.dtype,
            layout,
            pooled: 1,
            eigenvalue_scale: 1.0,
            unsplit: false,
            block: self.block.clone(),
        }
    }

    fn fused(&self, rows: usize, cols: usize, context: &Context) -> Vec<Matrix> {
        let whole = || self.matrix(None, Layout::dense(rows, cols));
        if !self.selection.split {
            return vec![whole()];
        }
        match fused::parts(self.tensor, rows, cols, context) {
            Fusion::Single => vec![whole()],
            Fusion::Unknown => vec![Matrix { unsplit: true, ..whole() }],
            Fusion::Parts(parts) => {
                parts.into_iter().map(|(name, layout)| self.matrix(Some(name), layout)).collect()
            }
        }
    }

    /// A stack [count, rows, cols]: every slice is a matrix. Unsplit, they stand below one another as
    /// one tall matrix.
    fn stack(&self, count: usize, rows: usize, cols: usize, context: &Context) -> Vec<Matrix> {
        // Every slice has the tensor's name: a long name must not become gigabytes.
        const NAMES: usize = 1 << 24;
        if count.saturating_mul(self.tensor.name.len()) > NAMES {
            return vec![Matrix { unsplit: true, ..self.matrix(None, Layout::dense(count * rows, cols)) }];
        }
        if !self.selection.split {
            return vec![self.matrix(None, Layout::dense(count * rows, cols))];
        }
        let parts = match self.role {
            Role::Expert => fused::expert_halves(self.tensor, rows, cols, context),
            _ => Fusion::Single,
        };
        let unsplit = matches!(parts, Fusion::Unknown);
        let parts = match parts {
            Fusion::Parts(parts) => parts,
            _ => vec![(String::new(), Layout::dense(rows, cols))],
        };
        let prefix = if self.role == Role::Expert { "experts." } else { "" };
        let of_slice = |index: usize| {
            parts.iter().map(move |(name, layout)| {
                let dot = if name.is_empty() { "" } else { "." };
                let layout = Layout { offset: index * rows * cols + layout.offset, ..*layout };
                Matrix { unsplit, ..self.matrix(Some(format!("{prefix}{index}{dot}{name}")), layout) }
            })
        };
        (0..count).flat_map(of_slice).collect()
    }
}

/// Slices of [outer, inner, pooled…], each number being `width` elements: the first slice.
fn pooled_layout(outer: usize, inner: usize, pooled: usize, width: usize) -> Layout {
    Layout {
        offset: 0,
        rows: Axis::plain(outer, inner * pooled * width),
        cols: Axis::plain(inner, pooled * width),
    }
}
