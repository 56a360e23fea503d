//! The power law of the tail: where it starts, its exponent, and how well it fits.

use serde::{Deserialize, Serialize};

use crate::spectrum::Spectrum;

/// Which tail is fitted, and how alpha is estimated from it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Estimator {
    /// The paper's eq. (2): alpha = 1 + k / Σ_{i=1..k} ln(λ_{n−i+1} / λ_{n−k}), k = ⌊fraction·n⌋.
    Hill {
        /// The fraction of the eigenvalues that is the tail; 0.5 in the paper's experiments.
        tail_fraction: f64,
    },
    /// The authors' code: the tail starts at index ⌊n/pos⌋ (from 0), and counts that eigenvalue.
    Reference {
        /// 2 by default; the authors' GLUE scripts use 1.5.
        xmin_pos: f64,
    },
    /// The start with the smallest Kolmogorov–Smirnov distance (Clauset et al. 2009).
    Ks,
    /// As `Ks`, among the starts near the peak of the histogram of log₁₀ λ (AlphaPruning).
    Peak,
}

impl Default for Estimator {
    fn default() -> Self {
        Estimator::Hill { tail_fraction: 0.5 }
    }
}

/// Why a fit has an alpha or has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FitStatus {
    /// There is an alpha.
    Ok,
    /// The tail would start among eigenvalues that are zero up to rounding.
    RankDeficientTail,
    /// The tail's eigenvalues are all equal: Σ ln(λ/λ_{n−k}) < k·1e-6.
    FlatTail,
    /// Too few eigenvalues for a tail.
    TooFewEigenvalues,
}

/// A power law fitted to the tail of a spectrum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// The exponent.
    pub alpha: Option<f64>,
    /// The number of eigenvalues in the tail: k of eq. (2); for the other estimators it counts the
    /// start, too.
    pub tail: usize,
    /// The index of λ_{n−k} in the ascending spectrum.
    pub start: Option<usize>,
    /// Kolmogorov–Smirnov distance of the tail from the fitted law.
    pub ks_distance: Option<f64>,
    /// First-order bound of |Δalpha| that follows from [`Spectrum::error`].
    pub alpha_error: f64,
    /// First-order bound of the change of D.
    pub ks_error: f64,
    /// Whether the choice of the start could change within that error (`Ks` and `Peak` only).
    pub start_uncertain: bool,
    /// Why there is an alpha or none.
    pub status: FitStatus,
}

impl Fit {
    pub(crate) fn none(status: FitStatus) -> Fit {
        Fit {
            alpha: None,
            tail: 0,
            start: None,
            ks_distance: None,
            alpha_error: 0.0,
            ks_error: 0.0,
            start_uncertain: false,
            status,
        }
    }
}

/// Fits the tail of a spectrum that is not all zero. It does not depend on the scale of W.
pub fn fit(spectrum: &Spectrum, estimator: &Estimator) -> Fit {
    fit_above(spectrum, estimator, None)
}

/// As [`fit`], after leaving out the eigenvalues up to `drop_below` (all are kept where none is
/// larger): the authors' code for neural operators does so with 1e-5.
pub fn fit_above(spectrum: &Spectrum, estimator: &Estimator, drop_below: Option<f64>) -> Fit {
    let scale = spectrum.unit * spectrum.unit;
    let all = spectrum.eigenvalues.as_slice();
    let dropped = drop_below.map_or(0, |bound| all.partition_point(|v| v * scale <= bound));
    let kept = all.get(dropped..).filter(|kept| !kept.is_empty());
    let (dropped, values) = kept.map_or((0, all), |kept| (dropped, kept));
    let fit = fit_values(&Tail::new(spectrum, values), estimator);
    Fit { start: fit.start.map(|start| start + dropped), ..fit }
}

fn fit_values(tail: &Tail, estimator: &Estimator) -> Fit {
    let n = tail.values.len();
    match *estimator {
        // The start is λ_{n−k}, 1-based: one before the k eigenvalues of the sum.
        Estimator::Hill { tail_fraction } => {
            let k = (tail_fraction * n as f64).floor() as usize;
            match n.checked_sub(k + 1) {
                Some(start) if k > 0 => tail.at(start, k),
                _ => Fit::none(FitStatus::TooFewEigenvalues),
            }
        }
        Estimator::Reference { xmin_pos } => {
            let start = (n as f64 / xmin_pos) as usize;
            match n.saturating_sub(start) {
                count @ 2.. => tail.at(start, count),
                _ => Fit::none(FitStatus::TooFewEigenvalues),
            }
        }
        Estimator::Ks => tail.best_of(0..n.saturating_sub(1)),
        Estimator::Peak => tail.best_of(near_peak(tail.values, tail.zero)),
    }
}

