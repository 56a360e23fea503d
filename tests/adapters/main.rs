//! PEFT adapters: on their bases they give what PEFT merges, alone they give its products, and what
//! is not plain LoRA, does not fit or is broken is refused with a sentence.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../common/mod.rs"]
mod common;
mod hostile;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::fixture;
use evenkeel::matrices::Selection;
use evenkeel::report::{EXPORTERS, Matrix};
use evenkeel::{Checkpoint, OpenOptions, Report, Settings, Silent, Thresholds};
use serde_json::{Value, json};

fn expected() -> Value {
    let text = std::fs::read(fixture("adapters/expected.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn adapter(name: &str) -> PathBuf {
    fixture("adapters").join(name)
}

fn open(base: &Path, adapters: &[PathBuf]) -> evenkeel::Result<Checkpoint> {
    Checkpoint::open(base, &OpenOptions { adapters: adapters.to_vec(), ..OpenOptions::default() })
}

/// Everything is measured, in one piece and unscaled, so that the numbers compare with NumPy's.
fn settings() -> Settings {
    let selection = Selection { embeddings: true, split: false, conv_norm: 1.0, ..Selection::default() };
    Settings { min_eigenvalues: Some(2), selection, ..Settings::default() }
}

fn report(checkpoint: &Checkpoint) -> Report {
    evenkeel::analyze(checkpoint, &settings(), &Silent).unwrap()
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect()
}

/// Compares shape and some elements with what PEFT has.
fn assert_tensor(checkpoint: &Checkpoint, name: &str, expected: &Value) {
    let tensor = checkpoint.tensors().iter().find(|t| t.name == name);
    let tensor = tensor.unwrap_or_else(|| panic!("no tensor {name}"));
    assert_eq!(json!(tensor.shape), expected["shape"], "{name}");
    for pair in expected["elements"].as_array().unwrap() {
        let (at, value) = (pair[0].as_u64().unwrap() as usize, pair[1].as_f64().unwrap());
        let bytes = checkpoint.read(tensor, at..at + 1).unwrap();
        let mut found = [f64::NAN];
        evenkeel::tensors::decode(tensor.dtype, &bytes, 0, 1, &mut found);
        assert!((found[0] - value).abs() < 1e-6 * value.abs().max(0.1), "{name}[{at}]: {} {value}", found[0]);
    }
}

/// Compares norms and ranks with those of the singular values that NumPy found.
fn assert_numbers(matrix: &Matrix, expected: &Value) {
    let mut values: Vec<f64> =
        expected["singular_values"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    if matrix.is_update() {
        // PEFT multiplies in single precision, and leaves its rounding errors where there are zeros.
        let noise = 1e-5 * values[0];
        values.iter_mut().filter(|v| **v < noise).for_each(|v| *v = 0.0);
    }
    let squares: f64 = values.iter().map(|v| v * v).sum();
    let largest = values[0];
    let sum: f64 = values.iter().sum();
    let entropy: f64 = values.iter().map(|v| v / sum).filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum();
    for (metric, value) in [
        ("spectral_norm", largest),
        ("frobenius_norm", squares.sqrt()),
        ("stable_rank", squares / (largest * largest)),
        ("effective_rank", entropy.exp()),
    ] {
        let found = matrix.metric(metric).unwrap();
        assert!((found - value).abs() < 2e-6 * value, "{} {metric}: {found} {value}", matrix.name);
    }
    assert_eq!(matrix.eigenvalues, values.len());
}

/// What PEFT wrote before safetensors, `adapter_model.bin`, is the same adapter: on its base, alone, and
/// with the names of a model that was trained in parallel.
#[test]
fn pickled_adapters_are_the_same() {
    let (base, expected) = (fixture("adapters/llama"), expected());
    let checkpoint = open(&base, &[adapter("plain-bin")]).unwrap();
    for (name, values) in expected["merged"]["plain"]["tensors"].as_object().unwrap() {
        assert_tensor(&checkpoint, name, values);
    }
    assert!(checkpoint.inputs().any(|path| path.ends_with("plain-bin/adapter_model.bin")));
    let alone = report(&open(&adapter("plain-bin"), &[]).unwrap());
    let safe = report(&open(&adapter("plain"), &[]).unwrap());
    assert_eq!(alone.checkpoint.format, "peft");
    let of = |report: &Report| {
        let numbers = |m: &Matrix| (m.name.clone(), m.rows, m.cols, m.metrics.clone());
        format!("{:?}", report.matrices.iter().map(numbers).collect::<Vec<_>>())
    };
    assert_eq!(of(&alone), of(&safe));
    // A pickle that asks for a program is refused here as anywhere.
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(adapter("plain-bin").join("adapter_config.json"), dir.path().join("adapter_config.json"))
        .unwrap();
    std::fs::write(dir.path().join("adapter_model.bin"), b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R.")
        .unwrap();
    let error = open(&base, &[dir.path().to_path_buf()]).unwrap_err().to_string();
    assert!(error.contains("adapter_model.bin: ") && error.contains("`os.system`"), "{error}");
}

#[test]
fn on_its_base_an_adapter_gives_what_peft_merges() {
    for (name, case) in expected()["merged"].as_object().unwrap() {
        let base = fixture("adapters").join(case["base"].as_str().unwrap());
        let adapters: Vec<PathBuf> = strings(&case["adapters"]).into_iter().map(adapter).collect();
        let checkpoint = open(&base, &adapters).unwrap_or_else(|e| panic!("{name}: {e}"));
        let report = report(&checkpoint);
        let changed = case["tensors"].as_object().unwrap();
        for (tensor, expected) in changed {
            assert_tensor(&checkpoint, tensor, expected);
            if let Some(matrix) = report.matrices.iter().find(|m| m.name == *tensor) {
                assert_numbers(matrix, expected);
                assert_eq!(matrix.status, "ok", "{name} {tensor}");
            }
        }
        for tensor in checkpoint.tensors() {
            let touched = tensor.stored_as().contains("LoRA") || tensor.name.starts_with("classifier");
            let in_place = name == "classifier" && tensor.name.ends_with(".bias");
            let expected = changed.contains_key(&tensor.name);
            assert!(touched == expected || in_place, "{name}: {} {touched} {expected}", tensor.name);
        }
        let given: Vec<String> = adapters.iter().map(|a| a.to_string_lossy().into_owned()).collect();
        assert_eq!(report.checkpoint.adapters, given);
        assert_eq!(report.checkpoint.format, "safetensors");
        assert_eq!(report.checkpoint.files.len(), 1 + adapters.len());
    }
}

#[test]
fn alone_an_adapter_gives_its_products_and_no_alpha() {
    for (name, tensors) in expected()["updates"].as_object().unwrap() {
        let checkpoint = open(&adapter(name), &[]).unwrap();
        let report = report(&checkpoint);
        assert_eq!(report.checkpoint.format, "peft");
        let tensors = tensors.as_object().unwrap();
        assert_eq!(report.matrices.len(), tensors.len(), "{name}");
        for (tensor, expected) in tensors {
            // Alone, nothing tells of Conv1D but PEFT's flag, which is wrong here: ΔW is then the transpose.
            if !(name == "tied" && tensor.contains("c_proj")) {
                assert_tensor(&checkpoint, tensor, expected);
            }
            let matrix = common::matrix(&report, tensor);
            assert_numbers(matrix, expected);
            assert_eq!((matrix.metric("alpha"), matrix.status), (None, "low-rank-update"));
            assert!(matrix.dtype.starts_with("LoRA r="), "{}", matrix.dtype);
            assert_eq!(matrix.tensors.len(), 2);
        }
        let config = std::fs::read(adapter(name).join("adapter_config.json")).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        if name == "classifier" {
            assert_eq!(config["modules_to_save"], json!(["classifier", "score"]));
            let reasons: Vec<&str> = report.skipped.iter().map(|s| s.reason.as_str()).collect();
            assert_eq!(reasons.iter().filter(|r| r.contains("replaces a tensor of the base")).count(), 4);
        }
    }
}

#[test]
fn the_parts_of_an_update_are_rows_and_columns_of_it() {
    // One piece of c_attn is a third of the columns: its norm is below the whole one's.
    let checkpoint = open(&adapter("conv1d"), &[]).unwrap();
    let selection = Selection { embeddings: true, conv_norm: 1.0, ..Selection::default() };
    let split = Settings { min_eigenvalues: Some(2), selection, ..Settings::default() };
    let parts = evenkeel::analyze(&checkpoint, &split, &Silent).unwrap();
    let whole = report(&checkpoint);
    let square = |m: &Matrix| m.metric("frobenius_norm").unwrap().powi(2);
    let name = "transformer.h.0.attn.c_attn.weight";
    let sum: f64 =
        parts.matrices.iter().filter(|m| m.tensors == common::matrix(&whole, name).tensors).map(square).sum();
    let expected = square(common::matrix(&whole, name));
    assert!((sum - expected).abs() < 1e-12 * expected, "{sum} {expected}");
    assert!(parts.matrices.len() >= whole.matrices.len());
}

#[test]
fn no_threshold_on_alpha_passes_without_a_base() {
    let mut report = report(&open(&adapter("plain"), &[]).unwrap());
    let none = Thresholds::default();
    for thresholds in [
        Thresholds { min_alpha: Some(0.0), ..none },
        Thresholds { max_alpha: Some(1e9), ..none },
        Thresholds { max_alpha_std: Some(1e9), ..none },
    ] {
        assert!(thresholds.check(&report).is_err(), "{thresholds:?}");
    }
    let bounded = |max| Thresholds { max_spectral_norm: Some(max), ..none }.check(&report).unwrap().unwrap();
    assert!(bounded(1e6).passed);
    assert_eq!(bounded(1e-6).findings.len(), report.summary.matrices);
    report.gate = Some(bounded(1e-6));
    let table = EXPORTERS[0].report(&report, None).unwrap();
    let table = String::from_utf8(table).unwrap();
    assert!(table.contains("ΔW = scale·B·A, no weights"), "{table}");
    assert!(table.contains("no alpha: these are an adapter's updates"), "{table}");
}

#[test]
fn the_sum_is_measured_as_a_file_with_the_same_numbers_is() {
    let adapted = open(&adapter("llama"), &[adapter("plain"), adapter("patterns")]).unwrap();
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for tensor in adapted.tensors() {
        let bytes = adapted.read(tensor, 0..tensor.elements).unwrap();
        let offsets = [data.len(), data.len() + bytes.len()];
        header.insert(
            tensor.name.clone(),
            json!({"dtype": tensor.dtype.name(), "shape": tensor.shape, "data_offsets": offsets}),
        );
        data.extend_from_slice(&bytes);
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("model.safetensors"), safetensors(&Value::Object(header), &data)).unwrap();
    std::fs::copy(adapter("llama").join("config.json"), dir.path().join("config.json")).unwrap();
    let (found, merged) = (report(&adapted), report(&open(dir.path(), &[]).unwrap()));
    assert_eq!((&found.summary, &found.blocks), (&merged.summary, &merged.blocks));
    for (found, merged) in found.matrices.iter().zip(&merged.matrices) {
        assert_eq!((&found.name, &found.metrics, found.tail), (&merged.name, &merged.metrics, merged.tail));
    }
    let q = common::matrix(&found, "model.layers.0.self_attn.q_proj.weight");
    assert_eq!(q.dtype, "BF16 + LoRA r=4 + LoRA r=2");
    assert_eq!(q.tensors.len(), 5);
    assert_eq!(q.tensors[1], "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight");
}

#[test]
fn what_this_version_does_not_apply_is_refused_by_name() {
    for (name, part) in [
        ("dora", "`use_dora` (DoRA"),
        ("tokens", "`trainable_token_indices`"),
        ("pissa", "\"pissa\", which changes the base weights"),
    ] {
        for result in [open(&adapter(name), &[]), open(&adapter("llama"), &[adapter(name)])] {
            let message = result.unwrap_err().to_string();
            assert!(message.contains(part) && message.contains("adapter_config.json"), "{message}");
        }
    }
}

#[test]
fn the_command_line_takes_adapters() {
    let run = |arguments: &[&str], paths: &[&Path]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
        command.args(arguments).args(paths).output().unwrap()
    };
    let (base, plain) = (adapter("llama"), adapter("plain"));
    let file = plain.join("adapter_model.safetensors");
    for adapter in [&plain, &file] {
        let done = run(&["inspect", "--format", "json"], &[&base, Path::new("--adapter"), adapter]);
        let inventory: Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!(inventory["checkpoint"]["adapters"], json!([adapter]));
        let tensors = inventory["tensors"].as_array().unwrap();
        assert_eq!(tensors.iter().filter(|t| t["dtype"] == "BF16 + LoRA r=4").count(), 3);
        let alone = run(&["inspect", "--format", "json"], &[adapter]);
        let inventory: Value = serde_json::from_slice(&alone.stdout).unwrap();
        assert_eq!(inventory["checkpoint"]["format"], "peft");
        assert_eq!(inventory["checkpoint"]["parameters"], 4 * (32 + 48 + 32 + 32 + 16 + 32));
    }
    let gate = run(&["analyze", "--min-alpha", "1", "--min-eigenvalues", "4"], &[&plain]);
    assert_eq!(gate.status.code(), Some(2));
    assert!(String::from_utf8(gate.stderr).unwrap().contains("low-rank-update"));
    let twice = run(&["analyze"], &[&plain, Path::new("--adapter"), &plain]);
    assert_eq!(twice.status.code(), Some(2));
    assert!(String::from_utf8(twice.stderr).unwrap().contains("is an adapter itself"));
    // An input is never written over: the configuration is one as well.
    let config = plain.join("adapter_config.json");
    let over = run(&["analyze", "--output"], &[&config, &base, Path::new("--adapter"), &plain]);
    assert_eq!(over.status.code(), Some(2), "{}", String::from_utf8_lossy(&over.stderr));
}

/// A safetensors file.
fn safetensors(header: &Value, data: &[u8]) -> Vec<u8> {
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

type NamedShape<'a> = (&'a str, &'a [usize]);

/// A file of F32 tensors, each filled by a function of its elements' numbers.
fn filled(tensors: &[(&str, &[usize])], value: impl Fn(usize) -> f32) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape) in tensors {
        let start = data.len();
        data.extend((0..shape.iter().product::<usize>()).flat_map(|i| value(i).to_le_bytes()));
        header.insert(
            (*name).to_owned(),
            json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]}),
        );
    }
    safetensors(&Value::Object(header), &data)
}

