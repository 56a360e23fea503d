//! Complex matrices through real ones.

use std::ops::Range;

use super::Elements;

/// The real matrix [[A, −B], [B, A]] of a complex matrix A + iB: it has the same singular values,
/// each twice. Complex weights are small (20 × 20 per Fourier mode), so the doubled size is cheaper
/// than a second set of kernels.
#[derive(Clone, Copy, Debug)]
pub struct ComplexEmbedding<E> {
    /// A.
    pub real: E,
    /// B, of the same shape.
    pub imaginary: E,
}

impl<E: Elements> Elements for ComplexEmbedding<E> {
    fn rows(&self) -> usize {
        2 * self.real.rows()
    }

    fn cols(&self) -> usize {
        2 * self.real.cols()
    }

    fn multiplicity(&self) -> usize {
        2
    }

    fn copy_block(&self, rows: Range<usize>, cols: Range<usize>, out: &mut [f64]) {
        let (half_rows, half_cols) = (self.real.rows(), self.real.cols());
        let mut cell = [0.0];
        for (line, row) in out.chunks_exact_mut(cols.len().max(1)).zip(rows) {
            for (target, col) in line.iter_mut().zip(cols.clone()) {
                let (i, j) = (row % half_rows, col % half_cols);
                let (part, sign) = match (row < half_rows, col < half_cols) {
                    (true, true) | (false, false) => (&self.real, 1.0),
                    (true, false) => (&self.imaginary, -1.0),
                    (false, true) => (&self.imaginary, 1.0),
                };
                part.copy_block(i..i + 1, j..j + 1, &mut cell);
                *target = sign * cell[0];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spectrum::{Dense, FaerEngine, Method, spectrum};

    /// diag(3, 4i) with a phase on the second row: singular values 3 and 4.
    #[test]
    fn singular_values_of_a_complex_matrix() {
        let dense = |data: [f64; 4]| Dense { data: data.to_vec(), rows: 2, cols: 2 };
        let matrix =
            ComplexEmbedding { real: dense([3.0, 0.0, 0.0, 2.4]), imaginary: dense([0.0, 0.0, 0.0, 3.2]) };
        let found = spectrum(&FaerEngine, std::iter::once(matrix), Method::Gram, false).unwrap();
        assert_eq!(found.larger_side, 2);
        for (value, exact) in found.eigenvalues.iter().zip([9.0, 16.0]) {
            assert!((value - exact).abs() < 1e-13, "{value}");
        }
    }
}
