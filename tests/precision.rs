//! `--precision fast`: the stated bounds against double precision, over thousands of matrices, and
//! gates that do not depend on it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use common::{matrix, minilm};
use evenkeel::gate::Thresholds;
use evenkeel::metrics::{Estimator, tail};
use evenkeel::report::{Precision, Report};
use evenkeel::spectrum::{Dense, FaerEngine, Method, Spectrum, spectrum};
use evenkeel::{Checkpoint, OpenOptions, Settings, Silent, analyze_gated};

/// A small generator (xorshift64*) of roughly normal numbers.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        let mut sum = -2.0;
        for _ in 0..4 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            sum += (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64;
        }
        sum
    }

    fn matrix(&mut self, rows: usize, cols: usize) -> Dense {
        Dense { data: (0..rows * cols).map(|_| self.next()).collect(), rows, cols }
    }
}

/// What a trained weight may look like: noise, with something on top.
#[derive(Clone, Copy, Debug)]
enum Family {
    Noise,
    Spike,
    Positive,
    LowRank,
    GradedRows,
    PowerLaw,
    Stored,
    Constant,
}

const FAMILIES: [Family; 8] = [
    Family::Noise,
    Family::Spike,
    Family::Positive,
    Family::LowRank,
    Family::GradedRows,
    Family::PowerLaw,
    Family::Stored,
    Family::Constant,
];

fn sample(family: Family, rows: usize, cols: usize, noise: &mut Noise) -> Dense {
    let mut w = noise.matrix(rows, cols);
    let add = |w: &mut Dense, factor: f64, u: &Dense, v: &Dense| {
        for (index, value) in w.data.iter_mut().enumerate() {
            let (i, j) = (index % rows, index / rows);
            let sum: f64 = (0..u.cols).map(|k| u.data[i + k * rows] * v.data[j + k * cols]).sum();
            *value += factor * sum;
        }
    };
    match family {
        Family::Noise => {}
        Family::Spike => add(&mut w, 30.0, &noise.matrix(rows, 1), &noise.matrix(cols, 1)),
        Family::Positive => w.data.iter_mut().for_each(|v| *v += 3.0),
        Family::LowRank => add(&mut w, 5.0, &noise.matrix(rows, 4), &noise.matrix(cols, 4)),
        Family::GradedRows => {
            w.data.iter_mut().enumerate().for_each(|(i, v)| *v *= (1.0 + (i % rows) as f64).powf(-0.7));
        }
        Family::PowerLaw => {
            w.data.iter_mut().enumerate().for_each(|(i, v)| *v *= (1.0 + (i / rows) as f64).powf(-0.4));
        }
        Family::Stored => w.data.iter_mut().for_each(|v| *v = (*v * 128.0).round() / 128.0),
        // All rounding errors of a sum have the same sign: the worst case for a bound by chance.
        Family::Constant => w.data.iter_mut().for_each(|v| *v = 1.0 + 1e-3 * *v),
    }
    w
}

fn by(method: Method, w: &Dense) -> Spectrum {
    spectrum(&FaerEngine, std::iter::once(w), method, false).unwrap()
}

/// The largest |Δλ| and the largest |Δalpha| as shares of their bounds.
fn shares(w: &Dense) -> (f64, f64) {
    let (exact, fast) = (by(Method::Gram, w), by(Method::Single, w));
    assert_eq!(exact.eigenvalues.len(), fast.eigenvalues.len());
    let pairs = exact.eigenvalues.iter().zip(&fast.eigenvalues);
    let moved = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let (exact, found) = (tail::fit(&exact, &Estimator::default()), tail::fit(&fast, &Estimator::default()));
    let alpha = match (exact.alpha, found.alpha) {
        (Some(a), Some(b)) if found.alpha_error <= 1e-4 => (a - b).abs() / found.alpha_error,
        _ => 0.0,
    };
    (moved / fast.error, alpha)
}

#[test]
fn the_bounds_hold_for_thousands_of_matrices() {
    let mut noise = Noise(20_241_012);
    let (mut worst, mut worst_alpha) = ((0.0, String::new()), (0.0, String::new()));
    for round in 0..400 {
        for family in FAMILIES {
            let cols = 8 + (round * 7) % 97;
            let rows = [cols, cols + 9, 3 * cols][round % 3];
            let (moved, alpha) = shares(&sample(family, rows, cols, &mut noise));
            let name = || format!("{family:?} {rows} x {cols}");
            assert!(moved <= 1.0, "{}: {moved} of the bound", name());
            assert!(alpha <= 1.0, "{}: alpha by {alpha} of the bound", name());
            worst = if moved > worst.0 { (moved, name()) } else { worst };
            worst_alpha = if alpha > worst_alpha.0 { (alpha, name()) } else { worst_alpha };
        }
    }
    println!("largest share of the bound: {worst:?}; of that of alpha: {worst_alpha:?}");
    // A bound that nothing comes near would send everything to double precision.
    assert!(worst.0 > 0.05, "{worst:?}");
}

