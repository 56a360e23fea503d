//! The pipeline as one function: every stage in order, data flowing one way.
//!
//! ```text
//! Checkpoint ── tensors ──> matrices::plan ──> spectrum ──> metrics ──> blocks ──> Report
//! ```

mod assemble;
mod frozen;
mod inventory;
mod measure;
mod schedule;
mod settings;
mod update;

pub use frozen::{Frozen, Remeasured};
pub use inventory::inventory;
pub use schedule::{Progress, Silent};
pub use settings::{Granularity, Settings, engines};

use std::ops::Range;

use crate::blocks::Naming;
use crate::error::{Error, Result};
use crate::gate::Thresholds;
use crate::matrices::{Matrix, Plan, Role, Skip, plan};
use crate::report::{Precision, Report};
use crate::source::{Checkpoint, ModelConfig};
use crate::spectrum::{Engine, Parallelism, flops};
use crate::tensors::{Dtype, Survey, Tensor};
use schedule::{Job, Work};

/// Analyses a checkpoint.
///
/// The report depends on the checkpoint and the settings alone, not on the number of threads.
///
/// # Errors
/// Any [`crate::Error`] of a stage: a setting without meaning, a file that cannot be read or changed
/// meanwhile, an eigenvalue iteration that did not converge.
///
/// # Examples
/// ```
/// use evenkeel::{Checkpoint, OpenOptions, Settings, Silent, analyze};
///
/// let checkpoint = Checkpoint::open("fixtures/silero-vad".as_ref(), &OpenOptions::default())?;
/// let report = analyze(&checkpoint, &Settings::default(), &Silent)?;
/// assert_eq!(report.summary.blocks, 12);
/// # Ok::<(), evenkeel::Error>(())
/// ```
pub fn analyze(checkpoint: &Checkpoint, settings: &Settings, progress: &dyn Progress) -> Result<Report> {
    analyze_gated(checkpoint, settings, &Thresholds::default(), progress)
}

/// As [`analyze`], and holds the report against thresholds. What was computed in single precision and
/// leaves open whether a bound is kept is computed again, in double precision.
///
/// # Errors
/// Those of [`analyze`] and of [`Thresholds::check`].
pub fn analyze_gated(
    checkpoint: &Checkpoint,
    settings: &Settings,
    thresholds: &Thresholds,
    progress: &dyn Progress,
) -> Result<Report> {
    let report = measured(checkpoint, settings, thresholds, progress);
    // Before anything else is said: a file that changed explains any other error.
    checkpoint.verify_unchanged()?;
    let mut report = report?;
    report.gate = thresholds.check(&report)?;
    Ok(report)
}

/// The report without its gate.
fn measured(
    checkpoint: &Checkpoint,
    settings: &Settings,
    thresholds: &Thresholds,
    progress: &dyn Progress,
) -> Result<Report> {
    settings.check()?;
    let settings = &settings.for_model(checkpoint);
    let engine = settings.engine()?;
    let layout = Layout::of(checkpoint, settings)?;
    let run = Run { checkpoint, settings, engine: engine.as_ref(), plan: &layout.plan, progress };
    let (mut outcomes, surveys) = run.everything()?;
    let report = assemble::report(checkpoint, settings, &layout, &outcomes, &surveys);
    let open = thresholds.undecided(&report);
    if open.is_empty() {
        return Ok(report);
    }
    for (position, exact) in open.iter().zip(run.exactly(&open)?) {
        if let Some(outcome) = outcomes.get_mut(*position) {
            *outcome = exact;
        }
    }
    Ok(assemble::report(checkpoint, settings, &layout, &outcomes, &surveys))
}

/// The part of an analysis that looks at elements.
struct Run<'a> {
    checkpoint: &'a Checkpoint,
    settings: &'a Settings,
    engine: &'a dyn Engine,
    plan: &'a Plan,
    progress: &'a dyn Progress,
}

