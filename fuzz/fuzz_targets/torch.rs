//! A torch file: a zip archive, a tar archive, or pickles one after another.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| evenkeel_fuzz::file("model.pt", bytes));
