//! What must hold for any matrix and any checkpoint.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use evenkeel::metrics::{Estimator, Fit, tail};
use evenkeel::spectrum::{Dense, Engine, FaerEngine, Method, Spectrum, spectrum};
use evenkeel::{Checkpoint, OpenOptions, Settings, Silent, Thresholds};
use proptest::prelude::*;
use serde_json::json;

fn of(matrix: &Dense, method: Method) -> Spectrum {
    spectrum(&FaerEngine, std::iter::once(matrix), method, false).unwrap()
}

fn hill(spectrum: &Spectrum) -> Fit {
    tail::fit(spectrum, &Estimator::default())
}

/// The error of squared singular values: 4·√(2n)·ε·σ_max on each σ, twice that share on its square.
fn svd_error(spectrum: &Spectrum) -> f64 {
    let values = &spectrum.eigenvalues;
    8.0 * (2.0 * values.len() as f64).sqrt() * f64::EPSILON * values.last().copied().unwrap_or(0.0)
}

/// Matrices with a few large rows, so that their spectra are not all alike.
fn matrices() -> impl Strategy<Value = Dense> {
    (2usize..40, 2usize..40, any::<u64>(), 0.0f64..3.0).prop_map(|(rows, cols, seed, slope)| {
        let mut state = seed | 1;
        let mut noise = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
        };
        let mut matrix = Dense::zeros(rows, cols);
        for (i, value) in matrix.data.iter_mut().enumerate() {
            *value = noise() * ((i % rows + 1) as f64).powf(-slope);
        }
        matrix
    })
}

fn transposed(matrix: &Dense) -> Dense {
    let mut result = Dense::zeros(matrix.cols, matrix.rows);
    for i in 0..matrix.rows {
        for j in 0..matrix.cols {
            result.data[j + i * matrix.cols] = matrix.data[i + j * matrix.rows];
        }
    }
    result
}

/// W less twice its projection on a direction: a reflection of the columns' space.
fn reflected(matrix: &Dense) -> Dense {
    let direction: Vec<f64> = (0..matrix.rows).map(|i| 1.0 + (i % 3) as f64).collect();
    let norm: f64 = direction.iter().map(|v| v * v).sum();
    let mut result = matrix.clone();
    for column in result.data.chunks_mut(matrix.rows) {
        let dot: f64 = column.iter().zip(&direction).map(|(a, b)| a * b).sum();
        column.iter_mut().zip(&direction).for_each(|(a, b)| *a -= 2.0 * dot / norm * b);
    }
    result
}

fn close(a: &Fit, b: &Fit) -> bool {
    match (a.alpha, b.alpha) {
        (Some(x), Some(y)) => (x - y).abs() <= 1e-9 * x + a.alpha_error + b.alpha_error,
        _ => a.status == b.status,
    }
}

proptest! {
    #[test]
    fn alpha_is_unchanged_by_scaling(matrix in matrices(), exponent in -95i32..95) {
        let mut scaled = matrix.clone();
        scaled.data.iter_mut().for_each(|value| *value *= 10f64.powi(exponent));
        prop_assert!(close(&hill(&of(&matrix, Method::Gram)), &hill(&of(&scaled, Method::Gram))));
    }

    #[test]
    fn alpha_is_unchanged_by_transposition(matrix in matrices()) {
        let other = transposed(&matrix);
        prop_assert!(close(&hill(&of(&matrix, Method::Gram)), &hill(&of(&other, Method::Gram))));
    }

    #[test]
    fn alpha_is_unchanged_by_a_reflection(matrix in matrices()) {
        let other = reflected(&matrix);
        prop_assert!(close(&hill(&of(&matrix, Method::Gram)), &hill(&of(&other, Method::Gram))));
    }

    /// The stated error of the Gram path bounds its distance from singular values.
    #[test]
    fn gram_eigenvalues_are_within_their_error(matrix in matrices()) {
        let fast = of(&matrix, Method::Gram);
        let exact = of(&matrix, Method::Svd);
        for (a, b) in fast.eigenvalues.iter().zip(&exact.eigenvalues) {
            prop_assert!((a - b).abs() <= fast.error + svd_error(&exact), "{} against {}, error {}", a, b, fast.error);
        }
        let sum: f64 = matrix.data.iter().map(|v| v * v).sum();
        let trace: f64 = fast.eigenvalues.iter().sum();
        prop_assert!((sum - trace).abs() <= 1e-12 * sum);
    }

    /// The order of the tensors in the file changes no byte of the report.
    #[test]
    fn the_report_does_not_depend_on_the_order_of_tensors(order in Just((0..12).collect::<Vec<usize>>()).prop_shuffle()) {
        let sorted: Vec<usize> = (0..12).collect();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let mut reports = Vec::new();
        for order in [&sorted, &order] {
            std::fs::write(&path, checkpoint(order)).unwrap();
            let checkpoint = Checkpoint::open(&path, &OpenOptions::default()).unwrap();
            let settings = Settings { min_eigenvalues: Some(4), ..Settings::default() };
            reports.push(evenkeel::analyze(&checkpoint, &settings, &Silent).unwrap());
        }
        prop_assert_eq!(reports[0].summary.blocks, 6);
        prop_assert!(reports[0].summary.alpha_std.is_some());
        prop_assert_eq!(&reports[0], &reports[1]);
    }
}

