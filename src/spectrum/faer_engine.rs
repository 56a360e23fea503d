//! The default engine: the O(n³) kernels of faer, in pure Rust.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::tridiag;
use faer::linalg::qr::no_pivoting::factor as qr;
use faer::linalg::svd::bidiag;
use faer::{Mat, MatMut, Par, Spec};

use super::{Dense, Engine, NoConvergence, Parallelism, bidiagonal_singular_values, tridiagonal_eigenvalues};

/// Parts into which faer divides a large matrix: a constant, because the rounding of some sums
/// depends on it. More threads than this bring nothing within one matrix.
const PARTS: usize = 8;

/// Householder reduction to tridiagonal form by [faer](https://docs.rs/faer), then our own
/// [`tridiagonal_eigenvalues`]; singular values from faer's bidiagonal form in the same way. All in
/// place: the matrix that is passed in is the only large piece of memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct FaerEngine;

impl Engine for FaerEngine {
    fn name(&self) -> &'static str {
        "faer"
    }

    fn symmetric_eigenvalues(
        &self,
        mut matrix: Dense,
        parallelism: Parallelism,
    ) -> Result<Vec<f64>, NoConvergence> {
        let n = matrix.rows;
        if n < 2 {
            return Ok(matrix.data);
        }
        let par = partition(parallelism);
        // In place, so that the Gram matrix is all the memory that is needed.
        let mut a = MatMut::from_column_major_slice_mut(&mut matrix.data, n, n);
        let mut reflectors = Mat::<f64>::zeros(1, n - 1);
        let mut memory = MemBuffer::new(tridiag::tridiag_in_place_scratch::<f64>(n, par, Spec::default()));
        tridiag::tridiag_in_place(
            a.as_mut(),
            reflectors.as_mut(),
            par,
            MemStack::new(&mut memory),
            Spec::default(),
        );
        let diagonal: Vec<f64> = (0..n).map(|i| a[(i, i)]).collect();
        let below: Vec<f64> = (0..n).map(|i| if i + 1 < n { a[(i + 1, i)] } else { 0.0 }).collect();
        tridiagonal_eigenvalues(diagonal, &below)
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

/// R of the QR decomposition of a tall matrix: it has the same singular values.
fn triangle(mut matrix: Dense, par: Par) -> Dense {
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
