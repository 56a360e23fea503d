//! Quantised checkpoints: values equal to those of the tools that define the layouts
//! (`fixtures/quantised.py`), and nothing guessed where something is missing or contradicts itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../common/mod.rs"]
mod common;
mod editable;
mod mutations;
mod refusals;

use std::collections::BTreeMap;
use std::path::Path;

use common::{analyze, fixture, matrix};
use evenkeel::report::Report;
use evenkeel::tensors::{Content, Tensor};
use evenkeel::{Checkpoint, OpenOptions, Settings, Silent};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

/// Every fixture, and what reports call the weights in it.
const LAYOUTS: [(&str, &[&str]); 27] = [
    ("deepseek-fp8", &["FP8 E4M3, 128×128 scales"]),
    ("fp8-scales", &["FP8 E4M3, 16×32 scales", "FP8 E4M3, one scale"]),
    ("compressed-int8", &["INT8, scales per row", "INT8, one scale", "INT8, groups of 16"]),
    ("compressed-packed", &["INT4, groups of 32", "INT4, scales per row", "INT8, scales per row"]),
    ("compressed-ordered", &["INT4, groups of 32"]),
    ("compressed-fp8", &["FP8 E4M3, scales per row", "FP8 E4M3, one scale", "FP8 E4M3, 32×64 scales"]),
    ("compressed-microscaled", &["NVFP4", "MXFP4", "FP8 E4M3, groups of 32"]),
    ("gptq-2bit", &["GPTQ 2-bit"]),
    ("gptq-3bit", &["GPTQ 3-bit"]),
    ("gptq-4bit", &["GPTQ 4-bit"]),
    ("gptq-4bit-ordered", &["GPTQ 4-bit"]),
    ("gptq-8bit", &["GPTQ 8-bit"]),
    ("gptq-one-group", &["GPTQ 4-bit"]),
    ("awq", &["AWQ 4-bit"]),
    ("bitsandbytes-8bit", &["bitsandbytes 8-bit"]),
    ("bitsandbytes-4bit", &["NF4", "NF4, nested scales", "FP4", "FP4, nested scales"]),
    ("gpt-oss", &["MXFP4"]),
    ("gpt-oss-original", &["MXFP4"]),
    ("compressed-widths", WIDTHS),
    ("compressed-padded", WIDTHS),
    ("auto-round", &["GPTQ 4-bit"]),
    ("auto-round-gptq", &["GPTQ 3-bit"]),
    ("auto-round-awq", &["AWQ 4-bit"]),
    ("fbgemm-fp8", &["FP8 E4M3, scales per row", "FP8 E4M3, scales per column"]),
    ("scaled-fp8", &["FP8 E4M3, one scale", "FP8 E5M2, one scale"]),
    ("deepseek-v4", &["FP8 E4M3, 32×32 scales", "MXFP4"]),
    ("modelopt", &["NVFP4", "MXFP4", "FP8 E4M3, one scale"]),
];

const WIDTHS: &[&str] =
    &["INT3, groups of 32", "INT5, groups of 32", "INT6, scales per row", "INT7, groups of 16"];

fn open(path: &Path, mmap: bool) -> Checkpoint {
    Checkpoint::open(path, &OpenOptions { mmap, ..OpenOptions::default() }).expect("a checkpoint")
}

fn layout(name: &str) -> std::path::PathBuf {
    fixture("quantised").join(name)
}

fn settings() -> Settings {
    Settings { min_eigenvalues: Some(4), ..Settings::default() }
}

