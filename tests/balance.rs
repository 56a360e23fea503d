//! Weights in memory give the numbers of weights in a file, whichever of them are measured; and who
//! shares a learning rate on real models.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::path::Path;

use common::{fixture, minilm};
use evenkeel::analysis::Frozen;
use evenkeel::balance::{Mapping, Measure, Plan, Spectra, UnitOptions, spread};
use evenkeel::source::ModelConfig;
use evenkeel::tensors::Dtype;
use evenkeel::{Checkpoint, Granularity, OpenOptions, Report, Settings, Silent, analyze};

type Tensors = Vec<(String, Dtype, Vec<usize>, Vec<u8>)>;

/// The tensors of a file, as a model in training would hand them over, in another order.
fn tensors(path: &Path, wanted: impl Fn(&str) -> bool) -> (Option<ModelConfig>, Tensors) {
    let checkpoint = Checkpoint::open(path, &OpenOptions::default()).unwrap();
    let chosen = checkpoint.tensors().iter().rev().filter(|tensor| wanted(&tensor.name));
    let of = |t: &evenkeel::tensors::Tensor| {
        (t.name.clone(), t.dtype, t.shape.clone(), checkpoint.read(t, 0..t.elements).unwrap().into_owned())
    };
    (checkpoint.config().cloned(), chosen.map(of).collect())
}

fn in_memory(path: &Path, wanted: impl Fn(&str) -> bool) -> Checkpoint {
    let (config, tensors) = tensors(path, wanted);
    Checkpoint::in_memory(config, tensors).unwrap()
}

fn report(checkpoint: &Checkpoint) -> Report {
    analyze(checkpoint, &Settings::default(), &Silent).unwrap()
}

#[test]
fn memory_gives_the_numbers_of_the_file() {
    for path in [fixture("silero-vad"), minilm()] {
        let of_file = report(&Checkpoint::open(&path, &OpenOptions::default()).unwrap());
        let mut of_memory = report(&in_memory(&path, |_| true));
        assert_eq!(of_memory.checkpoint.format, "in-memory checkpoint");
        of_memory.checkpoint.path.clone_from(&of_file.checkpoint.path);
        of_memory.checkpoint.format = of_file.checkpoint.format;
        of_memory.checkpoint.files.clone_from(&of_file.checkpoint.files);
        // Numbers are compared by their bits.
        assert_eq!(format!("{of_memory:?}"), format!("{of_file:?}"));
    }
}

#[test]
fn a_part_is_measured_as_in_the_whole() {
    // silero has a fused LSTM, which is split by the shape of another tensor.
    for (path, part) in [(fixture("silero-vad"), "weight_ih"), (minilm(), "layer.3.attention")] {
        let whole = in_memory(&path, |_| true);
        let frozen = Frozen::new(&whole, &Settings::default()).unwrap();
        let mut spectra = Spectra::of(&report(&whole), 0);
        let before = spectra.clone();
        let subset = in_memory(&path, |name| name.contains(part));
        let found = frozen.measure(&subset).unwrap();
        assert!(!found.is_empty() && found.len() < before.iter().count());
        spectra.update(7, &found);
        let (mut newer, mut older) = (0, 0);
        for ((name, now), (_, then)) in spectra.iter().zip(before.iter()) {
            if name.contains(part) {
                assert_eq!(now.step, 7);
                newer += 1;
            } else {
                assert_eq!(now.step, 0);
                older += 1;
            }
            let same = evenkeel::balance::Numbers { step: then.step, ..now.clone() };
            assert_eq!(format!("{same:?}"), format!("{then:?}"), "{name}");
        }
        assert_eq!((newer, newer + older), (found.len(), before.iter().count()));
    }
}

#[test]
fn a_tensor_keeps_its_shape() {
    let whole = in_memory(&fixture("silero-vad"), |_| true);
    let frozen = Frozen::new(&whole, &Settings::default()).unwrap();
    let name = frozen.tensors().next().unwrap().to_owned();
    let other = Checkpoint::in_memory(None, vec![(name, Dtype::F32, vec![60, 60], vec![0; 14400])]).unwrap();
    assert!(frozen.measure(&other).unwrap_err().to_string().contains("another type or shape"));
    assert!(frozen.measure(&in_memory(&fixture("silero-vad"), |_| false)).unwrap().is_empty());
}

