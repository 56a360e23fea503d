//! Neural operators against PyTorch: `fixtures/trainer/operators/`, made by fixtures/trainer_operators.py, and
//! what is written of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use evenkeel::rebalance::fields::{Fields, Init};
use evenkeel::rebalance::options::{Choice, Subsample};
use evenkeel::source::OperatorKind;
use evenkeel::{Checkpoint, OpenOptions, Settings, Silent, analyze};
use evenkeel_trainer::operators::{Config, Network, Source};
use evenkeel_trainer::pde::Pde;
use evenkeel_trainer::training::Problem;
use serde_json::Value;
use tch::{Device, Kind, Tensor};

mod trajectories;

/// Of losses, gradients and errors, in single precision.
const TOLERANCE: f64 = 1e-4;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/trainer")
}

fn expected() -> Value {
    serde_json::from_slice(&fs::read(fixtures().join("operators/expected.json")).unwrap()).unwrap()
}

fn fields(train: PathBuf) -> Fields {
    Fields {
        train,
        eval: None,
        test_samples: Some(1),
        init: None,
        initial_steps: None,
        reduce_space: 1,
        reduce_time: 1,
        subsample: Subsample { ratio: 1.0, choice: Choice::Stride },
        pictures: 0,
    }
}

/// PDEBench's file of a model, with the data that it is for.
fn reference(name: &str) -> Pde {
    let set = if name.ends_with("1d") { "flow1d.h5" } else { "flow2d.h5" };
    let data = fields(fixtures().join("fields").join(set));
    let model = fixtures().join(format!("operators/{name}.pt"));
    let options = trajectories::options(Some(model), Path::new("unused"), data.clone());
    Pde::open(&options, &data, Device::Cpu).unwrap().0
}

fn close(found: f64, wanted: f64, scale: f64) -> bool {
    (found - wanted).abs() <= TOLERANCE * scale.max(1.0)
}

/// The norm of some numbers, and two of them.
fn assert_summary(numbers: &Tensor, wanted: &Value, what: &str) {
    let numbers: Vec<f64> = Vec::try_from(&numbers.detach().to_kind(Kind::Double).reshape([-1])).unwrap();
    let norm = wanted["norm"].as_f64().unwrap();
    let found = numbers.iter().map(|x| x * x).sum::<f64>().sqrt();
    assert!(close(found, norm, norm), "{what}: norm {found}, not {norm}");
    for entry in wanted["at"].as_array().unwrap() {
        let (at, wanted) = (entry[0].as_u64().unwrap() as usize, entry[1].as_f64().unwrap());
        assert!(close(numbers[at], wanted, norm), "{what}[{at}]: {}, not {wanted}", numbers[at]);
    }
}

const KINDS: [&str; 4] = ["fno1d", "fno2d", "unet1d", "unet2d"];

#[test]
fn losses_gradients_and_errors_are_pytorchs() {
    let expected = expected();
    for name in KINDS {
        let (pde, wanted) = (reference(name), &expected[name]);
        let scores = pde.evaluate(&mut |_, _| {}).unwrap();
        let errors = wanted["errors"].as_object().unwrap();
        assert_eq!(scores.len(), errors.len());
        for score in &scores {
            let wanted = errors[&score.name].as_f64().unwrap();
            assert!(close(score.value, wanted, wanted), "{name}: {} {}", score.name, score.value);
        }
        let loss = pde.loss(&(0..pde.examples()).collect::<Vec<_>>()).unwrap();
        loss.f_backward().unwrap();
        let (loss, wanted_loss) = (loss.double_value(&[]), wanted["loss"].as_f64().unwrap());
        assert!(close(loss, wanted_loss, wanted_loss), "{name}: loss {loss}, not {wanted_loss}");
        let gradients = wanted["gradients"].as_object().unwrap();
        assert_eq!(gradients.len(), pde.parameters().len());
        for parameter in pde.parameters() {
            let what = format!("{name}: {}", parameter.name);
            assert_summary(&parameter.tensor.grad(), &gradients[&parameter.name], &what);
        }
        let buffers = wanted["buffers"].as_object().unwrap();
        assert_eq!(buffers.len(), pde.buffers().len());
        for (buffer, values) in pde.buffers() {
            assert_summary(values, &buffers[buffer], &format!("{name}: {buffer}"));
        }
    }
}

fn init(kind: OperatorKind) -> Init {
    Init { kind, width: 20, modes: 12, features: 32, levels: 4 }
}

fn random(kind: OperatorKind, channels: usize, seed: u64) -> Network {
    Network::random(Config::new(&init(kind), 10 * channels, channels), seed, Device::Cpu).unwrap()
}

fn numbers(network: &Network) -> BTreeMap<String, Vec<f32>> {
    let parameters = network.parameters().iter().map(|p| (p.name.clone(), &p.tensor));
    let buffers = network.buffers().iter().map(|(name, tensor)| (name.clone(), tensor));
    let flat = |tensor: &Tensor| Vec::try_from(&tensor.detach().to_kind(Kind::Float).reshape([-1])).unwrap();
    parameters.chain(buffers).map(|(name, tensor)| (name, flat(tensor))).collect()
}

