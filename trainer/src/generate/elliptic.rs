//! −∇·(a∇u) = f on the unit square with u = 0 on its boundary, by finite volumes.
//!
//! u stands at the middles of n × n cells. What flows between two of them is driven by the harmonic mean of their
//! coefficients, so that it stays right where a jumps; the boundary is half a cell away. Second order. The five-point
//! equations are solved by conjugate gradients with a modified incomplete Cholesky factorisation (Gustafsson 1978).

/// The factorisation leaves out what it would fill in; of that, so much is put on the diagonal.
const MODIFIED: f64 = 0.97;

/// Conjugate gradients that have not arrived after so many steps for each cell of an axis have lost their way.
const STEPS_PER_CELL: usize = 100;

/// The equations of one coefficient field.
#[derive(Debug)]
pub struct Darcy {
    n: usize,
    /// Of each cell: the conductances to its neighbours at larger x and larger y, 0 at the boundary.
    next: Vec<[f64; 2]>,
    diagonal: Vec<f64>,
    /// Inverse of the factorisation's diagonal.
    inverse: Vec<f64>,
}

impl Darcy {
    /// The coefficients of n × n cells, row-major in x, y, all above 0.
    pub fn new(n: usize, coefficient: &[f64]) -> Darcy {
        let mean = |a: f64, b: f64| 2.0 * a * b / (a + b);
        let below = |cell: usize| coefficient.get(cell).copied().unwrap_or_default();
        let next: Vec<[f64; 2]> = (coefficient.iter().enumerate())
            .map(|(cell, a)| {
                let (x, y) = (cell / n, cell % n);
                [
                    if x + 1 < n { mean(*a, below(cell + n)) } else { 0.0 },
                    if y + 1 < n { mean(*a, below(cell + 1)) } else { 0.0 },
                ]
            })
            .collect();
        let mut equations = Darcy { n, next, diagonal: Vec::new(), inverse: Vec::new() };
        equations.diagonal = (coefficient.iter().enumerate())
            .map(|(cell, a)| {
                let (x, y) = (cell / n, cell % n);
                let edges = [x == 0, x + 1 == n, y == 0, y + 1 == n];
                let at_boundary = edges.iter().filter(|edge| **edge).count() as f64;
                let [[west, south], [east, north]] = equations.around(cell);
                2.0 * a * at_boundary + west + south + east + north
            })
            .collect();
        equations.factorise();
        equations
    }

    /// Conductances to the neighbours before (x, y) and after.
    fn around(&self, cell: usize) -> [[f64; 2]; 2] {
        let of = |back: usize| cell.checked_sub(back).and_then(|cell| self.next.get(cell));
        let west = of(self.n).map_or(0.0, |next| next[0]);
        let south = of(1).map_or(0.0, |next| next[1]);
        [[west, south], self.next.get(cell).copied().unwrap_or_default()]
    }

    fn factorise(&mut self) {
        let mut inverse: Vec<f64> = Vec::with_capacity(self.diagonal.len());
        for (cell, diagonal) in self.diagonal.iter().enumerate() {
            let [before, _] = self.around(cell);
            let mut pivot = *diagonal;
            for (conductance, back) in before.iter().zip([self.n, 1]) {
                let Some(at) = cell.checked_sub(back) else { continue };
                let fill: f64 = self.next.get(at).map_or(0.0, |next| next.iter().sum());
                let kept = conductance + MODIFIED * (fill - conductance);
                pivot -= conductance * kept * inverse.get(at).copied().unwrap_or_default();
            }
            inverse.push(1.0 / pivot);
        }
        self.inverse = inverse;
    }

    /// u for the mean of f over each cell, to a residual of `tolerance` times that of u = 0.
    ///
    /// # Errors
    /// The relative residual that is left where the iteration does not arrive.
    pub fn solve(&self, force: &[f64], tolerance: f64) -> Result<Vec<f64>, f64> {
        self.iterate(force, tolerance).map(|(solution, _)| solution)
    }

    /// The solution, and the steps that were taken to it.
    fn iterate(&self, force: &[f64], tolerance: f64) -> Result<(Vec<f64>, usize), f64> {
        let area = 1.0 / (self.n * self.n) as f64;
        let mut residual: Vec<f64> = force.iter().map(|f| f * area).collect();
        let start = dot(&residual, &residual).sqrt();
        let mut solution = vec![0.0; residual.len()];
        if start == 0.0 {
            return Ok((solution, 0));
        }
        let mut search = self.precondition(&residual);
        let mut product = dot(&residual, &search);
        for taken in 1..=STEPS_PER_CELL * self.n {
            let image = self.apply(&search);
            let step = product / dot(&search, &image);
            for ((u, r), (s, i)) in solution.iter_mut().zip(&mut residual).zip(search.iter().zip(&image)) {
                *u += step * s;
                *r -= step * i;
            }
            if dot(&residual, &residual).sqrt() <= tolerance * start {
                return Ok((solution, taken));
            }
            let direction = self.precondition(&residual);
            let next = dot(&residual, &direction);
            let part = next / product;
            product = next;
            search.iter_mut().zip(direction).for_each(|(s, d)| *s = d + part * *s);
        }
        Err(dot(&residual, &residual).sqrt() / start)
    }

