//! Numerics: from the elements of one real matrix to its eigenvalues.
//!
//! The ESD of W (rows × cols) is the set of the n = min(rows, cols) eigenvalues λ_i = σ_i(W)² of
//! the smaller of WᵀW and WWᵀ, ascending. Two ways lead there: the eigenvalues of the Gram matrix
//! (fast; absolute error about ε·λ_max), and the singular values of W itself (slower; absolute
//! error about ε·σ_max on σ, so that small eigenvalues keep their digits). Which one is good
//! enough depends on what is asked of the spectrum, so the caller decides, with [`Spectrum::error`].
//! A third way forms and reduces the Gram matrix in single precision, in about half the time.
//!
//! Nothing here knows of files, layers or models. Results depend on the input alone, never on the
//! number of threads: every parallel step has a fixed partition.

mod complex;
mod deflation;
mod faer_engine;
mod gram;
#[cfg(feature = "lapack")]
mod lapack_engine;
mod low_rank;
mod real;
mod single;
mod sturm;
mod symmetric;
mod tridiagonal;
mod two_stage;

use std::ops::Range;

pub use complex::ComplexEmbedding;
pub use faer_engine::FaerEngine;
pub use gram::gram;
#[cfg(feature = "lapack")]
pub use lapack_engine::LapackEngine;
pub use low_rank::product_singular_values;
pub(crate) use low_rank::reduced;
pub use real::Real;
pub use symmetric::Symmetric;
pub use tridiagonal::{bidiagonal_singular_values, tridiagonal_eigenvalues};

/// A matrix that can be copied out block by block; it need not exist in memory as `f64`.
pub trait Elements: Sync {
    /// Number of rows.
    fn rows(&self) -> usize;
    /// Number of columns.
    fn cols(&self) -> usize;
    /// Writes the block of these rows and columns into `out`, row by row.
    /// `out` holds exactly `rows.len() * cols.len()` numbers.
    fn copy_block(&self, rows: Range<usize>, cols: Range<usize>, out: &mut [f64]);
    /// How often each eigenvalue occurs by construction; only one of each is kept.
    fn multiplicity(&self) -> usize {
        1
    }
}

impl<E: Elements + ?Sized> Elements for &E {
    fn rows(&self) -> usize {
        (**self).rows()
    }

    fn cols(&self) -> usize {
        (**self).cols()
    }

    fn copy_block(&self, rows: Range<usize>, cols: Range<usize>, out: &mut [f64]) {
        (**self).copy_block(rows, cols, out);
    }

    fn multiplicity(&self) -> usize {
        (**self).multiplicity()
    }
}

/// A dense matrix in memory, column by column: element (i, j) is `data[i + j * rows]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Dense<T = f64> {
    /// The elements; `rows * cols` of them.
    pub data: Vec<T>,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
}

impl<T: Real> Dense<T> {
    /// All zeros.
    pub fn zeros(rows: usize, cols: usize) -> Dense<T> {
        Dense { data: vec![T::zero(); rows * cols], rows, cols }
    }
}

impl Dense {
    /// Copies a matrix, transposed where that makes it tall: singular values do not change.
    pub fn tall_copy(matrix: &dyn Elements) -> Dense {
        let (rows, cols) = (matrix.rows(), matrix.cols());
        // A row-major copy of W is a column-major copy of its transpose.
        let mut data = vec![0.0; rows * cols];
        if rows <= cols {
            matrix.copy_block(0..rows, 0..cols, &mut data);
            return Dense { data, rows: cols, cols: rows };
        }
        let mut line = vec![0.0; cols];
        for row in 0..rows {
            matrix.copy_block(row..row + 1, 0..cols, &mut line);
            let targets = data.iter_mut().skip(row).step_by(rows);
            targets.zip(&line).for_each(|(target, value)| *target = *value);
        }
        Dense { data, rows, cols }
    }
}

impl Elements for Dense {
    fn rows(&self) -> usize {
        self.rows
    }

