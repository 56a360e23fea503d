//! Eigenvalues of a symmetric tridiagonal matrix: implicit QL without square roots.
//!
//! The rational variant of Pal, Walker and Kahan (Parlett, The Symmetric Eigenvalue Problem, 1980,
//! section 8.15): it works on the squares of the off-diagonal elements, three divisions a step. Its
//! error stays at a few tens of ε·‖T‖ for every eigenvalue, where a QL with plane rotations was
//! measured here at nearly n·ε·‖T‖ for the largest ones, which the spectral norm is read from.

// Indices run over slices of one length that the functions cut themselves; no input reaches them.
#![allow(clippy::indexing_slicing)]

use super::{NoConvergence, power_of_two_for};

/// Iterations allowed per eigenvalue; below two are usual.
const MAX_ITERATIONS: usize = 30;

/// Eigenvalues, ascending, of the matrix with this diagonal and with `below[i]` between elements
/// `i` and `i + 1`; `below` is at least `diagonal.len() − 1` long.
///
/// The numbers must be finite.
///
/// # Errors
/// [`NoConvergence`] where the iteration does not end, which finite input has not been seen to do.
pub fn tridiagonal_eigenvalues(mut diagonal: Vec<f64>, below: &[f64]) -> Result<Vec<f64>, NoConvergence> {
    let n = diagonal.len();
    let below = below.iter().take(n.saturating_sub(1));
    let largest = diagonal.iter().chain(below.clone()).fold(0.0, |max: f64, v| max.max(v.abs()));
    let scale = power_of_two_for(largest);
    diagonal.iter_mut().for_each(|d| *d *= scale);
    let mut squares: Vec<f64> = below.map(|e| (e * scale) * (e * scale)).collect();
    squares.resize(n, 0.0);
    let mut start = 0;
    while start < n {
        let end = block_end(&diagonal, &mut squares, start);
        let (Some(d), Some(e)) = (diagonal.get_mut(start..end), squares.get_mut(start..end)) else {
            return Err(NoConvergence);
        };
        unreduced_eigenvalues(d, e)?;
        start = end;
    }
    if diagonal.iter().any(|v| !v.is_finite()) {
        return Err(NoConvergence);
    }
    diagonal.iter_mut().for_each(|d| *d /= scale);
    diagonal.sort_by(f64::total_cmp);
    Ok(diagonal)
}

/// Singular values, ascending, of the upper bidiagonal matrix with this diagonal and with
/// `above[i]` between columns `i` and `i + 1`.
///
/// They are the positive eigenvalues of the Golub–Kahan matrix: symmetric tridiagonal of twice the
/// size, zero diagonal, the elements of the bidiagonal matrix in turn beside it. Nothing is
/// squared, so that each is right to a few tens of ε·σ_max.
///
/// # Errors
/// [`NoConvergence`], as for [`tridiagonal_eigenvalues`].
pub fn bidiagonal_singular_values(diagonal: &[f64], above: &[f64]) -> Result<Vec<f64>, NoConvergence> {
    let n = diagonal.len();
    let above = above.iter().copied().chain([0.0]);
    let beside: Vec<f64> = diagonal.iter().copied().zip(above).flat_map(|(d, e)| [d, e]).collect();
    let mut values = tridiagonal_eigenvalues(vec![0.0; 2 * n], &beside)?.split_off(n);
    // The smallest of a singular matrix may come out as a tiny negative number.
    values.iter_mut().for_each(|value| *value = value.max(0.0));
    Ok(values)
}

/// Whether e² is negligible between two diagonal elements: |e| ≤ ε·√|d₁·d₂|.
fn negligible(square: f64, d1: f64, d2: f64) -> bool {
    square <= f64::EPSILON * f64::EPSILON * (d1 * d2).abs()
}

/// The end (exclusive) of the block that starts at `start` and has no negligible coupling inside.
fn block_end(d: &[f64], e: &mut [f64], start: usize) -> usize {
    for i in start..d.len() - 1 {
        if negligible(e[i], d[i], d[i + 1]) {
            e[i] = 0.0;
            return i + 1;
        }
    }
    d.len()
}

/// QL on one block. Rows are solved from the top down; the block is turned over first where its
/// small elements are at the other end, because QL finds those first and most accurately.
fn unreduced_eigenvalues(d: &mut [f64], e: &mut [f64]) -> Result<(), NoConvergence> {
    let n = d.len();
    if n > 1 && d[n - 1].abs() < d[0].abs() {
        d.reverse();
        e[..n - 1].reverse();
    }
    let mut budget = MAX_ITERATIONS * n;
    let mut low = 0;
    while low < n {
        let high = block_end(d, e, low);
        match high - low {
            1 => low += 1,
            2 => {
                let (small, large) = two_by_two(d[low], e[low], d[low + 1]);
                (d[low], d[low + 1], e[low]) = (small, large, 0.0);
                low += 2;
            }
            _ => {
                budget = budget.checked_sub(1).ok_or(NoConvergence)?;
                sweep(&mut d[low..high], &mut e[low..high]);
            }
        }
    }
    Ok(())
}