impl Run<'_> {
    /// First the matrices, then what is only looked over: one queue, so that no thread waits.
    fn everything(&self) -> Result<(Vec<measure::Outcome>, Vec<Survey>)> {
        let Plan { matrices, skipped } = self.plan;
        let glance = |skip: &Skip| Job {
            work: self.tensor(skip.tensor).map_or(0.0, |t| t.elements as f64),
            parallelism: Parallelism::Alone,
        };
        let jobs: Vec<Job> = matrices.iter().map(job).chain(skipped.iter().map(glance)).collect();
        let skip = |index: usize| skipped.get(index.saturating_sub(matrices.len()));
        let compute = |index: usize| match (matrices.get(index), skip(index)) {
            (Some(matrix), _) => self.outcome(matrix, self.settings.precision).map(Found::Matrix),
            (None, Some(skip)) => self.look_over(skip).map(Found::Skipped),
            (None, None) => Ok(Found::Skipped(Survey::default())),
        };
        let prepare = |index: usize| match (matrices.get(index), skip(index)) {
            (Some(matrix), _) => self.will_need(matrix.tensor, measure::span(matrix)),
            (None, Some(skip)) if !skip.by_choice => self.will_need(skip.tensor, 0..usize::MAX),
            _ => {}
        };
        let work = Work { compute, prepare };
        let results = schedule::run(&jobs, self.settings.threads, self.progress, work)?;
        let (mut outcomes, mut surveys) = (Vec::new(), Vec::new());
        for result in results {
            match result {
                Found::Matrix(outcome) => outcomes.push(outcome),
                Found::Skipped(survey) => surveys.push(survey),
            }
        }
        Ok((outcomes, surveys))
    }

    /// The matrices at these positions in double precision, in that order.
    fn exactly(&self, positions: &[usize]) -> Result<Vec<measure::Outcome>> {
        let matrices: Vec<&Matrix> = positions.iter().filter_map(|p| self.plan.matrices.get(*p)).collect();
        let jobs: Vec<Job> = matrices.iter().map(|matrix| job(matrix)).collect();
        let compute = |index: usize| {
            let missing = || Error::NotFound(format!("there is no matrix number {index}."));
            self.outcome(matrices.get(index).ok_or_else(missing)?, Precision::Exact)
        };
        // They were read a moment ago.
        schedule::run(&jobs, self.settings.threads, self.progress, Work { compute, prepare: |_| {} })
    }

    fn outcome(&self, matrix: &Matrix, precision: Precision) -> Result<measure::Outcome> {
        let missing = || Error::NotFound(format!("there is no tensor number {}.", matrix.tensor));
        let tensor = self.tensor(matrix.tensor).ok_or_else(missing)?;
        measure::outcome(self.checkpoint, tensor, matrix, self.engine, self.settings, precision)
    }

    fn look_over(&self, skip: &Skip) -> Result<Survey> {
        match self.tensor(skip.tensor).filter(|_| !skip.by_choice) {
            Some(tensor) => measure::look_over(self.checkpoint, tensor),
            None => Ok(Survey::default()),
        }
    }

    fn will_need(&self, tensor: usize, elements: Range<usize>) {
        if let Some(tensor) = self.tensor(tensor) {
            self.checkpoint.will_need(tensor, elements.start..elements.end.min(tensor.elements));
        }
    }

    fn tensor(&self, position: usize) -> Option<&Tensor> {
        self.checkpoint.tensors().get(position)
    }
}

/// What one job finds.
enum Found {
    Matrix(measure::Outcome),
    Skipped(Survey),
}

fn job(matrix: &Matrix) -> Job {
    // A complex matrix is computed as a real one of twice the size.
    let width = if matrix.dtype == Dtype::C64 { 2 } else { 1 };
    let (rows, cols) = (width * matrix.rows(), width * matrix.cols());
    Job { work: matrix.pooled as f64 * flops(rows, cols), parallelism: Parallelism::for_size(rows.min(cols)) }
}

/// What is known of a checkpoint before any element is read.
struct Layout {
    naming: Naming,
    plan: Plan,
    granularity: Granularity,
    /// The model has transformer blocks: what lies outside of them is not scheduled.
    transformer: bool,
}

impl Layout {
    fn of(checkpoint: &Checkpoint, settings: &Settings) -> Result<Layout> {
        let tensors = checkpoint.tensors();
        let config = checkpoint.config();
        let names: Vec<&str> = tensors.iter().map(|t| t.name.as_str()).collect();
        let model_type = config.and_then(ModelConfig::model_type);
        let naming = Naming::new(&names, model_type, settings.block_pattern.as_deref())?;
        let plan = plan(tensors, checkpoint.set_aside(), config, &naming, &settings.selection)?;
        let transformer =
            naming.are_transformer_blocks(&names).unwrap_or_else(|| repeats_layers(&plan, settings));
        let granularity = settings.granularity.unwrap_or(match transformer {
            true => Granularity::Block,
            false => Granularity::Layer,
        });
        Ok(Layout { naming, plan, granularity, transformer })
    }

    /// Whether a matrix takes part in the statistics: decided by shapes and names alone, before
    /// any number is known, so that it never changes from run to run of a training.
    fn is_scheduled(&self, matrix: &Matrix, settings: &Settings) -> bool {
        let by_role = match matrix.role {
            Role::Embedding => false,
            Role::Spectral => settings.spectral_weights,
            _ => true,
        };
        let by_place =
            matrix.block.is_some() || (self.granularity == Granularity::Layer && !self.transformer);
        by_role && by_place && matrix.eigenvalues() >= settings.least()
    }
}

/// Under the general naming rule: at least two blocks with at least two fully connected layers
/// each are taken for transformer blocks; a plain chain of layers is not.
fn repeats_layers(plan: &Plan, settings: &Settings) -> bool {
    let mut counts = std::collections::HashMap::new();
    for matrix in &plan.matrices {
        let counted =
            matches!(matrix.role, Role::Linear | Role::Expert) && matrix.eigenvalues() >= settings.least();
        if let (true, Some(block)) = (counted, &matrix.block) {
            *counts.entry(&block.name).or_insert(0usize) += 1;
        }
    }
    counts.values().filter(|count| **count >= 2).count() >= 2
}

/// The parameters of a checkpoint: the elements of every tensor that is not of integers and does not
/// merely say how to read another one, and the factors of an adapter's updates.
fn parameters(checkpoint: &Checkpoint) -> u64 {
    let is_companion = |t: &&Tensor| checkpoint.set_aside().get(&t.name).is_some_and(|aside| aside.companion);
    let own = checkpoint.tensors().iter().filter(|t| !is_companion(t));
    let real = own.filter(|t| t.dtype.kind() != crate::tensors::Kind::Integer);
    real.fold(0u64, |sum, t| sum.saturating_add(t.parameters()))
}
