//! Numbers against NumPy: `fixtures/golden.py`, `adversarial.py` and `golden_layouts.py` made the
//! expected values in double precision (or better) by singular value decompositions.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use common::{analyze, assert_close, fixture, golden, matrix, minilm};
use evenkeel::metrics::Estimator;
use evenkeel::report::Matrix;
use evenkeel::{Granularity, Settings};
use serde_json::Value;

/// What "exact" promises.
const EXACT: f64 = 1e-9;

/// The golden files' names for estimators, and ours.
const ESTIMATORS: [(&str, Estimator); 6] = [
    ("hill", Estimator::Hill { tail_fraction: 0.5 }),
    ("hill_0.25", Estimator::Hill { tail_fraction: 0.25 }),
    ("reference_2", Estimator::Reference { xmin_pos: 2.0 }),
    ("reference_1.5", Estimator::Reference { xmin_pos: 1.5 }),
    ("ks", Estimator::Ks),
    ("peak", Estimator::Peak),
];

fn with(estimator: Estimator) -> Settings {
    Settings { estimator, ..Settings::default() }
}

fn compare_norms(found: &Matrix, expected: &Value) {
    for name in ["spectral_norm", "lambda_max", "stable_rank", "frobenius_norm", "effective_rank"] {
        if let Some(value) = expected.get(name) {
            assert_close(found.metric(name), value, EXACT, &format!("{name} of {}", found.name));
        }
    }
}

fn compare_fit(found: &Matrix, expected: &Value, estimator: &str) {
    let what = |field: &str| format!("{field} of {} by {estimator}", found.name);
    assert_eq!(found.status, expected["status"].as_str().unwrap(), "{}", what("status"));
    for field in ["alpha", "lambda_min", "ks_distance"] {
        let value = expected.get(field).unwrap_or(&Value::Null);
        // A singular value decomposition in double precision resolves σ to about ε·σ_max.
        let spread = found.metric("lambda_max").zip(value.as_f64()).map_or(1.0, |(max, v)| max / v);
        let tolerance = if field == "lambda_min" { 100.0 * f64::EPSILON * spread.sqrt() } else { EXACT };
        if field == "alpha" || found.status == "ok" {
            assert_close(found.metric(field), value, tolerance.max(EXACT), &what(field));
        }
    }
    if found.status == "ok" {
        assert_eq!(found.tail, expected["tail"].as_u64().map(|k| k as usize), "{}", what("tail"));
    }
}

#[test]
fn minilm_by_every_estimator() {
    let expected = golden("minilm.json");
    let path = minilm();
    for (name, estimator) in ESTIMATORS {
        let report = analyze(&path, &with(estimator));
        assert_eq!(report.matrices.len(), expected["matrices"].as_object().unwrap().len());
        for (tensor, golden) in expected["matrices"].as_object().unwrap() {
            let found = matrix(&report, tensor);
            compare_norms(found, golden);
            compare_fit(found, &golden["estimators"][name], name);
            if name == "hill" {
                assert_close(found.metric("alpha_hat"), &golden["alpha_hat"], EXACT, tensor);
            }
        }
    }
}

#[test]
fn minilm_blocks_and_their_spread() {
    let expected = golden("minilm.json");
    for (name, estimator) in [ESTIMATORS[0], ESTIMATORS[2]] {
        let report = analyze(&minilm(), &with(estimator));
        assert_eq!(report.settings.granularity, "block");
        assert_eq!(report.checkpoint.architecture.as_deref(), Some("bert"));
        assert_eq!((report.summary.blocks, report.summary.matrices), (6, 36));
        for block in &report.blocks {
            assert_close(block.alpha, &expected["blocks"][&block.name][name], EXACT, &block.name);
        }
        let std = &expected["alpha_std"][name];
        assert_close(report.summary.alpha_std, &std["block"], 1e-8, name);
        let layers = Settings { granularity: Some(Granularity::Layer), ..with(estimator) };
        let report = analyze(&minilm(), &layers);
        assert_close(report.summary.alpha_std, &std["layer"], 1e-8, name);
    }
    // The two figures that the documentation prints.
    let six_digits = |e| format!("{:.6}", analyze(&minilm(), &with(e)).summary.alpha_std.unwrap());
    assert_eq!(six_digits(Estimator::default()), "0.050663");
    assert_eq!(six_digits(Estimator::Reference { xmin_pos: 2.0 }), "0.052068");
}

