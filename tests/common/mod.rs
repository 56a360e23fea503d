//! What several test programs share.
#![allow(dead_code)] // each of them uses a part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // outside of #[test] functions, too

use std::path::{Path, PathBuf};

use evenkeel::report::{Matrix, Report};
use evenkeel::{Checkpoint, OpenOptions, Settings, Silent};
use serde_json::Value;

/// A path under `fixtures/`.
pub fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(path)
}

/// The MiniLM checkpoint. It is fetched, not committed; a test without it must not pass.
pub fn minilm() -> PathBuf {
    let path = fixture("cache/minilm");
    assert!(
        path.join("model.safetensors").is_file(),
        "MiniLM is not there: run `cargo xtask test`, or `python3 fixtures/fetch.py` first"
    );
    path
}

/// A golden file of `fixtures/golden`, made by NumPy.
pub fn golden(name: &str) -> Value {
    let path = fixture("golden").join(name);
    serde_json::from_slice(&std::fs::read(&path).expect("a golden file")).expect("JSON")
}

pub fn analyze(path: &Path, settings: &Settings) -> Report {
    let checkpoint = Checkpoint::open(path, &OpenOptions::default()).expect("a checkpoint");
    evenkeel::analyze(&checkpoint, settings, &Silent).expect("a report")
}

pub fn matrix<'a>(report: &'a Report, name: &str) -> &'a Matrix {
    let found = report.matrices.iter().find(|m| m.name == name);
    found.unwrap_or_else(|| panic!("no matrix {name}"))
}

/// Asserts a relative difference of at most `tolerance`.
#[track_caller]
pub fn assert_close(found: Option<f64>, expected: &Value, tolerance: f64, what: &str) {
    match (found, expected.as_f64()) {
        (None, None) => {}
        (Some(found), Some(expected)) => {
            let difference = (found - expected).abs() / expected.abs().max(f64::MIN_POSITIVE);
            assert!(
                difference <= tolerance,
                "{what}: {found} against {expected}, relative difference {difference:e}"
            );
        }
        _ => panic!("{what}: {found:?} against {expected}"),
    }
}
