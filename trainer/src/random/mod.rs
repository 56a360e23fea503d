//! Everything random, each kind by a rule of its own that no version may change: a run follows from its seed.
//!
//! | what | from | rule |
//! |---|---|---|
//! | which examples, in which order | seed, purpose, number | ChaCha8 ([`Draws`]) |
//! | a new head, adapters | seed | SplitMix64, for a head Box–Muller (`Numbers`) |
//! | dropout | seed, step, pass | libtorch's generator, seeded anew ([`reseed`]) |

mod draws;
mod numbers;
mod reseed;

pub use draws::{Draws, Purpose, order};
pub(crate) use numbers::Numbers;
pub use reseed::reseed;

/// What SplitMix64 counts in.
pub(crate) const STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finaliser of SplitMix64 (Steele et al. 2014), a bijection that spreads what is in the bits of a number
/// over all of them.
pub(crate) fn mix(number: u64) -> u64 {
    let z = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The next number of SplitMix64 after a state.
pub(crate) fn splitmix(state: u64) -> u64 {
    mix(state.wrapping_add(STRIDE))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first outputs of SplitMix64 from state 0 are published.
    #[test]
    fn the_mixer_is_splitmix64() {
        assert_eq!(splitmix(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(splitmix(STRIDE), 0x6e78_9e6a_a1b9_65f4);
    }
}
