//! The few largest eigenvalues of a Gram matrix, and W without them.
//!
//! Rounding errors are as large as the largest eigenvalue makes them. Where a few eigenvalues stand
//! far above the rest (in trained weights λ_max is often 10⁴ times the median), single precision
//! would spoil the rest; so those few are found first, in double precision, and taken out of W.
//!
//! Block Krylov iteration (Golub and Underwood 1977; Musco and Musco 2015) on WᵀW, which is never
//! formed: each pass over the panels of W multiplies a block of vectors. Whether anything stands out at
//! all is seen in single precision, and what is found so is where double precision starts from.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par, Side};
use rayon::prelude::*;

use super::gram::{Panel, add_product, for_each_panel};
use super::{Elements, Parallelism, Real};

/// Vectors in a block.
const BLOCK: usize = 8;
/// Passes over W in single precision, and at most so many in double precision: the Krylov space has
/// BLOCK·PASSES dimensions.
const LOOKS: usize = 2;
const PASSES: usize = 4;
/// What is below so many times the mean eigenvalue does not stand out: independent random elements
/// stay below 4 (Marchenko and Pastur 1967).
const SPIKE: f64 = 4.0;
/// The search is over where the coupling that is left costs less than this part of the rounding.
const SETTLED: f64 = 0.125;

/// An invariant subspace of G = WᵀW (or WWᵀ), up to a small coupling with the rest.
pub(super) struct Deflation {
    /// Its eigenvalues, descending.
    pub eigenvalues: Vec<f64>,
    /// An orthonormal basis, n × p.
    basis: Mat<f64>,
    /// ‖G·V − V·Θ‖_F: what couples it with the rest.
    pub coupling: f64,
}

/// The Ritz pairs after some passes.
struct Ritz {
    values: Vec<f64>,
    vectors: Mat<f64>,
    residuals: Vec<f64>,
}

/// A Krylov space of G as it grows by blocks.
struct Krylov {
    /// An orthonormal basis, n × k, and G times it.
    basis: Mat<f64>,
    products: Mat<f64>,
    /// What the next block is made of.
    next: Mat<f64>,
    /// The trace of G, after the first pass.
    trace: f64,
}

impl Krylov {
    fn new(start: Mat<f64>) -> Krylov {
        let n = start.nrows();
        Krylov { basis: Mat::zeros(n, 0), products: Mat::zeros(n, 0), next: start, trace: 0.0 }
    }

    /// One pass over W in this precision; `None` where the space is full, or something is not finite.
    fn extend<T: Real>(&mut self, matrix: &dyn Elements, parallelism: Parallelism) -> Option<()> {
        if self.basis.ncols() + self.next.ncols() > self.basis.nrows() {
            return None;
        }
        let fresh = orthonormal(&self.basis, std::mem::replace(&mut self.next, Mat::new()))?;
        let squares = (self.basis.ncols() == 0).then_some(&mut self.trace);
        let product = multiply::<T>(matrix, fresh.as_ref(), squares, parallelism);
        self.basis = beside(self.basis.as_ref(), fresh.as_ref());
        self.products = beside(self.products.as_ref(), product.as_ref());
        self.next = product;
        Some(())
    }

    fn ritz(&self) -> Option<Ritz> {
        ritz(&self.basis, &self.products)
    }
}

impl Deflation {
    /// Finds the largest eigenvalues that stand out; `None` where none does. `cost` is the error
    /// that single precision makes, as a multiple of the largest eigenvalue that is left.
    pub fn find(matrix: &dyn Elements, cost: f64, parallelism: Parallelism) -> Option<Deflation> {
        let n = matrix.rows().min(matrix.cols());
        let mut krylov = Krylov::new(start(n, BLOCK.min(n)));
        for _ in 0..LOOKS {
            krylov.extend::<f32>(matrix, parallelism)?;
        }
        let (trace, largest) = (krylov.trace, krylov.ritz()?.values.first().copied()?);
        if largest <= SPIKE * trace / n as f64 {
            return None;
        }
        let mut krylov = Krylov::new(krylov.next);
        let mut found = None;
        for _ in 0..PASSES {
            if krylov.extend::<f64>(matrix, parallelism).is_none() {
                break;
            }
            let ritz = krylov.ritz()?;
            let cut = best_cut(&ritz, cost);
            let settled = cut.is_some_and(|cut| cut.is_settled(trace, n));
            found = cut.map(|cut| (ritz, cut.count));
            if settled {
                break;
            }
        }
        found.map(|(ritz, count)| Deflation::of(ritz, count))
    }