#[test]
fn the_bounds_hold_for_large_matrices() {
    let mut noise = Noise(7);
    for (rows, cols) in [(300, 300), (900, 300), (1100, 1030)] {
        for family in FAMILIES.into_iter().filter(|_| cols < 1000).chain([Family::Spike, Family::PowerLaw]) {
            let (moved, alpha) = shares(&sample(family, rows, cols, &mut noise));
            assert!(moved <= 1.0 && alpha <= 1.0, "{family:?} {rows} x {cols}: {moved}, {alpha}");
        }
    }
}

fn gated(thresholds: &Thresholds) -> Report {
    let checkpoint = Checkpoint::open(&minilm(), &OpenOptions::default()).unwrap();
    let settings = Settings { precision: Precision::Fast, ..Settings::default() };
    analyze_gated(&checkpoint, &settings, thresholds, &Silent).unwrap()
}

#[test]
fn a_real_model_is_right_to_its_bounds() {
    let exact = common::analyze(&minilm(), &Settings::default());
    let fast = gated(&Thresholds::default());
    let singles = fast.matrices.iter().filter(|m| m.precision == Precision::Fast);
    assert!(singles.clone().count() > 30, "single precision serves for most of it");
    for found in singles {
        let expected = matrix(&exact, &found.name);
        assert_eq!(expected.precision, Precision::Exact);
        let difference = |name| (found.metric(name).unwrap() - expected.metric(name).unwrap()).abs();
        let bound = found.alpha_error.unwrap();
        assert!(bound <= 1e-4 && difference("alpha") <= bound, "{}", found.name);
        let bound = found.eigenvalue_error.unwrap();
        assert!(difference("lambda_max") <= bound && difference("lambda_min") <= bound, "{}", found.name);
        assert_eq!((found.tail, found.status), (expected.tail, expected.status));
    }
}

/// A bound a hair above and below the exact number: only double precision can tell.
#[test]
fn a_gate_never_rests_on_single_precision() {
    let exact = common::analyze(&minilm(), &Settings::default());
    let block = exact.blocks.iter().max_by(|a, b| a.alpha.partial_cmp(&b.alpha).unwrap()).unwrap();
    let alpha = block.alpha.unwrap();
    let norms = exact.matrices.iter().filter(|m| m.scheduled).filter_map(|m| m.metric("spectral_norm"));
    let norm = norms.fold(0.0, f64::max);
    let std = exact.stacks[0].alpha_std.unwrap();
    let fast = gated(&Thresholds::default());
    for (hair, passes) in [(1e-12, true), (-1e-12, false)] {
        for thresholds in [
            Thresholds { max_alpha: Some(alpha + hair), ..Thresholds::default() },
            Thresholds { max_alpha_std: Some(std + hair), ..Thresholds::default() },
            Thresholds { max_spectral_norm: Some(norm + hair), ..Thresholds::default() },
        ] {
            let report = gated(&thresholds);
            assert_eq!(report.gate.as_ref().unwrap().passed, passes, "{thresholds:?}");
            // Exactly those that the number depends on were computed again.
            for (found, before) in report.matrices.iter().zip(&fast.matrices) {
                let depends = match (thresholds.max_alpha, thresholds.max_alpha_std) {
                    (Some(_), _) => found.block.as_ref() == Some(&block.name),
                    (_, Some(_)) => found.scheduled,
                    _ => found.metric("spectral_norm") == Some(norm),
                };
                let expected = if depends { Precision::Exact } else { before.precision };
                assert_eq!(found.precision, expected, "{}: {thresholds:?}", found.name);
            }
        }
    }
    // Far from the numbers nothing is computed twice.
    let easy = gated(&Thresholds { max_alpha: Some(2.0 * alpha), ..Thresholds::default() });
    assert!(easy.matrices.iter().zip(&fast.matrices).all(|(a, b)| a.precision == b.precision));
}

/// Eigenvalues over many orders of magnitude: single precision cannot show alpha, and says so.
#[test]
fn what_single_precision_cannot_show_is_computed_exactly() {
    let mut noise = Noise(5);
    let w = sample(Family::Noise, 400, 400, &mut noise);
    let mut graded = w.clone();
    graded.data.iter_mut().enumerate().for_each(|(i, v)| *v *= (1.0 + (i / 400) as f64).powf(-2.5));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    let mut bytes = Vec::new();
    let header = serde_json::json!({
        "layers.0.easy.weight": {"dtype": "F64", "shape": [400, 400], "data_offsets": [0, 1_280_000]},
        "layers.0.hard.weight": {"dtype": "F64", "shape": [400, 400], "data_offsets": [1_280_000, 2_560_000]},
    });
    let header = serde_json::to_vec(&header).unwrap();
    bytes.extend((header.len() as u64).to_le_bytes());
    bytes.extend(header);
    bytes.extend(w.data.iter().chain(&graded.data).flat_map(|v| v.to_le_bytes()));
    std::fs::write(&path, bytes).unwrap();
    let settings = Settings { precision: Precision::Fast, ..Settings::default() };
    let report = common::analyze(&path, &settings);
    assert_eq!(matrix(&report, "layers.0.easy.weight").precision, Precision::Fast);
    let hard = matrix(&report, "layers.0.hard.weight");
    assert_eq!(hard.precision, Precision::Exact);
    let exact = common::analyze(&path, &Settings::default());
    assert_eq!(hard, matrix(&exact, "layers.0.hard.weight"));
}