fn noise(i: usize) -> f32 {
    ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / (1u32 << 24) as f32 - 0.5
}

const LORA: &str = r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 4}"#;

/// An adapter's directory.
fn made(config: &str, weights: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("adapter_config.json"), config).unwrap();
    std::fs::write(dir.path().join("adapter_model.safetensors"), weights).unwrap();
    dir
}

/// A base with one weight, 6 × 4, and its bias.
fn small_base() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let bytes = filled(&[("layers.0.q.weight", &[6, 4]), ("layers.0.q.bias", &[6])], noise);
    std::fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
    dir
}

/// QLoRA and its like: the base stays packed, and the sum is of what it dequantises to.
#[test]
fn quantised_bases_are_dequantised_first() {
    let (name, module) = ("model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.q_proj");
    for layout in
        ["bitsandbytes-4bit", "bitsandbytes-8bit", "gptq-4bit-ordered", "modelopt", "compressed-widths"]
    {
        let base = fixture("quantised").join(layout);
        let plain = open(&base, &[]).unwrap();
        let tensor = plain.tensors().iter().find(|t| t.name == name).unwrap();
        let (rows, cols) = (tensor.shape[0], tensor.shape[1]);
        let (a, b) = (
            format!("base_model.model.{module}.lora_A.weight"),
            format!("base_model.model.{module}.lora_B.weight"),
        );
        let lora = made(LORA, &filled(&[(&a, &[2, cols]), (&b, &[rows, 2])], noise));
        let adapted = open(&base, &[lora.path().to_path_buf(), lora.path().to_path_buf()]).unwrap();
        let sum = adapted.tensors().iter().find(|t| t.name == name).unwrap();
        assert_eq!(sum.stored_as(), format!("{} + LoRA r=2 + LoRA r=2", tensor.stored_as()));
        let weight = plain.read(tensor, 0..tensor.elements).unwrap();
        let found = adapted.read(sum, 0..sum.elements).unwrap();
        for (i, (found, weight)) in found.as_chunks::<8>().0.iter().zip(weight.as_chunks::<4>().0).enumerate()
        {
            let (row, col) = (i / cols, i % cols);
            let product: f64 =
                (0..2).map(|r| f64::from(noise(row * 2 + r)) * f64::from(noise(r * cols + col))).sum();
            let known = f64::from(f32::from_le_bytes(*weight)) + 2.0 * 2.0 * product;
            assert!((f64::from_le_bytes(*found) - known).abs() < 1e-12, "{layout} {i}");
        }
        assert_eq!(report(&adapted).matrices.len(), report(&plain).matrices.len());
    }
}