#[test]
fn sizes_are_the_papers() {
    let paper = expected()["paper"]["parameters"].as_u64().unwrap();
    assert_eq!(random(OperatorKind::Fno2d, 4, 1).size() as u64, paper);
    assert_eq!(paper, 466_544);
    for name in KINDS {
        let source = Source::open(&fixtures().join(format!("operators/{name}.pt"))).unwrap();
        assert_eq!(source.config().kind().name(), name);
        let size = source.load(Device::Cpu).unwrap().size() as u64;
        assert_eq!(size, expected()[name]["parameters"].as_u64().unwrap(), "{name}");
    }
}

#[test]
fn weights_begin_by_the_seed_and_as_described() {
    let (one, again, other) = (
        random(OperatorKind::Fno2d, 4, 7),
        random(OperatorKind::Fno2d, 4, 7),
        random(OperatorKind::Fno2d, 4, 8),
    );
    let of = numbers(&one);
    assert!(of == numbers(&again) && of != numbers(&other));
    // Even in an interval: its ends are nearly met, and its middle is the mean.
    let interval = |name: &str, low: f32, high: f32| {
        let values = &of[name];
        let (least, most) = values.iter().fold((f32::MAX, f32::MIN), |(a, b), x| (a.min(*x), b.max(*x)));
        let (mean, width) = (values.iter().sum::<f32>() / values.len() as f32, high - low);
        assert!(low <= least && most <= high && most - least > 0.9 * width, "{name}: {least} … {most}");
        assert!((mean - (low + high) / 2.0).abs() < 0.1 * width, "{name}: {mean}");
    };
    interval("conv0.weights1", 0.0, 1.0 / 400.0);
    let bound = 1.0 / 42f32.sqrt();
    interval("fc0.weight", -bound, bound);
    interval("fc1.weight", -(1.0 / 20f32.sqrt()), 1.0 / 20f32.sqrt());
    assert_ne!(of["conv0.weights1"], of["conv0.weights2"]);
    let unet = numbers(&random(OperatorKind::Unet1d, 3, 7));
    assert!(unet["encoder1.enc1norm1.weight"].iter().all(|x| *x == 1.0));
    assert!(unet["bottleneck.bottlenecknorm2.running_mean"].iter().all(|x| *x == 0.0));
}

/// What is written is read again to the bit, and an audit of it knows what it is.
#[test]
fn a_directory_holds_all_of_it() {
    for (kind, channels) in [(OperatorKind::Fno2d, 4), (OperatorKind::Unet2d, 4), (OperatorKind::Fno1d, 3)] {
        let directory = tempfile::tempdir().unwrap();
        let network = random(kind, channels, 3);
        network.write(directory.path()).unwrap();
        let again = Source::open(directory.path()).unwrap();
        assert_eq!(again.config(), network.config());
        assert!(numbers(&again.load(Device::Cpu).unwrap()) == numbers(&network));

        let checkpoint = Checkpoint::open(directory.path(), &OpenOptions::default()).unwrap();
        let report = analyze(&checkpoint, &Settings::default(), &Silent).unwrap();
        let report = serde_json::to_value(&report).unwrap();
        assert_eq!(report["checkpoint"]["architecture"], kind.name());
        assert_eq!(
            (report["settings"]["granularity"].as_str(), report["settings"]["min_eigenvalues"].as_u64()),
            (Some("layer"), Some(12))
        );
        let scheduled: Vec<&str> = report["matrices"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|m| m["scheduled"] == true)
            .map(|m| m["name"].as_str().unwrap())
            .collect();
        if kind == OperatorKind::Fno2d {
            // The last matrix has four eigenvalues; spectral weights are taken on request.
            let all = ["fc0", "fc1", "w0", "w1", "w2", "w3"].map(|name| format!("{name}.weight"));
            assert_eq!(scheduled, all);
            let settings = Settings { spectral_weights: true, ..Settings::default() };
            let more = analyze(&checkpoint, &settings, &Silent).unwrap();
            assert_eq!(more.matrices.iter().filter(|m| m.scheduled).count(), 6 + 8);
        }
    }
}

#[test]
fn what_is_no_operator_is_refused() {
    let refused = |edit: &dyn Fn(&Path)| {
        let directory = tempfile::tempdir().unwrap();
        random(OperatorKind::Fno1d, 3, 1).write(directory.path()).unwrap();
        edit(directory.path());
        let opened = Source::open(directory.path()).and_then(|source| source.load(Device::Cpu));
        opened.unwrap_err().to_string()
    };
    let config =
        |text: &'static str| move |directory: &Path| fs::write(directory.join("config.json"), text).unwrap();
    let cases: [(&str, &str); 5] = [
        (r#"{"model_type": "bert"}"#, "`bert`, not fno1d"),
        (r#"{"model_type": "fno1d", "in_channels": 30, "out_channels": 3, "width": 20}"#, "no `modes`"),
        (
            r#"{"model_type": "fno1d", "in_channels": 30, "out_channels": 3, "width": 21, "modes": 12}"#,
            "the tensor `fc0.weight` has the shape [20, 31], and the model's sizes make it [21, 31]",
        ),
        (
            r#"{"model_type": "unet1d", "in_channels": 30, "out_channels": 3, "features": 32, "levels": 4}"#,
            "`encoder1.enc1conv1.weight` is missing",
        ),
        (
            r#"{"model_type": "unet1d", "in_channels": 30, "out_channels": 3, "features": 32, "levels": 40}"#,
            "40 levels",
        ),
    ];
    for (text, wanted) in cases {
        let message = refused(&config(text));
        assert!(message.contains(wanted), "{message}");
    }
    let other = fixtures().join("../trainer/fields/nan.h5");
    assert!(Source::open(&other).is_err());
}