    fn cols(&self) -> usize {
        self.cols
    }

    fn copy_block(&self, rows: Range<usize>, cols: Range<usize>, out: &mut [f64]) {
        // A transposition, a few columns at a time, so that the cache lines of both sides are used up.
        const TOGETHER: usize = 8;
        let width = cols.len();
        for first in cols.clone().step_by(TOGETHER) {
            let count = TOGETHER.min(cols.end - first);
            let offset = first - cols.start;
            let columns = self.data.chunks_exact(self.rows.max(1)).skip(first).take(count);
            let columns = columns.map(|column| column.get(rows.clone()).unwrap_or_default());
            let columns: Vec<&[f64]> = columns.collect();
            for (i, line) in out.chunks_exact_mut(width.max(1)).enumerate() {
                let targets = line.iter_mut().skip(offset);
                for (target, column) in targets.zip(&columns) {
                    *target = column.get(i).copied().unwrap_or(0.0);
                }
            }
        }
    }
}

/// How the threads of the current rayon pool are used inside one matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parallelism {
    /// One thread: the other ones have matrices of their own.
    Alone,
    /// All threads work on this matrix.
    Within,
}

impl Parallelism {
    /// Below this size a matrix is better computed by one thread while the others take others.
    const LARGE: usize = 1536;

    /// What suits a matrix of `n` eigenvalues. It depends on `n` alone, so that the rounding of a
    /// result does not depend on the number of threads.
    pub fn for_size(n: usize) -> Parallelism {
        if n >= Self::LARGE { Parallelism::Within } else { Parallelism::Alone }
    }
}

/// Which way the eigenvalues were computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Eigenvalues of the Gram matrix.
    Gram,
    /// Singular values of the matrix itself, squared.
    Svd,
    /// Eigenvalues of the Gram matrix in single precision, the largest few taken out before; with a
    /// probable bound of their error.
    Single,
}

/// The engine's iteration did not converge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the eigenvalue iteration did not converge")]
pub struct NoConvergence;

/// Why there is no spectrum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The engine gave up.
    #[error(transparent)]
    NoConvergence(#[from] NoConvergence),
    /// An element is not finite, or the squares leave the range in which `f64` keeps its digits:
    /// look the elements over and scale them.
    #[error("the elements are not finite, or their squares overflow or vanish")]
    OutOfRange,
}

/// The dense kernels that a spectrum needs.
pub trait Engine: Sync {
    /// The name on the command line.
    fn name(&self) -> &'static str;

    /// Eigenvalues of a symmetric matrix; ascending.
    /// A large matrix may use the other threads of the rayon pool.
    ///
    /// # Errors
    /// [`NoConvergence`].
    fn symmetric_eigenvalues(&self, matrix: Symmetric) -> Result<Vec<f64>, NoConvergence>;

    /// As [`symmetric_eigenvalues`](Self::symmetric_eigenvalues), in single precision where the
    /// engine has it.
    ///
    /// # Errors
    /// [`NoConvergence`].
    fn single_precision_eigenvalues(&self, matrix: Symmetric<f32>) -> Result<Vec<f64>, NoConvergence> {
        self.symmetric_eigenvalues(matrix.convert())
    }

    /// Singular values of a matrix with rows ≥ cols; ascending.
    ///
    /// # Errors
    /// [`NoConvergence`].
    fn singular_values(&self, matrix: Dense, parallelism: Parallelism) -> Result<Vec<f64>, NoConvergence>;
}

/// The eigenvalue spectrum of WᵀW.
#[derive(Clone, Debug, PartialEq)]
pub struct Spectrum {
    /// λ_1 ≤ … ≤ λ_n, none negative; of W / [`unit`](Self::unit).
    pub eigenvalues: Vec<f64>,
    /// A power of two that the matrix was divided by, so that squares neither overflow nor vanish:
    /// 1 for all but extreme elements. True singular values are √λ · unit.
    pub unit: f64,
    /// Estimated absolute error of every eigenvalue; see [`gram_error`].
    pub error: f64,
    /// max(rows, cols) of the matrices, for the rank's tolerance.
    pub larger_side: usize,
}

