//! The matrices of a checkpoint, fixed once and measured again and again while its weights change.
//!
//! Which matrices there are follows from the names and shapes of all tensors together (a fused
//! tensor is split by the shape of its partner). Fixing that from the whole makes the numbers of a matrix
//! independent of which other tensors are there when it is measured again.

use std::collections::HashMap;

use super::schedule::Silent;
use super::{Layout, Run, Settings};
use crate::error::{Error, Result};
use crate::matrices::{Matrix, Plan};
use crate::metrics::METRICS;
use crate::source::Checkpoint;
use crate::text::printable;

/// What is measured of a checkpoint, decided by its names, types and shapes alone.
#[derive(Clone, Debug)]
pub struct Frozen {
    settings: Settings,
    /// Name and shape of the tensor, and the matrix in it.
    matrices: Vec<(String, Vec<usize>, Matrix)>,
}

/// The numbers of one matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Remeasured {
    /// Its name in reports.
    pub name: String,
    /// As a report's [`crate::report::Matrix::status`].
    pub status: &'static str,
    /// Name and value of every metric.
    pub metrics: Vec<(&'static str, Option<f64>)>,
}

impl Frozen {
    /// The matrices of a whole checkpoint.
    ///
    /// # Errors
    /// [`Error::Setting`] where a setting has no meaning.
    pub fn new(checkpoint: &Checkpoint, settings: &Settings) -> Result<Frozen> {
        settings.check()?;
        let settings = settings.for_model(checkpoint);
        let layout = Layout::of(checkpoint, &settings)?;
        let of = |matrix: Matrix| {
            let tensor = checkpoint.tensors().get(matrix.tensor)?;
            Some((tensor.name.clone(), tensor.shape.clone(), matrix))
        };
        let matrices = layout.plan.matrices.into_iter().filter_map(of).collect();
        Ok(Frozen { settings, matrices })
    }

    /// The tensors with matrices in them, in order.
    pub fn tensors(&self) -> impl Iterator<Item = &str> {
        let mut last = None;
        let names = self.matrices.iter().map(|(name, ..)| name.as_str());
        names.filter(move |name| last.replace(*name) != Some(*name))
    }

    /// Measures the matrices in those tensors that the checkpoint has; it may have any of them. Numbers are
    /// those that [`super::analyze`] of the whole checkpoint with these weights gives, to the bit.
    ///
    /// # Errors
    /// [`Error::Setting`] where a tensor has another shape than it had; those of [`super::analyze`].
    pub fn measure(&self, checkpoint: &Checkpoint) -> Result<Vec<Remeasured>> {
        let tensors = checkpoint.tensors();
        let positions: HashMap<&str, usize> =
            tensors.iter().enumerate().map(|(position, tensor)| (tensor.name.as_str(), position)).collect();
        let (mut matrices, mut names) = (Vec::new(), Vec::new());
        for (name, shape, matrix) in &self.matrices {
            let Some(position) = positions.get(name.as_str()) else { continue };
            let now = tensors.get(*position).map(|tensor| (&tensor.shape, tensor.dtype));
            if now != Some((shape, matrix.dtype)) {
                return Err(Error::Setting(format!(
                    "the tensor `{}` has another type or shape than at the start.",
                    printable(name)
                )));
            }
            names.push(matrix.name(name));
            matrices.push(Matrix { tensor: *position, ..matrix.clone() });
        }
        let engine = self.settings.engine()?;
        let plan = Plan { matrices, skipped: Vec::new() };
        let run = Run {
            checkpoint,
            settings: &self.settings,
            engine: engine.as_ref(),
            plan: &plan,
            progress: &Silent,
        };
        let (outcomes, _) = run.everything()?;
        checkpoint.verify_unchanged()?;
        let of = |(name, outcome): (String, super::measure::Outcome)| Remeasured {
            name,
            status: outcome.status,
            metrics: METRICS.iter().map(|m| m.name()).zip(outcome.metrics).collect(),
        };
        Ok(names.into_iter().zip(outcomes).map(of).collect())
    }
}
