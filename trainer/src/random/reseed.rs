//! libtorch's random numbers follow from the run's seed and the step alone: its state cannot be read, so that
//! a resumed run could not go on with it otherwise.

use super::splitmix;

/// Seeds libtorch for one pass of one step: neighbouring ones get unrelated seeds.
pub fn reseed(seed: u64, step: u64, pass: u64) {
    let mixed = splitmix(splitmix(splitmix(seed) ^ step) ^ pass);
    tch::manual_seed((mixed >> 1) as i64);
}
