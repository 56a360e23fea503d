//! Symmetric matrices in memory.

use faer::MatMut;

use super::{Dense, Real};

/// Bytes of a cache line.
const LINE: usize = 64;

/// How far apart columns of n elements are best kept: an odd number of cache lines. Side by side, the
/// elements of a row would compete for the same few places in the caches where n is a power of two.
pub(super) fn stride<T>(n: usize) -> usize {
    let size = size_of::<T>();
    ((n * size).div_ceil(LINE) | 1) * LINE / size
}

/// A symmetric matrix of which the lower triangle is kept, column by column, with a gap after each.
#[derive(Clone, Debug, PartialEq)]
pub struct Symmetric<T = f64> {
    data: Vec<T>,
    n: usize,
    /// From a column to the next, in elements.
    stride: usize,
}

impl<T: Real> Symmetric<T> {
    /// All zeros, n × n.
    pub fn zeros(n: usize) -> Symmetric<T> {
        let stride = stride::<T>(n);
        Symmetric { data: vec![T::zero(); stride * n], n, stride }
    }

    /// Number of rows and columns.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Column j from the diagonal down.
    pub fn column(&self, j: usize) -> &[T] {
        let start = j * self.stride;
        self.data.get(start + j..start + self.n).unwrap_or_default()
    }

    /// The same, to be changed.
    pub fn column_mut(&mut self, j: usize) -> &mut [T] {
        let start = j * self.stride;
        self.data.get_mut(start + j..start + self.n).unwrap_or_default()
    }

    /// The diagonal.
    pub fn diagonal(&self) -> impl Iterator<Item = T> + '_ {
        self.data.iter().step_by(self.stride + 1).copied()
    }

    /// As the dense kernels take it; what is above the diagonal means nothing.
    pub(super) fn as_mut(&mut self) -> MatMut<'_, T> {
        MatMut::from_column_major_slice_with_stride_mut(&mut self.data, self.n, self.n, self.stride)
    }

    /// In another precision.
    pub(super) fn convert<U: Real>(&self) -> Symmetric<U> {
        let mut result = Symmetric::zeros(self.n);
        for j in 0..self.n {
            let pairs = result.column_mut(j).iter_mut().zip(self.column(j));
            pairs.for_each(|(to, from)| *to = U::narrow(from.widen()));
        }
        result
    }
}

/// The lower triangle of a square matrix.
impl<T: Real> From<Dense<T>> for Symmetric<T> {
    fn from(matrix: Dense<T>) -> Symmetric<T> {
        let n = matrix.cols;
        let mut result = Symmetric::zeros(n);
        for (j, column) in matrix.data.chunks_exact(matrix.rows.max(1)).enumerate() {
            let pairs = result.column_mut(j).iter_mut().zip(column.iter().skip(j));
            pairs.for_each(|(to, from)| *to = *from);
        }
        result
    }
}
