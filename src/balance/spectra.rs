//! The newest numbers of every matrix, and of which optimizer step they are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Measure;
use crate::analysis::Remeasured;
use crate::report::Report;

/// The numbers of one matrix at one step; `None` where a number does not exist.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Numbers {
    /// The optimizer steps done when the weights were as measured.
    pub step: u64,
    /// `ok`, or why there is no alpha, as in reports.
    pub status: String,
    /// PL_Alpha_Hill.
    pub alpha: Option<f64>,
    /// σ_max².
    pub lambda_max: Option<f64>,
    /// σ_max.
    pub spectral_norm: Option<f64>,
    /// ‖W‖_F²/σ_max².
    pub stable_rank: Option<f64>,
}

impl Numbers {
    fn new(step: u64, status: &str, metric: impl Fn(&str) -> Option<f64>) -> Numbers {
        let of = |measure: Measure| metric(measure.metric()).filter(|value| value.is_finite());
        Numbers {
            step,
            status: status.to_owned(),
            alpha: of(Measure::Alpha),
            lambda_max: of(Measure::LambdaMax),
            spectral_norm: of(Measure::SpectralNorm),
            stable_rank: of(Measure::StableRank),
        }
    }

    /// The number that a measure asks for.
    pub fn get(&self, measure: Measure) -> Option<f64> {
        match measure {
            Measure::Alpha => self.alpha,
            Measure::LambdaMax => self.lambda_max,
            Measure::SpectralNorm => self.spectral_norm,
            Measure::StableRank => self.stable_rank,
        }
    }
}

/// The newest numbers of every matrix, by its name in reports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spectra {
    matrices: BTreeMap<String, Numbers>,
}

impl Spectra {
    /// Those of a report on the weights after `step` optimizer steps.
    pub fn of(report: &Report, step: u64) -> Spectra {
        let numbers = |m: &crate::report::Matrix| {
            (m.name.clone(), Numbers::new(step, m.status, |metric| m.metric(metric)))
        };
        Spectra { matrices: report.matrices.iter().map(numbers).collect() }
    }

    /// Takes in what [`crate::analysis::Frozen::measure`] found in the weights after `step` optimizer
    /// steps; the other matrices keep their numbers. Numbers that arrive late never replace newer ones.
    pub fn update(&mut self, step: u64, found: &[Remeasured]) {
        for one in found {
            let value = |metric: &str| one.metrics.iter().find(|(name, _)| *name == metric).and_then(|m| m.1);
            if self.matrices.get(&one.name).is_none_or(|known| known.step <= step) {
                self.matrices.insert(one.name.clone(), Numbers::new(step, one.status, value));
            }
        }
    }

    /// The numbers of a matrix.
    pub fn get(&self, matrix: &str) -> Option<&Numbers> {
        self.matrices.get(matrix)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Numbers)> {
        self.matrices.iter().map(|(name, numbers)| (name.as_str(), numbers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, alpha: f64) -> Remeasured {
        Remeasured { name: name.to_owned(), status: "ok", metrics: vec![("alpha", Some(alpha))] }
    }

    #[test]
    fn newer_numbers_replace_older_ones_and_nothing_else() {
        let mut spectra = Spectra::default();
        spectra.update(3, &[found("a", 2.0), found("b", 3.0)]);
        spectra.update(5, &[found("b", 3.5)]);
        spectra.update(4, &[found("b", 9.0), found("a", f64::NAN)]);
        let seen: Vec<_> = spectra.iter().map(|(name, n)| (name, n.step, n.get(Measure::Alpha))).collect();
        assert_eq!(seen, [("a", 4, None), ("b", 5, Some(3.5))]);
        let text = serde_json::to_string(&spectra).unwrap();
        assert_eq!(serde_json::from_str::<Spectra>(&text).unwrap(), spectra);
    }
}
