//! The JSON contract: the published schema is the one that the program has, and every kind of
//! report keeps it.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{analyze, fixture};
use evenkeel::metrics::METRICS;
use evenkeel::report::{EXPORTERS, schema};
use evenkeel::{Report, Settings, Thresholds};

fn current() -> serde_json::Value {
    let metrics: Vec<(&str, &str)> = METRICS.iter().map(|m| (m.name(), m.description())).collect();
    schema(&metrics)
}

/// Run with `UPDATE=1` to write the schema anew after a field was added.
#[test]
fn the_published_schema_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/report.schema.json");
    let text = serde_json::to_string_pretty(&current()).unwrap() + "\n";
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "run `UPDATE=1 cargo test --test schema`");
}

fn json(report: &Report) -> serde_json::Value {
    let exporter = EXPORTERS.iter().find(|e| e.name() == "json").unwrap();
    serde_json::from_slice(&exporter.report(report, None).unwrap()).unwrap()
}

#[test]
fn every_report_keeps_the_schema() {
    let validator = jsonschema::validator_for(&current()).unwrap();
    let settings = Settings { min_eigenvalues: Some(4), ..Settings::default() };
    let mut paths = vec![fixture("adversarial"), fixture("silero-vad")];
    paths
        .extend(["bert", "gpt_oss", "clip", "fno", "t5", "resnet"].map(|name| fixture("layouts").join(name)));
    for path in paths {
        let mut report = analyze(&path, &settings);
        for thresholds in
            [Thresholds::default(), Thresholds { max_alpha: Some(1.0), ..Thresholds::default() }]
        {
            report.gate = thresholds.check(&report).ok().flatten();
            let json = json(&report);
            let errors: Vec<String> =
                validator.iter_errors(&json).map(|e| format!("{}: {e}", e.instance_path())).collect();
            assert!(errors.is_empty(), "{}: {errors:?}", path.display());
        }
    }
}

/// Every tensor is in some matrix or in the list of the skipped ones.
#[test]
fn no_tensor_vanishes() {
    for layout in std::fs::read_dir(fixture("layouts")).unwrap() {
        let path = layout.unwrap().path();
        if path.join("model_index.json").exists() {
            continue;
        }
        let report = analyze(&path, &Settings::default());
        let mut names: Vec<&str> = report
            .matrices
            .iter()
            .flat_map(|m| m.tensors.iter().chain(&m.aliases))
            .map(String::as_str)
            .collect();
        names.extend(report.skipped.iter().map(|s| s.name.as_str()));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), report.checkpoint.tensors, "{}", path.display());
    }
}
