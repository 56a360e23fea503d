//! The header of a safetensors file: its length is right, its data are there.
#![no_main]

use evenkeel_fuzz::{file, zeros};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| file("model.safetensors", &zeros(bytes)));
