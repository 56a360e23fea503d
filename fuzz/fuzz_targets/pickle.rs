//! The pickle of a torch file, in an archive around it that is right.
#![no_main]

#[allow(dead_code)] // a part of what the tests write
#[path = "../../tests/torch/archive.rs"]
mod archive;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| evenkeel_fuzz::file("model.pt", &archive::zip_of(bytes)));
