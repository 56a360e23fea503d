//! GGUF files: values equal to those of the gguf package, names and layouts to those of the models
//! that they were made of; and whatever is wrong with a file is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../common/mod.rs"]
mod common;
mod hostile;
#[path = "../common/refusal.rs"]
mod refusal;
mod writer;

use std::collections::HashMap;
use std::path::Path;

use common::{analyze, fixture, minilm};
use evenkeel::report::{Block, Matrix, Report};
use evenkeel::{Checkpoint, OpenOptions, Settings, inventory};
use serde_json::Value;
use writer::{File, Tensor, array, text, uint32};

fn gguf(name: &str) -> std::path::PathBuf {
    fixture("gguf").join(name)
}

fn open(path: &Path, mmap: bool) -> Checkpoint {
    Checkpoint::open(path, &OpenOptions { mmap, ..OpenOptions::default() }).unwrap()
}

fn settings() -> Settings {
    Settings { min_eigenvalues: Some(4), ..Settings::default() }
}

/// A file of these bytes, under this name.
fn written(name: &str, bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

/// What tensors hold, as F64 and by name.
fn numbers(checkpoint: &Checkpoint) -> HashMap<String, (Vec<usize>, Vec<f64>)> {
    let readable = checkpoint.tensors().iter().filter(|t| t.unread().is_none() && t.dtype.name() != "I32");
    let value = |tensor: &evenkeel::tensors::Tensor| {
        let bytes = checkpoint.read(tensor, 0..tensor.elements).unwrap();
        let mut out = vec![0.0; tensor.elements];
        evenkeel::tensors::decode(tensor.dtype, &bytes, 0, 1, &mut out);
        (tensor.name.clone(), (tensor.shape.clone(), out))
    };
    readable.map(value).collect()
}

#[test]
fn every_type_has_the_values_of_the_package() {
    let expected = numbers(&open(&gguf("types.safetensors"), true));
    for mmap in [true, false] {
        let found = numbers(&open(&gguf("types.gguf"), mmap));
        assert_eq!(found.len(), 19);
        for (name, (shape, values)) in &found {
            let (wanted_shape, wanted) = &expected[name];
            assert_eq!(shape, wanted_shape, "{name}");
            assert!(values.iter().any(|v| *v != 0.0), "{name}");
            // Bit for bit: -0 and 0 are told apart.
            let differing = values.iter().zip(wanted).position(|(a, b)| a.to_bits() != b.to_bits());
            assert_eq!(differing, None, "{name}");
        }
    }
}

/// The same matrices in safetensors: the same report but for the format's own fields.
#[test]
fn the_report_is_that_of_the_dequantised_matrices() {
    let mut found = analyze(&gguf("types.gguf"), &settings());
    let mut expected = analyze(&gguf("types.safetensors"), &settings());
    let dtype = |report: &Report, name: &str| common::matrix(report, name).dtype.to_string();
    assert_eq!(dtype(&found, "blk.0.q4_0.weight"), "Q4_0");
    assert_eq!(dtype(&found, "blk.0.ffn_up_exps.weight[experts.2]"), "Q8_0");
    assert_eq!(found.checkpoint.format, "gguf");
    let unread = found.skipped.iter().position(|s| s.name == "blk.1.iq2_xs.weight").unwrap();
    assert_eq!(found.skipped.remove(unread).reason, "IQ2_XS, a type that this version does not decode");
    for report in [&mut found, &mut expected] {
        report.matrices.iter_mut().for_each(|m| m.dtype = "".into());
    }
    assert!(found.matrices.iter().filter(|m| m.status == "ok").count() > 15);
    assert_eq!(found.matrices, expected.matrices);
    assert_eq!((found.blocks, found.stacks), (expected.blocks, expected.stacks));
    assert_eq!((found.summary, found.skipped), (expected.summary, expected.skipped));
}

/// The numbers of two reports are those of the same matrices, under the names of a map.
#[track_caller]
fn assert_same(found: &Report, expected: &Report, names: &serde_json::Map<String, Value>) {
    // The order of rows differs where q and k are permuted: rounding does, too.
    let close = |a: Option<f64>, b: Option<f64>| match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-3),
        _ => a == b,
    };
    let mut blocks: HashMap<&str, &str> = HashMap::new();
    for ours in &found.matrices {
        let tensor = &ours.tensors[0];
        let name = match names.get(&ours.name).and_then(Value::as_str) {
            Some(name) => name.to_owned(),
            None => {
                let original = names.get(tensor).and_then(Value::as_str).unwrap_or(tensor);
                ours.name.replacen(tensor.as_str(), original, 1)
            }
        };
        let theirs: &Matrix = common::matrix(expected, &name);
        for ((metric, a), (_, b)) in ours.metrics.iter().zip(&theirs.metrics) {
            assert!(close(*a, *b), "{metric} of {} and {name}: {a:?}, {b:?}", ours.name);
        }
        assert_eq!(
            (ours.status, ours.scheduled, ours.eigenvalues, ours.role),
            (theirs.status, theirs.scheduled, theirs.eigenvalues, theirs.role),
            "{name}"
        );
        assert_eq!(ours.block.is_some(), theirs.block.is_some(), "{name}");
        if let (Some(a), Some(b)) = (&ours.block, &theirs.block) {
            assert_eq!(*blocks.entry(a).or_insert(b), b, "{name}");
        }
    }
    assert_eq!(found.matrices.len(), expected.matrices.len());
    assert_eq!(found.blocks.len(), expected.blocks.len());
    for ours in &found.blocks {
        let theirs: &Block = expected.blocks.iter().find(|b| b.name == blocks[ours.name.as_str()]).unwrap();
        assert_eq!((ours.index, &ours.stack, ours.matrices), (theirs.index, &theirs.stack, theirs.matrices));
        assert!(close(ours.alpha, theirs.alpha) && close(ours.stable_rank, theirs.stable_rank));
    }
    assert!(close(found.summary.alpha_std, expected.summary.alpha_std));
    assert_eq!(found.summary.matrices, expected.summary.matrices);
    assert_eq!(found.settings, expected.settings);
}

