//! The configuration of an adapter, alone and on a base.
#![no_main]

use evenkeel_fuzz::directory;

const ADAPTER: &[u8] = include_bytes!("../../fixtures/adapters/patterns/adapter_model.safetensors");
const BASE: &[u8] = include_bytes!("../../fixtures/adapters/llama/model.safetensors");

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let adapter = [("lora/adapter_model.safetensors", ADAPTER), ("lora/adapter_config.json", bytes)];
    directory(&adapter, "lora", None);
    directory(&[("model.safetensors", BASE), adapter[0], adapter[1]], "model.safetensors", Some("lora"));
});
