//! Random periodic fields: a few sine waves on top of each other, as PDEBench begins its flows.

use std::f64::consts::TAU;

use crate::random::Draws;

/// Waves in one field.
const COUNT: usize = 4;

/// Σ Aᵢ sin(2πkᵢ·x + φᵢ) / ΣAᵢ, between −1 and 1.
#[derive(Clone, Debug)]
pub struct Waves {
    /// Amplitude, wave numbers along x and y, phase.
    waves: [(f64, [f64; 2], f64); COUNT],
}

impl Waves {
    /// Amplitudes in [0.1, 1), phases anywhere, wave numbers of at most `highest` along each axis: from 1 on
    /// one axis, of either sign and not both 0 on two.
    pub fn draw(draws: &mut Draws, axes: usize, highest: u64) -> Waves {
        let mut wave = || {
            let numbers = if axes == 1 {
                [(draws.below(highest) + 1) as f64, 0.0]
            } else {
                let mut number = || draws.below(2 * highest + 1) as f64 - highest as f64;
                let mut numbers = [number(), number()];
                while numbers == [0.0, 0.0] {
                    numbers = [number(), number()];
                }
                numbers
            };
            (draws.between(0.1, 1.0), numbers, draws.between(0.0, TAU))
        };
        Waves { waves: std::array::from_fn(|_| wave()) }
    }

    /// The field at a point of the unit square.
    pub fn at(&self, x: f64, y: f64) -> f64 {
        let of = |(amplitude, [kx, ky], phase): &(f64, [f64; 2], f64)| {
            amplitude * (TAU * (kx * x + ky * y) + phase).sin()
        };
        let most: f64 = self.waves.iter().map(|wave| wave.0).sum();
        self.waves.iter().map(of).sum::<f64>() / most
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;

    #[test]
    fn fields_are_periodic_bounded_and_differ() {
        for axes in [1, 2] {
            let fields: Vec<Waves> =
                (0..20).map(|n| Waves::draw(&mut Draws::new(1, Purpose::Field, n), axes, 3)).collect();
            let mut most = 0.0f64;
            for (n, field) in fields.iter().enumerate() {
                for point in 0..50 {
                    let (x, y) = (f64::from(point) / 50.0, f64::from(point % 7) / 7.0);
                    let value = field.at(x, y);
                    assert!((field.at(x + 1.0, y) - value).abs() < 1e-12);
                    assert!((field.at(x, y + 1.0) - value).abs() < 1e-12);
                    most = most.max(value.abs());
                }
                assert!(axes == 2 || field.at(0.3, 0.0) == field.at(0.3, 0.7));
                assert!(n == 0 || field.at(0.3, 0.2) != fields[n - 1].at(0.3, 0.2));
            }
            assert!(most <= 1.0 && most > 0.7, "{most}");
        }
    }
}
