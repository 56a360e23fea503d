//! ONNX models: `fixtures/onnx_models.py` made them with PyTorch's exporters and the onnx package, and
//! the values that they must have.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;
#[path = "common/formats.rs"]
mod formats;

use common::fixture;
use evenkeel::{Checkpoint, Settings, Silent};
use formats::{comparable, open, same_values};
use std::collections::BTreeMap;

fn onnx(name: &str) -> std::path::PathBuf {
    fixture("onnx").join(name)
}

fn left_out(checkpoint: &Checkpoint) -> BTreeMap<&str, &str> {
    checkpoint.left_out().iter().map(|part| (part.name.as_str(), part.reason.as_str())).collect()
}

#[test]
fn both_of_pytorchs_exporters_give_the_modules_own_weights() {
    for file in ["torch-legacy.onnx", "torch-dynamo.onnx"] {
        let found = same_values(&onnx(file), &onnx("torch.safetensors"));
        let expected = open(&onnx("torch.safetensors"));
        let names = |checkpoint: &Checkpoint| -> Vec<String> {
            checkpoint.tensors().iter().map(|t| t.name.clone()).collect()
        };
        assert_eq!(names(&found), names(&expected), "{file}");
        assert_eq!(found.format(), "onnx");
        assert!(left_out(&found).keys().all(|name| *name == "constants"), "{:?}", found.left_out());
        let renamed = found.tensors().iter().find(|t| t.name == "encoder.layers.1.linear1.weight").unwrap();
        assert_eq!(renamed.aliases.len(), 1, "the name in the file is an alias");
        assert_eq!(comparable(&found), comparable(&expected), "{file}");
    }
}

#[test]
fn every_kind_of_data_and_every_place_of_it() {
    let found = same_values(&onnx("kinds.onnx"), &onnx("kinds.safetensors"));
    assert_eq!(found.tensors().len(), open(&onnx("kinds.safetensors")).tensors().len());
    let left = left_out(&found);
    assert_eq!(left["/mask/Constant_output_0"], "used by Add, not in a matrix product");
    assert_eq!(left["constants"], "2 scalars and integer vectors that the graph computes with");
}

#[test]
fn quantised_weights_are_those_of_the_reference_implementation() {
    let found = same_values(&onnx("quantised.onnx"), &onnx("quantised.safetensors"));
    let left = left_out(&found);
    assert_eq!(left["lost4.weight"], "4-bit integers without their scales");
    assert_eq!(
        left["columns.weight_zero_point"],
        "scale or zero point of the quantised weight `columns.weight_quantized`"
    );
    let report = evenkeel::analyze(&found, &Settings::default(), &Silent).unwrap();
    let lost = report.skipped.iter().find(|s| s.name == "lost.weight").unwrap();
    assert!(lost.reason.contains("integers (U8)"), "{}", lost.reason);
    let stored =
        |name: &str| found.tensors().iter().find(|t| t.name == name).unwrap().stored_as().into_owned();
    assert_eq!(stored("dynamic.weight"), "U8 with scales");
    assert_eq!(stored("signed.weight"), "INT4 with scales");
    assert_eq!(stored("nbits4.weight"), "MatMulNBits 4-bit");
}

#[test]
fn external_data_are_read_from_beside_the_model() {
    let found = same_values(&onnx("external"), &onnx("external.safetensors"));
    let files: Vec<&str> = found.files().iter().map(|file| file.name()).collect();
    assert_eq!(files, ["model.onnx", "model.onnx_data"]);
}

/// A published model whose weights stand in the branches of an If.
#[test]
fn silero_vad_has_the_weights_of_its_safetensors_file() {
    let path = fixture("cache/silero-vad/silero_vad.onnx");
    assert!(path.is_file(), "run `python3 fixtures/fetch.py` first");
    let found = open(&path);
    let expected = open(&fixture("silero-vad/silero_vad_16k.safetensors"));
    let numbers = |c: &Checkpoint, name: &str| {
        let tensor = c.tensors().iter().find(|t| t.name == name).unwrap_or_else(|| panic!("{name}"));
        c.read(tensor, 0..tensor.elements).unwrap().into_owned()
    };
    let mut compared = 0;
    for tensor in expected.tensors() {
        let module = tensor.name.split('.').next().unwrap();
        let theirs: Vec<&evenkeel::tensors::Tensor> = found
            .tensors()
            .iter()
            .filter(|t| t.shape == tensor.shape && t.dtype == tensor.dtype)
            .filter(|t| numbers(&found, &t.name) == numbers(&expected, &tensor.name))
            .collect();
        println!("{module} {} {:?}", tensor.name, theirs.iter().map(|t| &t.name).collect::<Vec<_>>());
        compared += usize::from(!theirs.is_empty());
    }
    println!("{compared} of {}", expected.tensors().len());
    println!("{:?}", found.tensors().iter().map(|t| (&t.name, &t.shape)).collect::<Vec<_>>());
    println!("{:?}", found.left_out());
}