/// Six blocks of two 8 × 6 layers, written in this order; a tensor's values depend on its name.
fn checkpoint(order: &[usize]) -> Vec<u8> {
    let mut header = String::from("{");
    let mut data = Vec::new();
    for (position, tensor) in order.iter().enumerate() {
        let (start, comma) = (data.len(), if position > 0 { "," } else { "" });
        let value = |i: usize| (((i * 37 + tensor * 101) % 29) as f32 - 14.0) * 0.1;
        data.extend((0..48).flat_map(|i| value(i).to_le_bytes()));
        let entry = json!({"dtype": "F32", "shape": [8, 6], "data_offsets": [start, data.len()]});
        header.push_str(&format!("{comma}\"net.{}.fc{}.weight\":{entry}", tensor / 2, tensor % 2));
    }
    header.push('}');
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

/// Many sizes, among them one beyond the limit where a matrix is computed by all threads.
#[test]
fn eigenvalues_do_not_depend_on_the_number_of_threads() {
    for n in [60, 300, 1100, 1600] {
        let mut matrix = Dense::zeros(n, n);
        let value = |i: usize| ((i * 7919) % 1013) as f64 / 1013.0 - 0.5;
        matrix.data.iter_mut().enumerate().for_each(|(i, v)| *v = value(i));
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| of(&matrix, Method::Gram).eigenvalues)
        };
        let one = with(1);
        assert_eq!(one, with(2), "{n}");
        assert_eq!(one, with(5), "{n}");
    }
}

#[test]
fn eigenvalues_of_every_small_size() {
    for n in 1..=130 {
        let mut matrix = Dense::zeros(n, n);
        let value = |i: usize| ((i * 31 + n * 17) % 41) as f64 - 20.0;
        matrix.data.iter_mut().enumerate().for_each(|(i, v)| *v = value(i));
        let (fast, exact) = (of(&matrix, Method::Gram), of(&matrix, Method::Svd));
        assert_eq!(fast.eigenvalues.len(), n);
        for (a, b) in fast.eigenvalues.iter().zip(&exact.eigenvalues) {
            assert!(
                (a - b).abs() <= fast.error + svd_error(&exact),
                "{n}: {a} against {b}, error {}",
                fast.error
            );
        }
    }
}

#[test]
fn an_engine_takes_the_smallest_matrices() {
    let found = FaerEngine.symmetric_eigenvalues(Dense { data: vec![4.0], rows: 1, cols: 1 }.into());
    assert_eq!(found, Ok(vec![4.0]));
}

#[test]
fn thresholds_hold_where_the_value_is_the_bound() {
    let report = common::analyze(&common::fixture("silero-vad"), &Settings::default());
    let value = report.stacks[0].alpha_std;
    let gate = Thresholds { max_alpha_std: value, ..Thresholds::default() }.check(&report).unwrap().unwrap();
    assert!(gate.passed);
    assert_eq!(Thresholds::default().check(&report).unwrap(), None);
}
