//! Keras' files: `fixtures/keras_files.py` saved them with Keras and h5py, and the same variables, from
//! the models in memory, as safetensors.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;
#[path = "common/formats.rs"]
mod formats;
#[path = "common/hdf5.rs"]
mod hdf5;

use std::path::Path;

use common::{fixture, matrix, minilm};
use evenkeel::{Checkpoint, OpenOptions, Settings};
use formats::{comparable, open, same_values};

fn keras(name: &str) -> std::path::PathBuf {
    fixture("keras").join(name)
}

/// What is left out, as (name, reason).
fn left_out(checkpoint: &Checkpoint) -> Vec<(&str, &str)> {
    checkpoint.left_out().iter().map(|part| (part.name.as_str(), part.reason.as_str())).collect()
}

#[track_caller]
fn same_report(file: &Path, expected: &str) -> Checkpoint {
    let found = same_values(file, &keras(expected));
    let expected = open(&keras(expected));
    assert_eq!(found.tensors().len(), expected.tensors().len());
    assert_eq!(found.format(), "keras");
    assert_eq!(comparable(&found), comparable(&expected));
    found
}

#[test]
fn archives_have_the_variables_of_the_model() {
    let found = same_report(&keras("model.keras"), "model.safetensors");
    assert_eq!(left_out(&found), [("optimizer", "an optimizer's state: 2 variables")]);
    same_report(&keras("inner.keras"), "inner.safetensors");
}

/// Without the configuration the groups' names say which layers they are of.
#[test]
fn weights_alone_have_the_variables_of_the_model() {
    let archive = std::fs::read(keras("model.keras")).unwrap();
    let start = archive.windows(8).position(|bytes| bytes == b"\x89HDF\r\n\x1a\n").unwrap();
    let length = u64::from_le_bytes(archive[start + 40..start + 48].try_into().unwrap()) as usize;
    let dir = tempfile::tempdir().unwrap();
    // By its content, whatever its name.
    for name in ["model.weights.h5", "weights"] {
        let path = dir.path().join(name);
        std::fs::write(&path, &archive[start..start + length]).unwrap();
        same_report(&path, "model.safetensors");
    }
}

#[test]
fn older_files_have_the_variables_of_the_model() {
    let found = same_report(&keras("older.h5"), "model.safetensors");
    assert_eq!(left_out(&found), [("optimizer_weights", "an optimizer's state: 2 variables")]);
}

#[test]
fn stored_matrices_are_mapped() {
    let found = open(&keras("model.keras"));
    let content = |name: &str| {
        let tensor = found.tensors().iter().find(|tensor| tensor.name == name).unwrap();
        format!("{:?}", tensor.content)
    };
    for name in ["head.kernel", "attention.query.kernel", "memory.lstm_cell.kernel", "table.embeddings"] {
        assert!(content(name).starts_with("Stored"), "{name}: {}", content(name));
    }
    assert!(content("stem.kernel").contains("Strided"));
}

#[test]
fn kernels_are_what_their_layers_are() {
    let settings = Settings { min_eigenvalues: Some(3), ..Settings::default() };
    let report = common::analyze(&keras("model.keras"), &settings);
    let shape = |name: &str| {
        let matrix = matrix(&report, name);
        (matrix.role, matrix.rows, matrix.cols)
    };
    assert_eq!(shape("stem.kernel"), ("conv", 6, 3));
    assert_eq!(shape("line.kernel"), ("conv", 8, 5));
    assert_eq!(shape("attention.attention_output.kernel"), ("linear", 8, 8));
    assert_eq!(shape("memory.lstm_cell.kernel[f]"), ("recurrent", 8, 5));
    assert_eq!(shape("both.forward_gated.gru_cell.recurrent_kernel[r]"), ("recurrent", 4, 4));
    assert!(report.matrices.iter().all(|matrix| !matrix.name.starts_with("deep")), "depthwise");
}

#[test]
fn types_and_layouts_of_h5py() {
    let found = same_values(&keras("types.h5"), &keras("types.safetensors"));
    assert_eq!(found.tensors().len(), open(&keras("types.safetensors")).tensors().len());
    assert_eq!(
        left_out(&found),
        [
            ("big", "big-endian floats"),
            ("complex", "records"),
            ("never", "it was never written"),
            ("none", "a dataset without elements"),
            ("text", "texts, or lists of any length"),
        ]
    );
    same_report(&keras("bfloat16.weights.h5"), "bfloat16.safetensors");
    same_report(&keras("latest.h5"), "latest.safetensors");
}

#[test]
fn quantised_layers_are_left_out() {
    let found = open(&keras("quantised.keras"));
    let names: Vec<&str> = found.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["packed.bias", "plain.bias", "plain.kernel"]);
    let reasons = left_out(&found);
    assert_eq!(reasons[0].0, "packed.2");
    let why = "part of a quantised layer, whose packed weights this version does not unpack";
    assert!(reasons.len() == 4 && reasons.iter().all(|(_, reason)| *reason == why), "{reasons:?}");
}

#[test]
fn what_is_not_read_is_refused_by_name() {
    for (file, part) in [
        ("compressed.keras", "its member model.weights.h5 is compressed"),
        ("chunked.h5", "`layers/dense/vars/0`: it is stored in chunks"),
        ("dense_links.h5", "its root group: a group keeps its links in a fractal heap"),
        ("soft_link.h5", "`b` is a soft link"),
        ("hard_link.h5", "leads to an object that has another name, too"),
        ("external.h5", "`a`: its elements lie in another file"),
    ] {
        let error = Checkpoint::open(&keras(file), &OpenOptions::default()).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains(file), "{error}");
    }
}

#[test]
fn an_index_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.weights.json");
    std::fs::write(&path, r#"{"metadata": {}, "weight_map": {}}"#).unwrap();
    let error = Checkpoint::open(&path, &OpenOptions::default()).unwrap_err().to_string();
    assert!(error.contains("this is the index of sharded Keras weights"), "{error}");
}

#[test]
fn a_directory_is_searched_for_them() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(keras("inner.keras"), dir.path().join("classifier.keras")).unwrap();
    assert_eq!(open(dir.path()).tensors().len(), 6);
    // As the only file of that name the archive is still one.
    std::fs::rename(dir.path().join("classifier.keras"), dir.path().join("classifier")).unwrap();
    assert_eq!(open(&dir.path().join("classifier")).format(), "keras");
}

#[test]
fn minilm_gives_the_same_report() {
    let expected = open(&minilm());
    let mut file = hdf5::File::new();
    let mut root = Vec::new();
    for tensor in expected.tensors() {
        let dims: Vec<u64> = tensor.shape.iter().map(|dim| *dim as u64).collect();
        let kind = if tensor.dtype.name() == "F32" { hdf5::f32s() } else { hdf5::i64s() };
        let data = expected.read(tensor, 0..tensor.elements).unwrap();
        root.push((tensor.name.as_str(), file.dataset(&dims, kind, &data)));
    }
    let root = file.group(&root);
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(minilm().join("config.json"), dir.path().join("config.json")).unwrap();
    std::fs::write(dir.path().join("model.h5"), file.finish(root)).unwrap();
    assert_eq!(comparable(&open(dir.path())), comparable(&expected));
}