#[test]
fn minilm_with_an_adapter() {
    let base = common::minilm();
    let modules: Vec<String> = (0..6)
        .flat_map(|layer| {
            ["attention.self.query", "attention.self.value", "intermediate.dense", "output.dense"]
                .map(|module| format!("base_model.model.bert.encoder.layer.{layer}.{module}"))
        })
        .collect();
    let sides = |module: &str| match module {
        m if m.contains("intermediate") => (1536, 384),
        m if m.ends_with("output.dense") => (384, 1536),
        _ => (384, 384),
    };
    let names: Vec<(String, Vec<usize>)> = modules
        .iter()
        .flat_map(|module| {
            let (out, inputs) = sides(module);
            [
                (format!("{module}.lora_A.weight"), vec![8, inputs]),
                (format!("{module}.lora_B.weight"), vec![out, 8]),
            ]
        })
        .collect();
    let tensors: Vec<(&str, &[usize])> = names.iter().map(|(n, s)| (n.as_str(), s.as_slice())).collect();
    let config = r#"{"peft_type": "LORA", "r": 8, "lora_alpha": 16}"#;
    let analyse =
        |checkpoint: &Checkpoint| evenkeel::analyze(checkpoint, &Settings::default(), &Silent).unwrap();
    // An untrained adapter, B = 0, changes nothing: not a digit.
    let plain = analyse(&open(&base, &[]).unwrap());
    let zeros = made(config, &filled(&tensors, |_| 0.0));
    let same = analyse(&open(&base, &[zeros.path().to_path_buf()]).unwrap());
    assert_eq!((&same.summary, &same.blocks), (&plain.summary, &plain.blocks));
    let trained = made(config, &filled(&tensors, |i| 0.1 * noise(i)));
    let adapted = analyse(&open(&base, &[trained.path().to_path_buf()]).unwrap());
    let changed = adapted.matrices.iter().filter(|m| m.dtype == "F32 + LoRA r=8").count();
    assert_eq!((changed, adapted.summary.blocks), (24, 6));
    assert_ne!(adapted.summary.alpha_mean, plain.summary.alpha_mean);
    let alone = analyse(&open(trained.path(), &[]).unwrap());
    assert_eq!((alone.summary.matrices, alone.summary.blocks), (24, 6));
    assert!(alone.summary.stable_rank_mean.unwrap() <= 8.0);
}