/// The parameters of a classifier on MiniLM: those of the checkpoint, and a new head.
fn parameters() -> Vec<String> {
    let mut names: Vec<String> =
        tensors(&minilm(), |name| !name.contains("position_ids")).1.into_iter().map(|t| t.0).collect();
    names.extend(["classifier.weight".to_owned(), "classifier.bias".to_owned()]);
    names
}

fn plan(report: &Report, options: &UnitOptions) -> (Plan, Vec<String>) {
    let names = parameters();
    let borrowed: Vec<&str> = names.iter().map(String::as_str).collect();
    (Plan::new(report, &borrowed, options).unwrap(), names)
}

#[test]
fn by_block_all_tensors_of_a_block_share_a_rate() {
    let whole = in_memory(&minilm(), |_| true);
    let report = report(&whole);
    let (plan, names) = plan(&report, &UnitOptions::default());
    assert_eq!(plan.units.len(), 6);
    assert!(plan.units.iter().all(|u| u.matrices.len() == 6 && u.tensors.len() == 6 && !u.excluded));
    assert!(plan.units.iter().map(|u| &u.name).eq(report.blocks.iter().map(|b| &b.name)));
    for (name, unit) in names.iter().zip(&plan.of_parameter) {
        let digit = name.split_once("layer.").and_then(|(_, rest)| rest.split('.').next()?.parse().ok());
        assert_eq!(*unit, digit, "{name}");
    }
    let spectra = Spectra::of(&report, 0);
    let alphas = plan.values(Measure::Alpha, &spectra);
    assert!(alphas.iter().copied().eq(report.blocks.iter().map(|b| b.alpha)));
    let norms = plan.values(Measure::SpectralNorm, &spectra);
    assert!(norms.iter().copied().eq(report.blocks.iter().map(|b| b.spectral_norm)));
    assert_eq!(spread(&alphas), report.summary.alpha_std);
    assert!((spread(&alphas).unwrap() - 0.050663).abs() < 1e-6);
    let factors = plan.factors(&Mapping::default(), &alphas, (1.25, 1.25), None).unwrap();
    let metrics: Vec<f64> = alphas.iter().flatten().copied().collect();
    assert_eq!(factors, Mapping::default().factors(&metrics, (1.25, 1.25), None).unwrap());
}

#[test]
fn by_layer_a_bias_goes_with_its_weight_and_norms_keep_the_base_rate() {
    let settings = Settings { granularity: Some(Granularity::Layer), ..Settings::default() };
    let report = analyze(&in_memory(&minilm(), |_| true), &settings, &Silent).unwrap();
    let (plan, names) = plan(&report, &UnitOptions::default());
    assert_eq!(plan.units.len(), 36);
    assert_eq!(plan.units[35].name, "encoder.layer.5.output.dense.weight");
    let unit_of = |name: &str| plan.of_parameter[names.iter().position(|n| n == name).unwrap()];
    let query = "encoder.layer.2.attention.self.query";
    let unit = unit_of(&format!("{query}.weight")).unwrap();
    assert_eq!(plan.units[unit].name, format!("{query}.weight"));
    assert_eq!(unit_of(&format!("{query}.bias")), Some(unit));
    for name in ["encoder.layer.2.output.LayerNorm.weight", "pooler.dense.weight", "classifier.weight"] {
        assert_eq!(unit_of(name), None, "{name}");
    }
    assert_eq!(plan.of_parameter.iter().flatten().count(), 72);
}

