//! What the tests of single formats share: the same tensors as a safetensors file, the same report.
#![allow(dead_code)] // each of them uses a part
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // outside of #[test] functions, too

use std::path::Path;

use evenkeel::{Checkpoint, OpenOptions, Settings, Silent};
use serde_json::{Value, json};

pub fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path, &OpenOptions::default()).unwrap()
}

/// Asserts that a file's tensors have the types, shapes and bytes of those in a safetensors file.
#[track_caller]
pub fn same_values(path: &Path, expected: &Path) -> Checkpoint {
    let expected = open(expected);
    for mmap in [true, false] {
        let found = Checkpoint::open(path, &OpenOptions { mmap, ..OpenOptions::default() }).unwrap();
        for want in expected.tensors() {
            let name = &want.name;
            let Some(tensor) = found.tensors().iter().find(|t| t.name == *name) else {
                panic!(
                    "{name} is missing among {:?}",
                    found.tensors().iter().map(|t| &t.name).collect::<Vec<_>>()
                )
            };
            assert_eq!((tensor.dtype, &tensor.shape), (want.dtype, &want.shape), "{name}");
            let all = expected.read(want, 0..want.elements).unwrap();
            assert!(found.read(tensor, 0..tensor.elements).unwrap() == all, "{name} has other numbers");
            let width = want.dtype.bits() / 8;
            if want.elements < 8 {
                continue;
            }
            for (from, to) in [(0, 1), (1, want.elements - 1), (want.elements / 2, want.elements), (5, 6)] {
                let part = found.read(tensor, from..to).unwrap();
                assert!(*part == all[from * width..to * width], "{from}..{to} of {name}");
            }
        }
    }
    open(path)
}

/// A report without what belongs to the format: the checkpoint's description, other names,
/// and what is left out.
pub fn comparable(checkpoint: &Checkpoint) -> Value {
    let settings = Settings { min_eigenvalues: Some(4), ..Settings::default() };
    let report = evenkeel::analyze(checkpoint, &settings, &Silent).unwrap();
    let exporter = evenkeel::report::EXPORTERS.iter().find(|e| e.name() == "json").unwrap();
    let mut value: Value = serde_json::from_slice(&exporter.report(&report, None).unwrap()).unwrap();
    value["checkpoint"] = Value::Null;
    for matrix in value["matrices"].as_array_mut().unwrap() {
        matrix["aliases"] = json!([]);
    }
    let skipped = value["skipped"].as_array_mut().unwrap();
    skipped.retain(|part| checkpoint.left_out().iter().all(|left| part["name"] != *left.name));
    for part in skipped {
        part["aliases"] = json!([]);
    }
    value
}