    fn of(ritz: Ritz, count: usize) -> Deflation {
        let coupling = ritz.residuals.iter().take(count).map(|r| r * r).sum::<f64>().sqrt();
        Deflation {
            eigenvalues: ritz.values.into_iter().take(count).collect(),
            basis: ritz.vectors.subcols(0, count).to_owned(),
            coupling,
        }
    }

    /// P ← (I − V·Vᵀ)·P.
    pub fn remove_from(&self, panel: &mut Panel<'_, f64>, parallelism: Parallelism) {
        let v = self.basis.as_ref();
        let shares = times(v.transpose(), panel.matrix());
        add_product(panel.matrix_mut(), v, shares.transpose(), -1.0, parallelism);
    }

    /// How far dropping the coupling moves any eigenvalue when the rest stays below `rest`:
    /// ‖R‖²/gap, and never more than ‖R‖ (Li and Li 2005, with a simpler bound for the quotient).
    pub fn error(&self, rest: f64) -> f64 {
        let gap = self.eigenvalues.last().map_or(0.0, |v| v - rest);
        coupling_error(self.coupling, gap)
    }
}

fn coupling_error(coupling: f64, gap: f64) -> f64 {
    if gap > coupling { coupling * coupling / gap } else { coupling }
}

/// How many of the Ritz pairs are taken out.
#[derive(Clone, Copy)]
struct Cut {
    count: usize,
    /// The sum of their values.
    taken: f64,
    /// The largest Ritz value that is left.
    outside: f64,
    /// The error from rounding, and that from the coupling.
    rounding: f64,
    coupling: f64,
}

impl Cut {
    /// Whether another pass would gain next to nothing.
    fn is_settled(&self, trace: f64, n: usize) -> bool {
        let mean = (trace - self.taken) / n as f64;
        self.outside <= SPIKE * mean && self.coupling <= SETTLED * self.rounding
    }
}

/// The cut for which the sum of the two errors is smallest; `None` where that is none at all.
fn best_cut(ritz: &Ritz, cost: f64) -> Option<Cut> {
    let mut best = (cost * ritz.values.first()?, None);
    let (mut squares, mut taken) = (0.0, 0.0);
    for (i, pair) in ritz.values.windows(2).enumerate() {
        let &[inside, outside] = pair else { break };
        let residual = ritz.residuals.get(i).copied().unwrap_or(f64::INFINITY);
        squares += residual * residual;
        taken += inside;
        let (rounding, coupling) = (cost * outside, coupling_error(squares.sqrt(), inside - outside));
        if rounding + coupling < best.0 {
            best = (rounding + coupling, Some(Cut { count: i + 1, taken, outside, rounding, coupling }));
        }
    }
    best.1
}

/// Pseudo-random numbers of a fixed seed: the result has to be the same in every run.
fn start(n: usize, count: usize) -> Mat<f64> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    Mat::from_fn(n, count, |_, _| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
    })
}

/// G·X in one pass over W, in this precision; and the trace of G, where it is asked for.
fn multiply<T: Real>(
    matrix: &dyn Elements,
    x: MatRef<'_, f64>,
    mut trace: Option<&mut f64>,
    parallelism: Parallelism,
) -> Mat<f64> {
    let x = Mat::from_fn(x.ncols(), x.nrows(), |i, j| T::narrow(x[(j, i)]));
    let mut product = Mat::<T>::zeros(x.nrows(), x.ncols());
    for_each_panel(matrix, parallelism, |panel: Panel<'_, T>| {
        // Xᵀ·P, and then (Xᵀ·P)·Pᵀ.
        let p = panel.matrix();
        product += times(times(x.as_ref(), p).as_ref(), p.transpose());
        if let Some(trace) = &mut trace {
            **trace += squares(panel.data);
        }
    });
    Mat::from_fn(product.ncols(), product.nrows(), |i, j| product[(j, i)].widen())
}

