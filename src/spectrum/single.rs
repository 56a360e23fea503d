//! The spectrum in single precision, where that is known to be enough: the n²·m and 4/3·n³
//! operations take half the time, after the few largest eigenvalues are taken out.

use rayon::prelude::*;

use super::deflation::Deflation;
use super::gram::{Panel, add_lower_product, for_each_panel, panel_size};
use super::{Elements, Engine, Failure, Parallelism, Real, Symmetric, in_range};

/// The error of every eigenvalue of a Gram matrix whose largest one is 1, when its sums of m products
/// are formed and it is reduced in single precision: ¾·√(m + 64)·u.
///
/// A probable bound: rounding errors that are independent and have no preferred sign add up like √m,
/// where the worst case would be m (Higham and Mary 2019). The constants are such that thousands of
/// matrices keep it: small ones come near it, at n = 1100 a fifth was measured (tests/precision.rs).
fn relative_error(m: usize) -> f64 {
    0.75 * (m as f64 + 64.0).sqrt() * f32::ROUNDOFF
}

/// Eigenvalues, ascending, and the probable bound of their errors.
///
/// # Errors
/// [`Failure::OutOfRange`] where single precision cannot hold the squares, or an element is not
/// finite; [`Failure::NoConvergence`].
pub(super) fn single_spectrum(
    engine: &dyn Engine,
    matrix: &dyn Elements,
    parallelism: Parallelism,
) -> Result<(Vec<f64>, f64), Failure> {
    let cost = relative_error(matrix.rows().max(matrix.cols()));
    let deflation = Deflation::find(matrix, cost, parallelism);
    let product = gram(matrix, deflation.as_ref(), parallelism);
    if !in_range(&product, 1e-20..1e20) {
        return Err(Failure::OutOfRange);
    }
    let mut values = engine.single_precision_eigenvalues(product)?;
    let rest = values.last().copied().unwrap_or(0.0);
    let mut error = cost * rest;
    if let Some(deflation) = deflation {
        // In the place of what was taken out the rest has zeros.
        values.drain(..deflation.eigenvalues.len());
        error += deflation.error(rest);
        values.extend(deflation.eigenvalues.iter().rev());
        values.sort_by(f64::total_cmp);
    }
    Ok((values, error))
}

/// The lower triangle of the Gram matrix of what is left of W, in single precision.
fn gram(matrix: &dyn Elements, deflation: Option<&Deflation>, parallelism: Parallelism) -> Symmetric<f32> {
    let mut product = Symmetric::<f32>::zeros(matrix.rows().min(matrix.cols()));
    let Some(deflation) = deflation else {
        for_each_panel(matrix, parallelism, |panel: Panel<'_, f32>| {
            add_lower_product(product.as_mut(), panel.matrix(), panel.matrix(), 1.0, parallelism);
        });
        return product;
    };
    let mut buffer = vec![0.0f32; panel_size(matrix)];
    for_each_panel(matrix, parallelism, |mut panel| {
        deflation.remove_from(&mut panel, parallelism);
        let Some(data) = buffer.get_mut(..panel.data.len()) else { return };
        narrow(panel.data, data, parallelism);
        let panel = Panel { data, shape: panel.shape };
        add_lower_product(product.as_mut(), panel.matrix(), panel.matrix(), 1.0, parallelism);
    });
    product
}

fn narrow(from: &[f64], to: &mut [f32], parallelism: Parallelism) {
    let copy = |(to, from): (&mut [f32], &[f64])| {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = f32::narrow(*from));
    };
    match parallelism {
        Parallelism::Alone => copy((to, from)),
        Parallelism::Within => {
            let strip = from.len().div_ceil(16).max(1);
            to.par_chunks_mut(strip).zip(from.par_chunks(strip)).for_each(copy);
        }
    }
}