fn map_of(layout: &str) -> serde_json::Map<String, Value> {
    let names: Value = serde_json::from_slice(&std::fs::read(gguf("names.json")).unwrap()).unwrap();
    names[layout].as_object().unwrap().clone()
}

/// llama.cpp's names, fused and stacked weights: the matrices are those of the original model.
#[test]
fn converted_models_are_the_originals() {
    for layout in ["bert", "llama", "mixtral", "phi3", "gpt2-lm", "falcon-new", "t5"] {
        let found = analyze(&gguf(&format!("{layout}.gguf")), &settings());
        let expected = analyze(&fixture("layouts").join(layout), &settings());
        assert!(found.summary.matrices >= 8, "{layout}");
        assert!(!found.matrices.iter().any(|m| m.warnings.contains(&"fused-not-split".to_owned())));
        assert_same(&found, &expected, &map_of(layout));
    }
}

#[test]
fn minilm_as_gguf_has_the_same_numbers() {
    let original = open(&minilm(), true);
    let names: HashMap<String, String> =
        map_of("minilm").into_iter().map(|(new, old)| (old.as_str().unwrap().to_owned(), new)).collect();
    let tensor = |tensor: &evenkeel::tensors::Tensor| {
        let data = original.read(tensor, 0..tensor.elements).unwrap().into_owned();
        let shape: Vec<u64> = tensor.shape.iter().map(|d| *d as u64).collect();
        Tensor::new(&names[&tensor.name], &shape, if tensor.dtype.name() == "I64" { 27 } else { 0 }, data)
    };
    let tensors: Vec<Tensor> = original.tensors().iter().map(tensor).collect();
    let heads = vec![
        ("general.architecture", text("bert")),
        ("bert.embedding_length", uint32(384)),
        ("bert.attention.head_count", uint32(12)),
    ];
    let (_dir, path) = written("minilm.gguf", &File::new(heads, tensors).bytes());
    let found = analyze(&path, &Settings::default());
    let expected = analyze(&minilm(), &Settings::default());
    assert_same(&found, &expected, &map_of("minilm"));
    assert_eq!(format!("{:.6}", found.summary.alpha_std.unwrap()), "0.050663");
    assert_eq!(found.checkpoint.architecture, expected.checkpoint.architecture);
    assert_eq!(found.checkpoint.parameters, expected.checkpoint.parameters);
    // Each matrix is the same bytes: its numbers are the same to the last bit.
    for matrix in &found.matrices {
        let name = map_of("minilm")[&matrix.name].as_str().unwrap().to_owned();
        assert_eq!(matrix.metrics, common::matrix(&expected, &name).metrics);
    }
    let mut reasons = [&found, &expected].map(|r| r.skipped.iter().map(|s| &s.reason).collect::<Vec<_>>());
    reasons.iter_mut().for_each(|r| r.sort());
    assert_eq!(reasons[0], reasons[1]);
}

#[test]
fn a_split_model_is_one_model() {
    let first = gguf("split-00001-of-00003.gguf");
    let whole = open(&first, true);
    assert_eq!(whole.tensors().len(), 5);
    let files: Vec<&str> = whole.files().iter().map(|f| f.name()).collect();
    assert_eq!(
        files,
        ["split-00001-of-00003.gguf", "split-00002-of-00003.gguf", "split-00003-of-00003.gguf"]
    );
    // Any part, and the directory.
    let dir = tempfile::tempdir().unwrap();
    for file in whole.files() {
        std::fs::copy(file.path(), dir.path().join(file.name())).unwrap();
    }
    for path in [gguf("split-00002-of-00003.gguf"), dir.path().to_owned()] {
        let again = open(&path, false);
        assert_eq!(numbers(&again), numbers(&whole));
        assert_eq!(again.files().len(), 3);
        let rows = inventory(&again, &settings()).unwrap().tensors;
        assert_eq!(rows[2].file, "split-00002-of-00003.gguf");
    }
}

