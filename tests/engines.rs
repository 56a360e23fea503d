//! The second engine, LAPACK, against the first, on real and on adversarial matrices.
#![cfg(feature = "lapack")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

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

/// Beyond the size where the first engine reduces in two stages: every eigenvalue within n·ε·λ_max.
#[test]
fn large_matrices() {
    use evenkeel::spectrum::{Dense, Engine, FaerEngine, LapackEngine};
    let n = 1100;
    let random = |i: usize, j: usize| ((i * 7919 + j * 104_729) % 10_007) as f64 / 10_007.0 - 0.5;
    let graded = |i: usize, j: usize| random(i, j) * 0.98f64.powi((i.max(j)) as i32);
    let spiked = |i: usize, j: usize| random(i, j) + 1000.0;
    let banded = |i: usize, j: usize| if i - j < 3 { random(i, j) } else { 0.0 };
    let matrices: [&dyn Fn(usize, usize) -> f64; 4] = [&random, &graded, &spiked, &banded];
    for (which, element) in matrices.iter().enumerate() {
        let mut matrix = Dense::zeros(n, n);
        for (index, value) in matrix.data.iter_mut().enumerate() {
            let (i, j) = (index % n, index / n);
            *value = if i >= j { element(i, j) } else { 0.0 };
        }
        let found = FaerEngine.symmetric_eigenvalues(matrix.clone()).unwrap();
        let expected = LapackEngine::new().symmetric_eigenvalues(matrix).unwrap();
        let norm = expected.iter().fold(0.0, |max: f64, v| max.max(v.abs()));
        let largest = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(largest <= n as f64 * f64::EPSILON * norm, "matrix {which}: {largest:e}, norm {norm:e}");
    }
}

/// Families of matrices with difficult spectra, at many sizes: all eigenvalues within n·ε·λ_max.
#[test]
fn difficult_spectra_of_many_sizes() {
    use evenkeel::spectrum::{Dense, Engine, FaerEngine, LapackEngine};
    let random = |i: usize, j: usize| ((i * 7919 + j * 104_729) % 10_007) as f64 / 10_007.0 - 0.5;
    let laplacian = |i: usize, j: usize| [2.0, -1.0, 0.0][(i - j).min(2)];
    let wilkinson = |i: usize, j: usize, n: usize| match i - j {
        0 => (i as f64 - (n as f64 - 1.0) / 2.0).abs(),
        1 => 1.0,
        _ => 0.0,
    };
    let clustered = |i: usize, j: usize| f64::from(i == j) + 1e-10 * random(i, j);
    let graded = |i: usize, j: usize| random(i, j) * 0.8f64.powi((i + j) as i32 / 2);
    let rank_three = |i: usize, j: usize| ((i % 3 == j % 3) as usize * (1 + i % 3)) as f64;
    let second = LapackEngine::new();
    for n in (1..60).chain([64, 97, 128, 200, 300]) {
        let families: [&dyn Fn(usize, usize) -> f64; 6] =
            [&random, &laplacian, &|i, j| wilkinson(i, j, n), &clustered, &graded, &rank_three];
        for (which, element) in families.iter().enumerate() {
            let mut matrix = Dense::zeros(n, n);
            for (index, value) in matrix.data.iter_mut().enumerate() {
                let (i, j) = (index % n, index / n);
                *value = if i >= j { element(i, j) } else { 0.0 };
            }
            let found = FaerEngine.symmetric_eigenvalues(matrix.clone()).unwrap();
            let expected = second.symmetric_eigenvalues(matrix).unwrap();
            let norm = expected.iter().fold(0.0, |max: f64, v| max.max(v.abs()));
            let largest = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            // LAPACK's own error is of the same size: a few units where n alone would allow one.
            let allowed = (n as f64).max(8.0) * f64::EPSILON * norm;
            assert!(largest <= allowed, "family {which}, n = {n}: {largest:e}, norm {norm:e}");
        }
    }
}