fn expected() -> BTreeMap<String, BTreeMap<String, Value>> {
    let text = std::fs::read(layout("expected.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// The weights of a checkpoint that are computed from several tensors.
fn weights(checkpoint: &Checkpoint) -> Vec<&Tensor> {
    checkpoint.tensors().iter().filter(|t| matches!(t.content, Content::Encoded(_))).collect()
}

/// FNV-1a of 64 bits.
fn fnv1a(bytes: &[u8]) -> String {
    let found = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    format!("{found:016x}")
}

/// Bit for bit what the tool computes, mapped or read.
#[test]
fn every_weight_equals_the_tools() {
    let expected = expected();
    assert_eq!(expected.len(), LAYOUTS.len());
    for (name, _) in LAYOUTS {
        for mmap in [true, false] {
            let checkpoint = open(&layout(name), mmap);
            let found = weights(&checkpoint);
            let names: Vec<&str> = found.iter().map(|t| t.name.as_str()).collect();
            let wanted = &expected[name];
            assert_eq!(names.len(), wanted.len(), "{name}: {names:?}");
            for tensor in found {
                let what = format!("{name}: {}", tensor.name);
                let wanted = wanted.get(&tensor.name).unwrap_or_else(|| panic!("{what} is not expected"));
                assert_eq!(json!(tensor.shape), wanted["shape"], "{what}");
                let bytes = checkpoint.read(tensor, 0..tensor.elements).unwrap();
                let first: Vec<f32> =
                    bytes.as_chunks::<4>().0[..8].iter().map(|b| f32::from_le_bytes(*b)).collect();
                let known: Vec<f32> = serde_json::from_value(wanted["first"].clone()).unwrap();
                assert_eq!(first, known, "{what}");
                // The sign of a zero differs from kernel to kernel of one tool.
                let unsigned = |b: &[u8; 4]| (f32::from_le_bytes(*b) + 0.0).to_le_bytes();
                let bytes: Vec<u8> = bytes.as_chunks::<4>().0.iter().flat_map(unsigned).collect();
                assert_eq!(json!(fnv1a(&bytes)), wanted["fnv1a"], "{what}");
            }
        }
    }
}

/// A part of a weight is the same whether it is decoded alone or with the rest.
#[test]
fn ranges_are_parts_of_the_whole() {
    for (name, _) in LAYOUTS {
        for mmap in [true, false] {
            let checkpoint = open(&layout(name), mmap);
            for tensor in weights(&checkpoint) {
                let whole = checkpoint.read(tensor, 0..tensor.elements).unwrap();
                let n = tensor.elements;
                for range in
                    [0..0, 0..1, 1..2, 7..n - 5, n / 2 - 3..n / 2 + 70, n - 65..n - 1, n - 1..n, n..n]
                {
                    let part = checkpoint.read(tensor, range.clone()).unwrap();
                    let of_whole = &whole[4 * range.start..4 * range.end];
                    assert!(part == of_whole, "{name}: {} {range:?}", tensor.name);
                }
            }
        }
    }
}

/// The report of a quantised checkpoint is that of its dequantised weights in F32, except for what
/// says how they are stored.
#[test]
fn the_report_is_that_of_the_plain_weights() {
    for (name, kinds) in LAYOUTS {
        let checkpoint = open(&layout(name), true);
        let report = evenkeel::analyze(&checkpoint, &settings(), &Silent).unwrap();
        let stored: Vec<&Tensor> = weights(&checkpoint);
        let plain: Vec<(String, Vec<usize>, Vec<u8>)> = stored
            .iter()
            .map(|t| {
                (t.name.clone(), t.shape.clone(), checkpoint.read(t, 0..t.elements).unwrap().into_owned())
            })
            .collect();
        let dir = tempfile::tempdir().unwrap();
        let views = plain
            .iter()
            .map(|(n, shape, data)| (n, TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
        std::fs::write(dir.path().join("model.safetensors"), safetensors::serialize(views, None).unwrap())
            .unwrap();
        std::fs::copy(layout(name).join("config.json"), dir.path().join("config.json")).unwrap();
        let known = analyze(dir.path(), &settings());
        assert_eq!(report.summary, known.summary, "{name}");
        assert_eq!(report.blocks, known.blocks, "{name}");
        let neutral = |report: &Report| {
            let mut matrices = report.matrices.clone();
            for matrix in &mut matrices {
                matrix.dtype = "F32".into();
                matrix.tensors.clear();
            }
            matrices
        };
        assert_eq!(neutral(&report), neutral(&known), "{name}");
        assert!(report.matrices.iter().all(|m| m.status == "ok"), "{name}");
        for kind in kinds {
            assert!(report.matrices.iter().any(|m| m.dtype == *kind), "{name} has no {kind}");
        }
        assert!(report.matrices.iter().all(|m| kinds.contains(&&*m.dtype)), "{name}");
        // Biases are parameters, too; scales and tables are none.
        let biases: usize =
            checkpoint.tensors().iter().filter(|t| t.name.ends_with("_bias")).map(|t| t.elements).sum();
        assert_eq!(report.checkpoint.parameters, known.checkpoint.parameters + biases as u64, "{name}");
    }
}

/// Every stored tensor is named: the packed one and its companions by the matrix, the companions
/// again among those that are skipped.
#[test]
fn no_tensor_vanishes() {
    for (name, _) in LAYOUTS {
        let report = analyze(&layout(name), &settings());
        let bytes = std::fs::read(layout(name).join("model.safetensors")).unwrap();
        for stored in SafeTensors::deserialize(&bytes).unwrap().names() {
            let analysed = report.matrices.iter().any(|m| m.tensors.iter().any(|t| t == stored));
            let skipped = report.skipped.iter().any(|s| s.name == *stored);
            assert!(analysed || skipped, "{name}: {stored}");
        }
    }
    let report = analyze(&layout("gptq-4bit-ordered"), &settings());
    let module = "model.layers.0.self_attn.q_proj";
    let found = matrix(&report, &format!("{module}.weight"));
    assert_eq!(
        found.tensors,
        ["qweight", "qzeros", "scales", "g_idx"].map(|part| format!("{module}.{part}"))
    );
    let reason = |part: &str| {
        let name = format!("{module}.{part}");
        report.skipped.iter().find(|s| s.name == name).unwrap().reason.clone()
    };
    assert_eq!(reason("scales"), "scales of a quantised weight");
    assert_eq!(reason("g_idx"), "part of a quantised weight");
    let inventory = evenkeel::inventory(&open(&layout("gptq-4bit-ordered"), true), &settings()).unwrap();
    let row = inventory.tensors.iter().find(|row| row.name.ends_with(".weight")).unwrap();
    assert_eq!(
        (&*row.dtype, row.analysed.as_str(), row.shape.as_slice()),
        ("GPTQ 4-bit", "linear", &[64, 96][..])
    );
}

/// gpt-oss keeps gate and up in turns: packed with the outputs first, published in BF16 with them last.
#[test]
fn experts_are_split_alike_packed_or_plain() {
    let checkpoint = open(&layout("gpt-oss"), true);
    let packed = evenkeel::analyze(&checkpoint, &settings(), &Silent).unwrap();
    let mut plain = Vec::new();
    for tensor in weights(&checkpoint) {
        let bytes = checkpoint.read(tensor, 0..tensor.elements).unwrap();
        let &[experts, rows, cols] = tensor.shape.as_slice() else { panic!() };
        let values = bytes.as_chunks::<4>().0;
        let turned = (0..experts * rows * cols).flat_map(|i| {
            let (expert, col, row) = (i / (rows * cols), i / rows % cols, i % rows);
            values[expert * rows * cols + row * cols + col]
        });
        plain.push((tensor.name.clone(), vec![experts, cols, rows], turned.collect::<Vec<u8>>()));
    }
    let dir = tempfile::tempdir().unwrap();
    let views =
        plain.iter().map(|(n, shape, data)| (n, TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
    std::fs::write(dir.path().join("model.safetensors"), safetensors::serialize(views, None).unwrap())
        .unwrap();
    std::fs::write(dir.path().join("config.json"), r#"{"model_type":"gpt_oss"}"#).unwrap();
    let known = analyze(dir.path(), &settings());
    let name = "model.layers.0.mlp.experts.gate_up_proj[experts.1.up]";
    assert_eq!(matrix(&packed, name).role, "expert");
    assert_eq!(packed.matrices.len(), known.matrices.len());
    for found in &packed.matrices {
        let other = matrix(&known, &found.name);
        assert_eq!((found.rows, found.cols), (other.cols, other.rows), "{}", found.name);
        for metric in ["alpha", "spectral_norm", "frobenius_norm"] {
            let (a, b) = (found.metric(metric).unwrap(), other.metric(metric).unwrap());
            assert!((a - b).abs() < 1e-9 * b.abs(), "{}: {metric} {a} against {b}", found.name);
        }
    }
}