/// One QL sweep with Wilkinson's shift; `e` holds squares.
///
/// A step needs the one before: what counts is how long one takes. The usual formulas,
/// γ' = c·(α − σ) − s·γ and p' = γ'²/c with c = p/r and s = e²/r, divide twice in a row. With
/// g = p·(α − σ) − e²·γ they are γ' = g/r and p' = g²/(r·p), one division deep.
fn sweep(d: &mut [f64], e: &mut [f64]) {
    let n = d.len();
    let root = e[0].sqrt();
    let half = (d[1] - d[0]) / (2.0 * root);
    let shift = d[0] - root / (half + 1f64.hypot(half).copysign(half));
    let (mut c, mut s) = (1.0, 0.0);
    let mut gamma = d[n - 1] - shift;
    let mut p = gamma * gamma;
    for i in (0..n - 1).rev() {
        let square = e[i];
        let r = p + square;
        if i != n - 2 {
            e[i + 1] = s * r;
        }
        let (old_c, old_gamma) = (c, gamma);
        let inverse = 1.0 / r;
        let offset = d[i] - shift;
        let numerator = p * offset - square * old_gamma;
        let (above, beneath) = (numerator * numerator, r * p);
        if above > TINY && beneath > TINY {
            c = p * inverse;
            s = square * inverse;
            gamma = numerator * inverse;
            p = above / beneath;
        } else {
            c = p / r;
            s = square / r;
            gamma = c * offset - s * old_gamma;
            p = if c == 0.0 { old_c * square } else { gamma * gamma / c };
        }
        d[i + 1] = old_gamma + (d[i] - gamma);
    }
    e[0] = s * p;
    d[0] = shift + gamma;
}

/// Products below this, of matrices of norm one, may have lost digits to underflow.
const TINY: f64 = 1e-200;

/// Eigenvalues (smaller absolute value first) of [[a, b], [b, c]] with `square` = b², without
/// cancellation in the smaller one.
fn two_by_two(a: f64, square: f64, c: f64) -> (f64, f64) {
    let root = (a - c).hypot(2.0 * square.sqrt());
    let sum = a + c;
    let large = 0.5 * (sum + root.copysign(sum));
    if large == 0.0 {
        return (0.0, 0.0);
    }
    // The determinant over the larger eigenvalue, the product ordered against overflow.
    let (big, small) = if a.abs() > c.abs() { (a, c) } else { (c, a) };
    let b = square.sqrt();
    ((big / large) * small - (b / large) * b, large)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: &[f64], expected: &[f64], norm: f64) {
        let tolerance = 4.0 * f64::EPSILON * norm * (found.len() as f64).sqrt();
        for (f, e) in found.iter().zip(expected) {
            assert!((f - e).abs() <= tolerance, "{f} against {e}");
        }
    }

    /// 2 − 2·cos(kπ/(n+1)): the second difference with fixed ends.
    #[test]
    fn laplacian_has_its_closed_form() {
        for n in [1, 2, 3, 10, 57, 300, 1000] {
            let found = tridiagonal_eigenvalues(vec![2.0; n], &vec![-1.0; n - 1]).unwrap();
            let step = std::f64::consts::PI / (n as f64 + 1.0);
            let exact: Vec<f64> = (1..=n).map(|k| 4.0 * (0.5 * k as f64 * step).sin().powi(2)).collect();
            close(&found, &exact, 4.0);
        }
    }

    /// Wilkinson's W21+: its largest eigenvalues come in pairs that agree to many digits.
    #[test]
    fn wilkinson_pairs() {
        let d: Vec<f64> = (0..21).map(|i| f64::abs(f64::from(i) - 10.0)).collect();
        let found = tridiagonal_eigenvalues(d, &[1.0; 20]).unwrap();
        // Wilkinson 1965, The Algebraic Eigenvalue Problem, p. 309.
        close(&found[19..], &[10.746194182903322, 10.746194182903393], 10.75);
        close(&found[..1], &[-1.125441522119984], 10.75);
    }

    /// A bidiagonal matrix whose square is the second difference, and one with a zero in it.
    #[test]
    fn bidiagonal_matrices() {
        for n in [1, 2, 9, 200] {
            let step = std::f64::consts::PI / (2 * n + 1) as f64;
            let found = bidiagonal_singular_values(&vec![1.0; n], &vec![1.0; n - 1]).unwrap();
            let exact: Vec<f64> = (0..n).rev().map(|k| 2.0 * ((k + 1) as f64 * step).cos()).collect();
            close(&found, &exact, 2.0);
        }
        let singular = bidiagonal_singular_values(&[3.0, 0.0, 1.0], &[0.0, 2.0]).unwrap();
        close(&singular, &[0.0, 5f64.sqrt(), 3.0], 3.0);
        assert_eq!(bidiagonal_singular_values(&[0.0; 4], &[0.0; 3]).unwrap(), [0.0; 4]);
    }

    #[test]
    fn diagonal_zero_and_graded_matrices() {
        assert_eq!(tridiagonal_eigenvalues(vec![], &[]).unwrap(), Vec::<f64>::new());
        assert_eq!(tridiagonal_eigenvalues(vec![3.0, 1.0, 2.0], &[0.0; 2]).unwrap(), [1.0, 2.0, 3.0]);
        assert_eq!(tridiagonal_eigenvalues(vec![0.0; 5], &[0.0; 4]).unwrap(), [0.0; 5]);
        let graded: Vec<f64> = (0..40).map(|i| 10f64.powi(-i)).collect();
        let below: Vec<f64> = graded.iter().map(|d| d * 1e-3).collect();
        for reversed in [false, true] {
            let (mut d, mut e) = (graded.clone(), below[..39].to_vec());
            if reversed {
                d.reverse();
                e.reverse();
            }
            let trace: f64 = d.iter().sum();
            let found = tridiagonal_eigenvalues(d, &e).unwrap();
            assert!((found.iter().sum::<f64>() - trace).abs() < 1e-14);
        }
    }

    #[test]
    fn not_a_number_is_an_error_not_an_endless_loop() {
        let poisoned = tridiagonal_eigenvalues(vec![1.0, f64::NAN, 2.0, 1.0], &[1.0; 3]);
        assert_eq!(poisoned, Err(NoConvergence));
    }
}
