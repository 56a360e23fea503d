//! Times a step of AdamW, and clipping, on tensors with the shapes of MiniLM-L6 and BERT-base, every block with
//! a rate of its own. `benches/optimizer.py` does the same in PyTorch, and prints the ratio.

use std::time::Instant;

use evenkeel_trainer::optimizer::{AdamSettings, Settings, clip};
use evenkeel_trainer::training::Parameter;
use tch::{Device, Kind, Tensor};

fn main() -> evenkeel_trainer::Result<()> {
    for (name, hidden, layers) in [("minilm", 384, 6), ("bert-base", 768, 12)] {
        let mut parameters = Vec::new();
        let mut rates = Vec::new();
        let mut add = |shape: &[i64], rate: f64| -> evenkeel_trainer::Result<()> {
            let options = (Kind::Float, Device::Cpu);
            let tensor = Tensor::f_randn(shape, options)?.f_set_requires_grad(true)?;
            tensor.f_mul(&Tensor::f_randn(shape, options)?)?.f_sum(None)?.f_backward()?;
            let decays = shape.len() > 1;
            parameters.push(Parameter { name: String::new(), tensor, decays, is_complex: false });
            rates.push(rate);
            Ok(())
        };
        for rows in [30_522, 512, 2] {
            add(&[rows, hidden], 1e-5)?;
        }
        for layer in 0..layers {
            let rate = 1e-5 * (1.0 + f64::from(layer) / 10.0);
            for (rows, columns) in [(1, 1), (1, 1), (1, 1), (1, 1), (4, 1), (1, 4)] {
                add(&[rows * hidden, columns * hidden], rate)?;
                add(&[rows * hidden], rate)?;
            }
            for _ in 0..4 {
                add(&[hidden], rate)?;
            }
        }
        let mut optimizer = Settings::AdamW(AdamSettings::default()).build(None);
        let step = fastest(|| optimizer.step(&parameters, &rates))?;
        let clipping = fastest(|| clip(&parameters, 1.0).map(drop))?;
        println!("{name} {step:.3} {clipping:.3}");
    }
    Ok(())
}

/// Milliseconds of the fastest of ten calls after two.
fn fastest(mut call: impl FnMut() -> evenkeel_trainer::Result<()>) -> evenkeel_trainer::Result<f64> {
    let mut fastest = f64::INFINITY;
    for round in 0..12 {
        let start = Instant::now();
        call()?;
        if round >= 2 {
            fastest = fastest.min(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok(fastest)
}
