//! ONNX models: `fixtures/onnx_models.py` made them with PyTorch's exporters and the onnx package, and
//! the values that they must have.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;
#[path = "common/formats.rs"]
mod formats;
#[path = "common/protobuf.rs"]
mod protobuf;

use common::{fixture, minilm};
use evenkeel::tensors::decode;
use evenkeel::{Checkpoint, Settings, Silent};
use formats::{comparable, open, same_values};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

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
        // What is left out are the graph's own constants: shapes, and the states that begin as zeros.
        let constant = |name: &str, reason: &str| name == "constants" || reason.contains("not as a weight");
        assert!(
            left_out(&found).iter().all(|(name, reason)| constant(name, reason)),
            "{:?}",
            found.left_out()
        );
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
    assert_eq!(left["/mask/Constant_output_0"], "used by Add, but not as a weight");
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
fn silero_vad_has_the_weights_that_stand_in_its_branches() {
    let path = fixture("cache/silero-vad/silero_vad.onnx");
    assert!(path.is_file(), "run `python3 fixtures/fetch.py` first");
    let found = open(&path);
    let expected: Value = serde_json::from_slice(&std::fs::read(onnx("silero.json")).unwrap()).unwrap();
    assert_eq!(found.tensors().len(), expected.as_object().unwrap().len());
    for tensor in found.tensors() {
        let raw = tensor.aliases.first().unwrap_or(&tensor.name);
        let want = &expected[raw.as_str()];
        assert_eq!(json!(tensor.shape), want["shape"], "{raw}");
        let mut numbers = vec![0.0; tensor.elements];
        decode(tensor.dtype, &found.read(tensor, 0..tensor.elements).unwrap(), 0, 1, &mut numbers);
        assert_eq!(json!([numbers[0], numbers[tensor.elements - 1]]), want["ends"], "{raw}");
        let squares: f64 = numbers.iter().map(|x| x * x).sum();
        common::assert_close(Some(squares), &want["squares"], 1e-12, raw);
    }
    let rows = evenkeel::inventory(&found, &Settings::default()).unwrap().tensors;
    let blocks: BTreeSet<String> = rows.into_iter().filter_map(|row| row.block).collect();
    assert_eq!(blocks.len(), 8, "four in each branch: {blocks:?}");
}

/// MiniLM as PyTorch's exporter would write it: the weights of linear layers transposed and renamed.
#[test]
fn minilm_gives_the_same_report() {
    use protobuf::{bytes, graph, model, node, tensor};
    let expected = open(&minilm());
    let (mut nodes, mut initializers) = (Vec::new(), Vec::new());
    for (number, weight) in expected.tensors().iter().enumerate() {
        let data = expected.read(weight, 0..weight.elements).unwrap().into_owned();
        let dims: Vec<u64> = weight.shape.iter().map(|d| *d as u64).collect();
        let kind = if weight.dtype.name() == "F32" { 1 } else { 7 };
        match (weight.name.strip_suffix(".weight"), weight.shape.as_slice()) {
            (Some(module), [rows, cols]) if !module.contains("embeddings") => {
                let name = format!("onnx::MatMul_{number}");
                let numbers: Vec<&[u8]> = data.chunks_exact(4).collect();
                let turned: Vec<u8> =
                    (0..rows * cols).flat_map(|i| numbers[i % rows * cols + i / rows]).copied().collect();
                initializers.push(tensor(&name, kind, &[dims[1], dims[0]], bytes(9, turned)));
                let path = format!("/{}/MatMul", module.replace(".", "/").replace("/layer/", "/layer."));
                nodes.push(node("MatMul", &["x", &name], &["y"], &path, &[]));
            }
            _ => initializers.push(tensor(&weight.name, kind, &dims, bytes(9, data))),
        }
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(minilm().join("config.json"), dir.path().join("config.json")).unwrap();
    std::fs::write(dir.path().join("model.onnx"), model(&graph(&nodes, &initializers))).unwrap();
    assert_eq!(comparable(&open(dir.path())), comparable(&expected));
}
