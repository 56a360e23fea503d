//! Adapters that are broken, do not fit, or hold numbers beyond all measure.

use std::path::{Path, PathBuf};
use std::time::Instant;

use evenkeel::{Checkpoint, OpenOptions, Silent};
use proptest::prelude::*;

use super::{LORA, NamedShape, filled, made, noise, open, report, settings, small_base};

#[test]
fn adapters_that_do_not_fit_are_refused() {
    let a = "base_model.model.layers.0.q.lora_A.weight";
    let b = "base_model.model.layers.0.q.lora_B.weight";
    let bias = "base_model.model.layers.0.q.lora_B.bias";
    let good: [(&str, &[usize]); 2] = [(a, &[2, 4]), (b, &[6, 2])];
    let base = small_base();
    let apply = |config: &str, tensors: &[(&str, &[usize])]| {
        let dir = made(config, &filled(tensors, noise));
        open(base.path(), &[dir.path().to_path_buf()]).map(|_| ())
    };
    apply(LORA, &good).unwrap();
    let more = |extra: (&'static str, &'static [usize])| [good[0], good[1], extra];
    let cases: Vec<(Vec<NamedShape>, &str)> = vec![
        (vec![], "holds no tensors"),
        (vec![(a, &[2, 4])], "has no B that belongs to it"),
        (vec![(b, &[6, 2])], "has no A that belongs to it"),
        (vec![(a, &[2, 4]), (b, &[6, 3])], "their ranks do not fit"),
        (vec![(a, &[3, 4]), (b, &[6, 3])], "the configuration gives the rank 2"),
        (vec![(a, &[2, 5]), (b, &[6, 2])], "do not fit `layers.0.q.weight` (6×4)"),
        (vec![(a, &[2, 4, 1]), (b, &[6, 2])], "no two factors of one layer"),
        (vec![(a, &[2, 4, 3]), (b, &[6, 2, 1])], "do not fit"),
        (vec![(a, &[2]), (b, &[6, 2])], "two dimensions or more"),
        (vec![(a, &[2, 0]), (b, &[6, 2])], "is no factor"),
        (
            vec![("layers.7.q.lora_A.weight", &[2, 4]), ("layers.7.q.lora_B.weight", &[6, 2])],
            "the tensor `layers.7.q.lora_A.weight` adapts `layers.7.q.weight`, which the base does not hold \
             (it has `layers.0.q.weight`)",
        ),
        (more((bias, &[5])).to_vec(), "is added to no bias"),
        (more(("head.weight", &[2, 2])).to_vec(), "in place of a tensor that the base does not hold"),
        (more(("layers.0.q.lora_magnitude_vector", &[6])).to_vec(), "belongs to DoRA"),
        (more(("layers.0.q.lora_A.weight", &[2, 4])).to_vec(), "under two names"),
        (more(("layers.0.q.lora_\u{1b}[31m", &[2, 4])).to_vec(), "`lora_\\u{1b}[31m`"),
        (more(("x.lora_embedding_A", &[2, 4])).to_vec(), "has no B"),
    ];
    for (tensors, part) in cases {
        let message = apply(LORA, &tensors).unwrap_err().to_string();
        assert!(message.contains(part), "{message:?} does not say {part:?}");
        assert!(message.contains("adapter_model.safetensors") && message.ends_with('.'), "{message}");
        assert!(!message.contains(['\n', '\u{1b}']), "{message}");
    }
    let saved = r#"{"peft_type": "LORA", "r": 2, "modules_to_save": ["head"]}"#;
    apply(saved, &more(("head.weight", &[2, 2]))).unwrap();
    apply(LORA, &more((bias, &[6]))).unwrap();
}

#[test]
fn directories_that_are_no_adapters_are_refused() {
    let base = small_base();
    let refused = |path: PathBuf, part: &str| {
        let message = open(base.path(), &[path]).unwrap_err().to_string();
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    };
    let empty = tempfile::tempdir().unwrap();
    refused(empty.path().to_path_buf(), "adapter_config.json is missing");
    refused(empty.path().join("nothing here"), "there is no file or directory");
    refused(base.path().join("model.safetensors"), "--adapter takes the directory of an adapter");
    std::fs::write(empty.path().join("adapter_config.json"), LORA).unwrap();
    refused(empty.path().to_path_buf(), "no adapter_model.safetensors or adapter_model.bin");
    assert!(open(empty.path(), &[]).is_err());
    std::fs::write(empty.path().join("adapter_model.bin"), b"\x80\x02}q\x00.").unwrap();
    refused(empty.path().to_path_buf(), "adapter_model.bin");
    // The weights without their configuration: their scale is not known.
    let lone = tempfile::tempdir().unwrap();
    let file = lone.path().join("adapter_model.safetensors");
    std::fs::write(&file, filled(&[("q.lora_A.weight", &[2, 4]), ("q.lora_B.weight", &[6, 2])], noise))
        .unwrap();
    assert!(open(&file, &[]).unwrap_err().to_string().contains("adapter_config.json"));
    // Under another name they are no weights, either.
    let renamed = lone.path().join("model.safetensors");
    std::fs::rename(&file, &renamed).unwrap();
    let report = report(&open(&renamed, &[]).unwrap());
    assert!(report.matrices.is_empty());
    assert!(report.skipped[0].reason.contains("factor of a LoRA adapter"));
}

