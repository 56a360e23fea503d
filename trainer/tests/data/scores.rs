//! Scores against scikit-learn and SciPy.

use evenkeel::rebalance::presets::MetricName;
use evenkeel_trainer::score::{Outputs, value as score};
use serde_json::Value;

use crate::{expected, numbers};

fn compare(case: &Value, outputs: Outputs) {
    for (name, value) in case["scores"].as_object().unwrap() {
        let metric = MetricName::named(name).unwrap();
        let found = score(metric, outputs).unwrap();
        match value.as_f64() {
            Some(value) => assert!((found - value).abs() <= 1e-12, "{name}: {found}, not {value}: {case}"),
            None => assert!(found.is_nan(), "{name}: {found}, not NaN: {case}"),
        }
    }
}

#[test]
fn classes_score_as_in_scikit_learn() {
    let all = expected("scores.json");
    for case in all["classes"].as_array().unwrap() {
        let (predicted, expected) =
            (numbers(&case["predicted"], Value::as_i64), numbers(&case["expected"], Value::as_i64));
        let classes = case["classes"].as_u64().unwrap() as usize;
        compare(
            case,
            Outputs::Classes { predicted: &predicted, expected: &expected, classes, questions: None },
        );
    }
}

#[test]
fn numbers_correlate_as_in_scipy() {
    let all = expected("scores.json");
    for case in all["values"].as_array().unwrap() {
        let (predicted, expected) =
            (numbers(&case["predicted"], Value::as_f64), numbers(&case["expected"], Value::as_f64));
        compare(case, Outputs::Values { predicted: &predicted, expected: &expected });
    }
}
