//! Numbers that follow from the fit.

use super::alpha::Alpha;
use super::{Measured, Metric};

/// alpha · log₁₀ λ_max (Martin, Peng and Mahoney 2021; `alpha_weighted` in WeightWatcher).
pub struct AlphaHat;

impl Metric for AlphaHat {
    fn name(&self) -> &'static str {
        "alpha_hat"
    }

    fn description(&self) -> &'static str {
        "alpha · log10 λ_max"
    }

    fn value(&self, of: &Measured) -> Option<f64> {
        let log_lambda_max = of.largest().log10() + 2.0 * of.spectrum.unit.log10();
        Some(of.fit.alpha? * log_lambda_max)
    }

    fn relative_error(&self, of: &Measured) -> f64 {
        Alpha.relative_error(of)
    }
}

/// Kolmogorov–Smirnov distance between the tail and its fitted power law.
pub struct KsDistance;

impl Metric for KsDistance {
    fn name(&self) -> &'static str {
        "ks_distance"
    }

    fn description(&self) -> &'static str {
        "Kolmogorov–Smirnov distance between the tail and the fitted power law"
    }

    fn value(&self, of: &Measured) -> Option<f64> {
        of.fit.ks_distance
    }

    fn relative_error(&self, of: &Measured) -> f64 {
        of.fit.ks_distance.map_or(0.0, |distance| of.fit.ks_error / distance)
    }
}
