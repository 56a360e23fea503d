//! Which tensors are analysed, and what the options change.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use common::{analyze, fixture, matrix};
use evenkeel::matrices::Selection;
use evenkeel::{Report, Settings, Thresholds};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// Writes tensors with the format's own library and analyses the file.
fn report(tensors: &[(&str, Dtype, &[usize], &[u8])], settings: &Settings) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let views: Vec<(&str, TensorView)> = tensors
        .iter()
        .map(|(name, dtype, shape, data)| (*name, TensorView::new(*dtype, shape.to_vec(), data).unwrap()))
        .collect();
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    analyze(&path, settings)
}

fn select(selection: Selection) -> Settings {
    Settings { min_eigenvalues: Some(4), selection, ..Settings::default() }
}

fn reason<'a>(report: &'a Report, name: &str) -> &'a str {
    &report.skipped.iter().find(|s| s.name == name).unwrap().reason
}

/// 8 × 8 numbers that every type holds exactly: powers of two and their negatives.
fn values() -> Vec<f32> {
    (0..64).map(|i| [1.0, -0.5, 2.0, 0.25, 0.0, -4.0, 0.125][(i * i + i / 8) % 7]).collect()
}

#[test]
fn the_same_numbers_in_any_type_give_the_same_report() {
    let f32s: Vec<u8> = values().iter().flat_map(|v| v.to_le_bytes()).collect();
    let f64s: Vec<u8> = values().iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect();
    let f16s: Vec<u8> = values().iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
    let bf16s: Vec<u8> = values().iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect();
    // E4M3: sign, four bits of exponent with bias 7, three bits of fraction (zero for powers of two).
    let e4m3 = |v: f32| match v {
        0.0 => 0u8,
        v => (((v.abs().log2() as i32 + 7) as u8) << 3) | if v < 0.0 { 0x80 } else { 0 },
    };
    let f8s: Vec<u8> = values().iter().map(|v| e4m3(*v)).collect();
    let settings = select(Selection { assume_unscaled: true, ..Selection::default() });
    let types = [
        (Dtype::F32, &f32s),
        (Dtype::F64, &f64s),
        (Dtype::F16, &f16s),
        (Dtype::BF16, &bf16s),
        (Dtype::F8_E4M3, &f8s),
    ];
    let metrics: Vec<_> = types
        .iter()
        .map(|(dtype, data)| {
            report(&[("a.weight", *dtype, &[8, 8], data)], &settings).matrices[0].metrics.clone()
        })
        .collect();
    assert!(metrics[0].iter().all(|(_, value)| value.is_some()));
    assert!(metrics.iter().all(|m| *m == metrics[0]), "{metrics:?}");
}

#[test]
fn eight_bit_floats_are_never_guessed() {
    let weight = [0x38u8; 64];
    let scale: Vec<u8> = 2f32.to_le_bytes().to_vec();
    let plain = [("a.weight", Dtype::F8_E4M3, &[8, 8][..], &weight[..])];
    let scaled = [plain[0], ("a.weight_scale_inv", Dtype::F32, &[1, 1][..], &scale[..])];
    let three = [scale.clone(), scale.clone(), scale.clone()].concat();
    let contradicted = [plain[0], ("a.weight_scale_inv", Dtype::F32, &[3, 1][..], &three[..])];
    let unscaled = select(Selection { assume_unscaled: true, ..Selection::default() });
    let careful = report(&plain, &select(Selection::default()));
    assert!(reason(&careful, "a.weight").contains("--assume-unscaled"));
    assert!(careful.matrices.is_empty());
    let norm = report(&plain, &unscaled).matrices[0].metric("spectral_norm").unwrap();
    assert!((norm - 8.0).abs() < 1e-13, "an 8 × 8 matrix of ones has norm 8, not {norm}");
    // With its scales beside it, a weight without them is wrong whatever the user assumes.
    let found = report(&scaled, &unscaled);
    let norm = found.matrices[0].metric("spectral_norm").unwrap();
    assert!((norm - 16.0).abs() < 1e-13, "twice as much with a scale of 2, not {norm}");
    assert_eq!(reason(&found, "a.weight_scale_inv"), "scales of a quantised weight");
    let refused = report(&contradicted, &unscaled);
    assert!(refused.matrices.is_empty());
    assert!(reason(&refused, "a.weight").contains("do not fit"));
}

