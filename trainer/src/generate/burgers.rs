//! Viscous Burgers' equation ∂u/∂t + ∂(u²/2)/∂x = (ν/π) ∂²u/∂x² on a periodic interval, and a set of its solutions.
//!
//! Finite volumes: u is continued linearly to the faces (MUSCL), Godunov's flux between them, central differences for
//! the viscous part, Heun's method in time with steps that both allow.

use super::flow::slope;
use super::waves::Waves;
use super::{Array, Coordinate, Frames, Recipe, Value, step};
use crate::random::Draws;

/// How a set is made.
#[derive(Clone, Debug)]
pub struct Burgers {
    /// ν; what stands before the second derivative is ν/π.
    pub viscosity: f64,
    /// Cells of the interval.
    pub resolution: usize,
    /// The cells that are computed with, for each of those that are written.
    pub refine: usize,
    /// The highest wave number of the initial fields.
    pub modes: u64,
    /// When frames are written.
    pub frames: Frames,
}

impl Recipe for Burgers {
    fn name(&self) -> &'static str {
        "burgers"
    }

    fn arrays(&self) -> Vec<Array> {
        vec![Array::new("tensor", &[self.frames.count, self.resolution])]
    }

    fn coordinates(&self) -> Vec<Coordinate> {
        vec![self.frames.coordinate(), Coordinate::cells("x", self.resolution)]
    }

    fn parameters(&self) -> Vec<(&'static str, Value)> {
        vec![("nu", Value::Real(self.viscosity))]
    }

    fn sample(&self, mut draws: Draws) -> Result<Vec<Vec<f32>>, String> {
        let cells = self.resolution * self.refine;
        let waves = Waves::draw(&mut draws, 1, self.modes);
        let amplitude = draws.between(0.5, 1.5);
        let middles = (0..cells).map(|cell| (cell as f64 + 0.5) / cells as f64);
        let mut u: Vec<f64> = middles.map(|x| amplitude * waves.at(x, 0.0)).collect();
        let mut out = Vec::with_capacity(self.frames.count * self.resolution);
        let mut time = 0.0;
        for frame in self.frames.times() {
            advance(&mut u, self.viscosity / std::f64::consts::PI, frame - time);
            time = frame;
            out.extend(
                u.chunks(self.refine).map(|cells| (cells.iter().sum::<f64>() / self.refine as f64) as f32),
            );
        }
        Ok(vec![out])
    }
}

/// Steps the means of u over the cells of the unit interval by a time.
fn advance(u: &mut [f64], diffusion: f64, time: f64) {
    let per_width = u.len() as f64;
    let mut rest = time;
    while rest > 0.0 {
        let speed = u.iter().fold(0.0f64, |most, u| most.max(u.abs()));
        let step = step(rest, speed * per_width, 2.0 * diffusion * per_width * per_width);
        let first = euler(u, diffusion, step);
        let second = euler(&first, diffusion, step);
        u.iter_mut().zip(second).for_each(|(u, second)| *u = 0.5 * (*u + second));
        rest = if step < rest { rest - step } else { 0.0 };
    }
}

/// One step of forward Euler.
fn euler(u: &[f64], diffusion: f64, step: f64) -> Vec<f64> {
    let per_width = u.len() as f64;
    let padded: Vec<f64> = u.iter().cycle().skip(u.len() - 2).take(u.len() + 4).copied().collect();
    let fluxes: Vec<f64> = (padded.windows(4))
        .filter_map(|cells| {
            let &[a, b, c, d] = cells else { return None };
            let (left, right) = (b + 0.5 * slope(b - a, c - b), c - 0.5 * slope(c - b, d - c));
            Some(godunov(left, right) - diffusion * per_width * (c - b))
        })
        .collect();
    let gains = fluxes.iter().zip(fluxes.iter().skip(1)).map(|(before, after)| before - after);
    u.iter().zip(gains).map(|(u, gain)| u + step * per_width * gain).collect()
}

/// The flux u²/2 of the exact solution between two constant states.
fn godunov(left: f64, right: f64) -> f64 {
    let (left, right) = (left.max(0.0), right.min(0.0));
    0.5 * (left * left).max(right * right)
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;

    /// By Cole and Hopf u = −2D φ'/φ for any solution φ of the heat equation: here φ = 1.5 + cos(2πx)·exp(−4π²Dt).
    fn exact(x: f64, t: f64, diffusion: f64) -> f64 {
        let decay = (-TAU * TAU * diffusion * t).exp();
        2.0 * diffusion * TAU * (TAU * x).sin() * decay / (1.5 + (TAU * x).cos() * decay)
    }

    fn error(cells: usize) -> f64 {
        let (diffusion, time) = (0.05, 0.4);
        let at = |t: f64| -> Vec<f64> {
            (0..cells).map(|cell| exact((cell as f64 + 0.5) / cells as f64, t, diffusion)).collect()
        };
        let mut u = at(0.0);
        advance(&mut u, diffusion, time);
        let squares = u.iter().zip(at(time)).map(|(found, exact)| (found - exact).powi(2));
        (squares.sum::<f64>() / cells as f64).sqrt()
    }

    #[test]
    fn cole_and_hopfs_solution_is_met_at_second_order() {
        let errors = [32, 64, 128].map(error);
        let orders: Vec<f64> = errors.windows(2).map(|pair| (pair[0] / pair[1]).log2()).collect();
        println!("{errors:?} {orders:?}");
        assert!(orders.iter().all(|order| *order > 1.8), "{errors:?} {orders:?}");
    }

    /// Without viscosity a jump from 1 to 0 travels at ½, and from 0 to 1 it opens to a fan.
    #[test]
    fn shocks_travel_and_fans_open() {
        let cells = 200;
        let middle = |cell: usize| (cell as f64 + 0.5) / cells as f64;
        let mut u: Vec<f64> = (0..cells).map(|cell| f64::from(u8::from(middle(cell) < 0.5))).collect();
        advance(&mut u, 0.0, 0.4);
        let exact = |x: f64| if x < 0.4 { x / 0.4 } else { f64::from(u8::from(x < 0.7)) };
        let off = u.iter().enumerate().map(|(cell, u)| (u - exact(middle(cell))).abs()).sum::<f64>() / 200.0;
        assert!(off < 0.006, "{off}");
        // What leaves a cell enters another one.
        assert!((u.iter().sum::<f64>() / 200.0 - 0.5).abs() < 1e-13);
    }
}
