//! Ten steps of each optimizer against PyTorch, transformers and SAM's formulas (fixtures/trainer_optimizers.py),
//! and what must hold without a reference.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::Path;

use evenkeel_trainer::optimizer::{
    AdafactorSettings, AdamSettings, Optimizer, SamSettings, Settings, SgdSettings, clip, zero_grad,
};
use evenkeel_trainer::training::Parameter;
use serde_json::Value;
use tch::{Device, Kind, Tensor};

const STEPS: u64 = 10;

type State = Vec<(String, Tensor)>;

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn reference() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/trainer/optimizers.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn parameter(tensor: Tensor) -> Parameter {
    Parameter {
        name: "w".to_owned(),
        tensor: tensor.set_requires_grad(true),
        decays: true,
        is_complex: false,
    }
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    let tensor = tensor.detach();
    let real = if tensor.is_complex() { tensor.view_as_real() } else { tensor };
    Vec::<f32>::try_from(real.reshape([-1])).unwrap()
}

fn copied(state: State) -> State {
    state.into_iter().map(|(name, tensor)| (name, tensor.copy())).collect()
}

/// The fixture's problem, with its complex parameter, the last, or without.
struct Small {
    inputs: Tensor,
    parameters: Vec<Parameter>,
    scales: Vec<f64>,
}

impl Small {
    fn new(reference: &Value, complex: bool) -> Small {
        let inputs = Tensor::from_slice(&numbers(&reference["inputs"])).to_kind(Kind::Float).reshape([8, 4]);
        let (mut parameters, mut scales) = (Vec::new(), Vec::new());
        for described in reference["parameters"].as_array().unwrap() {
            let mut shape: Vec<i64> = numbers(&described["shape"]).iter().map(|&size| size as i64).collect();
            let is_complex = described["complex"].as_bool().unwrap();
            if is_complex && !complex {
                continue;
            }
            if is_complex {
                shape.push(2);
            }
            let values =
                Tensor::from_slice(&numbers(&described["values"])).to_kind(Kind::Float).reshape(&shape);
            parameters.push(Parameter {
                name: described["name"].as_str().unwrap().to_owned(),
                decays: described["decays"].as_bool().unwrap(),
                is_complex: false,
                ..parameter(if is_complex { values.view_as_complex() } else { values })
            });
            scales.push(described["scale"].as_f64().unwrap());
        }
        Small { inputs, parameters, scales }
    }

    fn loss(&self, step: u64) -> Tensor {
        let at = |place: usize| &self.parameters[place].tensor;
        let hidden = (self.inputs.matmul(&at(0).transpose(0, 1)) + at(1)).tanh();
        let heads = self.inputs.matmul(&at(2).reshape([6, 4]).transpose(0, 1)).cos();
        let sum = |tensor: &Tensor| tensor.sum_dim_intlist(1, false, None);
        let mut value = (sum(&hidden) + sum(&heads) - 1).square().mean(None);
        if self.parameters.len() > 4 {
            let product = self.inputs.to_kind(Kind::ComplexFloat).matmul(at(4));
            let i = Tensor::complex(&Tensor::from(0f32), &Tensor::from(1f32));
            value = value.f_add(&(product - i).abs().square().mean(None)).unwrap();
        }
        if step.is_multiple_of(2) {
            value = value.f_add(&(at(3) - 1).pow_tensor_scalar(4).sum(None)).unwrap();
        }
        value
    }

    fn gradients(&self, step: u64) {
        zero_grad(&self.parameters).unwrap();
        self.loss(step).backward();
    }

    /// One step as the loop takes it; the norm before clipping.
    fn step(&self, optimizer: &mut dyn Optimizer, base: f64, step: u64, max_norm: f64) -> f64 {
        self.gradients(step);
        if optimizer.perturbs() {
            let before = self.values();
            optimizer.perturb(&self.parameters).unwrap();
            assert_ne!(before, self.values());
            self.gradients(step);
            optimizer.unperturb(&self.parameters).unwrap();
            assert_eq!(before, self.values(), "the weights came back to the bit");
        }
        let norm = clip(&self.parameters, max_norm).unwrap();
        let rate = |scale: &f64| base * scale * (1.0 - (step - 1) as f64 / 20.0);
        let rates: Vec<f64> = self.scales.iter().map(rate).collect();
        optimizer.step(&self.parameters, &rates).unwrap();
        norm
    }

    fn values(&self) -> Vec<Vec<f32>> {
        self.parameters.iter().map(|parameter| flat(&parameter.tensor)).collect()
    }
}

fn adam(weight_decay: f64) -> AdamSettings {
    AdamSettings { weight_decay, ..AdamSettings::default() }
}

fn sgd(momentum: f64) -> Settings {
    Settings::Sgd(SgdSettings { momentum, weight_decay: 0.1 })
}

