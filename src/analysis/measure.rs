//! One matrix, from its bytes to its numbers.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::matrices::{Matrix, View};
use crate::metrics::{FitStatus, METRICS, Measured, largest_error, measure, tail};
use crate::report::Precision;
use crate::source::Checkpoint;
use crate::spectrum::{self, ComplexEmbedding, Elements, Engine, Failure, Method, Spectrum};
use crate::tensors::{Dtype, Kind, Survey, Tensor, decode, survey};

use super::{Settings, update};

/// The largest relative error that the Gram matrix may cause in any number; beyond it the singular
/// values of the matrix itself are computed.
const TOLERANCE: f64 = 1e-9;
/// The largest |Δalpha| that single precision may have; beyond it double precision is used.
const FAST_TOLERANCE: f64 = 1e-4;
/// Below this size double precision is about as fast, because of the search for what stands out.
const FAST_FROM: usize = 256;

/// What is known of a matrix after it was looked at.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outcome {
    /// In the order of [`METRICS`].
    pub metrics: Vec<Option<f64>>,
    /// The number of eigenvalues in the fitted tail.
    pub tail: Option<usize>,
    /// `ok`, or why there is no alpha.
    pub status: &'static str,
    /// How the spectrum was computed.
    pub precision: Precision,
    /// First-order bound of |Δalpha|.
    pub alpha_error: Option<f64>,
    /// Bound of |Δλ|, of W itself.
    pub eigenvalue_error: Option<f64>,
    /// Numbers that exist but should not be relied on, and why.
    pub warnings: Vec<String>,
}

impl Outcome {
    /// A status in place of numbers.
    pub fn without_numbers(status: &'static str) -> Outcome {
        Outcome {
            metrics: vec![None; METRICS.len()],
            tail: None,
            status,
            precision: Precision::Exact,
            alpha_error: None,
            eigenvalue_error: None,
            warnings: Vec::new(),
        }
    }
}

/// Statuses as the report's contract names them.
pub(super) mod status {
    pub const OK: &str = "ok";
    pub const RANK_DEFICIENT: &str = "rank-deficient-tail";
    pub const FLAT: &str = "flat-tail";
    pub const TOO_FEW: &str = "too-few-eigenvalues";
    pub const NON_FINITE: &str = "non-finite";
    pub const ZERO: &str = "zero";
    /// An adapter's update without its base: no weight, and so without an alpha by definition.
    pub const UPDATE: &str = "low-rank-update";
}

/// Measures one matrix of a checkpoint.
///
/// # Errors
/// [`Error::NoConvergence`], and those of reading.
pub(super) fn outcome(
    checkpoint: &Checkpoint,
    tensor: &Tensor,
    matrix: &Matrix,
    engine: &dyn Engine,
    settings: &Settings,
    precision: Precision,
) -> Result<Outcome> {
    if let Some(factors) = checkpoint.factors(tensor)? {
        let failed = |_| Error::NoConvergence { matrix: matrix.name(&tensor.name), engine: engine.name() };
        return update::outcome(&factors, matrix, engine).map_err(failed);
    }
    let (span, width) = (span(matrix), width(matrix));
    let bytes = checkpoint.read(tensor, span.clone())?;
    let source = Source { bytes: &bytes, first: span.start * width, matrix, width };
    let mut warnings = Vec::new();
    if matrix.unsplit {
        warnings.push("fused-not-split".to_owned());
    }
    let failed = |failure: Failure| match failure {
        Failure::NoConvergence(_) | Failure::OutOfRange => {
            Error::NoConvergence { matrix: matrix.name(&tensor.name), engine: engine.name() }
        }
    };
    let of = |factor, method, trusted| {
        spectrum::spectrum(engine, source.slices(factor), method, trusted)
            .map(|spectrum| finish(spectrum, matrix, factor))
    };
    if precision == Precision::Fast && matrix.rows().min(matrix.cols()) >= FAST_FROM {
        // Whatever goes wrong in single precision is left to double precision to say.
        if let Ok(spectrum) = of(1.0, Method::Single, false)
            && let Some(outcome) = fast_numbers(&spectrum, matrix, settings, &warnings)
        {
            return Ok(outcome);
        }
    }
    let (factor, gram) = match of(1.0, Method::Gram, false) {
        Ok(spectrum) => (1.0, spectrum),
        Err(Failure::OutOfRange) => {
            let found = source.survey();
            if let Some(outcome) = without_spectrum(&found, &mut warnings) {
                return Ok(outcome);
            }
            let factor = factor_for(found.max_abs);
            (factor, of(factor, Method::Gram, true).map_err(failed)?)
        }
        Err(failure) => return Err(failed(failure)),
    };
    numbers(gram, matrix, settings, warnings, || of(factor, Method::Svd, true).map_err(failed))
}

