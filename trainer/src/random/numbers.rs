//! Random numbers that leave libtorch's generator alone: the start of a new head or an adapter depends on the seed, and on
//! nothing that happened before.

use std::f64::consts::TAU;

use super::{STRIDE, splitmix};

/// Numbers of one stream.
#[derive(Debug)]
pub(crate) struct Numbers {
    state: u64,
}

impl Numbers {
    pub fn new(seed: u64) -> Numbers {
        Numbers { state: splitmix(seed) }
    }

    /// So many numbers, normally distributed with the mean 0.
    pub fn normal(&mut self, count: usize, deviation: f64) -> Vec<f32> {
        (0..count).map(|_| (deviation * self.next()) as f32).collect()
    }

    /// So many numbers, evenly distributed between −`bound` and `bound`.
    pub fn uniform(&mut self, count: usize, bound: f64) -> Vec<f32> {
        (0..count).map(|_| (bound * (2.0 * self.unit() - 1.0)) as f32).collect()
    }

    /// The next one with the standard deviation 1 (Box and Muller, the cosine alone).
    fn next(&mut self) -> f64 {
        let (radius, angle) = (self.unit(), self.unit());
        (-2.0 * radius.ln()).sqrt() * (TAU * angle).cos()
    }

    /// In (0, 1].
    fn unit(&mut self) -> f64 {
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
        let numbers = Numbers::new(3).normal(40_000, 0.5);
        let moment = |power: i32| numbers.iter().map(|x| f64::from(*x / 0.5).powi(power)).sum::<f64>() / 4e4;
        for (power, want, off) in [(1, 0.0, 0.02), (2, 1.0, 0.03), (3, 0.0, 0.06), (4, 3.0, 0.15)] {
            assert!((moment(power) - want).abs() < off, "{power}: {}", moment(power));
        }
    }

    #[test]
    fn even_numbers_stay_within_their_bound() {
        let numbers = Numbers::new(3).uniform(40_000, 0.5);
        assert!(numbers.iter().all(|x| x.abs() <= 0.5));
        let moment = |power: i32| numbers.iter().map(|x| f64::from(*x).powi(power)).sum::<f64>() / 4e4;
        assert!(moment(1).abs() < 0.005 && (moment(2) - 1.0 / 12.0).abs() < 0.002);
    }

    #[test]
    fn a_seed_gives_its_own_numbers() {
        assert_eq!(Numbers::new(1).normal(4, 1.0), Numbers::new(1).normal(4, 1.0));
        assert_ne!(Numbers::new(1).normal(4, 1.0), Numbers::new(2).normal(4, 1.0));
    }
}