#[test]
fn adversarial_spectra() {
    let expected = golden("adversarial.json");
    let expected = expected.as_object().unwrap();
    for (name, estimator) in ESTIMATORS {
        let report = analyze(&fixture("adversarial"), &with(estimator));
        for (tensor, golden) in expected {
            let found = matrix(&report, tensor);
            compare_norms(found, golden);
            match golden.get("estimators") {
                Some(fits) => compare_fit(found, &fits[name], name),
                None => assert_eq!(found.status, golden["status"].as_str().unwrap(), "{tensor}"),
            }
            for (_, value) in &found.metrics {
                assert!(value.is_none_or(f64::is_finite), "{tensor}");
            }
        }
    }
}

#[test]
fn storage_precision_is_warned_of() {
    let expected = golden("adversarial.json");
    let report = analyze(&fixture("adversarial"), &Settings::default());
    let mut warned = 0;
    for (tensor, golden) in expected.as_object().unwrap() {
        let wanted = &golden["estimators"]["hill"]["warnings"];
        let wanted = wanted.as_array().is_some_and(|w| w.contains(&"below-storage-precision".into()));
        let found = matrix(&report, tensor).warnings.iter().any(|w| w == "below-storage-precision");
        assert_eq!(found, wanted, "{tensor}");
        warned += usize::from(wanted);
    }
    assert!(warned > 0);
}

/// Every family: which matrices there are, how fused ones are split, and each one's block.
#[test]
fn layouts_of_every_family() {
    let expected = golden("layouts.json");
    let settings = Settings {
        min_eigenvalues: Some(4),
        granularity: Some(Granularity::Block),
        spectral_weights: true,
        ..Settings::default()
    };
    for (layout, golden) in expected.as_object().unwrap() {
        let path = match layout.as_str() {
            "silero-vad" => fixture(layout),
            _ => fixture("layouts").join(layout),
        };
        let report = analyze(&path, &settings);
        assert_eq!(report.checkpoint.tensors as u64, golden["tensors"].as_u64().unwrap(), "{layout}");
        let matrices = golden["matrices"].as_object().unwrap();
        let too_few = golden["too_few"].as_object().unwrap();
        for found in &report.matrices {
            let what = format!("{layout}: {}", found.name);
            let Some(golden) = matrices.get(&found.name) else {
                assert_eq!(found.status, "too-few-eigenvalues", "{what}");
                assert!(too_few.contains_key(&found.name), "{what} is not expected");
                continue;
            };
            assert_eq!(found.block.as_deref(), golden["block"].as_str(), "{what}");
            assert_eq!(found.role, golden["role"].as_str().unwrap(), "{what}");
            assert_eq!(found.eigenvalues as u64, golden["eigenvalues"].as_u64().unwrap(), "{what}");
            assert_eq!(found.status, "ok", "{what}");
            for name in ["alpha", "spectral_norm", "stable_rank"] {
                assert_close(found.metric(name), &golden[name], EXACT, &format!("{name} of {what}"));
            }
            if let Some(block) = &found.block {
                let block = report.blocks.iter().find(|b| b.name == *block).unwrap();
                assert_eq!(Some(block.stack.as_str()), golden["stack"].as_str(), "{what}");
            }
        }
        assert_eq!(report.matrices.len(), matrices.len() + too_few.len(), "{layout}");
        for name in golden["skipped"].as_object().unwrap().keys() {
            assert!(report.skipped.iter().any(|s| s.name == *name), "{layout}: {name} is not skipped");
        }
    }
}
