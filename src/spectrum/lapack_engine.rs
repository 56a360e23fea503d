//! The second engine: LAPACK of the system (OpenBLAS), independent of the first down to the
//! algorithms. It exists to check the first one, not to be fast.

use nalgebra::DMatrix;
use nalgebra_lapack::{QR, QrDecomposition, SVD, SymmetricEigen};

use super::{Dense, Engine, NoConvergence, Parallelism, Symmetric};

#[link(name = "openblas")]
unsafe extern "C" {
    fn openblas_set_num_threads(threads: std::ffi::c_int);
}

/// LAPACK's dsyev and dgesvd through nalgebra-lapack.
#[derive(Clone, Copy, Debug, Default)]
pub struct LapackEngine(());

impl LapackEngine {
    /// Keeps OpenBLAS to one thread: the workers are the parallelism, and its own threads would
    /// make the rounding depend on the machine.
    pub fn new() -> LapackEngine {
        // SAFETY: the function only stores the number; it is part of OpenBLAS's public interface.
        unsafe { openblas_set_num_threads(1) };
        LapackEngine(())
    }
}

impl Engine for LapackEngine {
    fn name(&self) -> &'static str {
        "lapack"
    }

    fn symmetric_eigenvalues(&self, matrix: Symmetric) -> Result<Vec<f64>, NoConvergence> {
        if matrix.n() == 0 {
            return Ok(Vec::new());
        }
        let mut full: DMatrix<f64> = DMatrix::zeros(matrix.n(), matrix.n());
        for (j, mut column) in full.column_iter_mut().enumerate() {
            column.iter_mut().skip(j).zip(matrix.column(j)).for_each(|(to, from)| *to = *from);
        }
        full.fill_upper_triangle_with_lower_triangle();
        let values = SymmetricEigen::try_new(full).ok_or(NoConvergence)?;
        let values = values.eigenvalues;
        Ok(sorted(values.as_slice()))
    }

    fn singular_values(&self, matrix: Dense, _: Parallelism) -> Result<Vec<f64>, NoConvergence> {
        if matrix.rows == 0 || matrix.cols == 0 {
            return Ok(Vec::new());
        }
        let matrix = DMatrix::from_vec(matrix.rows, matrix.cols, matrix.data);
        // Its SVD always forms both square factors; those of R are small however tall the matrix is.
        let triangle = QR::new(matrix).map_err(|_| NoConvergence)?.r();
        let svd = SVD::new(triangle).ok_or(NoConvergence)?;
        Ok(sorted(svd.singular_values.as_slice()))
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values
}