/// Alpha and the ranks do not depend on the scale, the norms follow it, over all of F64's range.
#[test]
fn numbers_at_every_scale() {
    let report_at = |exponent: i32| {
        let scale = 2f64.powi(exponent);
        let data: Vec<u8> = (0..96 * 64)
            .flat_map(|i| ((((i * 7919) % 1013) as f64 / 1013.0 - 0.5) * scale).to_le_bytes())
            .collect();
        report(&[("a.weight", Dtype::F64, &[96, 64], &data)], &select(Selection::default())).matrices[0]
            .clone()
    };
    let plain = report_at(0);
    for exponent in (-1000..1000).step_by(17) {
        let found = report_at(exponent);
        assert_eq!(found.status, "ok", "2^{exponent}");
        for metric in ["alpha", "stable_rank", "effective_rank", "ks_distance"] {
            let (a, b) = (found.metric(metric).unwrap(), plain.metric(metric).unwrap());
            assert!((a - b).abs() <= 1e-12 * b, "{metric} at 2^{exponent}: {a} against {b}");
        }
        let norm = found.metric("spectral_norm").unwrap() / 2f64.powi(exponent);
        assert!((norm / plain.metric("spectral_norm").unwrap() - 1.0).abs() < 1e-12, "2^{exponent}");
    }
}

/// One position of a kernel so small that its squares are hardly numbers, beside an ordinary one:
/// its eigenvalues count as zero, and nothing else changes.
#[test]
fn a_vanishing_slice_of_a_convolution() {
    let kernel = |tiny: f64| {
        let value = |i: usize| ((i * 7919) % 1013) as f64 / 1013.0 - 0.5;
        let data: Vec<u8> =
            (0..16 * 12).flat_map(|i| [value(i) * tiny, value(i + 500)]).flat_map(f64::to_le_bytes).collect();
        report(&[("conv.weight", Dtype::F64, &[16, 12, 2], &data)], &select(Selection::default())).matrices[0]
            .clone()
    };
    let none = kernel(0.0);
    for tiny in [1e-120, 1e-155, 1e-160, 1e-162, 1e-300] {
        let found = kernel(tiny);
        assert_eq!(found.status, none.status, "{tiny:e}");
        for metric in ["spectral_norm", "stable_rank", "effective_rank"] {
            let (a, b) = (found.metric(metric).unwrap(), none.metric(metric).unwrap());
            assert!((a - b).abs() <= 1e-12 * b, "{metric} with {tiny:e}: {a} against {b}");
        }
    }
}

/// A checkpoint of nothing else: the gate says why it cannot decide, and what to do about it.
#[test]
fn a_gate_on_what_cannot_be_read_says_why() {
    let weight = [0x38u8; 64];
    let found = report(&[("a.weight", Dtype::F8_E4M3, &[8, 8], &weight)], &select(Selection::default()));
    let gate = Thresholds { max_alpha: Some(6.0), ..Thresholds::default() }.check(&found);
    assert!(gate.unwrap_err().to_string().contains("--assume-unscaled"));
}

/// NaN outside the analysed matrices is said and fails a gate, unless the user left it out.
#[test]
fn nan_in_an_embedding_or_a_norm_is_a_finding() {
    let good: Vec<u8> = values().iter().flat_map(|v| v.to_le_bytes()).collect();
    let bad: Vec<u8> = good.iter().copied().take(252).chain(f32::NAN.to_le_bytes()).collect();
    let tensors: [(&str, Dtype, &[usize], &[u8]); 5] = [
        ("h.0.attn.c_proj.weight", Dtype::F32, &[8, 8], &good),
        ("h.0.ln_1.weight", Dtype::F32, &[64], &bad),
        ("h.1.attn.c_proj.weight", Dtype::F32, &[8, 8], &good),
        ("wte.weight", Dtype::F32, &[8, 8], &bad),
        ("z.position_ids", Dtype::I32, &[8, 8], &bad),
    ];
    let thresholds = Thresholds { max_alpha: Some(100.0), ..Thresholds::default() };
    let found = report(&tensors, &select(Selection::default()));
    let gate = thresholds.check(&found).unwrap().unwrap();
    let subjects: Vec<&str> = gate.findings.iter().map(|f| f.subject.as_str()).collect();
    let count = "(1 NaN and 0 infinite elements)";
    assert_eq!(subjects, [format!("tensor h.0.ln_1.weight {count}"), format!("tensor wte.weight {count}")]);
    let exclude = vec!["wte*".to_owned(), "*ln_1*".to_owned()];
    let without = report(&tensors, &select(Selection { exclude, ..Selection::default() }));
    assert!(thresholds.check(&without).unwrap().unwrap().passed);
}