/// A complex number is laid out as two F32.
fn width(matrix: &Matrix) -> usize {
    if matrix.dtype == Dtype::C64 { 2 } else { 1 }
}

/// The elements of its tensor that a matrix lies in, from the first to the last.
pub(super) fn span(matrix: &Matrix) -> Range<usize> {
    let width = width(matrix);
    let span = matrix.layout.span(matrix.pooled * width);
    span.start / width..span.end.div_ceil(width)
}

/// Looks a tensor over that holds no matrix: NaN in an embedding or a norm is as bad as elsewhere.
/// Types whose numbers mean nothing by themselves, or cannot be decoded, are passed over.
///
/// # Errors
/// Those of reading.
pub(super) fn look_over(checkpoint: &Checkpoint, tensor: &Tensor) -> Result<Survey> {
    const CHUNK: usize = 1 << 16;
    if tensor.unread().is_some() {
        return Ok(Survey::default());
    }
    if let Some(factors) = checkpoint.factors(tensor)? {
        return Ok(update::survey_of(&factors));
    }
    // A complex number is decoded as two reals.
    let width = match tensor.dtype.kind() {
        Kind::Real => 1,
        Kind::Complex => 2,
        _ => return Ok(Survey::default()),
    };
    let count = tensor.elements;
    let chunk = CHUNK.next_multiple_of(tensor.granule());
    let mut buffer = vec![0.0; width * chunk.min(count)];
    let mut found = Survey::default();
    for start in (0..count).step_by(chunk) {
        let end = count.min(start + chunk);
        let bytes = checkpoint.read(tensor, start..end)?;
        let Some(values) = buffer.get_mut(..width * (end - start)) else { break };
        decode(tensor.dtype, &bytes, 0, 1, values);
        found = found.merge(survey(values));
    }
    Ok(found)
}

/// Fits and measures a spectrum in single precision; `None` where it is not good enough: a gate or
/// a reader must be able to rely on alpha to 1e-4, and on every status.
fn fast_numbers(
    spectrum: &Spectrum,
    matrix: &Matrix,
    settings: &Settings,
    warnings: &[String],
) -> Option<Outcome> {
    let fit = tail::fit_above(spectrum, &settings.estimator, settings.drop_below);
    let decided = fit.status == FitStatus::Ok && !fit.start_uncertain && fit.alpha_error <= FAST_TOLERANCE;
    // A number of the storage's own precision is none that single precision could judge.
    let stored_finer = below_storage_precision(spectrum, &fit, matrix);
    (decided && !stored_finer && matrix.eigenvalues() >= settings.least())
        .then(|| measured(spectrum, &fit, Precision::Fast, warnings.to_vec()))
}

/// Fits and measures; `exact` computes the slower spectrum where that of the Gram matrix is not
/// good enough.
fn numbers(
    gram: Spectrum,
    matrix: &Matrix,
    settings: &Settings,
    mut warnings: Vec<String>,
    exact: impl FnOnce() -> Result<Spectrum>,
) -> Result<Outcome> {
    let fit_to = |spectrum: &Spectrum| tail::fit_above(spectrum, &settings.estimator, settings.drop_below);
    let first = fit_to(&gram);
    let undecided = match first.status {
        FitStatus::Ok => first.start_uncertain,
        FitStatus::TooFewEigenvalues => false,
        // Rank and flatness are decided among eigenvalues that the Gram matrix does not resolve.
        FitStatus::RankDeficientTail | FitStatus::FlatTail => true,
    };
    let error = largest_error(&Measured { spectrum: &gram, fit: &first });
    let (spectrum, mut fit) = if undecided || error > TOLERANCE {
        let spectrum = exact()?;
        let fit = fit_to(&spectrum);
        (spectrum, fit)
    } else {
        (gram, first)
    };
    if matrix.eigenvalues() < settings.least() {
        fit = tail::Fit::none(FitStatus::TooFewEigenvalues);
    }
    if below_storage_precision(&spectrum, &fit, matrix) {
        warnings.push("below-storage-precision".to_owned());
    }
    Ok(measured(&spectrum, &fit, Precision::Exact, warnings))
}

