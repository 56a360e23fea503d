//! An HDF5 file of fields, whose arrays are read.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| evenkeel_fuzz::arrays(bytes));