#[test]
fn numbers_beyond_all_measure_have_a_status() {
    let names: [(&str, &[usize]); 2] =
        [("layers.0.q.lora_A.weight", &[2, 4]), ("layers.0.q.lora_B.weight", &[6, 2])];
    let base = small_base();
    let huge = r#"{"peft_type": "LORA", "r": 1, "lora_alpha": 1e308, "rank_pattern": {"q": 2}}"#;
    let zero = r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 0}"#;
    for (config, value, alone, merged) in [
        (LORA, f32::NAN, "non-finite", "non-finite"),
        (LORA, f32::INFINITY, "non-finite", "non-finite"),
        (huge, 1e30, "non-finite", "non-finite"),
        (huge, 1e-30, "low-rank-update", "ok"),
        (zero, 1.0, "zero", "ok"),
        (LORA, 0.0, "zero", "ok"),
    ] {
        let dir = made(config, &filled(&names, |_| value));
        let found = report(&open(dir.path(), &[]).unwrap());
        assert_eq!(found.matrices[0].status, alone, "{config} {value}");
        let found = report(&open(base.path(), &[dir.path().to_path_buf()]).unwrap());
        let status = found.matrices[0].status;
        assert!(status == merged || merged == "ok" && status != "non-finite", "{config} {value}: {status}");
    }
    // The product that a small file claims is never formed.
    let wide: [(&str, &[usize]); 2] =
        [("layers.0.q.lora_A.weight", &[2, 200_000]), ("layers.0.q.lora_B.weight", &[200_000, 2])];
    let start = Instant::now();
    let dir = made(LORA, &filled(&wide, noise));
    let checkpoint = open(dir.path(), &[]).unwrap();
    let found = report(&checkpoint);
    assert!(found.matrices[0].metric("spectral_norm").unwrap() > 1.0);
    assert!(start.elapsed().as_secs() < 5);
    let tensor = &checkpoint.tensors()[0];
    assert!(checkpoint.read(tensor, 0..tensor.elements).is_err());
}

#[test]
fn an_adapter_that_changes_meanwhile_is_noticed() {
    let names: [NamedShape; 2] =
        [("layers.0.q.lora_A.weight", &[2, 4]), ("layers.0.q.lora_B.weight", &[6, 2])];
    let (base, dir) = (small_base(), made(LORA, &filled(&names, noise)));
    let adapters = vec![dir.path().to_path_buf()];
    let options = OpenOptions { mmap: false, adapters, ..OpenOptions::default() };
    let checkpoint = Checkpoint::open(base.path(), &options).unwrap();
    let inputs: Vec<&Path> = checkpoint.inputs().collect();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        assert!(inputs.contains(&dir.path().join(name).as_path()));
    }
    std::fs::write(dir.path().join("adapter_model.safetensors"), vec![0; 10_000]).unwrap();
    let error = evenkeel::analyze(&checkpoint, &settings(), &Silent).unwrap_err();
    assert!(error.to_string().contains("adapter_model.safetensors changed while"), "{error}");
}

#[test]
fn every_truncation_is_refused() {
    let base = small_base();
    let weights =
        filled(&[("layers.0.q.lora_A.weight", &[2, 4]), ("layers.0.q.lora_B.weight", &[6, 2])], noise);
    let dir = made(LORA, &weights);
    let apply = || open(base.path(), &[dir.path().to_path_buf()]);
    apply().unwrap();
    for length in 0..weights.len() {
        std::fs::write(dir.path().join("adapter_model.safetensors"), &weights[..length]).unwrap();
        assert!(apply().is_err(), "{length} bytes of the weights");
    }
    std::fs::write(dir.path().join("adapter_model.safetensors"), &weights).unwrap();
    for length in 0..LORA.len() {
        std::fs::write(dir.path().join("adapter_config.json"), &LORA[..length]).unwrap();
        assert!(apply().is_err(), "{length} bytes of the configuration");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever becomes of the bytes of the configuration and of the names: a sentence or a report.
    #[test]
    fn broken_adapters_never_panic(
        place in 0usize..LORA.len(), byte: u8,
        names in prop::collection::vec("(base_model\\.model\\.)?(layers\\.0\\.q|q|)\\.?(lora_[AB]|lora_embedding_[AB]|base_layer|)\\.(weight|bias)", 1..5),
        sides in prop::collection::vec(prop::collection::vec(0usize..7, 0..4), 5),
        alone: bool,
    ) {
        let mut config = LORA.as_bytes().to_vec();
        config[place] = byte;
        let config = if byte % 2 == 0 { LORA.as_bytes().to_vec() } else { config };
        let mut tensors: Vec<(&str, &[usize])> = Vec::new();
        for (name, shape) in names.iter().zip(&sides) {
            if tensors.iter().all(|(other, _)| other != name) {
                tensors.push((name, shape));
            }
        }
        let dir = made("", &filled(&tensors, noise));
        std::fs::write(dir.path().join("adapter_config.json"), config).unwrap();
        let base = small_base();
        let opened = match alone {
            true => open(dir.path(), &[]),
            false => open(base.path(), &[dir.path().to_path_buf()]),
        };
        match opened {
            Ok(checkpoint) => { report(&checkpoint); }
            Err(error) => prop_assert!(error.to_string().ends_with('.'), "{error}"),
        }
    }
}
