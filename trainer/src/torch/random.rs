//! Random numbers that follow from the run's seed and the step alone: libtorch's state cannot be read, so
//! that a resumed run could not go on with it otherwise.

/// Seeds libtorch for one pass of one step.
pub fn reseed(seed: u64, step: u64, pass: u64) {
    let mixed = mix(mix(mix(seed) ^ step) ^ pass);
    tch::manual_seed((mixed >> 1) as i64);
}

/// A bijection whose output bits all depend on all input bits (the finaliser of SplitMix64, Steele et al.
/// 2014): neighbouring steps get unrelated seeds.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first outputs of SplitMix64 from state 0 are published.
    #[test]
    fn the_mixer_is_splitmix64() {
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
    }
}