#[test]
fn integers_and_packed_weights_are_listed_with_the_reason() {
    let bytes = [1u8; 256];
    let found = report(
        &[
            ("a.qweight", Dtype::I32, &[8, 8], &bytes),
            ("a.scales", Dtype::F32, &[8, 8], &bytes),
            ("b.weight", Dtype::I8, &[16, 16], &bytes),
            ("c.position_ids", Dtype::I64, &[4, 8], &bytes),
            ("d.weight", Dtype::F4, &[16, 32], &bytes),
        ],
        &select(Selection::default()),
    );
    assert!(found.matrices.is_empty());
    assert!(reason(&found, "a.qweight").contains("GPTQ or AWQ is not known"));
    assert_eq!(reason(&found, "a.scales"), "scales of a quantised weight");
    assert_eq!(reason(&found, "b.weight"), "packed integers (I8) of a quantised weight");
    assert_eq!(reason(&found, "c.position_ids"), "integers (I64)");
    assert!(reason(&found, "d.weight").starts_with("packed type F4"));
}

#[test]
fn patterns_choose_tensors_and_skipped_ones_are_named() {
    let selection = Selection {
        include: vec!["*.layer.0.*".to_owned(), "*.layer.1.*".to_owned()],
        exclude: vec!["*.output.*".to_owned()],
        ..Selection::default()
    };
    let found = analyze(&fixture("layouts/bert"), &select(selection));
    let expected = ["query", "key", "value", "intermediate"];
    assert_eq!(found.matrices.len(), 2 * expected.len());
    assert!(found.matrices.iter().all(|m| expected.iter().any(|part| m.name.contains(part))));
    assert_eq!(reason(&found, "bert.pooler.dense.weight"), "not matched by --include");
    let output = "bert.encoder.layer.0.attention.output.dense.weight";
    assert_eq!(reason(&found, output), "matched by --exclude");
}

#[test]
fn fused_tensors_in_one_piece() {
    let whole = select(Selection { split: false, ..Selection::default() });
    let found = analyze(&fixture("layouts/gpt2-lm"), &whole);
    let fused = matrix(&found, "transformer.h.0.attn.c_attn.weight");
    assert_eq!((fused.rows, fused.cols, fused.part.as_deref()), (8, 24, None));
    assert!(fused.warnings.is_empty());
}

/// Interleaved heads need the head counts: without config.json the tensor stays whole, and says so.
#[test]
fn interleaved_heads_without_a_config_stay_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    std::fs::copy(fixture("layouts/gpt_neox/model.safetensors"), &path).unwrap();
    let found = analyze(dir.path(), &select(Selection::default()));
    let fused = matrix(&found, "gpt_neox.layers.0.attention.query_key_value.weight");
    assert_eq!(fused.warnings, ["fused-not-split"]);
    assert_eq!(fused.status, "ok");
}

#[test]
fn convolutions_without_their_scale() {
    let plain =
        analyze(&fixture("silero-vad"), &select(Selection { conv_norm: 1.0, ..Selection::default() }));
    let scaled = analyze(&fixture("silero-vad"), &select(Selection::default()));
    let norm = |report: &Report| matrix(report, "conv2.weight").metric("spectral_norm").unwrap();
    assert!((norm(&plain) / norm(&scaled) - 2f64.sqrt()).abs() < 1e-12);
    let alpha = |report: &Report| matrix(report, "conv2.weight").metric("alpha").unwrap();
    assert!((alpha(&plain) - alpha(&scaled)).abs() < 1e-12);
}

