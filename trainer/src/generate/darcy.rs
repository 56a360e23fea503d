//! A set of Darcy flows: −∇·(a∇u) = β on the unit square, u = 0 on its boundary, a a medium of two materials.

use std::f64::consts::PI;

use super::elliptic::Darcy;
use super::{Array, Coordinate, Recipe, Value};
use crate::random::{Draws, Numbers};

/// The residual to which the equations are solved, as a part of that of u = 0.
const TOLERANCE: f64 = 1e-10;

/// The coefficient in the two materials (as in PDEBench).
const LOW: f64 = 0.1;
const HIGH: f64 = 1.0;

/// Cosines along each axis of the field whose sign says which material is where.
const MODES: usize = 64;

/// The spectrum of that field falls as (π²(k² + l²) + τ²)^(−1): covariance (−Δ + τ²)⁻², Li et al. 2021.
const TAU: f64 = 3.0;

/// How a set is made.
#[derive(Clone, Debug)]
pub struct DarcyFlow {
    /// β.
    pub force: f64,
    /// Cells along each axis.
    pub resolution: usize,
    /// The cells that are computed with along each axis, for each of those that are written.
    pub refine: usize,
}

impl Recipe for DarcyFlow {
    fn name(&self) -> &'static str {
        "darcy"
    }

    fn arrays(&self) -> Vec<Array> {
        let n = self.resolution;
        vec![Array::new("nu", &[n, n]), Array::new("tensor", &[1, n, n])]
    }

    fn coordinates(&self) -> Vec<Coordinate> {
        vec![Coordinate::cells("x", self.resolution), Coordinate::cells("y", self.resolution)]
    }

    fn parameters(&self) -> Vec<(&'static str, Value)> {
        vec![("beta", Value::Real(self.force)), ("low", Value::Real(LOW)), ("high", Value::Real(HIGH))]
    }

    /// The medium is constant over the cells that are written; the solution is the mean over each.
    fn sample(&self, mut draws: Draws) -> Result<Vec<Vec<f32>>, String> {
        let (n, fine) = (self.resolution, self.resolution * self.refine);
        let materials: Vec<f64> =
            (random_field(&mut draws, n).iter()).map(|value| if *value < 0.0 { LOW } else { HIGH }).collect();
        let coefficient: Vec<f64> = (materials.chunks(n))
            .flat_map(|row| {
                let row = row.iter().flat_map(|a| std::iter::repeat_n(*a, self.refine));
                std::iter::repeat_n(row, self.refine).flatten()
            })
            .collect();
        let solution =
            Darcy::new(fine, &coefficient).solve(&vec![self.force; fine * fine], TOLERANCE).map_err(
                |left| format!("the equations of Darcy flow were solved to a residual of {left:.1e} only"),
            )?;
        let mut means = vec![0.0; n * n];
        for (row, values) in solution.chunks(fine).enumerate() {
            let places = means.iter_mut().skip(row / self.refine * n);
            for (mean, values) in places.zip(values.chunks(self.refine)) {
                *mean += values.iter().sum::<f64>() / (self.refine * self.refine) as f64;
            }
        }
        let single = |numbers: &[f64]| numbers.iter().map(|number| *number as f32).collect();
        Ok(vec![single(&materials), single(&means)])
    }
}

/// A Gaussian random field without a mean and without a flux through the boundary, at the middles of n × n cells: the
/// same field whatever n is.
fn random_field(draws: &mut Draws, n: usize) -> Vec<f64> {
    let numbers = Numbers::new(draws.below(u64::MAX)).normal(MODES * MODES, 1.0);
    let weights = numbers.iter().enumerate().map(|(mode, number)| {
        let (k, l) = ((mode / MODES) as f64, (mode % MODES) as f64);
        if mode == 0 { 0.0 } else { f64::from(*number) / (PI * PI * (k * k + l * l) + TAU * TAU) }
    });
    let weights: Vec<f64> = weights.collect();
    // cos πkx at the middles, [n, MODES].
    let cosines: Vec<f64> = (0..n * MODES)
        .map(|place| (PI * (place % MODES) as f64 * ((place / MODES) as f64 + 0.5) / n as f64).cos())
        .collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    // Σ_l w[k, l] cos πly for every k, [n, MODES]; then the same along x.
    let along_y: Vec<Vec<f64>> = (cosines.chunks(MODES))
        .map(|cosines| weights.chunks(MODES).map(|weights| dot(weights, cosines)).collect())
        .collect();
    cosines.chunks(MODES).flat_map(|x| along_y.iter().map(move |y| dot(x, y))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;

    #[test]
    fn the_field_is_the_same_at_any_resolution() {
        let field = |n| random_field(&mut Draws::new(5, Purpose::Field, 2), n);
        let (coarse, fine) = (field(9), field(27));
        for (cell, value) in coarse.iter().enumerate() {
            let (x, y) = (cell / 9 * 3 + 1, cell % 9 * 3 + 1);
            assert!((value - fine[27 * x + y]).abs() < 1e-12);
        }
        assert!(coarse.iter().any(|v| *v < 0.0) && coarse.iter().any(|v| *v > 0.0));
    }

    #[test]
    fn finer_cells_come_to_the_same_solution() {
        let solution = |refine| {
            let set = DarcyFlow { force: 100.0, resolution: 12, refine };
            set.sample(Draws::new(5, Purpose::Field, 2)).unwrap()
        };
        let [one, two, four] = [1, 2, 4].map(solution);
        assert_eq!(one[0], four[0]);
        assert!(one[0].iter().all(|a| *a == 0.1 || *a == 1.0));
        let distance = |a: &[f32], b: &[f32]| {
            let square = |a: &[f32]| a.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
            let apart: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
            (square(&apart) / square(b)).sqrt()
        };
        let (first, second) = (distance(&one[1], &four[1]), distance(&two[1], &four[1]));
        assert!(first < 0.15 && second < 0.5 * first, "{first} {second}");
    }
}
