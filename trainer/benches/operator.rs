//! One training step of the paper's FNO, or of its UNet, on two-dimensional compressible flow, forward through all frames and
//! backward, without an optimizer: `operator_pytorch.py` beside it measures the same in PyTorch. Prints the times of each
//! step in milliseconds, sorted.
//!
//! Arguments: threads, steps, points along each axis, `fno2d` or `unet2d`.

use std::time::Instant;

use evenkeel::rebalance::fields::Init;
use evenkeel::source::OperatorKind;
use evenkeel_trainer::operators::{Config, Network};
use evenkeel_trainer::optimizer::zero_grad;
use evenkeel_trainer::pde::Rollout;
use evenkeel_trainer::torch::load_cuda;
use tch::{Device, Kind, Tensor};

const EXAMPLES: i64 = 4;
const FRAMES: i64 = 21;
const CHANNELS: usize = 4;
const INITIAL: usize = 10;

fn main() -> anyhow::Result<()> {
    evenkeel_trainer::memory::settle();
    load_cuda();
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |at: usize, default: i32| arguments.get(at).map_or(Ok(default), |text| text.parse());
    tch::set_num_threads(number(0, 1)?);
    let (steps, points) = (number(1, 10)?, i64::from(number(2, 64)?));
    let device = Device::cuda_if_available();
    let kind = arguments.get(3).and_then(|name| OperatorKind::named(name)).unwrap_or(OperatorKind::Fno2d);
    let init = Init { kind, width: 20, modes: 12, features: 32, levels: 4 };
    let config = Config::new(&init, INITIAL * CHANNELS, CHANNELS);
    let network = Network::random(config, 13, device)?;
    let axis: Vec<f32> = (0..points).map(|point| point as f32 / points as f32).collect();
    let grid = [axis.clone(), axis];
    let rollout = Rollout::new(INITIAL, FRAMES as usize, CHANNELS, &grid, device)?;

    let shape = [EXAMPLES, FRAMES, points, points, CHANNELS as i64];
    let count: i64 = shape.iter().product();
    let frames =
        Tensor::f_arange(count, (Kind::Float, device))?.f_mul_scalar(0.37)?.f_sin()?.f_view(shape)?;
    let mut times = Vec::new();
    for step in 0..steps + 2 {
        let start = Instant::now();
        zero_grad(network.parameters())?;
        rollout.loss(&network, &frames)?.f_backward()?;
        if let Device::Cuda(index) = device {
            tch::Cuda::synchronize(index as i64);
        }
        if step >= 2 {
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    println!("{}", times.iter().map(|time| format!("{time:.1}")).collect::<Vec<_>>().join(" "));
    Ok(())
}
