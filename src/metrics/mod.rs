//! Numerics: from one spectrum to the numbers of one matrix.
//!
//! [`tail`] fits the power law; every number that a report shows is a [`Metric`]. A new metric is
//! one file with an implementation of that trait and one line in [`METRICS`]: JSON, its schema and
//! CSV take their fields from that list; the tables for people show a chosen few.

mod alpha;
mod effective_rank;
mod norms;
mod shape;
pub mod tail;

pub use tail::{Estimator, Fit, FitStatus};

use crate::spectrum::Spectrum;

/// Every metric of a matrix, in the order of the report's columns.
pub static METRICS: &[&dyn Metric] = &[
    &alpha::Alpha,
    &alpha::LambdaMin,
    &norms::SpectralNorm,
    &norms::LambdaMax,
    &norms::StableRank,
    &norms::FrobeniusNorm,
    &shape::AlphaHat,
    &effective_rank::EffectiveRank,
    &shape::KsDistance,
];

/// One number of a matrix.
pub trait Metric: Sync {
    /// The field's name in JSON and CSV.
    fn name(&self) -> &'static str;
    /// One line for the JSON Schema: the definition.
    fn description(&self) -> &'static str;
    /// The number; `None` where it does not exist. What is not finite is left out by the caller.
    fn value(&self, of: &Measured) -> Option<f64>;
    /// How far, relatively and to first order, [`Spectrum::error`] may have moved the number. The
    /// default suits sums and maxima of eigenvalues, which that error does not move noticeably.
    fn relative_error(&self, of: &Measured) -> f64 {
        let _ = of;
        0.0
    }
}

/// What a metric is computed from.
#[derive(Clone, Copy, Debug)]
pub struct Measured<'a> {
    /// The eigenvalues, not all zero.
    pub spectrum: &'a Spectrum,
    /// The power law fitted to their tail.
    pub fit: &'a Fit,
}

impl Measured<'_> {
    /// λ_max of W / unit; see [`Spectrum::unit`].
    fn largest(&self) -> f64 {
        self.spectrum.eigenvalues.last().copied().unwrap_or(0.0)
    }

    /// An eigenvalue of W itself; `None` where a normal `f64` cannot hold it.
    fn eigenvalue(&self, of_scaled: f64) -> Option<f64> {
        let value = of_scaled * self.spectrum.unit * self.spectrum.unit;
        (value.is_normal() || of_scaled == 0.0).then_some(value)
    }
}

/// Computes every metric, in the order of [`METRICS`]. A number beyond `f64` becomes `None`:
/// reports never hold an infinity.
pub fn measure(of: &Measured) -> Vec<Option<f64>> {
    METRICS.iter().map(|metric| metric.value(of).filter(|value| value.is_finite())).collect()
}

/// The largest relative error of any metric.
pub fn largest_error(of: &Measured) -> f64 {
    METRICS.iter().map(|metric| metric.relative_error(of)).fold(0.0, f64::max)
}

/// The position of a metric in [`METRICS`].
pub fn position(name: &str) -> Option<usize> {
    METRICS.iter().position(|metric| metric.name() == name)
}
