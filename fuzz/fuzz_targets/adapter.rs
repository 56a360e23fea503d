//! The header of an adapter's weights, alone and on a base.
#![no_main]

use evenkeel_fuzz::{LORA, directory, zeros};

const BASE: &[u8] = br#"{"layers.0.q.weight":{"dtype":"F32","shape":[6,4],"data_offsets":[0,96]},
    "layers.0.q.bias":{"dtype":"F32","shape":[6],"data_offsets":[96,120]}}"#;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (base, weights) = (zeros(BASE), zeros(bytes));
    let adapter = [("lora/adapter_model.safetensors", &weights[..]), ("lora/adapter_config.json", LORA)];
    directory(&adapter, "lora", None);
    directory(&[("model.safetensors", &base), adapter[0], adapter[1]], "model.safetensors", Some("lora"));
});
