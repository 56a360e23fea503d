//! The few largest eigenvalues of a Gram matrix, and W without them.
//!
//! Rounding errors are as large as the largest eigenvalue makes them. Where a few eigenvalues stand
//! far above the rest (in trained weights λ_max is often 10⁴ times the median), single precision
//! would spoil the rest; so those few are found first, in double precision, and taken out of W.
//!
//! Block Krylov iteration (Golub and Underwood 1977; Musco and Musco 2015) on WᵀW, which is never
//! formed: each pass over the panels of W multiplies a block of vectors.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par, Side};
use rayon::prelude::*;

use super::gram::{Panel, add_product, for_each_panel};
use super::{Elements, Parallelism};

/// Vectors in a block.
const BLOCK: usize = 8;
/// Passes over W at most, the first one included: the Krylov space has BLOCK·PASSES dimensions.
const PASSES: usize = 5;
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

impl Deflation {
    /// Finds the largest eigenvalues that stand out; `None` where none does. `cost` is the error
    /// that single precision makes, as a multiple of the largest eigenvalue that is left.
    pub fn find(matrix: &dyn Elements, cost: f64, parallelism: Parallelism) -> Option<Deflation> {
        let n = matrix.rows().min(matrix.cols());
        let block = BLOCK.min(n);
        let mut basis = Mat::<f64>::zeros(n, 0);
        let mut products = Mat::<f64>::zeros(n, 0);
        let mut next = start(n, block);
        let mut trace = 0.0;
        let mut found = None;
        for pass in 0..PASSES {
            if basis.ncols() + block > n {
                break;
            }
            let fresh = orthonormal(&basis, next)?;
            let squares = (pass == 0).then_some(&mut trace);
            let product = multiply(matrix, fresh.as_ref(), squares, parallelism);
            basis = beside(basis, fresh.as_ref());
            products = beside(products, product.as_ref());
            next = product;
            if pass == 0 {
                continue;
            }
            let ritz = ritz(&basis, &products)?;
            let mean = trace / n as f64;
            if !ritz.values.first().is_some_and(|largest| *largest > SPIKE * mean) {
                return None;
            }
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

/// G·X in one pass over W; and the trace of G, where it is asked for.
fn multiply(
    matrix: &dyn Elements,
    x: MatRef<'_, f64>,
    mut trace: Option<&mut f64>,
    parallelism: Parallelism,
) -> Mat<f64> {
    let x = x.transpose().to_owned();
    let mut product = Mat::<f64>::zeros(x.nrows(), x.ncols());
    for_each_panel(matrix, parallelism, |panel: Panel<'_, f64>| {
        // Xᵀ·P, and then (Xᵀ·P)·Pᵀ.
        let p = panel.matrix();
        product += times(times(x.as_ref(), p).as_ref(), p.transpose());
        if let Some(trace) = &mut trace {
            **trace += squares(panel.data);
        }
    });
    product.transpose().to_owned()
}

/// S·P for an S of a few rows, in fixed parts, so that P is read in the order in which it lies.
fn times(s: MatRef<'_, f64>, p: MatRef<'_, f64>) -> Mat<f64> {
    const TOGETHER: usize = 96;
    if p.row_stride() == 1 {
        let mut product = Mat::<f64>::zeros(s.nrows(), p.ncols());
        let parts = product.par_col_chunks_mut(TOGETHER).zip(p.par_col_chunks(TOGETHER));
        parts.for_each(|(target, p)| matmul(target, Accum::Replace, s, p, 1.0, Par::Seq));
        return product;
    }
    let mut product = Mat::<f64>::zeros(p.ncols(), s.nrows());
    let parts = product.par_row_chunks_mut(TOGETHER).zip(p.par_col_chunks(TOGETHER));
    parts.for_each(|(target, p)| {
        matmul(target, Accum::Replace, p.transpose(), s.transpose(), 1.0, Par::Seq);
    });
    product.transpose().to_owned()
}

/// The sum of the squares, in fixed parts.
fn squares(data: &[f64]) -> f64 {
    let part = |part: &[f64]| {
        let (eights, rest) = part.as_chunks::<8>();
        let mut sums = [0.0; 8];
        for eight in eights {
            sums.iter_mut().zip(eight).for_each(|(sum, v)| *sum += v * v);
        }
        sums.iter().sum::<f64>() + rest.iter().map(|v| v * v).sum::<f64>()
    };
    data.par_chunks(1 << 14).map(part).collect::<Vec<f64>>().iter().sum()
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

fn beside(left: Mat<f64>, right: MatRef<'_, f64>) -> Mat<f64> {
    let (rows, count) = (right.nrows(), left.ncols());
    let mut both = Mat::<f64>::zeros(rows, count + right.ncols());
    both.as_mut().subcols_mut(0, count).copy_from(left.as_ref());
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