/// S·P for an S of a few rows, in fixed parts, so that P is read in the order in which it lies.
fn times<T: Real>(s: MatRef<'_, T>, p: MatRef<'_, T>) -> Mat<T> {
    const TOGETHER: usize = 96;
    if p.row_stride() == 1 {
        let mut product = Mat::<T>::zeros(s.nrows(), p.ncols());
        let parts = product.par_col_chunks_mut(TOGETHER).zip(p.par_col_chunks(TOGETHER));
        parts.for_each(|(target, p)| matmul(target, Accum::Replace, s, p, T::one(), Par::Seq));
        return product;
    }
    let mut product = Mat::<T>::zeros(p.ncols(), s.nrows());
    let parts = product.par_row_chunks_mut(TOGETHER).zip(p.par_col_chunks(TOGETHER));
    parts.for_each(|(target, p)| {
        matmul(target, Accum::Replace, p.transpose(), s.transpose(), T::one(), Par::Seq);
    });
    product.transpose().to_owned()
}

/// The sum of the squares, in fixed parts.
fn squares<T: Real>(data: &[T]) -> f64 {
    let part = |part: &[T]| {
        let (eights, rest) = part.as_chunks::<8>();
        let mut sums = [T::zero(); 8];
        for eight in eights {
            sums.iter_mut().zip(eight).for_each(|(sum, v)| *sum += *v * *v);
        }
        let rest = rest.iter().map(|v| *v * *v);
        sums.into_iter().chain(rest).map(T::widen).sum::<f64>()
    };
    data.par_chunks(1 << 12).map(part).collect::<Vec<f64>>().iter().sum()
}

/// An orthonormal basis of what `block` adds to `basis`; `None` where it is not finite.
fn orthonormal(basis: &Mat<f64>, mut block: Mat<f64>) -> Option<Mat<f64>> {
    let norms: Vec<f64> = (0..block.ncols()).map(|j| block.col(j).norm_l2()).collect();
    if norms.iter().any(|norm| !norm.is_finite()) {
        return None;
    }
    for (j, norm) in norms.iter().enumerate().filter(|(_, norm)| **norm > 0.0) {
        block.col_mut(j).iter_mut().for_each(|v| *v /= norm);
    }
    // Twice is enough (Kahan, in Parlett 1980, section 6.9).
    for _ in 0..2 {
        let mut inner = Mat::<f64>::zeros(basis.ncols(), block.ncols());
        matmul(inner.as_mut(), Accum::Replace, basis.transpose(), block.as_ref(), 1.0, Par::Seq);
        matmul(block.as_mut(), Accum::Add, basis.as_ref(), inner.as_ref(), -1.0, Par::Seq);
        block = block.qr().compute_thin_Q();
    }
    Some(block)
}

fn beside(left: MatRef<'_, f64>, right: MatRef<'_, f64>) -> Mat<f64> {
    let (rows, count) = (right.nrows(), left.ncols());
    let mut both = Mat::<f64>::zeros(rows, count + right.ncols());
    both.as_mut().subcols_mut(0, count).copy_from(left);
    both.as_mut().subcols_mut(count, right.ncols()).copy_from(right);
    both
}

/// Rayleigh–Ritz on the whole Krylov space: values descending, with the norms of their residuals.
fn ritz(basis: &Mat<f64>, products: &Mat<f64>) -> Option<Ritz> {
    let (n, size) = (basis.nrows(), basis.ncols());
    let mut small = Mat::<f64>::zeros(size, size);
    matmul(small.as_mut(), Accum::Replace, basis.transpose(), products.as_ref(), 1.0, Par::Seq);
    let small = Mat::from_fn(size, size, |i, j| 0.5 * (small[(i, j)] + small[(j, i)]));
    let decomposition = small.self_adjoint_eigen(Side::Lower).ok()?;
    // The lower half of the Krylov space's Ritz pairs is far from converged.
    let count = size / 2 + 1;
    let largest_first = |j: usize| size - 1 - j;
    let chosen = Mat::from_fn(size, count, |i, j| decomposition.U()[(i, largest_first(j))]);
    let values: Vec<f64> = (0..count).map(|j| decomposition.S()[largest_first(j)]).collect();
    let mut vectors = Mat::<f64>::zeros(n, count);
    matmul(vectors.as_mut(), Accum::Replace, basis.as_ref(), chosen.as_ref(), 1.0, Par::Seq);
    let mut images = Mat::<f64>::zeros(n, count);
    matmul(images.as_mut(), Accum::Replace, products.as_ref(), chosen.as_ref(), 1.0, Par::Seq);
    let residual = |(j, value): (usize, &f64)| {
        let pairs = images.col(j).iter().zip(vectors.col(j).iter());
        pairs.map(|(image, vector)| (image - value * vector).powi(2)).sum::<f64>().sqrt()
    };
    let residuals = values.iter().enumerate().map(residual).collect();
    Some(Ritz { values, vectors, residuals })
}
