//! A Keras archive.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| evenkeel_fuzz::file("model.keras", bytes));