/// A spectrum prepared for fits at several starts.
struct Tail<'a> {
    values: &'a [f64],
    /// Σ_{j≥i} ln λ_j, for every i.
    log_sums: Vec<f64>,
    /// The largest λ that is zero up to rounding: (max(rows, cols)·ε·σ_max)².
    zero: f64,
    error: f64,
}

impl<'a> Tail<'a> {
    fn new(spectrum: &Spectrum, values: &'a [f64]) -> Tail<'a> {
        let mut log_sums = vec![0.0; values.len() + 1];
        let mut sum = 0.0;
        // From the largest down: the sums of the tails that matter are formed from the fewest terms.
        for (slot, value) in log_sums.iter_mut().zip(values).rev() {
            sum += value.ln();
            *slot = sum;
        }
        let largest = values.last().copied().unwrap_or(0.0);
        let tolerance = spectrum.larger_side as f64 * f64::EPSILON;
        Tail { values, log_sums, zero: tolerance * tolerance * largest, error: spectrum.error }
    }

    /// Fits the tail that starts at index `start`, with `count` terms: those above the start
    /// (paper), or those and the start itself, whose term is zero (authors' code).
    fn at(&self, start: usize, count: usize) -> Fit {
        let (Some(&from), Some(tail)) = (self.values.get(start), self.values.get(start..)) else {
            return Fit::none(FitStatus::TooFewEigenvalues);
        };
        let shape = Fit { tail: count, start: Some(start), ..Fit::none(FitStatus::Ok) };
        if from <= self.zero {
            return Fit { status: FitStatus::RankDeficientTail, ..shape };
        }
        let sum: f64 = tail.iter().map(|value| (value / from).ln()).sum();
        let count = count as f64;
        if self.is_flat(sum, tail.len()) {
            return Fit { status: FitStatus::FlatTail, ..shape };
        }
        let steepness = count / sum;
        // d ln λ_i is at most error/λ_i for each term, and the start enters every term.
        let inverse: f64 = tail.iter().map(|value| 1.0 / value).sum();
        let log_error = self.error * (inverse + count / from);
        Fit {
            alpha: Some(1.0 + steepness),
            ks_distance: Some(ks_distance(tail, steepness, f64::INFINITY)),
            alpha_error: steepness * steepness / count * log_error,
            ks_error: self.ks_error(steepness, from),
            ..shape
        }
    }

    /// Whether the eigenvalues from the start on, `len` of them, are equal up to rounding.
    fn is_flat(&self, log_sum: f64, len: usize) -> bool {
        log_sum < len.saturating_sub(1) as f64 * 1e-6 || log_sum <= 0.0
    }

    /// The fit with the smallest distance D among these starts; the first one on a tie.
    fn best_of(&self, starts: std::ops::Range<usize>) -> Fit {
        let mut best: Option<(f64, usize)> = None;
        // The smallest lower end of any other start's D, to tell whether the choice is safe.
        let (mut lowest, mut second_lowest) = ((f64::INFINITY, usize::MAX), f64::INFINITY);
        for start in starts.clone() {
            let limit = best.map_or(f64::INFINITY, |(smallest, _)| smallest);
            let (distance, uncertainty) = self.score(start, limit);
            if best.is_none_or(|(smallest, _)| distance < smallest) {
                best = Some((distance, start));
            }
            let low = distance - uncertainty;
            if low < lowest.0 {
                second_lowest = lowest.0;
                lowest = (low, start);
            } else {
                second_lowest = second_lowest.min(low);
            }
        }
        let Some((distance, start)) = best.filter(|(distance, _)| *distance < 1.0) else {
            return Fit::none(self.why_none(&starts));
        };
        let rival = if lowest.1 == start { second_lowest } else { lowest.0 };
        let (_, uncertainty) = self.score(start, f64::INFINITY);
        Fit {
            start_uncertain: self.error > 0.0 && rival <= distance + uncertainty,
            ..self.at(start, self.values.len() - start)
        }
    }

    /// Why none of these starts has an alpha: what holds for the last of them, or, where there is
    /// none, for the last start that any tail could have.
    fn why_none(&self, starts: &std::ops::Range<usize>) -> FitStatus {
        let last =
            if starts.is_empty() { self.values.len().checked_sub(2) } else { starts.end.checked_sub(1) };
        match last.and_then(|last| self.values.get(last)) {
            None => FitStatus::TooFewEigenvalues,
            Some(value) if *value <= self.zero => FitStatus::RankDeficientTail,
            Some(_) => FitStatus::FlatTail,
        }
    }

    /// D of the tail at `start` and its first-order uncertainty; 1 where there is no alpha above 1.
    /// Where D is certainly above `limit` only a part of it is computed: it loses either way.
    fn score(&self, start: usize, limit: f64) -> (f64, f64) {
        let useless = (1.0, 0.0);
        let (Some(&from), Some(tail)) = (self.values.get(start), self.values.get(start..)) else {
            return useless;
        };
        let count = tail.len() as f64;
        let sum = self.log_sums.get(start).map_or(0.0, |s| s - count * from.ln());
        if from <= self.zero || self.is_flat(sum, tail.len()) {
            return useless;
        }
        let steepness = count / sum;
        let error = self.ks_error(steepness, from);
        (ks_distance(tail, steepness, limit + 2.0 * error), error)
    }

    /// First-order bound of |ΔD|: |∂D/∂ln λ| ≤ steepness for each of the two eigenvalues of a
    /// ratio, and steepness·2/e through alpha: less than 3·steepness·(error/λ_start) in all.
    fn ks_error(&self, steepness: f64, start: f64) -> f64 {
        3.0 * steepness * self.error / start
    }
}

/// D = max_j | 1 − (λ_{i+j}/λ_i)^{1−alpha} − j/m | over the m eigenvalues from the start i on;
/// `steepness` is alpha − 1. The search ends once D is above `limit`.
fn ks_distance(tail: &[f64], steepness: f64, limit: f64) -> f64 {
    let Some(&from) = tail.first() else { return 0.0 };
    let count = tail.len() as f64;
    let mut largest: f64 = 0.0;
    for (j, value) in tail.iter().enumerate() {
        let gap = 1.0 - (value / from).powf(-steepness) - j as f64 / count;
        largest = largest.max(gap.abs());
        if largest > limit {
            break;
        }
    }
    largest
}

/// The starts with 0.95·x ≤ λ_i ≤ 1.5·x, where x is the left edge of the fullest of 100 equal bins
/// of log₁₀ λ. What is `zero` up to rounding stays out of the histogram, or noise would be its peak.
fn near_peak(values: &[f64], zero: f64) -> std::ops::Range<usize> {
    const BINS: usize = 100;
    let logs: Vec<f64> = values.iter().filter(|v| **v > zero).map(|v| v.log10()).collect();
    let (Some(&low), Some(&high)) = (logs.first(), logs.last()) else {
        return 0..0;
    };
    let width = (high - low) / BINS as f64;
    let mut counts = [0usize; BINS];
    for log in &logs {
        let bin = if high > low { ((log - low) / (high - low) * BINS as f64) as usize } else { 0 };
        // The last bin is closed on both sides.
        if let Some(count) = counts.get_mut(bin.min(BINS - 1)) {
            *count += 1;
        }
    }
    let fullest = counts.iter().enumerate().rev().max_by_key(|(_, count)| **count);
    let edge = 10f64.powf(low + width * fullest.map_or(0, |(bin, _)| bin) as f64);
    let first = values.partition_point(|v| *v < 0.95 * edge);
    let end = values.partition_point(|v| *v <= 1.5 * edge);
    first..end.min(values.len().saturating_sub(1)).max(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spectrum(eigenvalues: Vec<f64>) -> Spectrum {
        Spectrum { larger_side: eigenvalues.len(), eigenvalues, unit: 1.0, error: 0.0 }
    }

    fn assert_close(found: Option<f64>, expected: f64) {
        let found = found.expect("a value");
        assert!((found - expected).abs() <= 1e-13 * expected.abs(), "{found} against {expected}");
    }

    fn one_to(n: u32) -> Spectrum {
        spectrum((1..=n).map(f64::from).collect())
    }

    #[test]
    fn vectors_of_the_paper_formula() {
        let fraction = |tail_fraction| Estimator::Hill { tail_fraction };
        assert_close(fit(&one_to(10), &fraction(0.5)).alpha, 3.2029039605798455);
        let four = fit(&one_to(10), &fraction(0.4));
        assert_eq!((four.tail, four.start), (4, Some(5)));
        assert_close(four.alpha, 3.9452402868168104);
        let squares = spectrum((1..=11).map(|i| f64::from(i * i)).collect());
        assert_close(fit(&squares, &fraction(0.5)).alpha, 2.2727443956227336);
    }

    #[test]
    fn vectors_of_the_reference_code() {
        let pos = |xmin_pos| Estimator::Reference { xmin_pos };
        let two = fit(&one_to(10), &pos(2.0));
        assert_close(two.alpha, 4.681550358521012);
        assert_close(two.ks_distance, 0.25323780014523245);
        let third = fit(&one_to(10), &pos(1.5));
        assert_close(third.alpha, 6.394319605925859);
        assert_close(third.ks_distance, 0.2633991049511907);
        let squares = spectrum((1..=11).map(|i| f64::from(i * i)).collect());
        let squares = fit(&squares, &pos(2.0));
        assert_close(squares.alpha, 2.527293274747281);
        assert_close(squares.ks_distance, 0.25136486455001356);
    }

    #[test]
    fn ks_takes_the_smallest_distance() {
        let spectrum = spectrum((1..=60).map(|i| (f64::from(i) / 61.0).powf(-1.0 / 1.5)).rev().collect());
        let best = fit(&spectrum, &Estimator::Ks);
        let tail = Tail::new(&spectrum, &spectrum.eigenvalues);
        for start in 0..59 {
            assert!(best.ks_distance.unwrap() <= tail.at(start, 60 - start).ks_distance.unwrap_or(1.0));
        }
        assert!((best.alpha.unwrap() - 2.5).abs() < 0.2);
    }

    #[test]
    fn dropping_small_eigenvalues_moves_the_start() {
        let spectrum = one_to(20);
        let dropped = fit_above(&spectrum, &Estimator::default(), Some(10.0));
        assert_eq!((dropped.tail, dropped.start), (5, Some(14)));
        let kept = fit_above(&spectrum, &Estimator::default(), Some(99.0));
        assert_eq!(kept, fit(&spectrum, &Estimator::default()));
    }

    #[test]
    fn tails_without_a_law_have_a_status() {
        let status = |values: Vec<f64>, e: Estimator| {
            let fit = fit(&spectrum(values), &e);
            assert_eq!(fit.alpha, None);
            fit.status
        };
        let hill = Estimator::default();
        for estimator in [hill, Estimator::Ks, Estimator::Peak] {
            assert_eq!(status(vec![1.0; 50], estimator), FitStatus::FlatTail);
            assert_eq!(status(vec![1.0], estimator), FitStatus::TooFewEigenvalues);
        }
        let mut deficient = vec![0.0; 30];
        deficient.extend((1..=20).map(f64::from));
        assert_eq!(status(deficient, hill), FitStatus::RankDeficientTail);
        let mut rank_one = vec![1e-40; 49];
        rank_one.push(1.0);
        assert_eq!(status(rank_one.clone(), hill), FitStatus::RankDeficientTail);
        assert_eq!(status(rank_one, Estimator::Ks), FitStatus::RankDeficientTail);
    }

    /// The stated bound holds for perturbations of the stated size.
    #[test]
    fn alpha_error_bounds_what_a_perturbation_does() {
        let exact: Vec<f64> = (1..=200).map(|i| f64::from(i).powf(1.7)).collect();
        let size = 1e-4;
        let mut noisy = spectrum(exact.clone());
        noisy.error = size;
        for (i, value) in noisy.eigenvalues.iter_mut().enumerate() {
            *value += if i % 2 == 0 { size } else { -size };
        }
        for estimator in [Estimator::default(), Estimator::Reference { xmin_pos: 1.5 }] {
            let truth = fit(&spectrum(exact.clone()), &estimator).alpha.unwrap();
            let found = fit(&noisy, &estimator);
            let difference = (found.alpha.unwrap() - truth).abs();
            assert!(
                difference > 0.0 && difference <= found.alpha_error,
                "{difference} {}",
                found.alpha_error
            );
        }
    }
}