/// The error of an eigenvalue of a computed Gram matrix: 4·√n·ε·λ_max.
///
/// Forming the product and reducing it are backward stable; the worst-case constant grows like n,
/// the probable one, when rounding errors behave like independent random numbers, like √n (Higham
/// and Mary 2019). The factor 4 leaves room: the tests compare with singular values.
pub fn gram_error(n: usize, lambda_max: f64) -> f64 {
    4.0 * (n as f64).sqrt() * f64::EPSILON * lambda_max
}

/// Computes the spectrum of one matrix, or of several whose eigenvalues are pooled.
///
/// # Errors
/// [`Failure::NoConvergence`] of the engine; [`Failure::OutOfRange`] from the Gram path unless
/// `trusted` says that the elements are known to be finite and scaled.
pub fn spectrum<E: Elements>(
    engine: &dyn Engine,
    slices: impl Iterator<Item = E>,
    method: Method,
    trusted: bool,
) -> Result<Spectrum, Failure> {
    let mut pooled = Spectrum { eigenvalues: Vec::new(), unit: 1.0, error: 0.0, larger_side: 0 };
    for slice in slices {
        let n = slice.rows().min(slice.cols());
        let parallelism = Parallelism::for_size(n);
        let mut values = match method {
            Method::Gram => {
                let product = gram(&slice, parallelism);
                if !trusted && !in_range(&product, 1e-200..1e200) {
                    return Err(Failure::OutOfRange);
                }
                engine.symmetric_eigenvalues(product)?
            }
            Method::Svd => engine.singular_values(Dense::tall_copy(&slice), parallelism)?,
            Method::Single => {
                let (values, error) = single::single_spectrum(engine, &slice, parallelism)?;
                pooled.error = pooled.error.max(error);
                values
            }
        };
        for value in &mut values {
            // Rounding can leave a tiny negative number where the true eigenvalue is zero.
            *value = value.max(0.0);
            if method == Method::Svd {
                *value *= *value;
            }
        }
        if method == Method::Gram {
            let largest = values.last().copied().unwrap_or(0.0);
            pooled.error = pooled.error.max(gram_error(n, largest));
        }
        let larger = slice.rows().max(slice.cols()) / slice.multiplicity();
        pooled.larger_side = pooled.larger_side.max(larger);
        pooled.eigenvalues.extend(values.iter().step_by(slice.multiplicity()));
    }
    pooled.eigenvalues.sort_by(f64::total_cmp);
    Ok(pooled)
}

/// Whether the squared norms on the diagonal are finite and the largest is far from the ends of
/// the range. An element that is not finite makes its diagonal element so, too.
fn in_range<T: Real>(product: &Symmetric<T>, safe: Range<f64>) -> bool {
    let diagonal = || product.diagonal().map(T::widen);
    let largest = diagonal().fold(0.0, |max: f64, v| max.max(v));
    diagonal().all(f64::is_finite) && safe.contains(&largest)
}

/// The power of two that brings numbers of this size near 1. It is clamped so that itself and its
/// inverse are normal numbers, for subnormal ones, too; of zero it is 1.
pub fn power_of_two_for(largest: f64) -> f64 {
    if largest == 0.0 { 1.0 } else { (-largest.log2().floor().clamp(-1000.0, 1000.0)).exp2() }
}

/// Multiplications and additions of the Gram path, for progress and for scheduling:
/// n²·m for half of the product and 4/3·n³ for the reduction to tridiagonal form.
pub fn flops(rows: usize, cols: usize) -> f64 {
    let (n, m) = (rows.min(cols) as f64, rows.max(cols) as f64);
    n * n * m + 4.0 / 3.0 * n * n * n
}
