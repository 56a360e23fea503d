//! The index of a sharded checkpoint, beside two shards.
#![no_main]

use evenkeel_fuzz::{directory, zeros};

const INDEX: &str = "model.safetensors.index.json";
const ONE: &[u8] = br#"{"a.weight":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#;
const TWO: &[u8] = br#"{"b.weight":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    directory(&[("1.safetensors", &zeros(ONE)), ("2.safetensors", &zeros(TWO)), (INDEX, bytes)], INDEX, None);
});
