//! Files that break the rules: each is refused with exit code 2, nothing on stdout, and a sentence
//! that names the file and the place, within a second and 100 MB (`refusal`). The formats with tests
//! of their own (torch, GGUF, quantised layouts, adapters) have further ones there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../common/archive.rs"]
mod archive;
mod borders;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/hdf5.rs"]
mod hdf5;
mod keras;
mod limits;
mod numpy;
mod onnx;
#[path = "../common/protobuf.rs"]
mod protobuf;
#[path = "../common/refusal.rs"]
mod refusal;
mod safetensors;
#[allow(dead_code)] // a part of what the tests of torch write
#[path = "../torch/archive.rs"]
mod torch;
#[allow(dead_code)] // a part of what the tests of GGUF write
#[path = "../gguf/writer.rs"]
mod writer;
