//! The state that bitsandbytes keeps of a weight in 4 bits: JSON in a tensor.
#![no_main]

use evenkeel_fuzz::{file, replaced};

/// One weight with plain scales and one with scales that are quantised again.
const WEIGHTS: &[u8] = include_bytes!("../../fixtures/quantised/bitsandbytes-4bit/model.safetensors");

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let state = |name: &str| name.ends_with(".quant_state.bitsandbytes__nf4");
    file("model.safetensors", &replaced(WEIGHTS, state, bytes));
});