/// What a config.json beside it says of another model does not change how a file is read, and head
/// counts that are said for each layer are used where they agree.
#[test]
fn head_counts_are_the_files_own() {
    let qkv = || vec![Tensor::zeros("blk.0.attn_qkv.weight", &[32, 16])];
    let parts = |metadata: Vec<(&str, writer::Value)>, config: Option<&str>| {
        let (dir, path) = written("model.gguf", &File::new(metadata, qkv()).bytes());
        if let Some(config) = config {
            std::fs::write(dir.path().join("config.json"), config).unwrap();
        }
        let report = analyze(&path, &settings());
        report.matrices.iter().map(|m| (m.part.clone().unwrap_or_default(), m.rows)).collect::<Vec<_>>()
    };
    let split = |q, k, v| vec![("q".to_owned(), q), ("k".to_owned(), k), ("v".to_owned(), v)];
    let base = |mut more: Vec<(&'static str, writer::Value)>| {
        more.push(("general.architecture", text("phi3")));
        more.push(("phi3.embedding_length", uint32(16)));
        more.push(("phi3.attention.head_count", uint32(4)));
        more
    };
    let each = |counts: &[u32]| {
        let bytes: Vec<u8> = counts.iter().flat_map(|n| n.to_le_bytes()).collect();
        array(4, counts.len() as u64, &bytes)
    };
    let shared = "phi3.attention.head_count_kv";
    assert_eq!(parts(base(vec![(shared, uint32(2))]), None), split(16, 8, 8));
    assert_eq!(parts(base(vec![(shared, each(&[2, 2]))]), None), split(16, 8, 8));
    let other = r#"{"model_type":"phi3","num_attention_heads":2,"num_key_value_heads":1}"#;
    assert_eq!(parts(base(vec![(shared, uint32(2))]), Some(other)), split(16, 8, 8));
    let sizes = vec![
        (shared, uint32(1)),
        ("phi3.attention.key_length", uint32(5)),
        ("phi3.attention.value_length", uint32(7)),
    ];
    assert_eq!(parts(base(sizes), None), split(20, 5, 7));
    // As many key/value heads as heads would need 48 rows; counts that differ are not guessed at.
    let whole = vec![(String::new(), 32)];
    assert_eq!(parts(base(vec![]), None), whole);
    assert_eq!(parts(base(vec![(shared, each(&[2, 1]))]), None), whole);
    assert_eq!(parts(base(vec![(shared, uint32(0))]), None), whole);
}

#[test]
fn names_of_llama_cpp() {
    let tensors = [
        ("token_embd.weight", &[100, 16][..], "skipped: embedding (--embeddings analyses it)", None),
        ("output.weight", &[100, 16], "linear", None),
        ("blk.7.attn_q.weight", &[16, 16], "linear", Some("decoder")),
        ("blk.7.ffn_gate_up_exps.weight", &[3, 40, 16], "expert: 6 parts", Some("decoder")),
        ("blk.7.ffn_down_exps.weight", &[3, 16, 20], "expert: 3 parts", Some("decoder")),
        ("blk.7.ffn_down_exps.bias", &[3, 16], "skipped: bias or mask", Some("decoder")),
        ("blk.7.ffn_up.3.weight", &[16, 16], "expert", Some("decoder")),
        ("blk.7.ffn_gate_inp.weight", &[8, 16], "linear", Some("decoder")),
        ("blk.7.ffn_up_shexp.weight", &[16, 16], "linear", Some("decoder")),
        ("blk.8.ssm_conv1d.weight", &[64, 4], "skipped: depthwise convolution", Some("decoder")),
        ("enc.blk.0.attn_q.weight", &[16, 16], "linear", Some("encoder")),
        ("dec.blk.0.attn_rel_b.weight", &[32, 8], "skipped: embedding", Some("decoder")),
        ("v.blk.0.attn_q.weight", &[16, 16], "linear", Some("vision")),
        ("v.patch_embd.weight", &[16, 3, 4, 4], "conv: 16 × 16×3 pooled", None),
        ("a.blk.0.attn_q.weight", &[16, 16], "linear", Some("audio")),
    ];
    let file = tensors.iter().map(|(name, shape, ..)| Tensor::zeros(name, shape)).collect();
    let (_dir, path) = written("x.gguf", &File::new(vec![], file).bytes());
    let rows = inventory(&open(&path, true), &settings()).unwrap().tensors;
    for (name, shape, analysed, stack) in tensors {
        let row = rows.iter().find(|row| row.name == name).unwrap();
        assert!(row.analysed.starts_with(analysed), "{name}: {}", row.analysed);
        assert_eq!(row.stack.as_deref(), stack, "{name}");
        assert_eq!(row.shape.iter().map(|d| *d as u64).collect::<Vec<_>>(), shape, "{name}");
    }
}
