//! An HDF5 file, as Keras saves weights.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| evenkeel_fuzz::file("model.weights.h5", bytes));