#[test]
fn embeddings_only_on_request_and_never_scheduled() {
    let name = "bert.embeddings.word_embeddings.weight";
    let without = analyze(&fixture("layouts/bert"), &select(Selection::default()));
    assert!(reason(&without, name).starts_with("embedding"));
    let with =
        analyze(&fixture("layouts/bert"), &select(Selection { embeddings: true, ..Selection::default() }));
    let embedding = matrix(&with, name);
    assert_eq!((embedding.role, embedding.scheduled), ("embedding", false));
    assert!(embedding.metric("alpha").is_some());
    assert_eq!(with.summary, without.summary);
}

#[test]
fn complex_weights_take_part_only_on_request() {
    let path = fixture("layouts/fno");
    let without = analyze(&path, &select(Selection::default()));
    let with = analyze(&path, &Settings { spectral_weights: true, ..select(Selection::default()) });
    let scheduled = |r: &Report| r.matrices.iter().filter(|m| m.role == "spectral" && m.scheduled).count();
    assert_eq!((scheduled(&without), scheduled(&with)), (0, 4));
    assert!(with.summary.matrices > without.summary.matrices);
}

/// Blocks beyond nine sort by number, in the report as in the statistics.
#[test]
fn block_ten_comes_after_block_nine() {
    let found = analyze(&fixture("layouts/gpt2"), &select(Selection::default()));
    let names: Vec<&str> = found.blocks.iter().map(|b| b.name.as_str()).collect();
    let expected: Vec<String> = (0..12).map(|i| format!("h.{i}")).collect();
    assert_eq!(names, expected);
    assert!(found.blocks.iter().zip(0..).all(|(block, i)| block.index == i));
}

#[test]
fn a_block_pattern_makes_its_own_blocks() {
    let settings = Settings {
        block_pattern: Some(r"(?<block>(?<stack>stages)\.\d+\.layers\.\d+)".to_owned()),
        ..select(Selection::default())
    };
    let found = analyze(&fixture("layouts/resnet"), &settings);
    assert!(found.blocks.len() > 2);
    assert!(found.blocks.iter().all(|b| b.stack == "stages" && b.name.contains(".layers.")));
    assert_eq!(found.settings.granularity, "block");
}

/// Encoder and decoder both have a block 0: they stay apart, and so do their statistics.
#[test]
fn a_block_pattern_keeps_stacks_apart() {
    let pattern = r"(?<stack>encoder|decoder)\.block\.(?<block>\d+)";
    let settings = Settings { block_pattern: Some(pattern.to_owned()), ..select(Selection::default()) };
    let found = analyze(&fixture("layouts/t5"), &settings);
    let plain = analyze(&fixture("layouts/t5"), &select(Selection::default()));
    let stds = |r: &Report| r.stacks.iter().map(|s| (s.name.clone(), s.alpha_std)).collect::<Vec<_>>();
    assert_eq!(stds(&found), stds(&plain));
    assert_eq!(found.blocks[0].name, "encoder.0");
}

/// Without usable head counts only thirds as wide as the model are taken for q, k and v.
#[test]
fn fused_projections_are_not_guessed() {
    let data = vec![0u8; 96 * 64 * 4];
    let fused = |rows: usize, config: &str| {
        let dir = tempfile::tempdir().unwrap();
        let view = TensorView::new(Dtype::F32, vec![rows, 64], &data[..rows * 64 * 4]).unwrap();
        let bytes = safetensors::serialize(vec![("h.0.attn.Wqkv.weight", view)], None).unwrap();
        std::fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
        std::fs::write(dir.path().join("config.json"), config).unwrap();
        analyze(dir.path(), &select(Selection::default())).matrices.len()
    };
    assert_eq!(fused(96, r#"{"model_type":"mpt","n_heads":4}"#), 1);
    assert_eq!(fused(96, r#"{"num_attention_heads":4,"num_key_value_heads":1}"#), 3);
    assert_eq!(fused(96, r#"{"num_attention_heads":2,"num_key_value_heads":11}"#), 1);
    assert_eq!(fused(96, r#"{"num_attention_heads":4,"num_key_value_heads":"1"}"#), 1);
}
