//! Symmetric matrices to tridiagonal form in two stages: dense to band by matrix products, band to
//! tridiagonal by chasing bulges in cache.
//!
//! The usual reduction (LAPACK's dsytrd) does half of its 4/3·n³ operations as matrix–vector
//! products, which wait for memory. Here all of them are matrix products (Bischof, Lang and Sun
//! 2000), and the 6·n²·b operations of the second stage stay in cache. Only eigenvalues are
//! wanted, so that the orthogonal factors are applied and forgotten.
//!
//! General linear algebra: nothing here knows where the matrix comes from. Every parallel step has
//! a fixed partition, so that the result does not depend on the number of threads.

mod band;
mod block;
mod chase;
mod kernels;
mod pass;

use super::{Real, Symmetric};

pub(super) use kernels::{Work, vectorised};

/// Subdiagonals of the band between the stages. Wider panels make the first stage's products faster
/// and the second stage longer: with 64 the sum was about the same at n = 4096 and larger below (before
/// the chase had its own kernels; not measured since).
const BANDWIDTH: usize = block::BLOCK;

/// Reduces a symmetric matrix to tridiagonal form with the same eigenvalues: returns its diagonal,
/// and below[i] between elements i and i + 1.
///
/// The squares of the elements must neither overflow nor vanish: scale first.
pub(super) fn tridiagonalise<T: Real>(mut matrix: Symmetric<T>) -> (Vec<f64>, Vec<f64>) {
    let n = matrix.n();
    let bandwidth = BANDWIDTH.min(n.saturating_sub(1)).max(1);
    band::reduce(&mut matrix, bandwidth);
    let banded = chase::Banded::of(&matrix, bandwidth);
    drop(matrix);
    banded.tridiagonalise()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spectrum::{Dense, faer_engine, tridiagonal_eigenvalues};

    fn symmetric(n: usize, seed: u64, spike: f64) -> Dense {
        let mut state = seed;
        let mut noise = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
        };
        let mut matrix = Dense::zeros(n, n);
        for j in 0..n {
            for i in j..n {
                matrix.data[i + j * n] = noise() + spike;
            }
        }
        matrix
    }

    fn compare(matrix: Dense, what: &str) {
        let n = matrix.rows;
        let (diagonal, below) = faer_engine::one_stage(matrix.clone().into());
        let expected = tridiagonal_eigenvalues(diagonal, &below).unwrap();
        let (diagonal, below) = tridiagonalise(matrix.into());
        let found = tridiagonal_eigenvalues(diagonal, &below).unwrap();
        let norm = expected.iter().fold(0.0, |max: f64, v| max.max(v.abs()));
        let tolerance = 8.0 * f64::EPSILON * norm * (n as f64).sqrt();
        for (f, e) in found.iter().zip(&expected) {
            assert!((f - e).abs() <= tolerance, "{what} {n}: {f} against {e}");
        }
    }

    /// Every size around the bandwidth and its multiples, where the last panels are incomplete.
    #[test]
    fn eigenvalues_are_kept_for_every_size() {
        for n in (1..=140).chain([191, 192, 193, 257, 400]) {
            compare(symmetric(n, 7 + n as u64, 0.0), "random");
        }
        compare(symmetric(300, 3, 100.0), "spiked");
    }

    #[test]
    fn matrices_with_nothing_to_eliminate() {
        let mut diagonal = Dense::zeros(100, 100);
        (0..100).for_each(|i| diagonal.data[i * 101] = i as f64 - 30.0);
        compare(diagonal, "diagonal");
        compare(Dense::zeros(90, 90), "zero");
        let ones = Dense { data: vec![1.0; 110 * 110], rows: 110, cols: 110 };
        compare(ones, "rank one");
        let mut block = symmetric(120, 5, 0.0);
        // Two blocks without coupling.
        for j in 0..60 {
            (60..120).for_each(|i| block.data[i + j * 120] = 0.0);
        }
        compare(block, "decoupled");
    }
}
