//! Singular values of a product of two thin factors, without forming it.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

use super::faer_engine::triangle;
use super::{Dense, Engine, NoConvergence, Parallelism};

/// The nonzero singular values of L·Rᵀ (L m × r, R n × r), at most r of them, ascending.
///
/// With L = Q₁·S and R = Q₂·T the orthogonal factors do not matter: L·Rᵀ has the singular values of
/// S·Tᵀ, a matrix of at most r × r. Every step is backward stable; the absolute error is of the order
/// ε·‖L‖·‖R‖. Work: r²·(m + n).
///
/// # Errors
/// [`NoConvergence`] of the engine.
pub fn product_singular_values(
    engine: &dyn Engine,
    left: Dense,
    right: Dense,
) -> Result<Vec<f64>, NoConvergence> {
    let (mut left, mut right) = (reduced(left), reduced(right));
    if left.rows < right.rows {
        std::mem::swap(&mut left, &mut right);
    }
    let mut core = Dense::zeros(left.rows, right.rows);
    matmul(
        MatMut::from_column_major_slice_mut(&mut core.data, left.rows, right.rows),
        Accum::Replace,
        MatRef::from_column_major_slice(&left.data, left.rows, left.cols),
        MatRef::from_column_major_slice(&right.data, right.rows, right.cols).transpose(),
        1.0,
        Par::Seq,
    );
    engine.singular_values(core, Parallelism::Alone)
}

/// The triangle of a tall factor's QR decomposition, which stands for it; a wide one as it is.
pub(crate) fn reduced(factor: Dense) -> Dense {
    if factor.rows > factor.cols { triangle(factor, Par::Seq) } else { factor }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spectrum::FaerEngine;

    fn factor(rows: usize, cols: usize, seed: u32) -> Dense {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state >> 8) / f64::from(1u32 << 24) - 0.5
        };
        Dense { data: (0..rows * cols).map(|_| next()).collect(), rows, cols }
    }

    #[test]
    fn equals_the_formed_product() {
        for (m, n, r) in [(40, 30, 4), (30, 40, 4), (5, 40, 8), (40, 5, 8), (6, 7, 20), (9, 9, 9), (3, 3, 1)]
        {
            let (left, right) = (factor(m, r, 1), factor(n, r, 2));
            let mut formed = Dense::zeros(m.max(n), m.min(n));
            for i in 0..m {
                for j in 0..n {
                    let sum: f64 = (0..r).map(|k| left.data[i + k * m] * right.data[j + k * n]).sum();
                    let (tall, wide) = if m >= n { (i, j) } else { (j, i) };
                    formed.data[tall + wide * m.max(n)] = sum;
                }
            }
            let mut expected = FaerEngine.singular_values(formed, Parallelism::Alone).unwrap();
            let found = product_singular_values(&FaerEngine, left, right).unwrap();
            assert!(found.len() <= r.min(m).min(n), "{} of {m} {n} {r}", found.len());
            let zeros = expected.len() - found.len();
            assert!(expected.drain(..zeros).all(|v| v < 1e-12));
            for (a, b) in found.iter().zip(&expected) {
                assert!((a - b).abs() < 1e-13 * (1.0 + b), "{m} {n} {r}: {a} {b}");
            }
        }
    }
}
