//! The second engine, LAPACK, against the first, on real and on adversarial matrices.
#![cfg(feature = "lapack")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use common::{analyze, fixture, matrix};
use evenkeel::Settings;
use evenkeel::report::Matrix;
use evenkeel::spectrum::{Dense, Engine, FaerEngine, LapackEngine};

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

/// Fills the lower triangle.
fn lower(n: usize, element: impl Fn(usize, usize) -> f64) -> Dense {
    let mut matrix = Dense::zeros(n, n);
    for (index, value) in matrix.data.iter_mut().enumerate() {
        let (i, j) = (index % n, index / n);
        *value = if i >= j { element(i, j) } else { 0.0 };
    }
    matrix
}

fn noise(i: usize, j: usize) -> f64 {
    ((i * 7919 + j * 104_729) % 10_007) as f64 / 10_007.0 - 0.5
}

/// All eigenvalues within n·ε·λ_max of those that LAPACK finds. Its own error is of the same size: a
/// few units where n alone would allow one.
fn agree(matrix: Dense, what: &str) {
    let n = matrix.rows;
    let found = FaerEngine.symmetric_eigenvalues(matrix.clone().into()).unwrap();
    let expected = LapackEngine::new().symmetric_eigenvalues(matrix.into()).unwrap();
    close(&found, &expected, (n as f64).max(8.0), what);
}

fn close(found: &[f64], expected: &[f64], units: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let norm = expected.iter().fold(0.0, |max: f64, v| max.max(v.abs()));
    let largest = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let allowed = units * f64::EPSILON * norm;
    assert!(largest <= allowed, "{what}, n = {}: {largest:e} of {allowed:e}", found.len());
}

/// Every size from 1 to 300.
fn every_size(what: &str, element: impl Fn(usize, usize, usize) -> f64) {
    for n in 1..=300 {
        agree(lower(n, |i, j| element(i, j, n)), what);
    }
}

#[test]
fn random_of_every_size() {
    every_size("random", |i, j, _| noise(i, j));
}

#[test]
fn graded_of_every_size() {
    every_size("graded", |i, j, _| noise(i, j) * 0.8f64.powi((i + j) as i32 / 2));
}

#[test]
fn clustered_of_every_size() {
    every_size("clustered", |i, j, _| f64::from(i == j) + 1e-10 * noise(i, j));
}

#[test]
fn spiked_of_every_size() {
    every_size("spiked", |i, j, _| noise(i, j) + 1000.0);
}

#[test]
fn rank_deficient_of_every_size() {
    every_size("rank three", |i, j, _| ((i % 3 == j % 3) as usize * (1 + i % 3)) as f64);
}

#[test]
fn wilkinson_of_every_size() {
    every_size("Wilkinson", |i, j, n| match i - j {
        0 => (i as f64 - (n as f64 - 1.0) / 2.0).abs(),
        1 => 1.0,
        _ => 0.0,
    });
}

#[test]
fn laplacian_of_every_size() {
    every_size("Laplacian", |i, j, _| [2.0, -1.0, 0.0][(i - j).min(2)]);
}

/// H·D·H with the reflector H = I − 2·v·vᵀ/(vᵀ·v): a full matrix whose eigenvalues are those of D.
fn with_spectrum(values: &[f64]) -> Dense {
    let n = values.len();
    let v: Vec<f64> = (0..n).map(|i| 1.0 + noise(i, 3)).collect();
    let square: f64 = v.iter().map(|x| x * x).sum();
    let weighted: f64 = v.iter().zip(values).map(|(x, d)| x * x * d).sum();
    lower(n, |i, j| {
        let diagonal = if i == j { values[i] } else { 0.0 };
        let mixed = 4.0 * v[i] * v[j] * weighted / (square * square);
        diagonal - 2.0 * v[i] * v[j] * (values[i] + values[j]) / square + mixed
    })
}

/// Known eigenvalues at sizes that are reduced in two stages, up to 4096.
#[test]
fn known_spectra_of_large_matrices() {
    for (n, kind) in [(1024, 0), (1025, 1), (1100, 2), (1531, 3), (2048, 4), (4096, 5)] {
        let value = |i: usize| match kind {
            0 => noise(i, 1),
            1 => 0.97f64.powi(i as i32),
            2 => 1.0 + 1e-10 * noise(i, 1),
            3 => f64::from(i.is_multiple_of(7)) * (1.0 + noise(i, 1)),
            4 => {
                if i == 0 {
                    1e6
                } else {
                    1.0 + noise(i, 1)
                }
            }
            _ => ((i + 1) as f64).powf(-0.8),
        };
        let mut expected: Vec<f64> = (0..n).map(value).collect();
        let found = FaerEngine.symmetric_eigenvalues(with_spectrum(&expected).into()).unwrap();
        expected.sort_by(f64::total_cmp);
        close(&found, &expected, n as f64, &format!("kind {kind}"));
    }
}
