//! Random choices that stay the same in every version and on every machine.
//!
//! The numbers are the keystream of ChaCha8 (Bernstein 2008; counter and nonce 0) as little-endian 64-bit
//! words. The 32 bytes of the key are the seed (8 bytes, little-endian), the purpose (8 bytes of ASCII,
//! padded with zeros), a number within the purpose, such as the epoch (8 bytes, little-endian), and zeros.
//! `fixtures/text_data.py` computes the same in Python.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// What choices are for: those of one purpose do not depend on those of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The order of the examples in an epoch.
    Order,
    /// Which examples are taken for training.
    Subset,
    /// Which examples are held back for evaluation.
    Held,
    /// The first values of an operator's parameter, whose position is the number.
    Weights,
    /// A field that is generated; the number is the sample's.
    Field,
}

impl Purpose {
    fn tag(self) -> [u8; 8] {
        match self {
            Purpose::Order => *b"order\0\0\0",
            Purpose::Subset => *b"subset\0\0",
            Purpose::Held => *b"held\0\0\0\0",
            Purpose::Weights => *b"weights\0",
            Purpose::Field => *b"field\0\0\0",
        }
    }
}

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Draws(ChaCha8Rng);

impl Draws {
    /// The stream of a seed, a purpose and a number within the purpose.
    pub fn new(seed: u64, purpose: Purpose, number: u64) -> Draws {
        let mut key = [0; 32];
        let parts = [seed.to_le_bytes(), purpose.tag(), number.to_le_bytes()];
        for (place, byte) in key.iter_mut().zip(parts.as_flattened()) {
            *place = *byte;
        }
        Draws(ChaCha8Rng::from_seed(key))
    }

    /// A number below `bound`, which is not 0, without bias: the high half of draw × bound, where draws
    /// whose low half lies below 2⁶⁴ mod bound are thrown away (Lemire 2019).
    pub fn below(&mut self, bound: u64) -> u64 {
        let bound = bound.max(1);
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.0.next_u64()) * u128::from(bound);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// A number in [0, 1): the upper 53 bits of a draw.
    pub fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number from `low` up to `high`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Brings items into a random order (Fisher and Yates, from the last item down).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }

    /// `count` of the numbers below `of`, in rising order.
    pub fn choose(&mut self, of: usize, count: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..of).collect();
        self.shuffle(&mut all);
        all.truncate(count);
        all.sort_unstable();
        all
    }
}

/// The order of the examples in an epoch, from 0.
pub fn order(examples: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..examples).collect();
    Draws::new(seed, Purpose::Order, epoch).shuffle(&mut order);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_a_permutation_of_its_own() {
        let mut orders: Vec<Vec<usize>> =
            [(7, 0), (7, 1), (8, 0)].iter().map(|(seed, epoch)| order(100, *seed, *epoch)).collect();
        assert_eq!(orders[0], order(100, 7, 0));
        assert!(orders[0] != orders[1] && orders[0] != orders[2] && orders[1] != orders[2]);
        for order in &mut orders {
            order.sort_unstable();
            assert!(order.iter().copied().eq(0..100));
        }
        assert!(order(0, 1, 1).is_empty());
    }

    #[test]
    fn small_bounds_come_out_evenly() {
        let mut draws = Draws::new(1, Purpose::Subset, 0);
        let mut counts = [0_i32; 3];
        for _ in 0..30_000 {
            counts[draws.below(3) as usize] += 1;
        }
        // Five standard deviations of a binomial count.
        assert!(counts.iter().all(|count| (count - 10_000).abs() < 5 * 82), "{counts:?}");
    }
}
