//! The second engine, LAPACK, against the first, on real and on adversarial matrices.
#![cfg(feature = "lapack")]
#![allow(clippy::unwrap_used)]

mod common;

use common::{analyze, fixture, matrix};
use evenkeel::Settings;
use evenkeel::report::Matrix;

fn compare(path: &std::path::Path) {
    let first = analyze(path, &Settings::default());
    let second = analyze(path, &Settings { engine: "lapack".to_owned(), ..Settings::default() });
    assert_eq!(second.settings.engine, "lapack");
    assert!(!first.matrices.is_empty());
    for found in &first.matrices {
        let other = matrix(&second, &found.name);
        assert_eq!(found.status, other.status, "{}", found.name);
        for ((name, a), (_, b)) in found.metrics.iter().zip(&other.metrics) {
            match (a, b) {
                (Some(a), Some(b)) => {
                    let difference = (a - b).abs() / scale(found, name, *a);
                    assert!(difference <= 1e-9, "{name} of {}: {a} against {b}", found.name);
                }
                _ => assert_eq!(a, b, "{name} of {}", found.name),
            }
        }
    }
}

/// What a difference is measured against: the number itself, but for two of them.
fn scale(matrix: &Matrix, metric: &str, value: f64) -> f64 {
    let largest = matrix.metric("lambda_max").unwrap_or(1.0);
    let natural = match metric {
        // A multiple of log λ_max, which is zero where λ_max is 1.
        "alpha_hat" => value.abs().max(1.0),
        // Singular values are resolved to ε·σ_max at best, far below the largest not to nine digits.
        "lambda_min" => value.max(1e-6 * (value * largest).sqrt()),
        _ => value.abs(),
    };
    natural.max(f64::MIN_POSITIVE)
}

#[test]
fn a_real_transformer() {
    compare(&common::minilm());
}

#[test]
fn adversarial() {
    compare(&fixture("adversarial"));
}

#[test]
fn convolutions_and_recurrent_layers() {
    compare(&fixture("silero-vad"));
}
