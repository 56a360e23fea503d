//! What tests of models compare with.
#![allow(dead_code, clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use evenkeel::{Checkpoint, OpenOptions};
use serde_json::Value;
use tch::{Kind, Tensor};

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

/// Changes entries of a configuration; null removes one.
pub fn edit(directory: &Path, edits: &[(&str, Value)]) {
    let path = directory.join("config.json");
    let mut config: serde_json::Map<String, Value> =
        serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (key, value) in edits {
        config.insert((*key).to_owned(), value.clone());
    }
    fs::write(path, serde_json::to_vec(&config).unwrap()).unwrap();
}

pub fn matrix(rows: &Value) -> Tensor {
    let rows: Vec<Vec<i64>> = serde_json::from_value(rows.clone()).unwrap();
    let shape = [rows.len() as i64, rows[0].len() as i64];
    Tensor::from_slice(&rows.concat()).view(shape)
}

pub fn numbers(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(&tensor.detach().to_kind(Kind::Double).flatten(0, -1).contiguous()).unwrap()
}

pub fn close(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance * b.abs().max(1.0)
}

/// Every tensor of a checkpoint: its type, shape and bytes.
pub fn tensors(directory: &Path) -> BTreeMap<String, (String, Vec<usize>, Vec<u8>)> {
    let checkpoint = Checkpoint::open(directory, &OpenOptions::default()).unwrap();
    let mut found = BTreeMap::new();
    for tensor in checkpoint.tensors() {
        let bytes = checkpoint.read(tensor, 0..tensor.elements).unwrap().into_owned();
        for name in std::iter::once(&tensor.name).chain(&tensor.aliases) {
            found.insert(name.clone(), (tensor.dtype.name().to_owned(), tensor.shape.clone(), bytes.clone()));
        }
    }
    found
}

pub fn files(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
