//! Numerics: from one spectrum to the numbers of one matrix.
//!
//! [`tail`] fits the power law; every number that a report shows is a [`Metric`]. A new metric is
//! one file with an implementation of that trait and one line in [`METRICS`]: tables, CSV, JSON and
//! its schema take their columns from that list.

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
}

/// Computes every metric, in the order of [`METRICS`]. A number that overflows `f64` becomes
/// `None`: reports never hold an infinity.
pub fn measure(of: &Measured) -> Vec<Option<f64>> {
    METRICS.iter().map(|metric| metric.value(of).filter(|value| value.is_finite())).collect()
}

/// The position of a metric in [`METRICS`].
pub fn position(name: &str) -> Option<usize> {
    METRICS.iter().position(|metric| metric.name() == name)
}