/// Name in the reference, optimizer, SAM, clipped or not.
fn cases() -> Vec<(&'static str, Settings, Option<SamSettings>, bool)> {
    let plain = Some(SamSettings { rho: 0.05, adaptive: false });
    let adaptive = Some(SamSettings { rho: 0.5, adaptive: true });
    let betas = AdamSettings { beta1: 0.8, beta2: 0.95, epsilon: 1e-6, weight_decay: 0.1 };
    let factored = AdafactorSettings { weight_decay: 0.1, ..AdafactorSettings::default() };
    let scaled = AdafactorSettings { scale_parameter: true, ..factored };
    let first = AdafactorSettings { beta1: Some(0.9), ..AdafactorSettings::default() };
    let adamw = Settings::AdamW(adam(0.1));
    vec![
        ("adamw", adamw, None, false),
        ("adamw-clipped", adamw, None, true),
        ("adamw-betas", Settings::AdamW(betas), None, false),
        ("adam", Settings::Adam(adam(0.1)), None, false),
        ("sgd", sgd(0.0), None, true),
        ("sgd-momentum", sgd(0.9), None, true),
        ("adafactor", Settings::Adafactor(factored), None, false),
        ("adafactor-scaled", Settings::Adafactor(scaled), None, false),
        ("adafactor-momentum", Settings::Adafactor(first), None, false),
        ("adamw-sam", adamw, plain, false),
        ("adamw-asam", adamw, adaptive, false),
        ("sgd-sam", sgd(0.9), plain, true),
        ("sgd-asam", sgd(0.9), adaptive, true),
    ]
}

/// The largest difference, relative to the largest value of the tensor.
fn difference(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    let differences = found.iter().zip(expected).map(|(&a, &b)| (f64::from(a) - b).abs());
    differences.fold(0.0, f64::max) / scale
}

#[test]
fn ten_steps_are_those_of_pytorch_and_transformers() {
    let reference = reference();
    assert_eq!(reference["cases"].as_object().unwrap().len(), cases().len());
    for (name, settings, sam, clipped) in cases() {
        let case = &reference["cases"][name];
        // transformers' Adafactor takes no complex parameters.
        let problem = Small::new(&reference, !name.starts_with("adafactor"));
        let mut optimizer = settings.build(sam);
        let (norms, max_norm) = (numbers(&case["norms"]), if clipped { 0.5 } else { 0.0 });
        let mut largest: f64 = 0.0;
        for step in 1..=STEPS {
            let norm = problem.step(&mut *optimizer, case["rate"].as_f64().unwrap(), step, max_norm);
            if let Some(expected) = norms.get(step as usize - 1) {
                assert!(
                    (norm / expected - 1.0).abs() < 1e-5,
                    "{name}, norm at step {step}: {norm}, {expected}"
                );
            }
            let Some(after) = case["after"].get(step.to_string()) else { continue };
            for (parameter, found) in problem.parameters.iter().zip(problem.values()) {
                let difference = difference(&found, &numbers(&after[&parameter.name]));
                largest = largest.max(difference);
                assert!(difference < 1e-5, "{name}, {} after step {step}: {difference:e}", parameter.name);
            }
        }
        println!("{name}: {largest:.1e}");
    }
}

#[test]
fn a_restored_run_is_the_same_to_the_bit() {
    let reference = reference();
    for (name, settings, sam, _) in cases() {
        let run = |interrupted: Option<u64>| {
            let problem = Small::new(&reference, true);
            let mut optimizer = settings.build(sam);
            for step in 1..=STEPS {
                problem.step(&mut *optimizer, 0.01, step, 0.5);
                if interrupted == Some(step) {
                    let state = copied(optimizer.state(&problem.parameters).unwrap());
                    optimizer = settings.build(sam);
                    optimizer.restore(&problem.parameters, &state).unwrap();
                }
            }
            problem.values()
        };
        let whole = run(None);
        assert!(whole.iter().flatten().all(|value| value.is_finite()), "{name}");
        // After the first step, `gate` has had no gradient, and has no state.
        for step in [1, 5] {
            assert_eq!(run(Some(step)), whole, "{name}, interrupted after step {step}");
        }
    }
}

#[test]
fn a_state_of_something_else_is_refused_and_changes_nothing() {
    let reference = reference();
    let problem = Small::new(&reference, true);
    let parameters = &problem.parameters;
    let mut adamw = Settings::AdamW(adam(0.0)).build(None);
    problem.step(&mut *adamw, 0.01, 2, 0.0);
    let state = || copied(adamw.state(parameters).unwrap());

    let mut other = sgd(0.9).build(None);
    let message = other.restore(parameters, &state()).unwrap_err().to_string();
    assert!(message.contains("dense.weight.momentum_buffer is missing"), "{message}");
    assert!(other.state(parameters).unwrap().is_empty());

    let mut fresh = Settings::AdamW(adam(0.0)).build(None);
    let mut refused = |change: &dyn Fn(&mut State), what: &str| {
        let mut state = state();
        change(&mut state);
        let message = fresh.restore(parameters, &state).unwrap_err().to_string();
        assert!(message.contains(what), "{message}");
    };
    refused(&|state| state[1].1 = Tensor::zeros([3], (Kind::Float, Device::Cpu)), "shape or type");
    refused(&|state| state[1].1 = state[1].1.to_kind(Kind::Double), "shape or type");
    refused(&|state| state[0].1 = Tensor::from_slice(&[-1i64]), "is negative");
    refused(&|state| state[0].1 = Tensor::from_slice(&[1i64, 2]), "is not one number");
    refused(&|state| state.push(("other.step".to_owned(), Tensor::from_slice(&[1i64]))), "other.step");
}

