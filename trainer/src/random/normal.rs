//! Random numbers that leave libtorch's generator alone: the start of a new head depends on the seed, and on
//! nothing that happened before.

use std::f64::consts::TAU;

use super::{STRIDE, splitmix};

/// Normally distributed numbers.
#[derive(Debug)]
pub(crate) struct Normal {
    state: u64,
}

impl Normal {
    pub fn new(seed: u64) -> Normal {
        Normal { state: splitmix(seed) }
    }

    /// So many numbers with the mean 0.
    pub fn numbers(&mut self, count: usize, deviation: f64) -> Vec<f32> {
        (0..count).map(|_| (deviation * self.next()) as f32).collect()
    }

    /// The next one with the standard deviation 1 (Box and Muller, the cosine alone).
    fn next(&mut self) -> f64 {
        let (radius, angle) = (self.uniform(), self.uniform());
        (-2.0 * radius.ln()).sqrt() * (TAU * angle).cos()
    }

    /// In (0, 1].
    fn uniform(&mut self) -> f64 {
        let drawn = splitmix(self.state);
        self.state = self.state.wrapping_add(STRIDE);
        ((drawn >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_normal_distribution() {
        let numbers = Normal::new(3).numbers(40_000, 0.5);
        let moment = |power: i32| numbers.iter().map(|x| f64::from(*x / 0.5).powi(power)).sum::<f64>() / 4e4;
        for (power, want, off) in [(1, 0.0, 0.02), (2, 1.0, 0.03), (3, 0.0, 0.06), (4, 3.0, 0.15)] {
            assert!((moment(power) - want).abs() < off, "{power}: {}", moment(power));
        }
    }

    #[test]
    fn a_seed_gives_its_own_numbers() {
        assert_eq!(Normal::new(1).numbers(4, 1.0), Normal::new(1).numbers(4, 1.0));
        assert_ne!(Normal::new(1).numbers(4, 1.0), Normal::new(2).numbers(4, 1.0));
    }
}