fn measured(spectrum: &Spectrum, fit: &tail::Fit, precision: Precision, warnings: Vec<String>) -> Outcome {
    let status = match fit.status {
        FitStatus::Ok => status::OK,
        FitStatus::RankDeficientTail => status::RANK_DEFICIENT,
        FitStatus::FlatTail => status::FLAT,
        FitStatus::TooFewEigenvalues => status::TOO_FEW,
    };
    let eigenvalue_error = spectrum.error * spectrum.unit * spectrum.unit;
    Outcome {
        metrics: measure(&Measured { spectrum, fit }),
        tail: fit.alpha.map(|_| fit.tail),
        status,
        precision,
        alpha_error: fit.alpha.map(|_| fit.alpha_error).filter(|error| error.is_finite()),
        eigenvalue_error: Some(eigenvalue_error).filter(|error| error.is_finite()),
        warnings,
    }
}

/// Zero and non-finite matrices have a status in place of numbers.
pub(super) fn without_spectrum(found: &Survey, warnings: &mut Vec<String>) -> Option<Outcome> {
    if let Some(sentence) = found.describe() {
        warnings.push(sentence);
        return Some(Outcome {
            warnings: std::mem::take(warnings),
            ..Outcome::without_numbers(status::NON_FINITE)
        });
    }
    if found.max_abs > 0.0 {
        return None;
    }
    let mut zero = Outcome { warnings: std::mem::take(warnings), ..Outcome::without_numbers(status::ZERO) };
    for (value, metric) in zero.metrics.iter_mut().zip(METRICS) {
        if matches!(metric.name(), "spectral_norm" | "lambda_max" | "frobenius_norm") {
            *value = Some(0.0);
        }
    }
    Some(zero)
}

/// What the elements are multiplied by: 1 unless their squares would leave the range.
fn factor_for(max_abs: f64) -> f64 {
    if (1e-90..1e90).contains(&max_abs) { 1.0 } else { spectrum::power_of_two_for(max_abs) }
}

/// Applies the eigenvalues' scale, and remembers what the elements were multiplied by.
fn finish(mut spectrum: Spectrum, matrix: &Matrix, factor: f64) -> Spectrum {
    let scale = matrix.eigenvalue_scale;
    if scale != 1.0 {
        spectrum.eigenvalues.iter_mut().for_each(|value| *value *= scale);
        spectrum.error *= scale;
    }
    spectrum.unit = 1.0 / factor;
    spectrum
}

/// σ_{n−k} < max(rows, cols)·ε_stored·σ_max: the tail lies in what storing the weights rounded off.
fn below_storage_precision(spectrum: &Spectrum, fit: &tail::Fit, matrix: &Matrix) -> bool {
    let start = fit.start.and_then(|start| spectrum.eigenvalues.get(start));
    let (Some(_), Some(start), Some(epsilon)) = (fit.alpha, start, matrix.dtype.storage_epsilon()) else {
        return false;
    };
    let largest = spectrum.eigenvalues.last().map_or(0.0, |v| v.sqrt());
    start.sqrt() < spectrum.larger_side as f64 * epsilon * largest
}

/// The bytes of a matrix, and how to look at them.
#[derive(Clone, Copy)]
struct Source<'a> {
    bytes: &'a [u8],
    first: usize,
    matrix: &'a Matrix,
    width: usize,
}

impl<'a> Source<'a> {
    fn view(&self, start: usize, factor: f64) -> View<'a> {
        let mut layout = self.matrix.layout;
        layout.offset += start;
        View { bytes: self.bytes, first: self.first, dtype: self.matrix.dtype, layout, factor }
    }

    fn slices(&self, factor: f64) -> impl Iterator<Item = Slice<'a>> {
        let source = *self;
        (0..self.matrix.pooled).map(move |slice| {
            let start = slice * source.width;
            match source.matrix.dtype {
                Dtype::C64 => Slice::Complex(ComplexEmbedding {
                    real: source.view(start, factor),
                    imaginary: source.view(start + 1, factor),
                }),
                _ => Slice::Real(source.view(start, factor)),
            }
        })
    }

    fn survey(&self) -> Survey {
        let views = (0..self.matrix.pooled * self.width).map(|start| self.view(start, 1.0).survey());
        views.fold(Survey::default(), Survey::merge)
    }
}

/// One matrix whose spectrum is taken.
enum Slice<'a> {
    Real(View<'a>),
    Complex(ComplexEmbedding<View<'a>>),
}

impl Slice<'_> {
    fn elements(&self) -> &dyn Elements {
        match self {
            Slice::Real(view) => view,
            Slice::Complex(embedding) => embedding,
        }
    }
}

impl Elements for Slice<'_> {
    fn rows(&self) -> usize {
        self.elements().rows()
    }

    fn cols(&self) -> usize {
        self.elements().cols()
    }

    fn copy_block(&self, rows: std::ops::Range<usize>, cols: std::ops::Range<usize>, out: &mut [f64]) {
        self.elements().copy_block(rows, cols, out);
    }

    fn multiplicity(&self) -> usize {
        self.elements().multiplicity()
    }
}
