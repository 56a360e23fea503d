//! Effective rank (Roy and Vetterli 2007).

use super::{Measured, Metric};

/// exp(−Σ p·ln p) with p = σ/Σσ: between 1 and the rank, n where all singular values are equal.
pub struct EffectiveRank;

impl Metric for EffectiveRank {
    fn name(&self) -> &'static str {
        "effective_rank"
    }

    fn description(&self) -> &'static str {
        "exponential of the Shannon entropy of the singular values, scaled to sum 1 (Roy and Vetterli 2007)"
    }

    fn value(&self, of: &Measured) -> Option<f64> {
        let singular = || of.spectrum.eigenvalues.iter().map(|v| v.sqrt());
        let sum: f64 = singular().sum();
        let entropy: f64 = singular().map(|s| s / sum).filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum();
        (sum > 0.0).then(|| entropy.exp())
    }

    /// Small singular values are roots, and suffer most: each moves by error/σ, but not beyond the
    /// root of the error, and the entropy by |ln p| + H ≤ |ln p| + ln n times its share of that.
    fn relative_error(&self, of: &Measured) -> f64 {
        let (error, values) = (of.spectrum.error, &of.spectrum.eigenvalues);
        if error == 0.0 {
            return 0.0;
        }
        let sum: f64 = values.iter().map(|v| v.sqrt()).sum();
        let log_n = (values.len() as f64).ln();
        let moved = values.iter().map(|value| {
            let moved = (error / value.sqrt()).min(error.sqrt());
            let share = value.sqrt().max(moved) / sum;
            moved / sum * (log_n - share.ln())
        });
        moved.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Estimator, tail};
    use crate::spectrum::Spectrum;

    #[test]
    fn counts_equal_values_and_ignores_zeros() {
        let spectrum =
            Spectrum { eigenvalues: vec![0.0, 0.0, 4.0, 4.0, 4.0], unit: 1.0, error: 0.0, larger_side: 5 };
        let fit = tail::fit(&spectrum, &Estimator::default());
        let rank = EffectiveRank.value(&Measured { spectrum: &spectrum, fit: &fit });
        assert!((rank.unwrap() - 3.0).abs() < 1e-12);
    }
}
