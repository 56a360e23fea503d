//! The default engine: the O(n³) kernels of faer, in pure Rust.

use faer::diag::DiagMut;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::tridiag;
use faer::linalg::svd;
use faer::{Mat, MatMut, MatRef, Par, Spec};

use super::{Dense, Engine, NoConvergence, Parallelism, tridiagonal_eigenvalues};

/// Parts into which faer divides a large matrix: a constant, because the rounding of some sums
/// depends on it. More threads than this bring nothing within one matrix.
const PARTS: usize = 8;

/// Householder reduction to tridiagonal form by [faer](https://docs.rs/faer), then our own
/// [`tridiagonal_eigenvalues`]; singular values by faer's bidiagonal SVD.
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
        let (rows, cols) = (matrix.rows, matrix.cols);
        let a = MatRef::from_column_major_slice(&matrix.data, rows, cols);
        let mut values = vec![0.0; rows.min(cols)];
        let par = partition(parallelism);
        let none = svd::ComputeSvdVectors::No;
        let scratch = svd::svd_scratch::<f64>(rows, cols, none, none, par, Spec::default());
        let mut memory = MemBuffer::new(scratch);
        svd::svd(
            a,
            DiagMut::from_slice_mut(&mut values),
            None,
            None,
            par,
            MemStack::new(&mut memory),
            Spec::default(),
        )
        .map_err(|_| NoConvergence)?;
        values.sort_by(f64::total_cmp);
        Ok(values)
    }
}

fn partition(parallelism: Parallelism) -> Par {
    match parallelism {
        Parallelism::Alone => Par::Seq,
        Parallelism::Within => Par::rayon(PARTS),
    }
}
