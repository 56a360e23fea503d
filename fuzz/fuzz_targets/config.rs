//! A `config.json`, beside weights whose meaning depends on it.
#![no_main]

use evenkeel_fuzz::directory;

const WEIGHTS: &[u8] = include_bytes!("../../fixtures/layouts/falcon-new/model.safetensors");

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    directory(&[("model.safetensors", WEIGHTS), ("config.json", bytes)], "model.safetensors", None);
});
