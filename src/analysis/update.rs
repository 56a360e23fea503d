//! An adapter's update without its base, from its factors to numbers: its norms and ranks.

use crate::matrices::{Layout, Matrix};
use crate::metrics::{Fit, FitStatus, Measured, measure};
use crate::spectrum::{
    Dense, Engine, NoConvergence, Spectrum, power_of_two_for, product_singular_values, reduced,
};
use crate::tensors::{Factors, Survey, survey};

use super::measure::{Outcome, status, without_spectrum};

/// What is not finite in the factors, and the largest number in them.
pub(super) fn survey_of(factors: &Factors) -> Survey {
    survey(&factors.left).merge(survey(&factors.right))
}

/// Measures one matrix of an update by its factors: the product is never formed.
///
/// It has no alpha, whatever its rank: the power law is a statement on trained weights, and of these
/// eigenvalues all but r are zero.
///
/// # Errors
/// [`NoConvergence`].
pub(super) fn outcome(
    factors: &Factors,
    matrix: &Matrix,
    engine: &dyn Engine,
) -> Result<Outcome, NoConvergence> {
    let (left, right) = (survey(&factors.left), survey(&factors.right));
    let found = left.merge(right);
    let zero = left.max_abs == 0.0 || right.max_abs == 0.0 || factors.scale == 0.0;
    let found = if zero && found.is_finite() { Survey::default() } else { found };
    if let Some(outcome) = without_spectrum(&found, &mut Vec::new()) {
        return Ok(outcome);
    }
    // Powers of two, so that no product overflows or vanishes on the way.
    let (by_left, by_right) = (power_of_two_for(left.max_abs), power_of_two_for(right.max_abs));
    let by_scale = power_of_two_for(factors.scale.abs());
    let unit = 1.0 / by_left / by_right / by_scale;
    if !unit.is_finite() {
        let warning = "elements beyond the largest double".to_owned();
        let mut outcome = Outcome::without_numbers(status::NON_FINITE);
        outcome.warnings.push(warning);
        return Ok(outcome);
    }
    let scaled = |values: &[f64], by: f64| -> Vec<f64> { values.iter().map(|value| value * by).collect() };
    let scale = factors.scale * by_scale;
    let left = Tall::new(scaled(&factors.left, by_left), factors.rank);
    let right = Tall::new(scaled(&factors.right, by_right), factors.rank);
    let Some(parts) = Parts::of(matrix, right.rows) else {
        return Ok(Outcome::without_numbers(status::UPDATE));
    };
    // The slices of a convolution share the rows.
    let rows = reduced(left.rows(&parts.rows));
    let mut eigenvalues = Vec::with_capacity(matrix.eigenvalues());
    for start in 0..matrix.pooled {
        let columns: Vec<usize> = parts.cols.iter().map(|column| column + start).collect();
        let values = product_singular_values(engine, rows.clone(), right.rows(&columns))?;
        let n = matrix.rows().min(matrix.cols());
        eigenvalues.extend(std::iter::repeat_n(0.0, n.saturating_sub(values.len())));
        eigenvalues.extend(values.iter().rev().take(n).map(|v| {
            let value = v * scale;
            value * value * matrix.eigenvalue_scale
        }));
    }
    eigenvalues.sort_by(f64::total_cmp);
    let larger_side = matrix.rows().max(matrix.cols());
    let spectrum = Spectrum { eigenvalues, unit, error: 0.0, larger_side };
    let fit = Fit::none(FitStatus::RankDeficientTail);
    let metrics = measure(&Measured { spectrum: &spectrum, fit: &fit });
    Ok(Outcome { metrics, ..Outcome::without_numbers(status::UPDATE) })
}

/// A factor, column by column.
struct Tall {
    data: Vec<f64>,
    rows: usize,
    rank: usize,
}

impl Tall {
    fn new(data: Vec<f64>, rank: usize) -> Tall {
        let rows = data.len() / rank.max(1);
        Tall { data, rows, rank }
    }

    /// Some of its rows.
    fn rows(&self, chosen: &[usize]) -> Dense {
        let columns = self.data.chunks_exact(self.rows.max(1));
        let data =
            columns.flat_map(|column| chosen.iter().filter_map(|row| column.get(*row).copied())).collect();
        Dense { data, rows: chosen.len(), cols: self.rank }
    }
}

/// Which rows and columns of the whole update a matrix (or its first slice) is made of.
struct Parts {
    rows: Vec<usize>,
    cols: Vec<usize>,
}

impl Parts {
    /// `width` is the number of columns of the update. `None` where the matrix is no choice of rows and
    /// columns, and so no product of rows of the factors: a stack whose slices lie inside the rows.
    fn of(matrix: &Matrix, width: usize) -> Option<Parts> {
        let Layout { offset, rows, cols } = matrix.layout;
        let (top, first) = (offset.checked_div(width)?, offset.checked_rem(width)?);
        let row = |i: usize| {
            let at = rows.offset(i);
            (at % width == 0).then_some(top + at / width)
        };
        let chosen: Vec<usize> = (0..cols.len).map(|j| first + cols.offset(j)).collect();
        let last = chosen.iter().max().copied().unwrap_or(0);
        let inside = last + matrix.pooled <= width;
        let rows: Vec<usize> = (0..rows.len).map(row).collect::<Option<_>>()?;
        inside.then_some(Parts { rows, cols: chosen })
    }
}