    /// What flows out of each cell for a given u.
    fn apply(&self, u: &[f64]) -> Vec<f64> {
        let mut out: Vec<f64> = u.iter().zip(&self.diagonal).map(|(u, diagonal)| u * diagonal).collect();
        for (axis, shift) in [self.n, 1].into_iter().enumerate() {
            let conductances = self.next.iter().map(|next| if axis == 0 { next[0] } else { next[1] });
            let (after, before) = (u.iter().skip(shift), u.iter());
            for ((out, u), conductance) in out.iter_mut().zip(after).zip(conductances.clone()) {
                *out -= conductance * u;
            }
            for ((out, u), conductance) in out.iter_mut().skip(shift).zip(before).zip(conductances) {
                *out -= conductance * u;
            }
        }
        out
    }

    /// Solves with the factorisation: forward over the cells, and back.
    #[allow(clippy::indexing_slicing)] // every index is below n², or is a cell before another one
    fn precondition(&self, residual: &[f64]) -> Vec<f64> {
        let (n, mut out) = (self.n, residual.to_vec());
        for cell in 0..out.len() {
            let mut sum = out[cell];
            if cell >= n {
                sum += self.next[cell - n][0] * out[cell - n];
            }
            if cell >= 1 {
                sum += self.next[cell - 1][1] * out[cell - 1];
            }
            out[cell] = sum * self.inverse[cell];
        }
        for cell in (0..out.len()).rev() {
            let mut sum = 0.0;
            if cell + n < out.len() {
                sum += self.next[cell][0] * out[cell + n];
            }
            if cell + 1 < out.len() {
                sum += self.next[cell][1] * out[cell + 1];
            }
            out[cell] += sum * self.inverse[cell];
        }
        out
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use super::*;

    /// The middles of the cells.
    fn middles(n: usize) -> Vec<(f64, f64)> {
        let at = |place: usize| (place as f64 + 0.5) / n as f64;
        (0..n * n).map(|cell| (at(cell / n), at(cell % n))).collect()
    }

    /// u = sin πx · sin 2πy with a = 1 + ½ sin 2πx · cos πy; f = −∇·(a∇u) by hand.
    fn error(n: usize) -> f64 {
        let (p, q) = (PI, 2.0 * PI);
        let u = |x: f64, y: f64| (p * x).sin() * (q * y).sin();
        let a = |x: f64, y: f64| 1.0 + 0.5 * (q * x).sin() * (p * y).cos();
        let force = |x: f64, y: f64| {
            let ax = 0.5 * q * (q * x).cos() * (p * y).cos();
            let ay = -0.5 * p * (q * x).sin() * (p * y).sin();
            let ux = p * (p * x).cos() * (q * y).sin();
            let uy = q * (p * x).sin() * (q * y).cos();
            a(x, y) * (p * p + q * q) * u(x, y) - ax * ux - ay * uy
        };
        let middles = middles(n);
        let coefficient: Vec<f64> = middles.iter().map(|(x, y)| a(*x, *y)).collect();
        let right: Vec<f64> = middles.iter().map(|(x, y)| force(*x, *y)).collect();
        let found = Darcy::new(n, &coefficient).solve(&right, 1e-12).unwrap();
        let squares = middles.iter().zip(&found).map(|((x, y), found)| (u(*x, *y) - found).powi(2));
        (squares.sum::<f64>() / (n * n) as f64).sqrt()
    }

    #[test]
    fn a_smooth_solution_is_met_at_second_order() {
        let errors = [16, 32, 64, 128].map(error);
        let orders: Vec<f64> = errors.windows(2).map(|pair| (pair[0] / pair[1]).log2()).collect();
        println!("{errors:?} {orders:?}");
        assert!(orders.iter().all(|order| *order >= 1.9), "{orders:?}");
        assert!(errors[3] < 2e-4, "{errors:?}");
    }

    /// Where a jumps, what flows through the square still balances: all that the force puts in leaves through the
    /// boundary. And the equations hold for what `solve` gives.
    #[test]
    fn jumps_are_balanced() {
        let n = 40;
        let jump = |(x, y): &(f64, f64)| if (x - 0.4).hypot(y - 0.6) < 0.3 { 0.1 } else { 1.0 };
        let coefficient: Vec<f64> = middles(n).iter().map(jump).collect();
        let equations = Darcy::new(n, &coefficient);
        let found = equations.solve(&vec![100.0; n * n], 1e-10).unwrap();
        let leaves: f64 = (0..n * n)
            .map(|cell| {
                let (x, y) = (cell / n, cell % n);
                let edges = [x == 0, x + 1 == n, y == 0, y + 1 == n].iter().filter(|edge| **edge).count();
                2.0 * coefficient[cell] * found[cell] * edges as f64
            })
            .sum();
        assert!((leaves - 100.0).abs() < 1e-6, "{leaves}");
        let worst =
            equations.apply(&found).iter().map(|out| (out - 100.0 / 1600.0).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-9, "{worst}");
        assert!(found.iter().all(|u| *u > 0.0));
    }

    /// Steps grow with the root of n, where without the modification they would grow with n.
    #[test]
    fn the_preconditioner_pays() {
        let steps = [32, 128].map(|n| {
            let of = |(x, y): &(f64, f64)| if (8.0 * x).sin() * (9.0 * y).cos() > 0.0 { 1.0 } else { 0.1 };
            let coefficient: Vec<f64> = middles(n).iter().map(of).collect();
            Darcy::new(n, &coefficient).iterate(&vec![1.0; n * n], 1e-10).unwrap().1
        });
        println!("{steps:?}");
        assert!(steps[1] < 90 && steps[1] < 3 * steps[0], "{steps:?}");
    }
}
