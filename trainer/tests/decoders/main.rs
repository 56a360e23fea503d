//! Decoders and adapters against transformers and PEFT: `fixtures/trainer/decoders/`, made by
//! fixtures/trainer_decoders.py.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../common/mod.rs"]
mod common;
mod logits;
mod lora;

use std::fs;
use std::path::Path;

use common::{close, fixtures, matrix, numbers};
use evenkeel_trainer::model::{Batch, Directory, Pretrained, Settings, Task};
use evenkeel_trainer::training::Mode;
use serde_json::Value;
use tch::Tensor;

/// Of logits and gradients, as the models are in single precision.
const TOLERANCE: f64 = 1e-4;

fn json(file: &str) -> Value {
    serde_json::from_slice(&fs::read(fixtures().join("trainer/decoders").join(file)).unwrap()).unwrap()
}

/// A directory with a small decoder; `labels` gives it the configuration of its classifier.
fn small(family: &str, labels: bool) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let from = fixtures().join("trainer/decoders").join(family);
    for file in fs::read_dir(&from).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), directory.path().join(file.file_name())).unwrap();
    }
    let classifier = directory.path().join("classifier.json");
    if labels {
        fs::rename(classifier, directory.path().join("config.json")).unwrap();
    } else {
        fs::remove_file(classifier).unwrap();
    }
    directory
}

fn three() -> Task {
    Task::Classes((0..3).map(|label| format!("LABEL_{label}")).collect())
}

fn load(directory: &Path, task: &Task, settings: Settings) -> Pretrained {
    Directory::open(directory).unwrap().load(task, settings).unwrap()
}

fn integers(values: &Value) -> Tensor {
    Tensor::from_slice(&serde_json::from_value::<Vec<i64>>(values.clone()).unwrap())
}

fn batch(case: &Value) -> Batch {
    Batch {
        ids: matrix(&case["input_ids"]),
        mask: Some(matrix(&case["attention_mask"])),
        token_types: case.get("token_type_ids").map(matrix),
        words: None,
        places: case.get("places").map(integers),
    }
}

fn assert_logits(model: &Pretrained, case: &Value, what: &str) {
    let logits = model.model().logits(&batch(case), Mode::Evaluate).unwrap();
    assert!(!logits.requires_grad());
    let want: Vec<Vec<f64>> = serde_json::from_value(case["logits"].clone()).unwrap();
    let got = numbers(&logits);
    assert_eq!(got.len(), want.concat().len(), "{what}");
    for (got, want) in got.iter().zip(want.concat()) {
        assert!(close(*got, want, TOLERANCE), "{what}: logit {got}, not {want}");
    }
}

/// Runs a step's two passes and gives the loss and every parameter's gradient.
fn gradients(model: &Pretrained, case: &Value) -> (f64, Vec<Tensor>) {
    let logits = model.model().logits(&batch(case), Mode::Train).unwrap();
    let loss = model.task().loss(&logits, &integers(&case["targets"])).unwrap();
    loss.f_backward().unwrap();
    let all = model.model().parameters().iter().map(|parameter| parameter.tensor.grad());
    (loss.double_value(&[]), all.collect())
}

fn norm(tensor: &Tensor) -> f64 {
    numbers(tensor).iter().map(|x| x * x).sum::<f64>().sqrt()
}