/// A head for questions is too small for an alpha, so that the last layer that has one is in the last block: the
/// authors' scripts leave out that one.
#[test]
fn no_block_is_left_out_for_a_head() {
    let (config, mut tensors) = tensors(&minilm(), |name| !name.contains("pooler"));
    for (part, shape) in [("weight", vec![2, 384]), ("bias", vec![2])] {
        let bytes = vec![0x3d; 4 * shape.iter().product::<usize>()];
        tensors.push((format!("qa_outputs.{part}"), Dtype::F32, shape, bytes));
    }
    let names: Vec<String> = tensors.iter().map(|tensor| tensor.0.clone()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let checkpoint = Checkpoint::in_memory(config, tensors).unwrap();
    for (granularity, units) in [(Granularity::Block, 6), (Granularity::Layer, 36)] {
        let settings = Settings { granularity: Some(granularity), ..Settings::default() };
        let report = analyze(&checkpoint, &settings, &Silent).unwrap();
        for exclude_last in [false, true] {
            let options = UnitOptions { exclude_last, ..UnitOptions::default() };
            let plan = Plan::new(&report, &names, &options).unwrap();
            assert_eq!(plan.units.len(), units);
            assert!(plan.units.iter().all(|unit| !unit.excluded), "{granularity:?} {exclude_last}");
        }
    }
}

/// Models that are no transformers have layers outside of blocks: the last of them can be left out.
#[test]
fn a_last_layer_outside_all_blocks_can_be_left_out() {
    let mut state = 3_u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as f32 / (1_u64 << 31) as f32 - 0.5
    };
    let layer = |name: &str| {
        let bytes = (0..64 * 64).map(|_| next()).flat_map(f32::to_le_bytes).collect();
        (format!("{name}.weight"), Dtype::F32, vec![64, 64], bytes)
    };
    let tensors: Tensors = ["encode", "mix", "project"].map(layer).into();
    let settings = Settings { granularity: Some(Granularity::Layer), ..Settings::default() };
    let report = analyze(&Checkpoint::in_memory(None, tensors).unwrap(), &settings, &Silent).unwrap();
    let names: Vec<&str> = report.matrices.iter().map(|matrix| matrix.name.as_str()).collect();
    assert_eq!(names, ["encode.weight", "mix.weight", "project.weight"]);
    for exclude_last in [false, true] {
        let options = UnitOptions { exclude_last, ..UnitOptions::default() };
        let plan = Plan::new(&report, &names, &options).unwrap();
        let left_out: Vec<&str> = plan.units.iter().filter(|u| u.excluded).map(|u| u.name.as_str()).collect();
        assert_eq!(left_out.len(), usize::from(exclude_last));
        assert_eq!(exclude_last, plan.units.last().unwrap().excluded);
    }
}

#[test]
fn excluded_blocks_keep_the_base_rate_and_are_named_where_none_fits() {
    let report = report(&in_memory(&minilm(), |_| true));
    let exclude = |pattern: &str| UnitOptions { exclude: vec![pattern.to_owned()], ..UnitOptions::default() };
    let (plan, names) = plan(&report, &exclude("*.layer.[01]"));
    let alphas = plan.values(Measure::Alpha, &Spectra::of(&report, 0));
    let factors = plan.factors(&Mapping::default(), &alphas, (6.0, 6.0), None).unwrap();
    assert_eq!(factors[..2], [1.0, 1.0]);
    let rest: Vec<f64> = alphas[2..].iter().flatten().copied().collect();
    assert_eq!(factors[2..], Mapping::default().factors(&rest, (6.0, 6.0), None).unwrap());
    let borrowed: Vec<&str> = names.iter().map(String::as_str).collect();
    let error = Plan::new(&report, &borrowed, &exclude("*.layer.9")).unwrap_err().to_string();
    assert!(error.contains("`encoder.layer.0`, `encoder.layer.1`"), "{error}");
}

#[test]
fn the_parts_of_a_fused_tensor_are_one_unit() {
    let path = fixture("silero-vad");
    let checkpoint = in_memory(&path, |_| true);
    let granularity = Some(Granularity::Layer);
    let settings = Settings { min_eigenvalues: Some(12), granularity, ..Settings::default() };
    let report = analyze(&checkpoint, &settings, &Silent).unwrap();
    let names: Vec<&str> = checkpoint.tensors().iter().map(|t| t.name.as_str()).collect();
    let plan = Plan::new(&report, &names, &UnitOptions::default()).unwrap();
    let fused = plan.units.iter().find(|unit| unit.name.contains("weight_ih")).unwrap();
    assert_eq!((fused.matrices.len(), fused.tensors.len()), (4, 1));
    let position = plan.units.iter().position(|unit| unit == fused);
    let bias = names.iter().position(|name| name.contains("bias_ih")).unwrap();
    assert_eq!(plan.of_parameter[bias], position);
}