#[test]
fn rates_that_do_not_fit_are_refused() {
    let reference = reference();
    let problem = Small::new(&reference, true);
    for settings in [Settings::AdamW(adam(0.0)), sgd(0.9), Settings::Adafactor(AdafactorSettings::default())]
    {
        let mut optimizer = settings.build(None);
        problem.gradients(2);
        let before = problem.values();
        assert!(optimizer.step(&problem.parameters, &[0.1; 4]).is_err());
        assert!(optimizer.step(&problem.parameters, &[0.1, 0.1, f64::NAN, 0.1, 0.1]).is_err());
        assert_eq!(problem.values(), before);
    }
}

#[test]
fn equal_rates_and_nearly_equal_ones_give_the_same() {
    // The first go into one call of the kernel, the others into several.
    let reference = reference();
    for settings in [Settings::AdamW(adam(0.1)), Settings::Adam(adam(0.1)), sgd(0.9)] {
        let run = |rates: [f64; 5]| {
            let problem = Small::new(&reference, true);
            let mut optimizer = settings.build(None);
            for step in 1..=4 {
                problem.gradients(step);
                optimizer.step(&problem.parameters, &rates).unwrap();
            }
            problem.values()
        };
        let nearly = [1, 2, 3, 4, 5].map(|i| 0.01 * (1.0 + f64::from(i) * 1e-14));
        assert_eq!(run([0.01; 5]), run(nearly));
    }
}

#[test]
fn a_complex_parameter_is_two_real_ones() {
    tch::manual_seed(3);
    let values = Tensor::randn([4, 3, 2], (Kind::Float, Device::Cpu));
    let target = Tensor::randn([4, 3, 2], (Kind::Float, Device::Cpu));
    let run = |settings: Settings, sam: Option<SamSettings>, complex: bool| {
        let start = values.copy();
        let parameters = [parameter(if complex { start.view_as_complex() } else { start })];
        let tensor = &parameters[0].tensor;
        let gradients = || {
            zero_grad(&parameters).unwrap();
            let real = if complex { tensor.view_as_real() } else { tensor.shallow_clone() };
            (real - &target).pow_tensor_scalar(4).sum(None).backward();
        };
        let mut optimizer = settings.build(sam);
        for _ in 0..5 {
            gradients();
            if optimizer.perturbs() {
                optimizer.perturb(&parameters).unwrap();
                gradients();
            }
            // The step moves the weights back by itself.
            optimizer.step(&parameters, &[0.01]).unwrap();
        }
        flat(tensor)
    };
    for settings in [Settings::AdamW(adam(0.1)), Settings::Adam(adam(0.1)), sgd(0.9)] {
        for sam in [None, Some(SamSettings { rho: 0.1, adaptive: true })] {
            assert_eq!(run(settings, sam, true), run(settings, sam, false), "{settings:?}");
        }
    }
}

#[test]
fn without_a_finite_norm_nothing_is_scaled_or_perturbed() {
    let parameters = [parameter(Tensor::from_slice(&[1f32, -2.0]))];
    let tensor = &parameters[0].tensor;
    (tensor * Tensor::from_slice(&[f32::INFINITY, 2.0])).sum(None).backward();
    assert_eq!(clip(&parameters, 1.0).unwrap(), f64::INFINITY);
    assert_eq!(tensor.grad().double_value(&[1]), 2.0);
    let mut sam = sgd(0.0).build(Some(SamSettings { rho: 0.1, adaptive: false }));
    assert_eq!(sam.perturb(&parameters).unwrap(), f64::INFINITY);
    assert_eq!(tensor.double_value(&[1]), -2.0);
}

#[test]
fn memory_order_does_not_matter() {
    // The fused kernels walk through memory: a gradient that lies transposed must be put in order first.
    let parameters = [parameter(Tensor::arange(6, (Kind::Float, Device::Cpu)).reshape([2, 3]))];
    let tensor = &parameters[0].tensor;
    let gradient = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0, 5.0, 6.0]).reshape([3, 2]).transpose(0, 1);
    (tensor * &gradient).sum(None).backward();
    tensor.grad().set_data(&gradient);
    assert!(!tensor.grad().is_contiguous());
    Settings::Sgd(SgdSettings::default()).build(None).step(&parameters, &[1.0]).unwrap();
    assert_eq!(flat(tensor), [-1.0, -2.0, -3.0, 1.0, 0.0, -1.0]);
}
