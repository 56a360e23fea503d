//! Norms, and the stable rank that is their ratio.

use super::{Measured, Metric};

/// σ_max.
pub struct SpectralNorm;

impl Metric for SpectralNorm {
    fn name(&self) -> &'static str {
        "spectral_norm"
    }

    fn description(&self) -> &'static str {
        "largest singular value σ_max"
    }

    fn value(&self, of: &Measured) -> Option<f64> {
        Some(of.largest().sqrt() * of.spectrum.unit)
    }
}

/// λ_max = σ_max²; the authors' code prints this number under the name of the spectral norm.
pub struct LambdaMax;

impl Metric for LambdaMax {
    fn name(&self) -> &'static str {
        "lambda_max"
    }

    fn description(&self) -> &'static str {
        "largest eigenvalue λ_max = σ_max²"
    }

    fn value(&self, of: &Measured) -> Option<f64> {
        of.eigenvalue(of.largest())
    }
}

/// ‖W‖_F² / σ_max²: between 1 and the rank.
pub struct StableRank;

impl Metric for StableRank {
    fn name(&self) -> &'static str {
        "stable_rank"
    }

    fn description(&self) -> &'static str {
        "‖W‖_F² / σ_max²"
    }

    fn value(&self, of: &Measured) -> Option<f64> {
        let sum: f64 = of.spectrum.eigenvalues.iter().sum();
        (of.largest() > 0.0).then(|| sum / of.largest())
    }
}

/// ‖W‖_F = √Σλ.
pub struct FrobeniusNorm;

impl Metric for FrobeniusNorm {
    fn name(&self) -> &'static str {
        "frobenius_norm"
    }

    fn description(&self) -> &'static str {
        "Frobenius norm ‖W‖_F"
    }

    fn value(&self, of: &Measured) -> Option<f64> {
        let sum: f64 = of.spectrum.eigenvalues.iter().sum();
        Some(sum.sqrt() * of.spectrum.unit)
    }
}
