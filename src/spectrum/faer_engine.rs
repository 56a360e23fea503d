//! The default engine: the O(n³) kernels of faer, in pure Rust.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::tridiag;
use faer::linalg::qr::no_pivoting::factor as qr;
use faer::linalg::svd::bidiag;
use faer::{Mat, MatMut, Par, Spec};

use super::sturm::single_tridiagonal_eigenvalues;
use super::{
    Dense, Engine, NoConvergence, Parallelism, Real, Symmetric, bidiagonal_singular_values, power_of_two_for,
    tridiagonal_eigenvalues, two_stage,
};

/// From this size on the reduction in two stages is faster, on one thread, too (measured: 22 against
/// 24 to 34 ms at 768, 4.3 against 3.2 at 384).
const TWO_STAGE: usize = 640;

/// Parts into which faer divides a large matrix: a constant, because the rounding of some sums
/// depends on it. More threads than this bring nothing within one matrix.
const PARTS: usize = 8;

/// Householder reduction to tridiagonal form, by [faer](https://docs.rs/faer) for small matrices and
/// in two stages of matrix products by faer for large ones, then [`tridiagonal_eigenvalues`];
/// singular values from faer's bidiagonal form in the same way. All in place: the matrix that is
/// passed in is the only large piece of memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct FaerEngine;

impl Engine for FaerEngine {
    fn name(&self) -> &'static str {
        "faer"
    }

    fn symmetric_eigenvalues(&self, mut matrix: Symmetric) -> Result<Vec<f64>, NoConvergence> {
        let scale = scale_for(&matrix);
        if scale != 1.0 {
            (0..matrix.n()).for_each(|j| matrix.column_mut(j).iter_mut().for_each(|value| *value *= scale));
        }
        let (diagonal, below) = tridiagonal_form(matrix);
        let mut values = tridiagonal_eigenvalues(diagonal, &below)?;
        if scale != 1.0 {
            values.iter_mut().for_each(|value| *value /= scale);
        }
        Ok(values)
    }

    fn single_precision_eigenvalues(&self, matrix: Symmetric<f32>) -> Result<Vec<f64>, NoConvergence> {
        let (diagonal, below) = tridiagonal_form(matrix);
        single_tridiagonal_eigenvalues(&diagonal, &below)
    }

    fn singular_values(&self, matrix: Dense, parallelism: Parallelism) -> Result<Vec<f64>, NoConvergence> {
        let par = partition(parallelism);
        // A QR step first halves the work where the matrix is tall, as in LAPACK's dgesvd.
        let mut matrix = if matrix.rows >= 2 * matrix.cols { triangle(matrix, par) } else { matrix };
        let (rows, cols) = (matrix.rows, matrix.cols);
        if cols == 0 {
            return Ok(Vec::new());
        }
        let mut a = MatMut::from_column_major_slice_mut(&mut matrix.data, rows, cols);
        let mut left = Mat::<f64>::zeros(1, cols);
        let mut right = Mat::<f64>::zeros(1, cols - 1);
        let scratch = bidiag::bidiag_in_place_scratch::<f64>(rows, cols, par, Spec::default());
        let mut memory = MemBuffer::new(scratch);
        bidiag::bidiag_in_place(
            a.as_mut(),
            left.as_mut(),
            right.as_mut(),
            par,
            MemStack::new(&mut memory),
            Spec::default(),
        );
        let diagonal: Vec<f64> = (0..cols).map(|i| a[(i, i)]).collect();
        let above: Vec<f64> = (1..cols).map(|i| a[(i - 1, i)]).collect();
        bidiagonal_singular_values(&diagonal, &above)
    }
}

/// The diagonal and what is below it, by the way that is faster for the size.
fn tridiagonal_form<T: Real>(matrix: Symmetric<T>) -> (Vec<f64>, Vec<f64>) {
    if matrix.n() >= TWO_STAGE { two_stage::tridiagonalise(matrix) } else { one_stage(matrix) }
}

/// A power of two that keeps the squares of the elements in range; 1 for all but extreme matrices.
fn scale_for(matrix: &Symmetric) -> f64 {
    let elements = (0..matrix.n()).flat_map(|j| matrix.column(j));
    let largest = elements.fold(0.0, |max: f64, value| max.max(value.abs()));
    if (1e-100..1e100).contains(&largest) { 1.0 } else { power_of_two_for(largest) }
}

/// Householder reduction to tridiagonal form, in place, so that the matrix is all the memory that is
/// needed: the diagonal, and what is below it.
pub(super) fn one_stage<T: Real>(mut matrix: Symmetric<T>) -> (Vec<f64>, Vec<f64>) {
    let n = matrix.n();
    if n < 2 {
        return (matrix.diagonal().map(T::widen).collect(), Vec::new());
    }
    let mut a = matrix.as_mut();
    let mut reflectors = Mat::<T>::zeros(1, n - 1);
    let scratch = tridiag::tridiag_in_place_scratch::<T>(n, Par::Seq, Spec::default());
    let mut memory = MemBuffer::new(scratch);
    let stack = MemStack::new(&mut memory);
    tridiag::tridiag_in_place(a.as_mut(), reflectors.as_mut(), Par::Seq, stack, Spec::default());
    let diagonal = (0..n).map(|i| a[(i, i)].widen()).collect();
    let below = (1..n).map(|i| a[(i, i - 1)].widen()).collect();
    (diagonal, below)
}

/// R of the QR decomposition of a tall matrix: it has the same singular values.
pub(super) fn triangle(mut matrix: Dense, par: Par) -> Dense {
    let (rows, cols) = (matrix.rows, matrix.cols);
    let mut a = MatMut::from_column_major_slice_mut(&mut matrix.data, rows, cols);
    let block = qr::recommended_block_size::<f64>(rows, cols);
    let mut coefficients = Mat::<f64>::zeros(block, cols);
    let scratch = qr::qr_in_place_scratch::<f64>(rows, cols, block, par, Spec::default());
    let mut memory = MemBuffer::new(scratch);
    qr::qr_in_place(a.as_mut(), coefficients.as_mut(), par, MemStack::new(&mut memory), Spec::default());
    let mut result = Dense::zeros(cols, cols);
    for (j, column) in result.data.chunks_exact_mut(cols.max(1)).enumerate() {
        column.iter_mut().enumerate().take(j + 1).for_each(|(i, value)| *value = a[(i, j)]);
    }
    result
}

fn partition(parallelism: Parallelism) -> Par {
    match parallelism {
        Parallelism::Alone => Par::Seq,
        Parallelism::Within => Par::rayon(PARTS),
    }
}
