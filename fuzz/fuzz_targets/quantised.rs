//! The configuration of a quantised checkpoint, a NUL byte, and the header of its weights.
#![no_main]

use evenkeel_fuzz::{directory, pair, zeros};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (config, header) = pair(bytes);
    directory(&[("model.safetensors", &zeros(header)), ("config.json", config)], "model.safetensors", None);
});
